"""Re-play: the same questions to neighbouring data, with the same randomness.

A release is private because the sum to which noise is added moves by at most the stated sensitivity when a record does. Here that
is looked at, for whatever a method really asks. It runs once over data, and what it asked and was answered is kept. Then it runs
over neighbouring data, in a vault that gives the *same answers*, so that it asks the same questions, and batches have the same
records but for the one. The sums before noise of both runs are compared, question by question. That the places of a batch's
records (`projected_rows`) are uniform is a premise here, which `tests/unit/test_queries.py` looks at.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from privset.data.datasets import PublicFacts
from privset.privacy import noise
from privset.privacy.audit import Budget
from privset.privacy.ledger import Release
from privset.privacy.vault import Vault


class Enough(Exception):
    """As many questions as wanted were asked."""


@dataclass
class Transcript:
    """What was asked of a vault, in order."""

    releases: list[Release] = field(default_factory=list)
    totals: list[Tensor] = field(default_factory=list)
    """The sums before noise: as secret as the data."""
    answers: list[Tensor] = field(default_factory=list)


class Recorded(Vault):
    """A vault that writes down its sums; given the answers of another one it repeats them.

    Args:
        repeated: the transcript whose answers it gives; None: its own.
        place: of the record in which the data differ. In a batch that is put in a random order it comes last.
        removed: its label, where these data lack it. It counts as nothing: the number of records is public, and stays what it
            was, and the others are in the batches that they were in.
        questions: after how many it raises `Enough`.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        facts: PublicFacts,
        key: int,
        budget: Budget,
        repeated: Transcript | None = None,
        place: int,
        removed: int | None = None,
        questions: int,
    ):
        super().__init__(
            images,
            labels,
            facts=replace(facts, records=len(images)),
            epsilon=budget.epsilon,
            delta=budget.delta,
            accountant=budget.accountant,
            key=key,
        )
        self.facts, self._labels = facts, labels
        self._repeated, self._place, self._removed, self._questions = repeated, place, removed, questions
        self.transcript = Transcript()

    def part(self, classes: Sequence[int], *, local_labels: bool = False) -> Recorded:
        """As a vault's; the records keep their places among those of the part."""
        part = super().part(classes, local_labels=local_labels)
        part._place = int(torch.isin(self._labels[: self._place], torch.tensor(classes)).sum())
        part._removed = self._removed if self._removed in classes else None
        part.facts = replace(part.facts, records=part.facts.records + (part._removed is not None))
        return part

    def _uniforms(self) -> np.ndarray:
        uniforms = super()._uniforms()
        return uniforms if self._removed is None else np.delete(uniforms, self._place)

    def _slots(self, sampling_rate: float, present: Tensor, size: int) -> Tensor:
        slots = super()._slots(sampling_rate, present, size)
        if self._removed is not None:
            return slots
        batch = torch.from_numpy(super()._uniforms() < sampling_rate) & self._Vault__finite
        if not batch[self._place : self._place + 1].any():
            return slots
        before = int(batch[: self._place].sum())
        last = int(present.sum()) - 1
        return torch.cat([slots[:before], slots[last : last + 1], slots[before:last], slots[last + 1 :]])

    def _answer(self, total: Tensor, release: Release, noise_multiplier: float) -> Tensor:
        answer = super()._answer(total, release, noise_multiplier)
        kept = self.transcript
        if self._repeated is not None:
            if len(kept.answers) == len(self._repeated.answers):
                raise ValueError(f"a question more to the neighbours than to the data: {release.mechanism}")
            answer = self._repeated.answers[len(kept.answers)]
        kept.releases.append(release)
        kept.totals.append(total.clone())
        kept.answers.append(answer)
        if len(kept.answers) == self._questions:
            raise Enough
        return answer.clone()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """By how much the sum of a question moved."""

    mechanism: str
    moved: float
    """In L2."""
    stated: float
    """The sensitivity that the ledger has."""


def replay(
    ask: Callable[[Vault], object],
    images: Tensor,
    labels: Tensor,
    *,
    facts: PublicFacts,
    place: int,
    record: tuple[Tensor, int] | None,
    budget: Budget,
    questions: int = 1_000_000,
    seed: int = 0,
) -> list[Difference]:
    """Run `ask` over the data and over neighbours, in which the record at `place` is another image and label, or missing.

    `ask` must do the same each time it is given the same answers: fresh generators of the same seed. `facts.records` is the
    number of `images`. Raises ValueError if the two runs did not ask the same.
    """
    key = noise.key_of(seed)
    made = []
    if record is None:
        keep = torch.arange(len(images)) != place
        other, removed = (images[keep], labels[keep]), int(labels[place])
    else:
        other, removed = (images.clone(), labels.clone()), None
        other[0][place], other[1][place] = record
    for data, missing in (((images, labels), None), (other, removed)):
        vault = Recorded(
            *data,
            facts=facts,
            key=key,
            budget=budget,
            repeated=made[0] if made else None,
            place=place,
            removed=missing,
            questions=questions,
        )
        with contextlib.suppress(Enough):
            ask(vault)
        made.append(vault.transcript)
    first, second = made
    if not first.releases or first.releases != second.releases:
        raise ValueError(f"{len(first.releases)} questions to the data, and {len(second.releases)} others to their neighbours")
    return [
        Difference(mechanism=release.mechanism, moved=float((a - b).norm()), stated=release.sensitivity)
        for release, a, b in zip(first.releases, first.totals, second.totals, strict=True)
    ]
