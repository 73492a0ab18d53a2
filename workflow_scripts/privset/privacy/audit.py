"""Attacks on the running code: what its answers tell of one record, at worst.

A method says which releases it asks for (`Asked`). Here an adversary asks for the same ones, calibrated by the same ledger,
through the same vault, over records of his choice. Each query of the vault has its worst case in `worst.MECHANISMS`.

When the releases have happened the adversary goes on asking, until the ledger refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from privset.data.datasets import PublicFacts
from privset.privacy import bounds, noise
from privset.privacy.accounting import Accountant, Counted
from privset.privacy.ledger import Asked, BudgetExceeded, Ledger
from privset.privacy.vault import Vault
from privset.privacy.worst import LONG, MECHANISMS

SURE = 0.9999
"""Confidence at which a claim is called refuted: one false alarm, at most, in ten thousand bounds."""
SIGMAS = 6.0
"""Deviation at which noise is not what is stated; by chance once in 10^8."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What is claimed."""

    epsilon: float
    delta: float
    accountant: Accountant = "rdp"


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Equal releases in a row, with the noise that the budget allows them."""

    asked: Asked
    noise_multiplier: float


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A lower bound on epsilon, at 95 % confidence, and whether the claim is refuted beyond chance."""

    level: str
    """"release", "bits", "noise", "one run" or "images"."""
    epsilon: float
    """In the family of the releases (`bounds`)."""
    assumption_free: float
    """Without an assumption."""
    refuted: bool
    """Whether a bound at confidence SURE is above the claim. Of many bounds at 95 % some are above the truth."""
    draws: int
    """Scores behind it."""


def plan(asks: Sequence[Asked], budget: Budget) -> list[Planned]:
    """The releases of a method, calibrated."""
    ledger = Ledger(epsilon=budget.epsilon, delta=budget.delta, accountant=budget.accountant)
    return [Planned(asked=asked, noise_multiplier=asked.noise_multiplier(ledger)) for asked in asks]


def first_part(asks: Sequence[Asked]) -> list[Asked]:
    """Of a method that asks of the records of each task in turn, what it asks of the first: the others concern other records, and
    each has the same budget. Raises ValueError for one that asks of parts and of all records: these compose."""
    if len({asked.part is None for asked in asks}) > 1:
        raise ValueError("releases of parts and of all records compose; there is no attack on both yet")
    return [asked for asked in asks if asked.part == asks[0].part]


def releases(planned: Sequence[Planned]) -> tuple[Counted, ...]:
    """What an accountant hears of them."""
    return tuple((part.asked.event(part.noise_multiplier), part.asked.count) for part in planned)


def _absent(asked: Asked) -> float:
    """Of the sensitivity, what an absent canary adds in comparison to a present one."""
    return -1.0 if asked.relation == "replace-one" or MECHANISMS[asked.mechanism].centred else 0.0


def _vault(images: Tensor, first: Asked, *, key: int, budget: Budget) -> Vault:
    """A vault over images (N, 1, side, side) of one of two classes, and its label; or the part of a vault that has the first two
    classes of the asked part."""
    part = first.part[:2] if first.part else None
    classes = max(part) + 1 if part else 2
    facts = PublicFacts(records=len(images), classes=classes, channels=1, size=images.shape[2], mean=(0.0,), std=(1.0,))
    vault = Vault(
        images,
        torch.full((len(images),), part[0] if part else 0),
        facts=facts,
        epsilon=budget.epsilon,
        delta=budget.delta,
        accountant=budget.accountant,
        key=key,
    )
    return vault.part(part, local_labels=True) if part else vault


# ---------------------------------------------------------------------------------------------------------------- attacks


def _uniforms(seed: int, count: int, use: int = 0) -> Tensor:
    """(count,) numbers in [0, 1) for the attacker's coins, and others for another use, which no question of a vault has."""
    return torch.from_numpy(noise.stream(noise.key_of(seed), 2**40 + use, "sample").random(count))


def _likelihood(answer: Tensor, planned: Planned) -> Tensor:
    """How much likelier an answer is when its canary is present, as a logarithm. In units of the sensitivity a present one adds
    1 if it is in the batch; where an absent one adds the opposite, they add 1/2 and -1/2."""
    rate, variance = planned.asked.rate, planned.noise_multiplier**2
    answer = answer.double() - _absent(planned.asked) / 2
    ratio = (2 * answer - 1) / (2 * variance)
    return ratio if rate == 1 else torch.logaddexp(torch.tensor(rate).log() + ratio, torch.tensor(1 - rate).log())


def transcript(planned: Sequence[Planned], *, budget: Budget, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One run of the releases over canaries, each with a pattern of its own: how likely each was in, (canaries,) log-likelihood
    ratios, and whether it was, by a coin.

    It is as many draws of one experiment: what two canaries add is orthogonal, so their noise has nothing in common, and
    neither have their places in the batches. Absent ones are removed; the only one of a run is black. Where one of many shards is
    asked, each other one has a record that is what an absent canary is.
    """
    worst = MECHANISMS[planned[0].asked.mechanism]
    patterns = worst.patterns()
    planned = [replace(part, asked=worst.fitted(part.asked, worst.side)) for part in planned]
    first = planned[0].asked
    present = _uniforms(seed, len(patterns)) < 0.5
    images = patterns.view(-1, 1, worst.side, worst.side) * (LONG * first.sensitivity)
    if first.relation == "replace-one":
        shards = (-images).expand(first.shards - 1, -1, -1, -1) if first.shards > 1 else images[:0]
        images = torch.cat([torch.where(present[:, None, None, None], images, -images), shards])
    else:
        images = images * present[:, None, None, None] if worst.alone else images[present]
    vault = _vault(images, first, key=noise.key_of(seed), budget=budget)
    scores = torch.zeros(len(patterns), dtype=torch.float64)

    def ask(part: Planned) -> None:
        nonlocal scores
        answer, v = MECHANISMS[part.asked.mechanism].ask(vault, part.asked, part.noise_multiplier)
        scores = scores + _likelihood(patterns @ (v @ answer) / part.asked.sensitivity, part)

    for part in planned:
        for _ in range(part.asked.count):
            ask(part)
    try:
        for _ in range(3 * planned[-1].asked.count):  # enough to be seen
            ask(planned[-1])
    except BudgetExceeded:
        pass
    return scores.numpy(), present.numpy()


def _grain(residual: Tensor) -> float:
    """How many numbers have the grain of PyTorch's float32 normals on a CPU: Box-Muller from 24 bits, in blocks of 16, of the
    element j with j + 8. One in five has it by chance."""
    z = residual.double().flatten()
    pairs = z[: len(z) // 16 * 16].view(-1, 2, 8)
    steps = (-pairs.square().sum(1) / 2).exp() * 2**24
    return float(((steps < 1e5) & ((steps - steps.round()).abs() < 0.1)).sum())


# ------------------------------------------------------------------------------------------------------------------ levels


Transcripts = list[tuple[np.ndarray, np.ndarray]]


def transcripts(planned: Sequence[Planned], *, budget: Budget, questions: int, seed: int) -> Transcripts:
    """As many as take about `questions` questions, from ten to two hundred; where a run has one canary, and is faster, twenty
    times as many questions, and as many runs as that allows."""
    count = sum(part.asked.count for part in planned)
    alone = MECHANISMS[planned[0].asked.mechanism].alone
    runs = max(10, 20 * questions // count) if alone else min(200, max(10, questions // count))
    return [transcript(planned, budget=budget, seed=seed + run) for run in range(runs)]


def release_level(made: Transcripts, *, planned: Sequence[Planned], budget: Budget) -> Bound:
    """From all transcripts; each canary of each is a draw."""
    scores, present = (np.concatenate(parts) for parts in zip(*made, strict=True))
    return _from_draws("release", scores, present, planned, budget)


def bits(planned: Sequence[Planned], *, budget: Budget, draws: int, seed: int) -> Bound:
    """Whether the low bits of an answer tell what was added to the noise: the first query of the plan, over all records, once,
    with the whole budget, in each draw with or without an image that fills all coordinates. The attacker subtracts what it adds
    and looks whether the rest is sooner what PyTorch's generator makes than the answer as it stands."""
    worst = MECHANISMS[planned[0].asked.mechanism]
    first = replace(worst.fitted(planned[0].asked, worst.dense), sampling_rate=1.0, shards=1, count=1, share=1.0)
    (alone,) = plan([first], budget)
    present, absent = _uniforms(seed, draws) < 0.5, _absent(first)
    image = _uniforms(seed, worst.dense**2, use=1).float().view(1, 1, worst.dense, worst.dense) + 0.5
    image = torch.ones_like(image) if worst.alone else image
    scores = np.zeros(draws)
    for draw in range(draws):
        sign = 1.0 if present[draw] else absent
        vault = _vault(image * sign * LONG, first, key=noise.key_of(seed + draw), budget=budget)
        answer, v = worst.ask(vault, first, alone.noise_multiplier)
        added = torch.outer(v, image.flatten() / image.norm()) * (first.sensitivity / (1 - absent))
        deviation = alone.noise_multiplier * first.sensitivity * (1 + noise.ROUNDING)
        rest = (answer.double() - value * added for value in (1.0, absent))
        with_it, without = (_grain(part / deviation) for part in rest)
        scores[draw] = with_it - without
    return _from_draws("bits", scores, present.numpy(), [alone], budget)


def fresh(planned: Sequence[Planned], *, budget: Budget, seed: int) -> Bound:
    """Whether the noise is what the ledger says: four answers of the plan's first query about nothing but one black image, which
    adds nothing, or, where a query has a whole batch, the same small vector each time. They must lie on the grid, have the stated
    variance, and have nothing in common between coordinates and between questions: noise that comes twice can be subtracted. No
    bound, but refuted at a deviation of SIGMAS standard ones."""
    worst = MECHANISMS[planned[0].asked.mechanism]
    first = replace(worst.fitted(planned[0].asked, worst.dense), sampling_rate=1.0, shards=1, count=4, share=1.0)
    (part,) = plan([first], budget)
    vault = _vault(torch.zeros(1, 1, worst.dense, worst.dense), first, key=noise.key_of(seed), budget=budget)
    answers = torch.stack([worst.ask(vault, first, part.noise_multiplier)[0].flatten() for _ in range(first.count)]).double()
    stated = first.sensitivity * (1 + noise.ROUNDING)
    steps = answers / noise.grid(stated, answers.shape[1])
    z = answers / (part.noise_multiplier * stated)
    n = z.numel()
    deviations = [
        (z.square().mean() - 1) * (n / 2) ** 0.5,
        (z[:, 1:] * z[:, :-1]).sum() / (n - len(z)) ** 0.5,
        *((z[a] * z[b]).sum() / z.shape[1] ** 0.5 for a in range(len(z)) for b in range(a)),
    ]
    worst = max(float(deviation.abs()) for deviation in deviations)
    off_grid = not torch.equal(steps, steps.round())
    return Bound(level="noise", epsilon=0.0, assumption_free=0.0, refuted=off_grid or not worst < SIGMAS, draws=n)


def _from_draws(level: str, scores: np.ndarray, present: np.ndarray, planned: Sequence[Planned], budget: Budget) -> Bound:
    def at(confidence: float) -> tuple[float, float]:
        inside, outside = scores[present], scores[~present]
        return bounds.from_draws(inside, outside, releases=releases(planned), delta=budget.delta, confidence=confidence)

    return _bound(level, at, len(scores), budget)


def _bound(level: str, at: Callable[[float], tuple[float, float]], draws: int, budget: Budget) -> Bound:
    """From a function of the confidence: the epsilons without an assumption and in the family."""
    free, family = at(bounds.CONFIDENCE)
    refuted = max(free, family) > budget.epsilon and max(at(SURE)) > budget.epsilon
    return Bound(level=level, epsilon=family, assumption_free=free, refuted=refuted, draws=draws)


def one_run(made: Transcripts, *, planned: Sequence[Planned], budget: Budget) -> Bound | None:
    """From the first transcript alone; the second one says how many guesses to make. None where a run has one canary: one coin,
    guessed, tells nothing."""
    if MECHANISMS[planned[0].asked.mechanism].alone:
        return None
    (scores, present), another = made[:2]
    return from_one_run("one run", scores, present, bounds.best_share(*another), planned=planned, budget=budget)


def from_one_run(
    level: str, scores: np.ndarray, present: np.ndarray, share: float, *, planned: Sequence[Planned], budget: Budget
) -> Bound:
    """The bounds that the scores (N,) of one run give, with guesses about a `share` of them."""
    records, (made, right), delta = len(scores), bounds.guesses(scores, present, share), budget.delta

    def at(confidence: float) -> tuple[float, float]:
        free = bounds.one_run(records, made, right, delta=delta, confidence=confidence)
        mine = releases(planned)
        return free, bounds.one_run_in_family(records, made, right, releases=mine, delta=delta, confidence=confidence)

    return _bound(level, at, records, budget)
