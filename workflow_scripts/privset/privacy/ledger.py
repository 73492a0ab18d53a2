"""What really happened to the private data, release by release, and what it has spent.

A release is charged before a record is touched, or refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import dp_accounting

from privset import PrivsetError
from privset.privacy import accounting
from privset.privacy.noise import grid

Relation = Literal["add-or-remove-one", "replace-one"]

LARGEST_BUDGET = 1000
"""Epsilon of a private set, at most: with hardly any noise its accountants would take minutes."""
LARGEST_DELTA = 1e-3
"""Of a private set, at most, and it is below one in the number of records: a mechanism that publishes one of them has that."""


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
    """L2 sensitivity of the clipped sum to which the noise was added, what rounding adds included (`noise`)."""
    records: int
    """Records that it concerned, of which a batch is a sample; a public fact."""
    dimension: int
    """Coordinates of the answer."""
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
            "records": self.records,
            "dimension": self.dimension,
            **({} if self.relation is None else {"grid": grid(self.sensitivity, self.dimension)}),
            "count": self.count,
            **({} if self.part is None else {"part": list(self.part)}),
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Release:
        """The inverse of `to_dict`."""
        return cls(
            mechanism=entry["mechanism"],
            event=accounting.event_from_dict(entry),
            relation=entry.get("neighbouring_relation"),
            sensitivity=float(entry["sensitivity"]),
            records=entry["records"],
            dimension=entry["dimension"],
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


def check_delta(delta: float, records: int) -> None:
    """Raises PrivsetError for a delta that promises nothing; `certificates.verify` refuses it too."""
    if not 0 < delta <= LARGEST_DELTA or delta * records >= 1:
        limit = f"at most {LARGEST_DELTA:g} and below 1/{records}, there being {records} records"
        raise PrivsetError(f"delta = {delta:g}: must be {limit}; a larger one lets a record be published as it is")


def rate_of(batch_size: int, records: int) -> float:
    """The sampling rate at which a Poisson batch has `batch_size` of so many records on average.

    Raises PrivsetError if there are not so many.
    """
    if not 0 < batch_size <= records:
        remedy = f"choose a batch_size of at most {records}" if records else "each class or task needs records"
        raise PrivsetError(f"batch_size = {batch_size}: more than there are records ({records}); {remedy}")
    return batch_size / records


def check_members(members: int, records: int) -> None:
    """Raises PrivsetError unless there is a record for each member of an ensemble."""
    if members > records:
        raise PrivsetError(f"{members} members: there are {records} records, and each needs one")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a configuration asks of the private data, in a row: stated by each method, for comparison with a ledger."""

    mechanism: str
    relation: Relation | None = "add-or-remove-one"
    sensitivity: float
    """Without what rounding adds."""
    count: int
    sampling_rate: float = 1.0
    shards: int = 1
    """Of which one, chosen in secret, is asked (`Ensemble.one_gradient`)."""
    share: float = 1.0
    """Of the budget, for all `count` together: in mu^2 of Gaussian DP, so only unsampled ones can have less than 1."""
    part: tuple[int, ...] | None = None

    @property
    def rate(self) -> float:
        """With what probability a record counts in a release."""
        return self.sampling_rate / self.shards

    def event(self, noise_multiplier: float) -> dp_accounting.DpEvent:
        """One of these releases."""
        return accounting.gaussian_event(noise_multiplier=noise_multiplier, sampling_rate=self.sampling_rate, shards=self.shards)

    def noise_multiplier(self, ledger: Ledger) -> float:
        """With which these releases spend their share of the ledger's budget (the last factor is for rounding)."""
        whole = ledger.calibrate(sampling_rate=self.sampling_rate, releases=self.count, shards=self.shards)
        return whole if self.share == 1 else whole / math.sqrt(self.share) * (1 + 1e-9)


class Ledger:
    """What really happened: every release in order, equal neighbours counted together."""

    def __init__(self, *, epsilon: float, delta: float, accountant: accounting.Accountant = "rdp"):
        self.epsilon, self.delta, self.accountant = epsilon, delta, accountant
        self.releases: list[Release] = []
        self._room: dict[tuple[Release, ...], int] = {}

    def calibrate(self, *, sampling_rate: float, releases: int, shards: int = 1) -> float:
        """The noise multiplier with which so many equal releases (over one of so many shards) spend the whole budget."""
        return accounting.calibrate(
            epsilon=self.epsilon,
            delta=self.delta,
            sampling_rate=sampling_rate,
            releases=releases,
            accountant=self.accountant,
            shards=shards,
        )

    def _with(self, release: Release) -> list[Release]:
        if self.releases and self.releases[-1].same_kind(release):
            last = self.releases[-1]
            return [*self.releases[:-1], replace(last, count=last.count + release.count)]
        return [*self.releases, release]

    def _epsilon(self, releases: list[Release]) -> float:
        return max(accounting.spent_epsilon(counted, self.delta, self.accountant) for counted in compositions(releases))

    def _most(self, releases: list[Release]) -> int:
        """How often the last of the releases may happen within the budget. By privacy loss distributions one epsilon takes up to
        a second, so it is found once, and every charge compares with it."""
        once = [*releases[:-1], replace(releases[-1], count=1)]
        if tuple(once) not in self._room:

            def fits(count: int) -> bool:
                return self._epsilon([*once[:-1], replace(once[-1], count=count)]) <= self.epsilon

            low, high = 0, 1
            while fits(high):
                low, high = high, 2 * high
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if fits(middle) else (low, middle)
            self._room[tuple(once)] = low
        return self._room[tuple(once)]

    def spent(self) -> float:
        """Epsilon spent so far at the ledger's delta. By privacy loss distributions it is that of the next of few counts, four in
        each power of two, or of the most that the budget allows: an upper bound that takes few evaluations."""
        if self.accountant == "rdp" or not self.releases or math.isinf(self.epsilon):
            return self._epsilon(self.releases)
        last = self.releases[-1]
        unit = 2 ** max(0, last.count.bit_length() - 3)
        count = min(-(-last.count // unit) * unit, self._most(self.releases))
        return self._epsilon([*self.releases[:-1], replace(last, count=max(count, last.count))])

    def charge(self, release: Release) -> None:
        """Record a release that is about to happen.

        Raises BudgetExceeded if it would overspend, and ValueError if it states another neighbouring relation than the
        releases before it: their guarantees would not compose.
        """
        relations = {entry.relation for entry in self.releases} | {release.relation}
        if len(relations) > 1:
            raise ValueError(f"one ledger cannot mix neighbouring relations {sorted(map(str, relations))}")
        releases = self._with(release)
        by_count = self.accountant == "pld" and math.isfinite(self.epsilon)
        if releases[-1].count > self._most(releases) if by_count else self._epsilon(releases) > self.epsilon:
            raise BudgetExceeded(
                f"release {sum(entry.count for entry in releases)} ({release.mechanism}) would spend epsilon = "
                f"{self._epsilon(releases):.6g} of {self.epsilon:g} at delta = {self.delta:g}; nothing was released"
            )
        self.releases = releases
