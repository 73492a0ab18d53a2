"""Lower bounds on epsilon from an attack's scores: pure functions of what an auditor saw.

An attacker guesses whether a record was among the data. (epsilon, delta)-DP limits how often he can be right, so his errors,
counted, refute every epsilon that would not allow so few. Two kinds of counting:

- *many draws* (`from_draws`): scores of independent draws with and without the record. The two error rates have
  Clopper-Pearson upper bounds that hold together, and are compared with what the claim allows.
- *one run* (`one_run`, `one_run_in_family`): a thousand records, each in or out by a coin, and one answer about them all. The
  guesses are not independent, and the theorems count for that (Steinke, Nasr and Jagielski 2023; Mahloujifar, Melis and
  Chaudhuri 2025).

Each exists in two strengths. Without an assumption about the mechanism, a bound refutes (epsilon, delta) and nothing more; it is
weak where delta is small, because rare events have to be seen. With the *family* of the mechanism (the same releases with their
noise scaled by a common factor, accounted by privacy loss distributions) all of its trade-off curve counts: a bound refutes every
member whose curve lies above what was seen, and states the epsilon of the noisiest one that remains (Nasr et al. 2023, for
Gaussian ones).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from scipy import special, stats

from privset.privacy.accounting import Counted, parameters, privacy_loss, spent_epsilon, with_noise

CONFIDENCE = 0.95
"""Of the bounds that are reported."""
SLOPES = np.linspace(0, 20, 401)
"""Epsilons at which a trade-off curve has its tangents."""
RUNGS = range(-96, 193)
"""Noise of a family's members: 2^(rung / 32) times the claimed one's, an eighth to 64 times, in steps of two per cent."""


def error_rate(errors: int, draws: int, confidence: float) -> float:
    """One-sided Clopper-Pearson upper bound on the probability of an error of which `errors` were seen in `draws`."""
    return float(stats.beta.ppf(confidence, errors + 1, draws - errors)) if errors < draws else 1.0


# --------------------------------------------------------------------------------------------------- a mechanism's family


def member(releases: tuple[Counted, ...], rung: int) -> tuple[Counted, ...]:
    """The same releases with their noise scaled by 2^(rung / 32)."""
    return tuple((with_noise(event, parameters(event)[1] * 2 ** (rung / 32)), count) for event, count in releases)


@functools.lru_cache(maxsize=4096)
def _deltas(releases: tuple[Counted, ...]) -> np.ndarray:
    """delta at each of SLOPES, by privacy loss distributions (of a coarser grid than for certificates; from above)."""
    return np.asarray(privacy_loss(releases, interval=1e-3).get_delta_for_epsilon(SLOPES))


def least_error(releases: tuple[Counted, ...], other: float) -> float:
    """The least rate of one kind of error that the releases allow beside the rate `other` of the other kind: their trade-off
    function, symmetric, from below by tangents."""
    deltas, slopes = _deltas(releases), np.exp(SLOPES)
    return max(0.0, float(np.max(1 - deltas - slopes * other)), float(np.max((1 - deltas - other) / slopes)))


def _noisiest(releases: tuple[Counted, ...], refuted: Callable[[tuple[Counted, ...]], bool]) -> int:
    """The first rung that is refuted, given that more noise is refuted sooner: the mechanism is a member below it."""
    low, high = RUNGS.start, RUNGS.stop
    while high > low:
        middle = (low + high) // 2
        low, high = (low, middle) if refuted(member(releases, middle)) else (middle + 1, high)
    return low


def _epsilon(releases: tuple[Counted, ...], rung: int, delta: float) -> float:
    """Of the member at the first refuted rung; 0 if none was."""
    return spent_epsilon(member(releases, rung), delta, "pld") if rung in RUNGS else 0.0


# -------------------------------------------------------------------------------------------------------------- many draws


def _errors(present: np.ndarray, absent: np.ndarray, threshold: float, confidence: float) -> tuple[float, float]:
    """Upper bounds, together at `confidence`, on the rates of calling an absent record present and the other way round."""
    each = (1 + confidence) / 2
    return (
        error_rate(int((absent >= threshold).sum()), len(absent), each),
        error_rate(int((present < threshold).sum()), len(present), each),
    )


def _implied(false: float, missed: float, delta: float) -> float:
    """The epsilon that error rates refute without an assumption, in the better direction."""
    powers = ((1 - missed - delta) / false, (1 - false - delta) / missed)
    return max(0.0, *(math.log(power) for power in powers if power > 0))


def from_draws(
    present: np.ndarray, absent: np.ndarray, *, releases: tuple[Counted, ...], delta: float, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Lower bounds on epsilon at `delta` from scores of independent draws with and without the record: without an assumption,
    and in the family of the releases. The first quarter of the draws chooses the threshold, the others are counted."""

    def free(errors: tuple[float, float]) -> float:
        return _implied(*errors, delta)

    def rung(errors: tuple[float, float]) -> int:
        return _noisiest(releases, lambda candidate: least_error(candidate, errors[0]) > errors[1])

    (few, many), (early, late) = (np.split(scores, [len(scores) // 4]) for scores in (present, absent))
    candidates = np.unique(np.quantile(np.concatenate([few, early]), np.linspace(0, 1, 101)))

    def counted(gain: Callable[[tuple[float, float]], float]) -> tuple[float, float]:
        """The error rates at the threshold that was best on the draws before."""
        best = max(candidates, key=lambda threshold: gain(_errors(few, early, threshold, CONFIDENCE)))
        return _errors(many, late, best, confidence)

    family = _epsilon(releases, rung(counted(lambda errors: -rung(errors))), delta)
    return free(counted(free)), family


# ----------------------------------------------------------------------------------------------------------------- one run


def guesses(scores: np.ndarray, present: np.ndarray, share: float) -> tuple[int, int]:
    """How many guesses are made, and how many are right: of the records with the highest scores that they are in, of as many
    with the lowest ones that they are out, together `share` of all."""
    order = np.argsort(-scores, kind="stable")
    half = max(1, int(share * len(scores) / 2))
    return 2 * half, int(present[order[:half]].sum() + (~present[order[-half:]]).sum())


def best_share(scores: np.ndarray, present: np.ndarray) -> float:
    """The share of guesses of which the fewest are wrong for their number, made / wrong^2; to be used on another run."""

    def gain(share: float) -> float:
        made, right = guesses(scores, present, share)
        return math.log(made) - 2 * math.log(max(made - right, 0.5)) if right > made / 2 else -math.inf

    return max((1.0, 0.5, 0.25, 0.125, 0.0625), key=gain)


def one_run(records: int, made: int, right: int, *, delta: float, confidence: float = CONFIDENCE) -> float:
    """The largest epsilon that `right` of `made` guesses about `records` coins refute (Steinke, Nasr and Jagielski 2023).

    Were the mechanism (epsilon, 0)-DP, the number of right guesses would be stochastically at most binomial, with probability
    1 / (1 + exp(-epsilon)) each. With delta, some mass may move up: the tail grows by at most 2 records delta times the steepest
    average ascent of that binomial's tail below it.
    """

    def refuted(epsilon: float) -> bool:
        tail = stats.binom.sf(right - 1 - np.arange(right + 1), made, special.expit(epsilon))
        steepest = np.max((tail[1:] - tail[0]) / np.arange(1, right + 1), initial=0)
        return tail[0] + 2 * records * delta * steepest < 1 - confidence

    return _largest(refuted)


def _largest(refuted: Callable[[float], bool]) -> float:
    """The largest refuted epsilon, to 1e-3; 0 for none."""
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def one_run_refutes(records: int, made: int, right: int, least: Callable[[float], float], confidence: float) -> bool:
    """Whether a mechanism whose trade-off function is `least` would be as often right in less than 1 - `confidence` of all runs
    (Mahloujifar, Melis and Chaudhuri 2025, the numerical bound).

    Let r_i be the expected share of records that are guessed rightly while at least i guesses are right, and h_i of those that
    are guessed wrongly then. Of one record the mechanism says no more than `least` allows, so h_i >= least(1 - r_i); and from
    i + 1 to i the two grow as i to made - i. Start at i = `right` with the tail probability in question and go down to 0, where
    the two must add up to made / records: more is a contradiction.
    """
    tail = 1 - confidence
    r, h = tail * right / records, tail * (made - right) / records
    for i in range(right - 1, -1, -1):
        grown = max(h, least(1 - r))
        if grown == h:
            break  # nothing moves any more
        r, h = min(1.0, r + i / (made - i) * (grown - h)), grown
    return r + h > made / records


def one_run_in_family(
    records: int, made: int, right: int, *, releases: tuple[Counted, ...], delta: float, confidence: float = CONFIDENCE
) -> float:
    """The epsilon at `delta` of the noisiest mechanism of the family that the guesses do not refute."""

    def refuted(candidate: tuple[Counted, ...]) -> bool:
        return one_run_refutes(records, made, right, functools.partial(least_error, candidate), confidence)

    return _epsilon(releases, _noisiest(releases, refuted), delta)
