"""DP-SWD: a generator learns from noisy projections of the records, by the sliced Wasserstein distance (Rakotomamonjy, Ralaivola,
ICML 2021).

In each step a batch of records is projected onto random directions and released with noise, record by record (Algorithm 1), here
in random order. Projections of generated images get noise of the same law, and along each direction the two samples are compared
in sorted order: the Gaussian-smoothed distance, of which sorting is post-processing.

The authors' program (domain adaptation; we found none for generators) scales by the private batch's largest norm, and lets its
bound on the sensitivity of random directions fail with a part of delta. Here rows are cut to a public length, and directions are
orthonormal, together of sensitivity 1. A record's projections stand in the row of its class, so
that the distance is between classes, not between mixtures of them.
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
from privset.networks.cosine_transform import low_frequencies
from privset.networks.generators import ConditionalGenerator, sampled
from privset.networks.weights import initialise
from privset.privacy.ledger import Asked, rate_of
from privset.privacy.vault import Vault

METHOD = Method(title="DP-SWD", family="generator")


class Config(Block):
    """DP-SWD's hyper-parameters. The paper's for generators are not public; the defaults are its program's number of directions
    and as many steps as its baselines take."""

    steps: Count = 12_000
    """Of the generator, one noisy batch each."""
    batch_size: Count = 500
    """Expected size of a Poisson batch."""
    generated: Count = 500
    """Images from the generator in a step; if they are fewer than a batch, each is there several times, with noise of its own."""
    directions: Count = 200
    """Onto which a batch is projected, of each class; all there are, if those are fewer."""
    frequencies: Count | None = None
    """Of the cosine transform, for each channel: directions are within the space of the lowest ones. None: of all pixels."""
    clip: Positive = 28.0
    """L2 length to which a record is cut, in normalised units: on average a normalised image of 28x28 pixels is as long."""
    latent: Count = 5
    """Dimension of a code."""
    learning_rate: Positive = 1e-3
    """Of Adam."""
    decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor on the learning rate after each fifth of the steps."""


def asks(config: Config, records: Callable[[tuple[int, ...] | None], int]) -> list[Asked]:
    """One noisy batch per step."""
    rate = rate_of(config.batch_size, records(None))
    return [Asked(mechanism="projected_rows", sensitivity=config.clip, count=config.steps, sampling_rate=rate)]


def distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """The squared Wasserstein distance of order 2 along each direction, of two samples (n, ...) in sorted order, summed up."""
    return (ours.flatten(1).T.sort(1).values - theirs.flatten(1).T.sort(1).values).square().mean(1).sum()


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images per class from the generator as it is in the end."""
    facts, device = vault.facts, vault.device
    sampling_rate = rate_of(config.batch_size, facts.records)
    noise_multiplier = vault.ledger.calibrate(sampling_rate=sampling_rate, releases=config.steps)
    generator = ConditionalGenerator(latent=config.latent, classes=facts.classes, channels=facts.channels, size=facts.size)
    generator = initialise(generator.to(device), run.generator)
    optimiser = optimisers.Adam(generator.parameters(), learning_rate=config.learning_rate)

    space = low_frequencies(facts.channels, facts.size, config.frequencies).to(device)

    def codes(count: int) -> Tensor:
        return torch.randn(count, config.latent, generator=run.generator, device=device)

    few = torch.arange(facts.classes, device=device).repeat_interleave(min(run.spc, 100))
    fixed = codes(len(few))
    run.start(config.steps)
    done = 0
    if state := run.restore():
        done = state["step"]
        generator.load_state_dict(state["generator"])
        optimiser.load(state["optimiser"])
    for step in range(done + 1, config.steps + 1):
        drawn = torch.randn(space.shape[1], config.directions, generator=run.generator, device=device, dtype=torch.float64)
        directions = space @ torch.linalg.qr(drawn).Q
        theirs = vault.projected_rows(
            lambda images, labels: images.flatten(1),
            directions,
            sampling_rate=sampling_rate,
            clip=config.clip,
            noise_multiplier=noise_multiplier,
        )
        labels = torch.randint(facts.classes, (config.generated,), generator=run.generator, device=device)
        made = facts.normalise(generator(codes(len(labels)), labels)).flatten(1)
        made = made * (config.clip / made.norm(dim=1, keepdim=True)).clamp(max=1)
        noise = torch.randn(theirs.shape, generator=run.generator, device=device)
        places = torch.arange(config.batch_size, device=device)
        placed = torch.zeros_like(theirs)
        placed[places, labels[places % len(labels)]] = (made @ directions.float())[places % len(labels)]
        loss = distance(placed + noise_multiplier * config.clip * noise, theirs)
        optimiser.learning_rate = config.learning_rate * config.decay ** ((step - 1) // max(1, config.steps // 5))
        optimiser.step(torch.autograd.grad(loss, optimiser.parameters))
        run.report(step, loss.detach())
        run.snapshot(step, lambda: (facts.normalise(sampled(generator, fixed, few)), few))
        run.checkpoint({"step": step, "generator": generator.state_dict(), "optimiser": optimiser.state()})
    labels = run.balanced_labels(facts.classes)
    return facts.normalise(sampled(generator, codes(len(labels)), labels)), labels
