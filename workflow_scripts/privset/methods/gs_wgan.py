"""GS-WGAN: a generator learns from critics that each know a shard of the records, and of which one, nobody knows which, answers
in each step (Chen, Orekondy, Fritz, NeurIPS 2020).

Only the critics see records. What the generator is told is the gradient of one critic's score at each generated image, cut and
with noise; from there on its own chain rule goes through no record.

In the published program the critic that answers is trained just before, and keeps what it learned for the next time that it is
chosen; so what a critic is depends on the secret choices, and the amplification by sampling that its accountant uses is not
proved. Here all critics learn in every step. Its accountant, too, amplifies each of a batch's gradients as if they were of
critics chosen one by one; they are all of one, so here the batch is one answer (`Ensemble.one_gradient`), and needs far more
noise.
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
from privset.networks.critics import Critic, wasserstein
from privset.networks.generators import DeconvolutionGenerator, sampled
from privset.networks.weights import initialise
from privset.privacy.ensembles import gradient_sensitivity
from privset.privacy.ledger import Asked, check_members
from privset.privacy.vault import Vault

METHOD = Method(title="GS-WGAN", family="generator")


class Config(Block):
    """GS-WGAN's hyper-parameters; the defaults are the published ones, but for the networks."""

    members: Count = 1000
    """Critics, each with an equal shard of the records."""
    steps: Count = 20_000
    """Of the generator, one private answer each."""
    warm_steps: Annotated[int, Field(ge=0)] = 2000
    """Of the critics before the first answer."""
    critic_steps: Count = 5
    """Of all critics before each answer."""
    batch_size: Count = 32
    """Generated images in a step, and records of a shard."""
    clip: Positive = 1.0
    """L2, of a batch's gradients: each image's is cut to this by the batch's size."""
    penalty: Positive = 10.0
    """Weight of the critics' gradient penalty."""
    drift: Annotated[float, Field(ge=0)] = 1e-3
    """Weight of the squared scores of records."""
    hidden: Annotated[int, Field(ge=0)] = 128
    """Units of a critic's hidden layer; 0: a linear one."""
    width: Count = 64
    """Of the generator's last maps."""
    latent: Count = 10
    """Dimension of a code of coin tosses."""
    critic_learning_rate: Positive = 1e-4
    """Of Adam, on the critics."""
    learning_rate: Positive = 1e-4
    """Of Adam, on the generator."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the average of the generator's weights, which makes the images."""


def asks(config: Config, records: Callable[[tuple[int, ...] | None], int]) -> list[Asked]:
    """One batch of one critic's gradients per step."""
    check_members(config.members, records(None))
    sensitivity = gradient_sensitivity(config.batch_size, config.clip)
    return [
        Asked(
            mechanism="one_gradient",
            relation="replace-one",
            sensitivity=sensitivity,
            count=config.steps,
            shards=config.members,
        )
    ]


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images per class from the average generator."""
    facts, device, classes = vault.facts, vault.device, vault.facts.classes
    noise_multiplier = vault.ledger.calibrate(sampling_rate=1.0, releases=config.steps, shards=config.members)
    critics = vault.ensemble(
        Critic(shape=facts.shape, classes=classes, hidden=config.hidden).to(device),
        members=config.members,
        generator=run.generator,
        learning_rate=config.critic_learning_rate,
        betas=(0.5, 0.9),
    )
    generator, average = (
        DeconvolutionGenerator(
            latent=config.latent, classes=classes, width=config.width, channels=facts.channels, size=facts.size
        ).to(device)
        for _ in range(2)
    )
    initialise(generator, run.generator)
    average.load_state_dict(generator.state_dict())
    optimiser = optimisers.Adam(generator.parameters(), learning_rate=config.learning_rate, betas=(0.5, 0.9))

    def codes(count: int) -> Tensor:
        return torch.randint(2, (count, config.latent), generator=run.generator, device=device).float()

    def made() -> tuple[Tensor, Tensor]:
        """A generated batch, normalised, and its labels."""
        labels = torch.randint(classes, (config.batch_size,), generator=run.generator, device=device)
        return facts.normalise(generator(codes(len(labels)), labels)), labels

    def train_critics() -> None:
        with torch.no_grad():
            images, labels = made()
        mix = torch.rand(len(labels), 1, 1, 1, generator=run.generator, device=device)

        def loss(critic: Callable, real: Tensor, real_labels: Tensor) -> Tensor:
            return wasserstein(critic, real, real_labels, images, labels, mix, penalty=config.penalty, drift=config.drift)

        critics.train(loss, batch=config.batch_size)

    few = torch.arange(classes, device=device).repeat_interleave(min(run.spc, 100))
    fixed = codes(len(few))
    run.start(config.steps)
    done = 0
    if state := run.restore():
        done = state["step"]
        generator.load_state_dict(state["generator"])
        average.load_state_dict(state["average"])
        optimiser.load(state["optimiser"])
    else:
        for _ in range(config.warm_steps):
            train_critics()
    for step in range(done + 1, config.steps + 1):
        for _ in range(config.critic_steps):
            train_critics()
        images, labels = made()
        gradient = critics.one_gradient(
            lambda critic, images, labels: -critic(images, labels).mean(),
            images.detach(),
            labels,
            clip=config.clip,
            noise_multiplier=noise_multiplier,
        )
        optimiser.step(torch.autograd.grad(images, optimiser.parameters, gradient))
        decay = min(config.average, 1 - 1 / step)
        for mean, now in zip(average.state_dict().values(), generator.state_dict().values(), strict=True):
            mean.copy_(decay * mean + (1 - decay) * now)
        run.report(step, gradient.norm())
        run.snapshot(step, lambda: (facts.normalise(sampled(average, fixed, few)), few))
        networks = {"generator": generator.state_dict(), "average": average.state_dict()}
        run.checkpoint({"step": step, **networks, "optimiser": optimiser.state()})
    labels = run.balanced_labels(classes)
    return facts.normalise(sampled(average, codes(len(labels)), labels)), labels
