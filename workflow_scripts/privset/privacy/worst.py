"""The worst case of each query of the vault: a network or a function, of the attacker's choice, with which an image x adds
v x' / |x| to the answer, at the full sensitivity.

A new query gets its line in `MECHANISMS`, and every method that uses it is audited by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from privset.privacy.ensembles import Ensemble, labels_sensitivity, signs_sensitivity, votes_sensitivity
from privset.privacy.ledger import Asked
from privset.privacy.vault import Vault

LONG = 1000.0
"""How many times as long as its clip a record is before it is clipped."""


@dataclass(frozen=True, kw_only=True)
class Worst:
    """The worst case of a query, for records of class 0."""

    ask: Callable[[Vault, Asked, float], tuple[Tensor, Tensor]]
    """Of the releases that are asked for, with their noise multiplier: the answer (classes, pixels), as a sum over records, and
    the unit vector v (classes,)."""
    alone: bool = False
    """Whether a canary needs a run for itself, its image being of equal pixels. Otherwise there is one for each pixel."""
    centred: bool = False
    """Whether a canary that is absent adds the opposite of a present one, half of the sensitivity each."""
    side: int = 32
    """Of a canary's image."""
    dense: int = 128
    """Side of the image that fills all coordinates of an answer."""

    sensitivity: Callable[[int], float] | None = None
    """That of an answer of so many numbers, where a query has no clip that says it."""

    def fitted(self, asked: Asked, side: int) -> Asked:
        """For an image of so many pixels a side, with the same noise multiplier."""
        return asked if self.sensitivity is None else replace(asked, sensitivity=self.sensitivity(side**2))

    def patterns(self) -> Tensor:
        """(canaries, pixels), of norm 1: what each adds."""
        pixels = self.side**2
        return torch.full((1, pixels), pixels**-0.5) if self.alone else torch.eye(pixels)


def _feature_sums(vault: Vault, asked: Asked, noise_multiplier: float) -> tuple[Tensor, Tensor]:
    """A record's row is its image, in the sum of its class."""
    sums = vault.feature_sums(
        lambda images, labels: images.flatten(1),
        dimension=vault.facts.size**2,
        clip=asked.sensitivity / {"add-or-remove-one": 1, "replace-one": 2}[asked.relation],
        noise_multiplier=noise_multiplier,
        relation=asked.relation,
    )
    return sums, torch.eye(vault.facts.classes)[0]


def _gradient_mean(vault: Vault, asked: Asked, noise_multiplier: float) -> tuple[Tensor, Tensor]:
    """A linear layer with weights 0: a record's gradient is uniform minus one-hot, times its image."""
    classes = vault.facts.classes
    network = nn.Sequential(nn.Flatten(), nn.Linear(vault.facts.size**2, classes, bias=False))
    nn.init.zeros_(network[1].weight)
    (mean,) = vault.gradient_mean(
        network, sampling_rate=asked.sampling_rate, clip=asked.sensitivity, noise_multiplier=noise_multiplier
    )
    error = 1 / classes - torch.eye(classes)[0]
    return mean * (asked.sampling_rate * vault.facts.records), error / error.norm()


def _batch_function(vault: Vault, asked: Asked, noise_multiplier: float) -> tuple[Tensor, Tensor]:
    """One end of the ball if a bright image is in the batch, else the opposite one."""
    pixels = vault.facts.size**2

    def end(images: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        return torch.full((pixels,), LONG if (images.flatten(1).sum(1) * present > 0).any() else -LONG)

    answer = vault.batch_function(
        end,
        dimension=pixels,
        sampling_rate=asked.sampling_rate,
        clip=asked.sensitivity / 2,
        noise_multiplier=noise_multiplier,
    )
    return answer[None], torch.ones(1)


def _projected_rows(vault: Vault, asked: Asked, noise_multiplier: float) -> tuple[Tensor, Tensor]:
    """A record's row is its image, seen in all directions; the vault has no other, so it is in the one place that there is."""
    answer = vault.projected_rows(
        lambda images, labels: images.flatten(1),
        torch.eye(vault.facts.size**2, dtype=torch.float64),
        sampling_rate=asked.sampling_rate,
        clip=asked.sensitivity,
        noise_multiplier=noise_multiplier,
    )
    return answer.sum(0), torch.eye(vault.facts.classes)[0]


class _Sum(nn.Module):
    """A score, linear in the pixels."""

    def __init__(self, pixels: int):
        super().__init__()
        self.layer = nn.Linear(pixels, 1)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.layer(images.flatten(1))[:, 0]


def _score(member: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    return member(images, labels).sum()


@lru_cache(maxsize=1)
def _members(vault: Vault, shards: int) -> Ensemble:
    """One record to each member, whose weights are huge and of the sign of its image."""
    generator = torch.Generator().manual_seed(0)
    made = vault.ensemble(_Sum(vault.facts.size**2), members=shards, generator=generator, learning_rate=1e9)
    made.train(lambda member, images, labels: -_score(member, images, labels), batch=1)
    return made


def _bright(vault: Vault, count: int) -> tuple[Tensor, Tensor]:
    """Generated images, all white, and labels."""
    return torch.ones(count, 1, vault.facts.size, vault.facts.size), torch.zeros(count, dtype=torch.int64)


def _votes(vault: Vault, asked: Asked, noise_multiplier: float) -> tuple[Tensor, Tensor]:
    """About as many images as one has pixels, each in one direction, in two bins."""
    pixels = vault.facts.size**2
    counts = _members(vault, 1).votes(
        _score, *_bright(vault, pixels), directions=torch.ones(pixels, 1), clip=1.0, bins=2, noise_multiplier=noise_multiplier
    )
    return counts[:, 0].T - 0.5, torch.tensor([-1.0, 1.0]) / 2**0.5


def _signed_sums(vault: Vault, asked: Asked, noise_multiplier: float) -> tuple[Tensor, Tensor]:
    """About one image, all pixels."""
    pixels = vault.facts.size**2
    sums = _members(vault, 1).signed_sums(
        _score, *_bright(vault, 1), basis=torch.eye(pixels), largest=pixels, noise_multiplier=noise_multiplier
    )
    return sums, torch.ones(1)


def _labels(vault: Vault, asked: Asked, noise_multiplier: float) -> tuple[Tensor, Tensor]:
    """About as many images as one has pixels."""
    counts = _members(vault, 1).labels(*_bright(vault, vault.facts.size**2), noise_multiplier=noise_multiplier)
    return counts[None] - 0.5, torch.ones(1)


def _one_gradient(vault: Vault, asked: Asked, noise_multiplier: float) -> tuple[Tensor, Tensor]:
    """About one image: a gradient of equal pixels."""
    answer = _members(vault, asked.shards).one_gradient(
        _score, *_bright(vault, 1), clip=asked.sensitivity / 2, noise_multiplier=noise_multiplier
    )
    return answer.flatten(1), torch.ones(1)


MECHANISMS: dict[str, Worst] = {
    "feature_sums": Worst(ask=_feature_sums),
    "gradient_mean": Worst(ask=_gradient_mean),
    "batch_function": Worst(ask=_batch_function, alone=True, centred=True, side=8),
    "projected_rows": Worst(ask=_projected_rows, alone=True, side=8, dense=32),
    "votes": Worst(ask=_votes, alone=True, centred=True, side=8, dense=32, sensitivity=votes_sensitivity),
    "signed_sums": Worst(
        ask=_signed_sums, alone=True, centred=True, side=8, sensitivity=lambda pixels: signs_sensitivity(1, pixels)
    ),
    "labels": Worst(ask=_labels, alone=True, centred=True, side=8, dense=32, sensitivity=labels_sensitivity),
    "one_gradient": Worst(ask=_one_gradient, alone=True, centred=True, side=8),
}
