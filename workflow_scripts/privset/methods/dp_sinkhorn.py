"""DP-Sinkhorn: a generator learns from how its images would have to move to become the records, by optimal transport (Cao, Bie,
Vahdat, Fidler, Kreis, NeurIPS 2021).

In each step a batch of generated images is compared with a Poisson batch of records by the entropic transport cost between them
(section 3.2: less that between generated images, of which a part is new). Its gradient with respect to the generated images, cut
as a whole, is released with noise and goes on into the generator. There is no discriminator.

The published program's noise would last for 20 times its steps, its check of the budget never fires, and its generated batch has
the private batch's size. Here the noise is that of the steps, and the number of generated images is public; new images have
classes of their own, where the program takes the first ones again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from privset.jobs.blocks import Block, Count, Positive
from privset.jobs.rows import Method
from privset.jobs.run import Run
from privset.networks import optimisers
from privset.networks.generators import DeconvolutionGenerator, sampled
from privset.networks.weights import initialise
from privset.privacy.ledger import Asked, rate_of
from privset.privacy.vault import Vault

METHOD = Method(title="DP-Sinkhorn", family="generator")


class Config(Block):
    """DP-Sinkhorn's hyper-parameters; the defaults are the paper's."""

    steps: Count = 160_000
    """Of the generator, one private gradient each."""
    batch_size: Count = 50
    """Expected size of a Poisson batch."""
    generated: Count = 50
    """Images whose gradient is released."""
    fresh_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Of the generated images with which those are compared, how many are new: 1 makes the loss unbiased, 0 steady."""
    clip: Positive = 0.5
    """L2 clip of the gradient of the whole generated batch."""
    absolute: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the L1 distance in the cost, beside the squared L2 distance."""
    class_scale: Positive = 15.0
    """Length of the one-hot class that stands beside the pixels."""
    blur: Positive = 0.05
    """Entropic regularisation, in units of the cost."""
    latent: Count = 16
    """Dimension of a code, uniform in [0, 1]."""
    width: Count = 64
    """Channels of the generator's last layer but one."""
    learning_rate: Positive = 1e-5
    """Of Adam."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    """Added to the gradient."""
    decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor on the learning rate after each fifth of the steps."""


def asks(config: Config, records: Callable[[tuple[int, ...] | None], int]) -> list[Asked]:
    """The gradient of one batch per step; the sensitivity is the diameter of the ball."""
    rate = rate_of(config.batch_size, records(None))
    return [Asked(mechanism="batch_function", sensitivity=2 * config.clip, count=config.steps, sampling_rate=rate)]


def cost(ours: Tensor, theirs: Tensor, own: Tensor, other: Tensor, *, absolute: float, class_scale: float) -> Tensor:
    """(n, m) of moving each image of `ours` (n, d) with class `own` (n,) to each of `theirs` (m, d) with class `other` (m,):
    |.|_2^2 + absolute |.|_1 over pixels in [-1, 1] and the one-hot class of length `class_scale`."""
    pixels = torch.cdist(ours, theirs).square() + absolute * torch.cdist(ours, theirs, p=1)
    return pixels + (own[:, None] != other) * 2 * (class_scale**2 + absolute * class_scale)


@torch.no_grad()
def transport(costs: Tensor, present: Tensor, *, largest: float, blur: float) -> Tensor:
    """(n, m) how much goes from each row to each column that is `present` (m,), at the smallest cost plus `blur` times the
    relative entropy.

    Sinkhorn's iteration on logarithms (Cuturi 2013), from a blur of the `largest` cost that there can be to the given one, by
    halves (Schmitzer 2019): as many iterations whatever the batch.
    """
    rows = -math.log(len(costs))
    columns = (present / present.sum()).log()
    f, g = costs.new_zeros(len(costs), 1), costs.new_zeros(1, costs.shape[1])
    halvings = max(0, math.ceil(math.log2(largest / blur)))
    for blurred in [*(blur * 2.0**k for k in range(halvings, 0, -1)), *[blur] * 10]:
        g = -blurred * torch.logsumexp((f - costs) / blurred + rows, dim=0, keepdim=True)
        f = -blurred * torch.logsumexp((g - costs) / blurred + columns, dim=1, keepdim=True)
    return torch.where(present > 0, ((f + g - costs) / blur + rows + columns).exp(), 0.0)


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images per class from the generator as it is in the end."""
    facts, device = vault.facts, vault.device
    pixels, sampling_rate = facts.channels * facts.size**2, rate_of(config.batch_size, facts.records)
    noise_multiplier = vault.ledger.calibrate(sampling_rate=sampling_rate, releases=config.steps)
    generator = DeconvolutionGenerator(
        latent=config.latent, classes=facts.classes, width=config.width, channels=facts.channels, size=facts.size
    )
    generator = initialise(generator.to(device), run.generator)
    optimiser = optimisers.Adam(generator.parameters(), learning_rate=config.learning_rate, weight_decay=config.weight_decay)
    size, fresh = config.generated, round(config.fresh_share * config.generated)
    largest = pixels * (4 + 2 * config.absolute) + 2 * (config.class_scale**2 + config.absolute * config.class_scale)

    def codes(count: int) -> Tensor:
        return torch.rand(count, config.latent, generator=run.generator, device=device)

    def moved(ours: Tensor, theirs: Tensor, own: Tensor, other: Tensor, present: Tensor) -> Tensor:
        """The transport cost between images in [-1, 1], as a function of `ours` and `theirs`: the plan itself is stationary."""
        costs = cost(ours, theirs, own, other, absolute=config.absolute, class_scale=config.class_scale)
        return (transport(costs, present, largest=largest, blur=config.blur) * costs).sum()

    few = torch.arange(facts.classes, device=device).repeat_interleave(min(run.spc, 100))
    fixed = codes(len(few))
    run.start(config.steps)
    done = 0
    if state := run.restore():
        done = state["step"]
        generator.load_state_dict(state["generator"])
        optimiser.load(state["optimiser"])
    for step in range(done + 1, config.steps + 1):
        labels = torch.randint(facts.classes, (size + fresh,), generator=run.generator, device=device)
        made = generator(codes(size + fresh), labels)
        ours = (2 * made.detach().flatten(1) - 1).requires_grad_()
        between = moved(ours[:size], ours[fresh:], labels[:size], labels[fresh:], ours.new_ones(size))
        among = torch.autograd.grad(-between, ours)[0]

        def gradient(images: Tensor, others: Tensor, present: Tensor, ours=ours, labels=labels, among=among) -> Tensor:
            with torch.enable_grad():
                theirs = (2 * facts.to_pixels(images) - 1).flatten(1)
                to_records = moved(ours[:size], theirs, labels[:size], others, present)
                return (2 * torch.autograd.grad(to_records, ours)[0] + among)[:size].flatten()

        noisy = vault.batch_function(
            gradient,
            dimension=size * pixels,
            sampling_rate=sampling_rate,
            clip=config.clip,
            noise_multiplier=noise_multiplier,
        )
        # What the new images get has no record in it: it is cut, and no noise added.
        rest = among[size:] * (config.clip / among[size:].norm()).clamp(max=1) if fresh else among[size:]
        direction = torch.cat([noisy.view(size, -1), rest]).view_as(made)
        optimiser.learning_rate = config.learning_rate * config.decay ** ((step - 1) // max(1, config.steps // 5))
        optimiser.step(torch.autograd.grad((made * direction).sum(), optimiser.parameters))
        run.report(step, between.detach())
        run.snapshot(step, lambda: (facts.normalise(sampled(generator, fixed, few)), few))
        run.checkpoint({"step": step, "generator": generator.state_dict(), "optimiser": optimiser.state()})
    labels = run.balanced_labels(facts.classes)
    return facts.normalise(sampled(generator, codes(len(labels)), labels)), labels
