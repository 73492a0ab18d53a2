"""DP flow: a normalizing flow of images' lowest frequencies, conditioned on their class, whose likelihood is maximised by DP-SGD
(Waites and Cummings, arXiv 2103.14068).

The flow sees the lowest coefficients of the cosine transform in fixed units, both public. Each step asks for the noisy mean of
the clipped gradients of the records' negative log-likelihoods, and Adam follows it. Samples are normal codes through the inverse
flow and the inverse transform, the missing frequencies zero, the pixels clamped to [0, 1].

We found no published program that does this for images: Waites and Cummings train masked autoregressive flows, and "DP-HFlow"
(Lee, Kim, Jeong, Ro, AAAI 2022) is for tables. The couplings, the transform and all hyper-parameters are ours.
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
from privset.networks.flows import ImageFlow
from privset.networks.weights import initialise
from privset.privacy.ledger import Asked, rate_of
from privset.privacy.vault import Vault

METHOD = Method(title="DP flow", family="generator")


class Config(Block):
    """The flow's hyper-parameters; none are published for images."""

    steps: Count = 10_000
    """Of training, one private gradient each."""
    batch_size: Count = 600
    """Expected size of a Poisson batch."""
    clip: Positive = 1.0
    """L2 clip of a record's gradient over all parameters."""
    coefficients: Annotated[int, Field(ge=2)] = 128
    """Of the cosine transform, for each channel; all there are, if those are fewer."""
    couplings: Count = 8
    """Layers, each of which moves half of the coordinates."""
    hidden: Count = 128
    """Units of the one hidden layer in each coupling; a multiple of 16."""
    class_scale: Positive = 8.0
    """What stands for a class in the input, beside coefficients of order 1."""
    learning_rate: Positive = 0.002
    """Of Adam; falls to zero linearly."""
    temperature: Positive = 0.7
    """Standard deviation of the codes of samples: below 1 they keep to the denser regions, where an imperfect flow is better."""


def asks(config: Config, records: Callable[[tuple[int, ...] | None], int]) -> list[Asked]:
    """One gradient per step."""
    rate = rate_of(config.batch_size, records(None))
    return [Asked(mechanism="gradient_mean", sensitivity=config.clip, count=config.steps, sampling_rate=rate)]


def negative(log_densities: Tensor, labels: Tensor) -> Tensor:
    """(B,) the loss: negative log-likelihood in nats."""
    return -log_densities


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images per class from the flow as it is in the end."""
    facts, device = vault.facts, vault.device
    sampling_rate = rate_of(config.batch_size, facts.records)
    noise_multiplier = vault.ledger.calibrate(sampling_rate=sampling_rate, releases=config.steps)
    network = ImageFlow(
        shape=facts.shape,
        classes=facts.classes,
        class_scale=config.class_scale,
        coefficients=config.coefficients,
        hidden=config.hidden,
        couplings=config.couplings,
    )
    network = initialise(network.to(device), run.generator).requires_grad_(False)
    network.flow.become_identity()
    optimiser = optimisers.Adam(network.parameters(), learning_rate=config.learning_rate)

    def codes(count: int) -> Tensor:
        return config.temperature * torch.randn(count, network.flow.features, generator=run.generator, device=device)

    def sampled(codes: Tensor, labels: Tensor) -> Tensor:
        """In normalised units, within what pixels can be."""
        return facts.normalise(facts.to_pixels(network.images(codes, labels)).clamp(0, 1))

    few = torch.arange(facts.classes, device=device).repeat_interleave(min(run.spc, 100))
    fixed = codes(len(few))
    run.start(config.steps)
    done = 0
    if state := run.restore():
        done = state["step"]
        network.load_state_dict(state["network"])
        optimiser.load(state["optimiser"])
    for step in range(done + 1, config.steps + 1):
        gradients = vault.gradient_mean(
            network,
            sampling_rate=sampling_rate,
            clip=config.clip,
            noise_multiplier=noise_multiplier,
            inputs=network.labelled,
            loss=negative,
        )
        optimiser.learning_rate = config.learning_rate * (1 - (step - 1) / config.steps)
        optimiser.step(gradients)
        # The likelihood itself is private; the length of the noisy gradient is not, once released.
        run.report(step, torch.stack([gradient.norm() for gradient in gradients]).norm())
        run.snapshot(step, lambda: (sampled(fixed, few), few))
        run.checkpoint({"step": step, "network": network.state_dict(), "optimiser": optimiser.state()})
    labels = run.balanced_labels(facts.classes)
    return sampled(codes(len(labels)), labels), labels
