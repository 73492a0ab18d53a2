"""PEARL: one private release of the characteristic function of each class, matched at frequencies that an adversary re-weights
(Liew, Takahashi, Ueno, ICLR 2022).

The release is DP-MERF's: cosines and sines of random projections, outer the label, averaged once with Gaussian noise; neighbours
replace one record, sensitivity 2/n. A conditional generator then minimises the squared difference of the characteristic
functions, while a critic moves weight to the frequencies at which it is largest. The published program has the noise of two
releases, of which it makes one, drawn from a fixed seed; here the one release has the exact noise of the whole budget.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from privset.jobs.blocks import Block, Count, Positive
from privset.jobs.rows import Method
from privset.jobs.run import Run
from privset.methods import dp_merf
from privset.networks import optimisers
from privset.networks.features import fourier
from privset.networks.generators import ConditionalGenerator, sampled
from privset.networks.weights import initialise
from privset.privacy.vault import Vault

METHOD = Method(title="PEARL", family="generator")


class Config(Block):
    """PEARL's hyper-parameters; the defaults are the published image code's."""

    length_scale: Positive = 129.0
    """Of the frequencies, W ~ N(0, 1 / s): a constant, not computed from the data."""
    features: Annotated[int, Field(ge=2, multiple_of=2)] = 3000
    """Cosines and sines per class."""
    latent: Count = 5
    """Dimension of a code."""
    steps: Count = 3000
    """Of the generator's training."""
    batch_size: Annotated[int, Field(ge=2)] = 100
    """Generated images per step."""
    learning_rate: Positive = 0.01
    """Of Adam, on the generator."""
    critic_every: Count = 5
    """Steps of the generator between two of the critic."""
    critic_learning_rate: Positive = 0.01
    """Of Adam, on the critic's scales."""


asks = dp_merf.asks


def weights(drawn: Tensor, scales: Tensor, length_scale: float) -> Tensor:
    """(frequencies,) of sum 1: how much denser N(0, 1 / scales) is at each than N(0, 1 / length_scale), which they come from."""
    return ((length_scale - scales) @ drawn.square() / 2).softmax(0)


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images per class from the fitted generator."""
    facts, device = vault.facts, vault.device
    drawn, target = dp_merf.embedding(vault, run, features=config.features, length_scale=config.length_scale)
    generator = ConditionalGenerator(latent=config.latent, classes=facts.classes, channels=facts.channels, size=facts.size)
    generator = initialise(generator.to(device), run.generator)
    optimiser = optimisers.Adam(generator.parameters(), learning_rate=config.learning_rate)
    scales = torch.full((len(drawn),), config.length_scale, device=device)
    critic = optimisers.Adam([scales.requires_grad_()], learning_rate=config.critic_learning_rate)

    def codes(count: int) -> Tensor:
        return torch.randn(count, config.latent, generator=run.generator, device=device)

    def differences() -> Tensor:
        """(frequencies,) squared differences of the characteristic functions, over all classes, of a generated batch."""
        labels = torch.randint(facts.classes, (config.batch_size,), generator=run.generator, device=device)
        one_hot = F.one_hot(labels, facts.classes).float()
        ours = one_hot.T @ fourier(generator(codes(config.batch_size), labels), drawn) / config.batch_size
        return (target - ours).square().unflatten(1, (2, -1)).sum((0, 1)) * (config.features // 2)

    few = torch.arange(facts.classes, device=device).repeat_interleave(min(run.spc, 100))
    fixed = codes(len(few))
    run.start(config.steps)
    for step in range(1, config.steps + 1):
        if step % config.critic_every == 0:
            generator.eval()
            with torch.no_grad():
                distances = differences()
            gain = weights(drawn, scales, config.length_scale) @ distances
            critic.step(torch.autograd.grad(-gain, [scales]))
            generator.train()
        loss = weights(drawn, scales.detach(), config.length_scale) @ differences()
        optimiser.step(torch.autograd.grad(500 * loss, optimiser.parameters))  # 500: the published program's
        run.report(step, loss.detach())
        run.snapshot(step, lambda: (facts.normalise(sampled(generator, fixed, few)), few))

    labels = run.balanced_labels(facts.classes)
    return facts.normalise(sampled(generator, codes(len(labels)), labels)), labels
