"""G-PATE: a generator learns from a vote of many teachers on which way its images should move (Long et al., NeurIPS 2021).

Each teacher tells the records of its own shard from generated images. In a step, its gradient at each generated image is
projected onto a few random directions, and each coordinate is a vote for one of a few bins. Where enough teachers agree (of
noisy votes), the image should move by the centre of the bin that won; where not, it stays. The generator takes one step towards
the images so moved, by Adam, to which the length of the move does not matter.

The published program tests with noise of its own whether teachers agree, and counts what is then answered by a bound that
depends on the private votes and is not itself private. Here all noisy counts leave at once, as one release whose privacy does
not depend on the data, and the test looks at those. Its teachers share Adam's moments in groups, so a record reaches more than
one; here each has its own. Theirs are convolutional, of half a million weights each.
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
from privset.networks.critics import Critic, cross_entropy
from privset.networks.generators import DeconvolutionGenerator, sampled
from privset.networks.weights import initialise
from privset.privacy.ensembles import votes_sensitivity
from privset.privacy.ledger import Asked, check_members
from privset.privacy.vault import Vault

METHOD = Method(title="G-PATE", family="generator")


class Config(Block):
    """G-PATE's hyper-parameters; the defaults are the published ones for epsilon 1, but for the networks and the steps."""

    members: Count = 4000
    """Teachers, each with an equal shard of the records."""
    steps: Count = 100
    """Of the generator, one vote each."""
    teacher_steps: Count = 2
    """Of all teachers before each vote."""
    batch_size: Count = 15
    """Generated images in a step, and at most as many records of a shard."""
    directions: Count = 10
    """Onto which a gradient is projected; new ones in each step."""
    frequencies: Count | None = None
    """Of the cosine transform, for each channel: directions are within the space of the lowest ones. None: of all pixels."""
    clip: Positive = 1e-4
    """The largest coordinate of a gradient for which there is a bin."""
    bins: Annotated[int, Field(ge=2)] = 10
    """Into which [-clip, clip] is divided."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the teachers that must have voted for the bin that won."""
    hidden: Annotated[int, Field(ge=0)] = 64
    """Units of a teacher's hidden layer; 0: a linear one."""
    width: Count = 64
    """Of the generator's last maps."""
    latent: Count = 50
    """Dimension of a code, uniform in [-1, 1]."""
    teacher_learning_rate: Positive = 1e-3
    """Of Adam, on the teachers."""
    learning_rate: Positive = 1e-3
    """Of Adam, on the generator."""


def asks(config: Config, records: Callable[[tuple[int, ...] | None], int]) -> list[Asked]:
    """One vote on each direction of each image per step."""
    check_members(config.members, records(None))
    sensitivity = votes_sensitivity(config.batch_size * config.directions)
    return [Asked(mechanism="votes", relation="replace-one", sensitivity=sensitivity, count=config.steps)]


def movement(counts: Tensor, directions: Tensor, config: Config) -> Tensor:
    """(B, pixels) how noisy counts (B, k, bins) would move images along the directions (pixels, k), in units of the clip."""
    votes, winner = counts.max(2)
    centres = (winner + 0.5) * (2 / config.bins) - 1
    return (centres * (votes >= config.threshold * config.members)) @ directions.T


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images per class from the generator as it is in the end."""
    facts, device, classes = vault.facts, vault.device, vault.facts.classes
    noise_multiplier = vault.ledger.calibrate(sampling_rate=1.0, releases=config.steps)
    teachers = vault.ensemble(
        Critic(shape=facts.shape, classes=classes, hidden=config.hidden).to(device),
        members=config.members,
        generator=run.generator,
        learning_rate=config.teacher_learning_rate,
    )
    generator = DeconvolutionGenerator(
        latent=config.latent, classes=classes, width=config.width, channels=facts.channels, size=facts.size
    )
    generator = initialise(generator.to(device), run.generator)
    optimiser = optimisers.Adam(generator.parameters(), learning_rate=config.learning_rate, betas=(0.5, 0.999))
    space = low_frequencies(facts.channels, facts.size, config.frequencies).float().to(device)

    def codes(count: int) -> Tensor:
        return torch.rand(count, config.latent, generator=run.generator, device=device) * 2 - 1

    def made() -> tuple[Tensor, Tensor]:
        """A generated batch, normalised, and its labels."""
        labels = torch.randint(classes, (config.batch_size,), generator=run.generator, device=device)
        return facts.normalise(generator(codes(len(labels)), labels)), labels

    few = torch.arange(classes, device=device).repeat_interleave(min(run.spc, 100))
    fixed = codes(len(few))
    run.start(config.steps)
    done = 0
    if state := run.restore():
        done = state["step"]
        generator.load_state_dict(state["generator"])
        optimiser.load(state["optimiser"])
    for step in range(done + 1, config.steps + 1):
        for _ in range(config.teacher_steps):
            with torch.no_grad():
                images, labels = made()
            teachers.train(
                lambda teacher, real, real_labels, made=images, of=labels: cross_entropy(teacher, real, real_labels, made, of),
                batch=min(config.batch_size, teachers.size),
            )
        images, labels = made()
        directions = torch.randn(space.shape[1], config.directions, generator=run.generator, device=device)
        directions = space @ directions / config.directions**0.5
        counts = teachers.votes(
            lambda teacher, images, labels: teacher(images, labels).sum(),
            images.detach(),
            labels,
            directions=directions,
            clip=config.clip,
            bins=config.bins,
            noise_multiplier=noise_multiplier,
        )
        target = images.detach() + movement(counts, directions, config).view_as(images)
        loss = (images - target).square().sum() / len(images)
        optimiser.step(torch.autograd.grad(loss, optimiser.parameters))
        run.report(step, loss.detach())
        run.snapshot(step, lambda: (facts.normalise(sampled(generator, fixed, few)), few))
        run.checkpoint({"step": step, "generator": generator.state_dict(), "optimiser": optimiser.state()})
    labels = run.balanced_labels(classes)
    return facts.normalise(sampled(generator, codes(len(labels)), labels)), labels
