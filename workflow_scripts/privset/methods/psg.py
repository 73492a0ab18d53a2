"""PSG: private set generation by gradient matching (Chen, Kerkouche, Fritz, NeurIPS 2022, Algorithm 1).

A small set of images is optimised so that the gradient a network gets from it matches the DP-SGD gradient the network gets
from the private data. The networks are fresh and are trained on the set alone; the only private access is
`vault.gradient_mean`, so everything else is post-processing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from privset import accounting, networks
from privset.methods import Run
from privset.vault import Vault


@dataclass(frozen=True, kw_only=True)
class Config:
    """PSG's hyper-parameters; the defaults are the paper's (reference program, main.py)."""

    outer: int
    """Outer steps per network: 1, 10, 20, 50 for 1, 10, 20, 50 samples per class in the paper."""
    inner: int
    """Epochs of network training on the set between two outer steps: 1, 50, 25, 10 in the paper."""
    iterations: int = 1000
    """Fresh networks."""
    batches: int = 10
    """Private batches, each with one update of the images, per outer step."""
    batch_size: int = 256
    """Expected size of a Poisson batch."""
    clip: float = 0.1
    """L2 clip of a record's gradient over all parameters."""
    image_learning_rate: float = 0.1
    image_momentum: float = 0.5
    network_learning_rate: float = 0.01
    network: str = "convnet"
    """The matching network, and its width where it is a ConvNet."""
    width: int = 128


def matching_loss(synthetic: list[Tensor], private: list[Tensor]) -> Tensor:
    """Sum over output rows of 1 - cosine (the reference program's "gm"; one-dimensional tensors do not enter)."""
    loss = synthetic[0].new_zeros(())
    for a, b in zip(synthetic, private, strict=True):
        if a.ndim > 1:
            a, b = a.flatten(1), b.flatten(1)
            loss = loss + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
    return loss


def _set_gradient(network: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    loss = F.cross_entropy(network(images), labels)
    return list(torch.autograd.grad(loss, list(network.parameters()), create_graph=True))


def _train(network: nn.Module, images: Tensor, labels: Tensor, config: Config, run: Run) -> None:
    optimiser = torch.optim.SGD(network.parameters(), lr=config.network_learning_rate)
    for _ in range(config.inner):
        order = torch.randperm(len(images), generator=run.generator, device=images.device)
        for batch in order.split(config.batch_size):
            optimiser.zero_grad()
            F.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimiser.step()


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """The set after `config.iterations` networks (exactly as many private steps as were calibrated for)."""
    facts = vault.facts
    sampling_rate = config.batch_size / facts.records
    noise_multiplier = accounting.calibrate(
        epsilon=vault.ledger.epsilon,
        delta=vault.ledger.delta,
        sampling_rate=sampling_rate,
        releases=config.iterations * config.outer * config.batches,
    )
    width = {"width": config.width} if config.network == "convnet" else {}
    labels = run.balanced_labels(facts.classes)
    images = torch.randn(len(labels), *facts.shape, generator=run.generator, device=vault.device).requires_grad_()
    optimiser = torch.optim.SGD([images], lr=config.image_learning_rate, momentum=config.image_momentum)

    run.start(config.iterations)
    done = 0
    if state := run.restore():
        done = state["iteration"]
        images.data.copy_(state["images"])
        optimiser.load_state_dict(state["optimiser"])
    for iteration in range(done + 1, config.iterations + 1):
        network = networks.build(
            config.network,
            channels=facts.channels,
            classes=facts.classes,
            size=facts.size,
            generator=run.generator,
            **width,
        )
        for step in range(1, config.outer + 1):
            for _ in range(config.batches):
                private = vault.gradient_mean(
                    network, sampling_rate=sampling_rate, clip=config.clip, noise_multiplier=noise_multiplier
                )
                loss = matching_loss(_set_gradient(network, images, labels), private)
                (images.grad,) = torch.autograd.grad(loss, [images])
                optimiser.step()
            if step < config.outer:
                _train(network, images.detach(), labels, config, run)
        run.report(iteration, loss.detach())
        run.checkpoint({"iteration": iteration, "images": images.detach(), "optimiser": optimiser.state_dict()})
    return images.detach(), labels
