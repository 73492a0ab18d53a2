"""What `taught` asks of the private data, once for the sets of every size: a teacher, and PSM's releases.

The teacher is a linear classifier of scattering coefficients, a public transform, trained by full-batch gradient descent with
noise in every step (Abadi et al. 2016, Algorithm 1, without sampling; the features as in Tramer and Boneh, ICLR 2021). Gaussian
noise on all records in every step composes exactly: T steps at noise multiplier sigma are one release at sigma / sqrt(T).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from privset.data.datasets import PublicFacts
from privset.jobs.blocks import Count, Positive
from privset.jobs.run import Run
from privset.methods import psm_releases
from privset.methods.psm_matching import Statistics as Base
from privset.networks import scattering
from privset.privacy.ledger import Asked
from privset.privacy.vault import Vault

GROUPS = 27
"""In which a channel's coefficients are normalised within each image: by three of them."""
LENGTH = 1.4
"""Of a record's features, L2, at most: a public constant, which only fixes the unit of the learning rate."""


class ReleaseConfig(psm_releases.ReleaseConfig):
    """PSM's, for what the teacher leaves of the budget, and the teacher's."""

    teacher_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the budget, in mu^2 of Gaussian DP, that the teacher gets."""
    teacher_steps: Count = 100
    """Gradients of all records."""
    teacher_clip: Positive = 1.0
    """L2 clip of a record's gradient."""
    teacher_learning_rate: Positive = 20.0
    """Of SGD."""
    teacher_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD."""


@dataclass
class Statistics:
    """What left the vault."""

    base: Base
    """PSM's."""
    teacher: Tensor
    """(classes, features): weights of the linear classifier."""

    def to_tensors(self) -> dict[str, Tensor]:
        """Everything by name, for a file."""
        return {**self.base.to_tensors(), "teacher": self.teacher.detach()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], facts: PublicFacts) -> Statistics:
        """The inverse of `to_tensors`."""
        return cls(base=Base.from_tensors(tensors, facts), teacher=tensors["teacher"])


def features(pixels: Tensor) -> Tensor:
    """(N, C, H, W) pixels in [0, 1] to (N, `dimension`): scattering coefficients, normalised in each image, and a constant."""
    channels = pixels.shape[1]
    normalised = F.group_norm(scattering.coefficients(pixels), GROUPS * channels).flatten(1)
    with_one = torch.cat([normalised, normalised.new_ones(len(pixels), 1)], 1)
    return with_one * (LENGTH / math.sqrt(with_one.shape[1]))


def dimension(facts: PublicFacts) -> int:
    """Of the features of an image."""
    return facts.channels * scattering.PATHS * scattering.side(facts.size) ** 2 + 1


def whole(arrays: Mapping[str, Any], config: ReleaseConfig) -> bool:
    """Whether a file has the arrays of these statistics and no others."""
    base = {name: array for name, array in arrays.items() if name != "teacher"}
    if "teacher" not in arrays or not psm_releases.whole(base, config):
        return False
    teacher = arrays["teacher"]
    return teacher.ndim == 2 and len(teacher) == len(arrays["counts"])


def asks(config: ReleaseConfig, records: Callable[[tuple[int, ...] | None], int]) -> list[Asked]:
    """The teacher's gradients, then what PSM asks."""
    share = config.teacher_share
    teacher = Asked(mechanism="gradient_mean", sensitivity=config.teacher_clip, count=config.teacher_steps, share=share)
    return [teacher, *psm_releases.asks(config, records, 1 - share)]


def _teach(vault: Vault, config: ReleaseConfig, run: Run) -> Tensor:
    """The teacher's weights."""
    facts, wide = vault.facts, dimension(vault.facts)
    noise_multiplier = asks(config, lambda part: facts.records)[0].noise_multiplier(vault.ledger)
    shown = vault.seen(lambda images: features(facts.to_pixels(images))[:, :, None, None], channels=wide, size=1)
    head = nn.Sequential(nn.Flatten(), nn.Linear(wide, facts.classes, bias=False)).to(vault.device).requires_grad_(False)
    weight = head[1].weight.zero_()
    run.start(config.teacher_steps)
    state = run.restore() or {"step": 0, "weight": weight.clone(), "velocity": torch.zeros_like(weight)}
    weight.copy_(state["weight"])
    velocity = state["velocity"]
    for step in range(state["step"] + 1, config.teacher_steps + 1):
        (gradient,) = shown.gradient_mean(head, sampling_rate=1.0, clip=config.teacher_clip, noise_multiplier=noise_multiplier)
        velocity = config.teacher_momentum * velocity + gradient
        weight -= config.teacher_learning_rate * velocity
        run.report(step, gradient.norm())
        run.checkpoint({"step": step, "weight": weight, "velocity": velocity})
    return weight


def release(vault: Vault, config: ReleaseConfig, run: Run) -> Statistics:
    """The teacher, then PSM's releases. They spend the vault's whole budget together, exactly."""
    begun = run.generator.get_state()
    state = run.restore() or {"teacher": None, "inner": None}
    restored = run.generator.get_state()

    def part(first: int, restore: Callable[[], Any]) -> Run:
        """A run that looks to each of the two like its own, after so many steps."""
        return replace(
            run,
            start=lambda total: run.start(first + total),
            report=lambda step, loss: run.report(first + step, loss),
            restore=restore,
            checkpoint=lambda inner: run.checkpoint({**state, "inner": inner}),
        )

    def restore_base() -> Any:
        if state["inner"]:
            run.generator.set_state(restored)
        return state["inner"]

    if state["teacher"] is None:
        state = {"teacher": _teach(vault, config, part(0, lambda: state["inner"])), "inner": None}
        run.checkpoint(state)
    run.generator.set_state(begun)  # of which the teacher takes nothing; PSM draws its networks before it looks for a checkpoint
    base = psm_releases.release(vault, config, part(config.teacher_steps, restore_base), 1 - config.teacher_share)
    return Statistics(base, state["teacher"])
