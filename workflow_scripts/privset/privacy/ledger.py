"""What really happened to the private data, release by release, and what it has spent.

A release is charged before a record is touched, or refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import dp_accounting

from privset.privacy import accounting

Relation = Literal["add-or-remove-one", "replace-one"]


class BudgetExceeded(RuntimeError):
    """A release was refused because it would have spent more than the budget. No record was touched."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """One line of the ledger: a mechanism and how often it ran in a row."""

    mechanism: str
    event: dp_accounting.DpEvent
    relation: Relation | None
    """Neighbouring relation for which `sensitivity` holds; None for a release without privacy."""
    sensitivity: float
    """L2 sensitivity of the clipped sum to which the noise was added."""
    count: int = 1
    part: tuple[int, ...] | None = None
    """The classes whose records it concerned (`Vault.part`); None: all records."""

    def to_dict(self) -> dict[str, Any]:
        """The ledger line in JSON's terms."""
        return {
            "mechanism": self.mechanism,
            **accounting.event_to_dict(self.event),
            "neighbouring_relation": self.relation,
            "sensitivity": self.sensitivity,
            "count": self.count,
            **({} if self.part is None else {"part": list(self.part)}),
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Release:
        """The inverse of `to_dict`."""
        return cls(
            mechanism=entry["mechanism"],
            event=accounting.event_from_dict(entry),
            relation=entry["neighbouring_relation"],
            sensitivity=entry["sensitivity"],
            count=entry["count"],
            part=tuple(entry["part"]) if "part" in entry else None,
        )

    def same_kind(self, other: Release) -> bool:
        return replace(self, count=other.count) == other


def compositions(releases: Iterable[Release]) -> list[list[accounting.Counted]]:
    """What composes with what: for each part of the records its own releases and those over all records.

    Parts are disjoint, so a record meets one of these lists alone, and a ledger spends the largest of their epsilons
    (parallel composition, McSherry 2009). Without parts it is one list of everything.

    Raises ValueError for parts that overlap without being the same.
    """
    releases = list(releases)
    parts = sorted({release.part for release in releases if release.part is not None})
    members = [label for part in parts for label in part]
    if len(set(members)) < len(members):
        raise ValueError(f"the parts {', '.join(map(str, parts))} of the records overlap")
    return [[(r.event, r.count) for r in releases if r.part in (None, part)] for part in parts or [None]]


class Ledger:
    """What really happened: every release in order, equal neighbours counted together."""

    def __init__(self, *, epsilon: float, delta: float):
        self.epsilon, self.delta = epsilon, delta
        self.releases: list[Release] = []

    def _with(self, release: Release) -> list[Release]:
        if self.releases and self.releases[-1].same_kind(release):
            last = self.releases[-1]
            return [*self.releases[:-1], replace(last, count=last.count + release.count)]
        return [*self.releases, release]

    def spent(self) -> float:
        """Epsilon spent so far at the ledger's delta."""
        return max(accounting.spent_epsilon(counted, self.delta) for counted in compositions(self.releases))

    def charge(self, release: Release) -> None:
        """Record a release that is about to happen.

        Raises BudgetExceeded if it would overspend, and ValueError if it states another neighbouring relation than the
        releases before it: their guarantees would not compose.
        """
        relations = {entry.relation for entry in self.releases} | {release.relation}
        if len(relations) > 1:
            raise ValueError(f"one ledger cannot mix neighbouring relations {sorted(map(str, relations))}")
        releases = self._with(release)
        would_be = max(accounting.spent_epsilon(counted, self.delta) for counted in compositions(releases))
        if would_be > self.epsilon:
            raise BudgetExceeded(
                f"release {sum(entry.count for entry in releases)} ({release.mechanism}) would spend epsilon = "
                f"{would_be:.6g} of {self.epsilon:g} at delta = {self.delta:g}; nothing was released"
            )
        self.releases = releases
