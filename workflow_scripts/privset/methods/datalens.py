"""DataLens: a generator learns from the signs of many teachers' largest gradient coordinates (Wang et al., CCS 2021).

Each teacher tells the records of its own shard from generated images. In a step it gives, for each generated image, the signs
of the few largest coordinates of its gradient. Where the noisy sum of the signs is large enough, the image should move by one
step in its direction; elsewhere it stays. The generator takes one step towards the images so moved, by Adam, to which their
length does not matter.

The published program deals the records of each class out in turn and goes on from the beginning where a class is too small, so
1,138 of MNIST have two teachers; its teachers share Adam's moments in groups; and it counts by a bound for another mechanism.
Here each record has one teacher at most, each teacher has moments of its own, and the whole sum is one Gaussian release.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from privset import PrivsetError
from privset.jobs.blocks import Block, Count, Positive
from privset.jobs.rows import Method
from privset.jobs.run import Run
from privset.networks import optimisers
from privset.networks.cosine_transform import low_frequencies
from privset.networks.critics import Critic, cross_entropy
from privset.networks.generators import DeconvolutionGenerator, sampled
from privset.networks.weights import initialise
from privset.privacy.ensembles import signs_sensitivity
from privset.privacy.ledger import Asked, check_members
from privset.privacy.vault import Vault

METHOD = Method(title="DataLens", family="generator")


class Config(Block):
    """DataLens' hyper-parameters; the defaults are the published ones for epsilon 1, but for the networks and the steps."""

    members: Count = 4000
    """Teachers, each with an equal shard of the records."""
    steps: Count = 100
    """Of the generator, one answer each."""
    teacher_steps: Count = 2
    """Of all teachers before each answer."""
    batch_size: Count = 15
    """Generated images in a step, and at most as many records of a shard."""
    largest: Count = 200
    """Coordinates of a gradient whose signs are given."""
    frequencies: Count | None = None
    """Of the cosine transform, for each channel: the coordinates are those of the lowest ones. None: of all pixels."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Share of the teachers that the sum of signs must reach."""
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
    """One sum of signs of each image per step."""
    check_members(config.members, records(None))
    sensitivity = signs_sensitivity(config.batch_size, config.largest)
    return [Asked(mechanism="signed_sums", relation="replace-one", sensitivity=sensitivity, count=config.steps)]


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images per class from the generator as it is in the end."""
    facts, device, classes = vault.facts, vault.device, vault.facts.classes
    space = low_frequencies(facts.channels, facts.size, config.frequencies).float().to(device)
    if config.largest > (coordinates := space.shape[1]):
        raise PrivsetError(f"largest = {config.largest}: a gradient has {coordinates} coordinates; choose at most as many")
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
        sums = teachers.signed_sums(
            lambda teacher, images, labels: teacher(images, labels).sum(),
            images.detach(),
            labels,
            basis=space,
            largest=config.largest,
            noise_multiplier=noise_multiplier,
        )
        movement = torch.where(sums.abs() >= config.threshold * config.members, sums.sign(), 0.0)
        target = images.detach() + (movement @ space.T).view_as(images)
        loss = (images - target).square().sum() / len(images)
        optimiser.step(torch.autograd.grad(loss, optimiser.parameters))
        run.report(step, loss.detach())
        run.snapshot(step, lambda: (facts.normalise(sampled(generator, fixed, few)), few))
        run.checkpoint({"step": step, "generator": generator.state_dict(), "optimiser": optimiser.state()})
    labels = run.balanced_labels(classes)
    return facts.normalise(sampled(generator, codes(len(labels)), labels)), labels
