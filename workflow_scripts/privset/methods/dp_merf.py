"""DP-MERF: one private release of a random-feature mean embedding (Harder, Adamczewski, Park, AISTATS 2021).

Random Fourier features of every record, outer its label, are averaged once with Gaussian noise; a conditional generator is
then fitted to that noisy embedding. Neighbours: replace one record; sensitivity 2/n of the mean. The published code's noise
constants are not those of an exact (epsilon, delta); here the noise multiplier is the analytic Gaussian mechanism's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from privset.jobs.blocks import Block, Count, Positive
from privset.jobs.rows import Method
from privset.jobs.run import Run
from privset.networks import optimisers
from privset.networks.features import fourier, frequencies
from privset.networks.generators import ConditionalGenerator, sampled
from privset.networks.weights import initialise
from privset.privacy.ledger import Asked
from privset.privacy.vault import Vault

METHOD = Method(title="DP-MERF", family="generator")


class Config(Block):
    """DP-MERF's hyper-parameters; the defaults are the published image code's."""

    length_scale: Positive
    """Variance-like length scale s of the frequencies, W ~ N(0, 1/s): 105 for digits, 127 for fashion (fixed constants)."""
    features: Annotated[int, Field(ge=2, multiple_of=2)] = 10_000
    """Dimension of the embedding per class (cosines and sines)."""
    latent: Count = 5
    """Dimension of a code."""
    steps: Count = 3000
    """Of the generator's training."""
    batch_size: Annotated[int, Field(ge=2)] = 100
    """Generated images per step."""
    learning_rate: Positive = 0.01
    """Of Adam."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Factor on the learning rate after each fifth of the steps."""


def asks(config: Config, records: Callable[[tuple[int, ...] | None], int]) -> list[Asked]:
    """One mean embedding."""
    return [Asked(mechanism="feature_sums", relation="replace-one", sensitivity=2.0, count=1)]


def embedding(vault: Vault, run: Run, *, features: int, length_scale: float) -> tuple[Tensor, Tensor]:
    """The release: random frequencies (pixels, features / 2), and the noisy mean of the records' features outer their labels,
    (classes, features)."""
    facts = vault.facts
    pixels = facts.channels * facts.size**2
    drawn = frequencies(pixels, features // 2, length_scale=length_scale, generator=run.generator)
    sums = vault.feature_sums(
        lambda images, labels: fourier(facts.to_pixels(images), drawn),
        dimension=features,
        clip=1.0,
        noise_multiplier=vault.ledger.calibrate(sampling_rate=1.0, releases=1),
        relation="replace-one",
    )
    return drawn, sums / facts.records


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images per class from the fitted generator."""
    facts, device = vault.facts, vault.device
    drawn, target = embedding(vault, run, features=config.features, length_scale=config.length_scale)
    generator = ConditionalGenerator(latent=config.latent, classes=facts.classes, channels=facts.channels, size=facts.size)
    generator = initialise(generator.to(device), run.generator)
    optimiser = optimisers.Adam(generator.parameters(), learning_rate=config.learning_rate)

    def codes(count: int) -> Tensor:
        return torch.randn(count, config.latent, generator=run.generator, device=device)

    few = torch.arange(facts.classes, device=device).repeat_interleave(min(run.spc, 100))
    fixed = codes(len(few))
    run.start(config.steps)
    for step in range(1, config.steps + 1):
        labels = torch.randint(facts.classes, (config.batch_size,), generator=run.generator, device=device)
        one_hot = torch.nn.functional.one_hot(labels, facts.classes).float()
        ours = one_hot.T @ fourier(generator(codes(config.batch_size), labels), drawn) / config.batch_size
        loss = (target - ours).square().sum()
        optimiser.learning_rate = config.learning_rate * config.decay ** ((step - 1) // max(1, config.steps // 5))
        optimiser.step(torch.autograd.grad(loss, optimiser.parameters))
        run.report(step, loss.detach())
        run.snapshot(step, lambda: (facts.normalise(sampled(generator, fixed, few)), few))

    labels = run.balanced_labels(facts.classes)
    fresh = torch.cat([codes(len(part)) for part in labels.split(1000)])
    return facts.normalise(sampled(generator, fresh, labels)), labels
