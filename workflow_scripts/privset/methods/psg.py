"""PSG: private set generation by gradient matching (Chen, Kerkouche, Fritz, NeurIPS 2022, Algorithm 1).

A small set of images is optimised so that the gradient a network gets from it matches the DP-SGD gradient the network gets
from the private data. The networks are fresh and are trained on the set alone; the only private access is
`vault.gradient_mean`, so everything else is post-processing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from privset.jobs.blocks import Block, Count, Positive
from privset.jobs.rows import Method
from privset.jobs.run import Run
from privset.networks import classifiers, compiled, optimisers, siamese
from privset.privacy.ledger import Asked, rate_of
from privset.privacy.vault import Vault

METHOD = Method(title="PSG", family="optimised set")


class Matching(Block):
    """How networks and gradients are matched; the defaults are the paper's (reference program, main.py)."""

    outer: Count
    """Outer steps per network: 1, 10, 20, 50 for 1, 10, 20, 50 samples per class in the paper."""
    inner: Count
    """Epochs of network training on the set between two outer steps: 1, 50, 25, 10 in the paper."""
    iterations: Count = 1000
    """Fresh networks."""
    batches: Count = 10
    """Private batches, each with one update of the images, per outer step."""
    batch_size: Count = 256
    """Expected size of a Poisson batch."""
    clip: Positive = 0.1
    """L2 clip of a record's gradient over all parameters."""
    network_learning_rate: Positive = 0.01
    """Of plain SGD on the set."""
    network: str = "convnet"
    """The matching network: any of `classifiers.NETWORKS`."""
    width: Count = 128
    """Channels of a ConvNet, hidden units of an MLP (the other networks have none to choose)."""
    depth: Count = 3
    """Blocks of a ConvNet."""
    metric: Literal["gm", "mse", "cos"] = "gm"
    """What makes two gradients similar: "gm" (the paper's, cosines of rows), "mse" or "cos" (`matching_loss`)."""
    augmentation: Literal["none", "siamese"] = "none"
    """"siamese": each release and the set's gradient see one random transformation (`siamese.draw`)."""
    weights_only: bool = False
    """Release (and clip) the gradients of kernels and matrices alone: the "gm" loss uses no others."""
    compile: bool = False
    """Compile the three inner computations: about a third faster after a minute's start; other bits, the same method."""


class Config(Matching):
    """PSG's hyper-parameters."""

    image_learning_rate: Positive = 0.1
    """Of SGD on the pixels."""
    image_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Likewise."""


def matching_loss(synthetic: list[Tensor], private: list[Tensor], metric: str = "gm") -> Tensor:
    """How unlike two lists of gradients are.

    "gm": sum over output rows of 1 - cosine; one-dimensional tensors do not enter (reference program, section 1.3 of
    Zhao, Mopuri and Bilen 2021). "mse": squared distance, and "cos": 1 - cosine, of all tensors in one vector.
    """
    if metric == "gm":
        loss = synthetic[0].new_zeros(())
        for a, b in zip(synthetic, private, strict=True):
            if a.ndim > 1:
                a, b = a.flatten(1), b.flatten(1)
                loss = loss + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
        return loss
    a, b = (torch.cat([tensor.flatten() for tensor in gradients]) for gradients in (synthetic, private))
    return (a - b).square().sum() if metric == "mse" else 1 - a @ b / (a.norm() * b.norm() + 1e-6)


def _set_gradient(
    network: nn.Module, weights: list[Tensor], images: Tensor, labels: Tensor, *, create_graph: bool = False
) -> list[Tensor]:
    """Gradient of the set's mean cross-entropy in the weights."""
    weights = [weight.detach().requires_grad_() for weight in weights]
    with torch.enable_grad():
        named = dict(zip((name for name, _ in network.named_parameters()), weights, strict=True))
        loss = F.cross_entropy(torch.func.functional_call(network, named, (images,)), labels)
        return list(torch.autograd.grad(loss, weights, create_graph=create_graph))


def _matching_step(
    network: nn.Module, weights: list[Tensor], images: Tensor, labels: Tensor, *private: Tensor, metric: str, weights_only: bool
) -> tuple[Tensor, Tensor]:
    """The loss's gradient in the images, and the loss."""
    images = images.detach().requires_grad_()
    gradients = _set_gradient(network, weights, images, labels, create_graph=True)
    with torch.enable_grad():
        loss = matching_loss([g for g in gradients if g.ndim > 1 or not weights_only], list(private), metric)
        (gradient,) = torch.autograd.grad(loss, [images])
    return gradient, loss.detach()


def _train(network: nn.Module, images: Tensor, labels: Tensor, config: Matching, run: Run) -> None:
    """`config.inner` epochs of plain SGD on the set."""
    weights = [weight.detach() for weight in network.parameters()]
    for _ in range(config.inner):
        order = torch.randperm(len(images), generator=run.generator, device=images.device)
        for batch in order.split(config.batch_size):
            gradients = compiled.run(_set_gradient, network, images[batch], labels[batch], compile=config.compile)
            torch._foreach_add_(weights, gradients, alpha=-config.network_learning_rate)


def match(
    vault: Vault,
    config: Matching,
    run: Run,
    *,
    labels: Tensor,
    render: Callable[[], Tensor],
    optimiser: optimisers.SGD | optimisers.Adam,
    others: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Algorithm 1, for a set `render()` of images with `labels` that `optimiser` changes through its parameters.

    `others` are images and labels that the networks are trained on too, and that stay as they are.

    Returns the set after `config.iterations` networks (exactly as many private steps as were calibrated for).
    """
    facts = vault.facts
    sampling_rate = rate_of(config.batch_size, facts.records)
    noise_multiplier = vault.ledger.calibrate(
        sampling_rate=sampling_rate,
        releases=config.iterations * config.outer * config.batches,
    )
    parameters = optimiser.parameters
    sizes = {"convnet": {"width": config.width, "depth": config.depth}, "mlp": {"width": config.width}}

    run.start(config.iterations)
    done = 0
    if state := run.restore():
        done = state["iteration"]
        for parameter, saved in zip(parameters, state["parameters"], strict=True):
            parameter.data.copy_(saved)
        optimiser.load(state["optimiser"])
    for iteration in range(done + 1, config.iterations + 1):
        network = classifiers.build(
            config.network,
            channels=facts.channels,
            classes=facts.classes,
            size=facts.size,
            generator=run.generator,
            **sizes.get(config.network, {}),
        )
        for step in range(1, config.outer + 1):
            for _ in range(config.batches):
                same = (lambda images: images) if config.augmentation == "none" else siamese.draw(facts, run.generator)
                private = vault.gradient_mean(
                    network,
                    sampling_rate=sampling_rate,
                    clip=config.clip,
                    noise_multiplier=noise_multiplier,
                    weights_only=config.weights_only,
                    inputs=lambda images, labels, same=same: same(images),
                    compile=config.compile,
                )
                seen = same(render())
                gradient, loss = compiled.run(
                    _matching_step,
                    network,
                    seen.detach(),
                    labels,
                    *private,
                    compile=config.compile,
                    metric=config.metric,
                    weights_only=config.weights_only,
                )
                # A sum: the argument grad_outputs would import PyTorch's compiler.
                optimiser.step(torch.autograd.grad((seen * gradient).sum(), parameters))
            if step < config.outer:
                with torch.no_grad():
                    known = [(render().detach(), labels), *([others] if others else [])]
                images, all_labels = (torch.cat(parts) for parts in zip(*known, strict=True))
                _train(network, images, all_labels, config, run)
        run.report(iteration, loss)
        run.snapshot(iteration, lambda: (render().detach(), labels))
        state = {"parameters": [parameter.detach() for parameter in parameters], "optimiser": optimiser.state()}
        run.checkpoint({"iteration": iteration, **state})
    return render().detach()


def asks(config: Matching, records: Callable[[tuple[int, ...] | None], int]) -> list[Asked]:
    """What the configuration asks of the private data, given how many records there are (or a part has)."""
    count = config.iterations * config.outer * config.batches
    rate = rate_of(config.batch_size, records(None))
    return [Asked(mechanism="gradient_mean", sensitivity=config.clip, count=count, sampling_rate=rate)]


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """The set, its pixels being what is optimised."""
    labels = run.balanced_labels(vault.facts.classes)
    images = torch.randn(len(labels), *vault.facts.shape, generator=run.generator, device=vault.device).requires_grad_()
    optimiser = optimisers.SGD([images], learning_rate=config.image_learning_rate, momentum=config.image_momentum)
    return match(vault, config, run, labels=labels, render=lambda: images, optimiser=optimiser), labels
