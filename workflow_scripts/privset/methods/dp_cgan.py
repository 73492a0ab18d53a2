"""DP-CGAN: a conditional GAN whose discriminator learns from the records by DP-SGD (Torkzadehmahani, Kairouz, Paten, CVPRW 2019).

The discriminator's gradient has two parts, each clipped image by image: that of records called real, which is released with
noise, and that of generated images called generated, which concerns no record. The generator then learns from the discriminator.

The published program clips each of four tensors by itself (together twice the stated sensitivity), tells its accountant the
noise times the clip, and reuses the labels of the private batch without noise. Here a gradient is clipped as a whole, batches are
Poisson samples, and the labels of generated images are drawn uniformly.

With ten of 794 inputs for the label, the discriminator tells real from generated long before it learns that the label matters,
and by then answers the generator with nothing else. With an output per class, and Adam, hundreds of steps teach the classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from privset.jobs.blocks import Block, Count, Positive
from privset.jobs.rows import Method
from privset.jobs.run import Run
from privset.networks import optimisers
from privset.networks.generators import DenseGenerator, sampled
from privset.privacy.gradients import clipped_gradient_sum
from privset.privacy.ledger import Asked, rate_of
from privset.privacy.vault import Vault

METHOD = Method(title="DP-CGAN", family="generator")


class Config(Block):
    """DP-CGAN's hyper-parameters; the defaults are the published program's, its steps being those of an exact budget."""

    steps: Count = 20_000
    """Of discriminator and generator in turn, one private gradient each."""
    batch_size: Count = 600
    """Expected size of a Poisson batch."""
    generated: Count = 600
    """Size of a generated batch."""
    clip: Positive = 1.1
    """L2 clip of an image's gradient over all parameters."""
    latent: Count = 100
    """Dimension of a code, uniform in [-1, 1]."""
    hidden: Count = 128
    """Units of the one hidden layer of both networks; a multiple of 16."""
    label_outputs: bool = False
    """Whether the discriminator has an output per class, of which the label picks one; if not, it is told the label."""
    discriminator_optimiser: Literal["sgd", "adam"] = "sgd"
    """Plain SGD, or Adam."""
    learning_rate: Positive = 0.1
    """Of the discriminator's optimiser."""
    last_learning_rate: Positive = 0.052
    """To which that falls, linearly, within `decay_steps`."""
    decay_steps: Count = 10_000
    """Likewise."""
    generator_learning_rate: Positive = 1e-3
    """Of Adam, on the generator."""
    last_generator_learning_rate: Positive = 1e-3
    """To which that falls, linearly, within all steps."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of Adam's first moments, in either network."""


def asks(config: Config, records: Callable[[tuple[int, ...] | None], int]) -> list[Asked]:
    """One gradient per step."""
    rate = rate_of(config.batch_size, records(None))
    return [Asked(mechanism="gradient_mean", sensitivity=config.clip, count=config.steps, sampling_rate=rate)]


def called_real(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) cross-entropy with "real" of the discriminator's logits, (B, 1), or (B, classes), of which the label's counts."""
    return F.softplus(-logits.gather(1, labels[:, None] % logits.shape[1])[:, 0])


def called_generated(logits: Tensor, labels: Tensor) -> Tensor:
    """Likewise with "generated"."""
    return called_real(-logits, labels)


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draw the weights as the published program does: N(0, 2 / fan-in), biases 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.normal_(std=math.sqrt(2 / layer.in_features), generator=generator)
            layer.bias.zero_()
    return network


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images per class from the generator as it is in the end."""
    facts, device, classes = vault.facts, vault.device, vault.facts.classes
    sampling_rate = rate_of(config.batch_size, facts.records)
    noise_multiplier = vault.ledger.calibrate(sampling_rate=sampling_rate, releases=config.steps)
    generator = DenseGenerator(latent=config.latent, classes=classes, hidden=config.hidden, shape=facts.shape)
    generator = initialise(generator.to(device), run.generator)
    pixels = math.prod(facts.shape)
    inputs, outputs = (pixels, classes) if config.label_outputs else (pixels + classes, 1)
    discriminator = nn.Sequential(nn.Linear(inputs, config.hidden), nn.ReLU(), nn.Linear(config.hidden, outputs))
    discriminator = initialise(discriminator.to(device), run.generator).requires_grad_(False)
    betas = (config.momentum, 0.999)
    optimiser = optimisers.Adam(generator.parameters(), learning_rate=config.generator_learning_rate, betas=betas)
    critic: optimisers.SGD | optimisers.Adam = optimisers.SGD(discriminator.parameters(), learning_rate=config.learning_rate)
    if config.discriminator_optimiser == "adam":
        critic = optimisers.Adam(discriminator.parameters(), learning_rate=config.learning_rate, betas=betas)

    def codes(count: int) -> Tensor:
        return torch.rand(count, config.latent, generator=run.generator, device=device) * 2 - 1

    def drawn() -> tuple[Tensor, Tensor]:
        """A generated batch and its labels."""
        labels = torch.randint(classes, (config.generated,), generator=run.generator, device=device)
        return generator(codes(config.generated), labels), labels

    def seen(images: Tensor, labels: Tensor) -> Tensor:
        """What the discriminator is given: pixels in [0, 1] and, if it has one output, the class."""
        told = [] if config.label_outputs else [F.one_hot(labels, classes).to(images)]
        return torch.cat([images.flatten(1), *told], dim=1)

    few = torch.arange(classes, device=device).repeat_interleave(min(run.spc, 100))
    fixed = codes(len(few))
    run.start(config.steps)
    done = 0
    if state := run.restore():
        done = state["step"]
        for network, saved in ((generator, state["generator"]), (discriminator, state["discriminator"])):
            network.load_state_dict(saved)
        optimiser.load(state["optimiser"])
        critic.load(state["critic"])
    for step in range(done + 1, config.steps + 1):
        real = vault.gradient_mean(
            discriminator,
            sampling_rate=sampling_rate,
            clip=config.clip,
            noise_multiplier=noise_multiplier,
            inputs=lambda images, labels: seen(facts.to_pixels(images), labels),
            loss=called_real,
        )
        with torch.no_grad():
            images, labels = drawn()
        total = clipped_gradient_sum(discriminator, seen(images, labels), labels, clip=config.clip, loss=called_generated)
        mean = (total / config.generated).float().split([parameter.numel() for parameter in discriminator.parameters()])
        passed = min(1.0, step / config.decay_steps)
        critic.learning_rate = config.learning_rate + passed * (config.last_learning_rate - config.learning_rate)
        critic.step([a + b.view_as(a) for a, b in zip(real, mean, strict=True)])

        images, labels = drawn()
        loss = called_real(discriminator(seen(images, labels)), labels).mean()
        fall = config.last_generator_learning_rate - config.generator_learning_rate
        optimiser.learning_rate = config.generator_learning_rate + step / config.steps * fall
        optimiser.step(torch.autograd.grad(loss, optimiser.parameters))
        run.report(step, loss.detach())
        run.snapshot(step, lambda: (facts.normalise(sampled(generator, fixed, few)), few))
        networks = {"generator": generator.state_dict(), "discriminator": discriminator.state_dict()}
        run.checkpoint({"step": step, **networks, "optimiser": optimiser.state(), "critic": critic.state()})
    labels = run.balanced_labels(classes)
    return facts.normalise(sampled(generator, codes(len(labels)), labels)), labels
