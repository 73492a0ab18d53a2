"""PATE-GAN: a student learns from generated images alone which of them many teachers take for real, and the generator from the
student (Jordon, Yoon, van der Schaar, ICLR 2019).

The published bound depends on the private votes; here it does not, and noise is normal. In the authors' program all teachers
learn from the last shard, and noise has the inverse scale; another re-divides the records in each round. Here each teacher has
one shard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from privset.jobs.blocks import Block, Count, Positive
from privset.jobs.rows import Method
from privset.jobs.run import Run
from privset.networks import optimisers
from privset.networks.critics import Critic, cross_entropy
from privset.networks.generators import DenseGenerator, sampled
from privset.networks.weights import initialise
from privset.privacy.ensembles import labels_sensitivity
from privset.privacy.ledger import Asked, check_members
from privset.privacy.vault import Vault

METHOD = Method(title="PATE-GAN", family="generator")
RMSPROP = (0.0, 0.99)
"""Adam's decays that make it RMSProp, with the bias of its first steps corrected."""


class Config(Block):
    """PATE-GAN's hyper-parameters. The paper's are for tables; numbers of teachers, of votes and rates are its program's."""

    members: Count = 10
    """Teachers, logistic regressions, each with an equal shard of the records."""
    steps: Count = 10_000
    """Of the generator, each after votes on one batch."""
    teacher_steps: Count = 5
    """Of all teachers before each vote."""
    student_steps: Count = 5
    """Of the student after each vote."""
    batch_size: Count = 64
    """Generated images in a step, and records of a shard."""
    hidden: Count = 784
    """Units of the generator's and of the student's hidden layer."""
    latent: Count = 100
    """Dimension of a code, uniform in [-1, 1]."""
    teacher_learning_rate: Positive = 1e-3
    """Of Adam, on the teachers."""
    learning_rate: Positive = 1e-4
    """Of RMSProp, on student and generator."""
    spread: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of noise on the images of a vote, in normalised units. The paper's student sees nothing but what the
    generator makes, and where all of that is alike it learns no direction in which to improve it."""
    weight_clip: Positive = 0.01
    """Size to which the student's weights are cut."""


def asks(config: Config, records: Callable[[tuple[int, ...] | None], int]) -> list[Asked]:
    """One vote on each image of a batch per step."""
    check_members(config.members, records(None))
    sensitivity = labels_sensitivity(config.batch_size)
    return [Asked(mechanism="labels", relation="replace-one", sensitivity=sensitivity, count=config.steps)]


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images per class from the generator as it is in the end."""
    facts, device, classes = vault.facts, vault.device, vault.facts.classes
    noise_multiplier = vault.ledger.calibrate(sampling_rate=1.0, releases=config.steps)
    teachers = vault.ensemble(
        Critic(shape=facts.shape, classes=classes, hidden=0).to(device),
        members=config.members,
        generator=run.generator,
        learning_rate=config.teacher_learning_rate,
    )
    generator = DenseGenerator(latent=config.latent, classes=classes, hidden=config.hidden, shape=facts.shape)
    generator = initialise(generator.to(device), run.generator)
    student = initialise(Critic(shape=facts.shape, classes=classes, hidden=config.hidden).to(device), run.generator)
    optimiser, of_student = (
        optimisers.Adam(network.parameters(), learning_rate=config.learning_rate, betas=RMSPROP)
        for network in (generator, student)
    )

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
        student.load_state_dict(state["student"])
        optimiser.load(state["optimiser"])
        of_student.load(state["of_student"])
    for step in range(done + 1, config.steps + 1):
        for _ in range(config.teacher_steps):
            with torch.no_grad():
                images, labels = made()
            teachers.train(
                lambda teacher, real, real_labels, made=images, of=labels: cross_entropy(teacher, real, real_labels, made, of),
                batch=min(config.batch_size, teachers.size),
            )
        with torch.no_grad():
            images, labels = made()
            images += config.spread * torch.randn(images.shape, generator=run.generator, device=device)
        votes = teachers.labels(images, labels, noise_multiplier=noise_multiplier)
        real = (votes > config.members / 2).to(images)
        for _ in range(config.student_steps):
            loss = F.binary_cross_entropy_with_logits(student(images, labels), real)
            of_student.step(torch.autograd.grad(loss, of_student.parameters))
            with torch.no_grad():
                for parameter in student.parameters():
                    parameter.clamp_(-config.weight_clip, config.weight_clip)
        images, labels = made()
        loss = F.softplus(-student(images, labels)).mean()
        optimiser.step(torch.autograd.grad(loss, optimiser.parameters))
        run.report(step, loss.detach())
        run.snapshot(step, lambda: (facts.normalise(sampled(generator, fixed, few)), few))
        networks = {"generator": generator.state_dict(), "student": student.state_dict()}
        run.checkpoint({"step": step, **networks, "optimiser": optimiser.state(), "of_student": of_student.state()})
    labels = run.balanced_labels(classes)
    return facts.normalise(sampled(generator, codes(len(labels)), labels)), labels
