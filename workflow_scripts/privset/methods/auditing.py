"""One row of the tables, audited: what it asks of the vault, at worst, and what its images tell of the records behind them.

The attacks on the vault are in `privacy.audit`. Here a method is run as it is, over records of which some are canaries: real
images under wrong labels, each in or out by a coin. The attacker has the published images alone, and believes that a canary was
in when it is close to an image of its label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from privset import PrivsetError
from privset.data.datasets import PublicFacts
from privset.jobs import rows
from privset.jobs.blocks import Block, parse
from privset.jobs.run import Run
from privset.jobs.seeds import derived_seed
from privset.methods import load, load_releases
from privset.privacy import audit
from privset.privacy.accounting import parameters, spent_epsilon
from privset.privacy.audit import Bound, Budget, Planned
from privset.privacy.ledger import Asked, Ledger
from privset.privacy.noise import key_of
from privset.privacy.replay import Difference, replay
from privset.privacy.vault import Vault

GUESSES = 0.25
"""Share of the canaries about which a guess is made from images: fixed, there being no second run to choose it by."""
BITS = 400
"""Draws of the attack on low bits."""
REPLAYED = 20
"""Questions that are put to neighbours."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row with its settings."""

    name: str
    config: Block | None
    """Of its sets; None for a method that makes none."""
    releases: Block | None
    """Of what it releases once for the sets of every size."""
    spc: int | None

    @classmethod
    def of(cls, name: str, *, config: Mapping[str, Any], releases: Mapping[str, Any], spc: int | None, where: str) -> Row:
        """From its blocks in the configuration; raises PrivsetError with `where`, the key and the remedy."""
        method = rows.described(name)
        return cls(
            name=name,
            config=None if method.family == "classifier" else parse(load(name).Config, config, f"{where}.config"),
            releases=parse(load_releases(name).ReleaseConfig, releases, f"{where}.releases") if method.releases else None,
            spc=spc,
        )

    def asks(self, records: Callable[[tuple[int, ...] | None], int]) -> list[Asked]:
        """What it asks of the private data, by how many records there are (or a part has)."""
        if self.releases is not None:
            return load_releases(self.name).asks(self.releases, records)
        return load(self.name).asks(self.config, records)

    def make(self, vault: Vault, seed: int) -> tuple[Tensor, Tensor] | None:
        """Run it: images (N, C, H, W) in normalised units and labels (N,); None of one that makes no images."""
        run = Run(spc=self.spc, generator=torch.Generator().manual_seed(seed))
        if self.releases is None:
            return load(self.name).synthesize(vault, self.config, run)
        statistics = load_releases(self.name).release(vault, self.releases, run)
        return None if self.config is None else load(self.name).synthesize(statistics, vault.facts, self.config, run)

    def on_fewer(self, share: float) -> Row:
        """The same for a `share` of the records: batches shrink with them, so that rates and noise stay what they are; of an
        ensemble there are fewer members."""
        block = self.config if self.releases is None else self.releases
        if "members" in type(block).model_fields:  # of an ensemble: shards keep their size
            return replace(self, config=block.model_copy(update={"members": max(1, round(block.members * share))}))
        if all(asked.sampling_rate == 1 for asked in self.asks(lambda part: 10**9)):
            return self
        block = block.model_copy(update={"batch_size": max(1, round(block.batch_size * share))})
        return replace(self, config=block) if self.releases is None else replace(self, releases=block)


def counted(labels: np.ndarray) -> Callable[[tuple[int, ...] | None], int]:
    """How many records there are, or a part of these classes has."""
    return lambda part: len(labels) if part is None else int(np.isin(labels, part).sum())


def of_answers(planned: Sequence[Planned], *, budget: Budget, questions: int, seed: int) -> list[Bound]:
    """The bounds from what the vault answers."""
    made = audit.transcripts(planned, budget=budget, questions=questions, seed=seed)
    found = [
        audit.release_level(made, planned=planned, budget=budget),
        audit.bits(planned, budget=budget, draws=BITS, seed=seed),
        audit.fresh(planned, budget=budget, seed=seed),
        audit.one_run(made, planned=planned, budget=budget),
    ]
    return [bound for bound in found if bound is not None]


def compare(name: str, planned: Sequence[Planned], ledger: Ledger) -> None:
    """Raises PrivsetError unless the ledger of a run is the plan, release by release: else another method would be attacked."""
    told = [(part.asked.mechanism, part.asked.relation, part.asked.part, part.asked.count) for part in planned]
    seen = [(release.mechanism, release.relation, release.part, release.count) for release in ledger.releases]
    numbers = [(part.asked.rate, part.noise_multiplier, part.asked.sensitivity) for part in planned]
    asked = [(*parameters(release.event), release.sensitivity) for release in ledger.releases]
    # Noise is calibrated to a millionth, and a sensitivity has its rounding.
    if told != seen or not np.allclose(numbers, asked, rtol=1e-4, atol=0):
        raise PrivsetError(
            f"{name}: its asks() announces {list(zip(told, numbers, strict=True))}, but it asked "
            f"{list(zip(seen, asked, strict=True))} (rate, noise multiplier, sensitivity); make the two agree"
        )


def closeness(images: Tensor, labels: Tensor, canaries: Tensor, wrong: Tensor) -> np.ndarray:
    """(M,) how much closer each canary is to its nearest image of its label than to any other, in L2 over pixels."""
    distances = torch.cdist(canaries.flatten(1), images.flatten(1))
    own = wrong[:, None] == labels
    nearest = [distances.masked_fill(~mask, torch.inf).min(1).values for mask in (own, ~own)]
    return (nearest[1] - nearest[0]).numpy()


def of_images(
    row: Row, pixels: Tensor, labels: Tensor, facts: PublicFacts, *, budget: Budget, records: int, canaries: int, seed: int
) -> Bound | None:
    """The bound from the images that the row makes, in one run, of `records` records of the data (N, C, H, W), [0, 1], of which
    about half of `canaries` count as nothing; None of a row without images. The canaries of a row that learns task by task are of
    its first task. Raises PrivsetError for a row that asks something else than it announces."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pixels), generator=generator)
    fewer = row.on_fewer(records / len(pixels))
    part = fewer.asks(lambda part: records)[0].part
    classes = torch.tensor(part or range(facts.classes))
    chosen = order[:records]
    images, marked = facts.normalise(pixels[chosen]), labels[chosen].clone()
    drawn = torch.randint(len(classes), (canaries,), generator=generator)
    drawn += classes[drawn] == marked[:canaries]  # its own label is not a wrong one
    marked[:canaries] = classes[drawn % len(classes)]
    present = torch.rand(canaries, generator=generator) < 0.5
    images[:canaries][~present] = torch.nan  # counts as nothing, so that their number tells nothing of the coins
    vault = Vault(
        images,
        marked,
        facts=replace(facts, records=records),
        epsilon=budget.epsilon,
        delta=budget.delta,
        accountant=budget.accountant,
        key=key_of(seed),
    )
    made = fewer.make(vault, seed)
    asks = fewer.asks(counted(marked.numpy()))
    compare(row.name, audit.plan(asks, budget), vault.ledger)
    if made is None:
        return None
    scores = closeness(*made, facts.normalise(pixels[chosen[:canaries]]), marked[:canaries])
    planned = audit.plan(audit.first_part(asks), budget)
    return audit.from_one_run("images", scores, present.numpy(), GUESSES, planned=planned, budget=budget)


def bounds_of(
    row: Row,
    pixels: Tensor,
    labels: Tensor,
    facts: PublicFacts,
    settings: Mapping[str, Any],
    *,
    start: Callable[[int], None],
    report: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Every bound that the settings (`grids.audited`) ask for: the vault's answers at each epsilon, images at one."""
    seed = derived_seed("audit", row.name)
    found: list[dict[str, Any]] = []

    def keep(bounds: list[Bound], upper: float) -> None:
        found.extend({"claimed": budget.epsilon, "upper": upper, **asdict(bound)} for bound in bounds)

    records = min(settings["records"], len(pixels))
    canaries = min(settings["canaries"], records // 2)
    start(len(settings["epsilon"]))
    for step, epsilon in enumerate(sorted(settings["epsilon"]), 1):
        budget = Budget(epsilon=float(epsilon), delta=settings["delta"], accountant=settings["accountant"])
        planned = audit.plan(audit.first_part(row.asks(counted(labels.numpy()))), budget)
        upper = spent_epsilon(audit.releases(planned), budget.delta, "pld")
        keep(of_answers(planned, budget=budget, questions=settings["questions"], seed=seed), upper)
        if epsilon == settings["image_epsilon"]:
            made = of_images(row, pixels, labels, facts, budget=budget, records=records, canaries=canaries, seed=seed)
            keep([made] if made else [], upper)
        report(step)
    return found


def replayed(row: Row, pixels: Tensor, labels: Tensor, facts: PublicFacts, settings: Mapping[str, Any]) -> list[Difference]:
    """How far the sums of the row's first REPLAYED questions, to fewer records, move when the middle record is removed, or turned
    white where neighbours replace one; at the largest epsilon of the settings."""
    budget = Budget(epsilon=max(settings["epsilon"]), delta=settings["delta"], accountant=settings["accountant"])
    records = min(settings["records"], len(pixels))
    images, marked = facts.normalise(pixels[:records]), labels[:records]
    fewer, middle = row.on_fewer(records / len(pixels)), records // 2
    replacing = fewer.asks(counted(marked.numpy()))[0].relation == "replace-one"
    white = facts.normalise(torch.ones(1, *facts.shape))[0]
    return replay(
        lambda vault: fewer.make(vault, 0),
        images,
        marked,
        facts=replace(facts, records=records),
        place=middle,
        record=(white, int(marked[middle])) if replacing else None,
        budget=budget,
        questions=REPLAYED,
    )
