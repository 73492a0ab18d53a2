"""Privacy accounting: pure functions over `dp_accounting.DpEvent`s.

Three accountants for compositions of Gaussian and subsampled Gaussian mechanisms, all sound upper bounds:

- `rdp_epsilon`: Renyi DP (Mironov 2017; Mironov, Talwar, Zhang 2019; without replacement Wang, Balle, Kasiviswanathan 2019) with
  the improved conversion of Balle et al. (2020), over Opacus' orders. The one that PSG's numbers are stated in.
- `gaussian_epsilon`: exact, for unsampled Gaussian mechanisms (Balle & Wang 2018; Gaussian DP composition, Dong et al. 2019).
- `pld_epsilon`: privacy loss distributions (dp-accounting): the tightest for sampled mechanisms, and independent of both.

| event | neighbours | `rdp` | `pld` | exact | second opinion (`certificates.verify`) |
|---|---|---|---|---|---|
| Gaussian | either; the multiplier is of their sensitivity | Opacus | dp-accounting | dp-accounting | dp-accounting's RDP |
| Poisson-subsampled Gaussian | add or remove one | Opacus | dp-accounting | - | dp-accounting's RDP |
| Gaussian of one of K shards, chosen in secret | replace one | dp-accounting | `_one_of` | - | between Poisson's PLD and RDP |
| none (the data themselves) | - | infinite | infinite | infinite | - |

Of the vault's queries `feature_sums` is Gaussian, `gradient_mean`, `batch_function` and `projected_rows` are Poisson-subsampled
(or Gaussian, at rate 1), and `everything` is the data. Of an ensemble's (`ensembles`) `one_gradient` is of one shard, and the
others are Gaussian.

`noise multiplier` is always the standard deviation of the noise divided by the L2 sensitivity of what it is added to, for
the neighbouring relation that the release states.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import dp_accounting
import numpy as np
from dp_accounting.pld import pld_pmf, privacy_loss_distribution
from scipy.special import log_ndtr, ndtr

from privset import PrivsetError


def _opacus_rdp() -> Any:
    """Opacus' Renyi accountant, exact at fractional orders, where dp-accounting interpolates from above (0.1 to 1 % more epsilon
    at PSG's settings). The file alone: its package imports PyTorch's compiler, seconds in each of many short jobs."""
    file = Path(importlib.util.find_spec("opacus").origin).parent / "accountants" / "analysis" / "rdp.py"
    spec = importlib.util.spec_from_file_location("opacus_rdp", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_OPACUS = _opacus_rdp()

LARGE_ORDERS: tuple[float, ...] = (72, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024)
ORDERS: tuple[float, ...] = (*(1 + tenth / 10 for tenth in range(1, 100)), *range(12, 64), *LARGE_ORDERS)
"""1.1 to 10.9 in steps of 0.1, and 12 to 63: Opacus' default, and the orders of the PSG reference program. With these alone no
noise at all would bring delta = 1e-5 below epsilon = 0.1; the large ones are for such budgets."""

WHOLE_ORDERS: tuple[float, ...] = tuple(range(2, 64))
"""Where independent accountants agree to rounding; between them dp-accounting interpolates, from above."""

SHARD_ORDERS: tuple[float, ...] = (*WHOLE_ORDERS, 128, 256, 512, 1024)
"""For one shard of many: the others are interpolated between these, and an order takes a time that is its square."""

Accountant = Literal["rdp", "pld"]

Counted = tuple[dp_accounting.DpEvent, int]
"""An event and how many times it happened."""


def gaussian_event(*, noise_multiplier: float, sampling_rate: float = 1.0, shards: int = 1) -> dp_accounting.DpEvent:
    """One Gaussian release over a Poisson sample (each record in it independently with probability `sampling_rate`); or over one
    of so many disjoint shards of the records, chosen uniformly and in secret."""
    if not 0 < sampling_rate <= 1:
        raise PrivsetError(f"sampling_rate = {sampling_rate}: must be in (0, 1]")
    if shards < 1 or (shards > 1 and sampling_rate < 1):
        raise PrivsetError(f"shards = {shards}: must be at least 1, and records are sampled in one way")
    if not noise_multiplier > 0 or math.isinf(noise_multiplier):
        raise PrivsetError(f"noise_multiplier = {noise_multiplier}: must be > 0 and finite")
    event = dp_accounting.GaussianDpEvent(noise_multiplier)
    if shards > 1:
        return dp_accounting.SampledWithoutReplacementDpEvent(shards, 1, event)
    return event if sampling_rate == 1 else dp_accounting.PoissonSampledDpEvent(sampling_rate, event)


def event_to_dict(event: dp_accounting.DpEvent) -> dict[str, Any]:
    """An event in JSON's terms, for certificates and checkpoints."""
    match event:
        case dp_accounting.NonPrivateDpEvent():
            return {"kind": "non-private"}
        case dp_accounting.GaussianDpEvent(noise_multiplier):
            return {"kind": "gaussian", "sampling_rate": 1.0, "noise_multiplier": noise_multiplier}
        case dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise_multiplier)):
            return {"kind": "poisson-subsampled-gaussian", "sampling_rate": rate, "noise_multiplier": noise_multiplier}
        case dp_accounting.SampledWithoutReplacementDpEvent(shards, 1, dp_accounting.GaussianDpEvent(noise_multiplier)):
            return {"kind": "gaussian-of-one-shard", "sampling_rate": 1 / shards, "noise_multiplier": noise_multiplier}
    raise ValueError(f"no dictionary for {event}")


def event_from_dict(entry: Mapping[str, Any]) -> dp_accounting.DpEvent:
    """The inverse of `event_to_dict`. Raises KeyError or ValueError for anything else."""
    if entry["kind"] == "non-private":
        return dp_accounting.NonPrivateDpEvent()
    rate, noise_multiplier = entry["sampling_rate"], entry["noise_multiplier"]
    if entry["kind"] == "gaussian-of-one-shard":
        event = gaussian_event(noise_multiplier=noise_multiplier, shards=round(1 / rate))
    else:
        event = gaussian_event(noise_multiplier=noise_multiplier, sampling_rate=rate)
    if any(event_to_dict(event)[key] != entry[key] for key in ("kind", "sampling_rate")):
        raise ValueError(f"{entry['kind']} with sampling_rate = {entry['sampling_rate']}")
    return event


def with_noise(event: dp_accounting.DpEvent, noise_multiplier: float) -> dp_accounting.DpEvent:
    """The same event with another noise multiplier."""
    return event_from_dict({**event_to_dict(event), "noise_multiplier": noise_multiplier})


def parameters(event: dp_accounting.DpEvent) -> tuple[float, float]:
    """(sampling rate, noise multiplier); a non-private event has no noise."""
    match event:
        case dp_accounting.NonPrivateDpEvent():
            return 1.0, 0.0
        case dp_accounting.GaussianDpEvent(noise_multiplier):
            return 1.0, noise_multiplier
        case dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise_multiplier)):
            return rate, noise_multiplier
        case dp_accounting.SampledWithoutReplacementDpEvent(shards, 1, dp_accounting.GaussianDpEvent(noise_multiplier)):
            return 1 / shards, noise_multiplier
    raise ValueError(f"no accountant for {event}")


def of_one_shard(event: dp_accounting.DpEvent) -> bool:
    """Whether it is about one of several shards, chosen in secret."""
    return isinstance(event, dp_accounting.SampledWithoutReplacementDpEvent)


@functools.lru_cache(maxsize=256)
def _rdp(event: dp_accounting.DpEvent, orders: tuple[float, ...] = ORDERS) -> np.ndarray:
    sampling_rate, noise_multiplier = parameters(event)
    if noise_multiplier == 0:
        return np.full(len(orders), math.inf)
    if of_one_shard(event):
        few = [order for order in orders if order in SHARD_ORDERS]
        accountant = dp_accounting.rdp.RdpAccountant(few, dp_accounting.NeighboringRelation.REPLACE_ONE)
        found = dict(zip(few, accountant.compose(event).rdp, strict=True))
        return np.asarray([found.get(order, math.inf) for order in orders])
    return np.asarray(_OPACUS.compute_rdp(q=sampling_rate, noise_multiplier=noise_multiplier, steps=1, orders=list(orders)))


def rdp_epsilon(events: Iterable[Counted], delta: float, *, orders: tuple[float, ...] = ORDERS) -> float:
    """Epsilon at `delta` of a composition, by Renyi DP."""
    total = np.zeros(len(orders))
    for event, count in events:
        total = total + count * _rdp(event, orders)
    if not total.any():
        return 0.0
    if np.isinf(total).all():
        return math.inf
    return max(0.0, float(_OPACUS.get_privacy_spent(orders=list(orders), rdp=total, delta=delta)[0]))


def gaussian_epsilon(events: Iterable[Counted], delta: float) -> float:
    """Exact epsilon of unsampled Gaussian mechanisms composed (mu^2 adds up); infinite if any event is not one."""
    mu_squared = 0.0
    for event, count in events:
        sampling_rate, noise_multiplier = parameters(event)
        if sampling_rate != 1 or noise_multiplier == 0:
            return math.inf
        mu_squared += count / noise_multiplier**2
    return _exact(1 / math.sqrt(mu_squared), delta) if mu_squared else 0.0


@functools.lru_cache(maxsize=4096)
def _exact(noise_multiplier: float, delta: float) -> float:
    return dp_accounting.get_epsilon_gaussian(noise_multiplier, delta)


def _one_of(shards: int, noise_multiplier: float, interval: float) -> privacy_loss_distribution.PrivacyLossDistribution:
    """Of a Gaussian release about one of so many shards, of which neighbours differ in one.

    With q = 1 / shards, P and P' the answers about that shard and R those about the others, neighbours answer (1 - q) R + q P and
    (1 - q) R + q P', and answers about any two members are at most as far apart as the sensitivity. So for t = exp(e) >= 1 the
    hockey-stick divergence is at most q times that of the Gaussian mechanism at 1 + (t - 1) / q (Balle, Barthe, Gaboardi 2018,
    for a sample of one). The relation is symmetric, so below 1 it is at most 1 - t + t times that at 1 / t. This
    profile is convex in t, so it is that of a pair of distributions, which dominates and does so under adaptive composition (Zhu,
    Dong, Wang 2022, Proposition 8 and Theorem 10). Here is that pair's loss, on a grid by connecting the dots, pessimistic.
    """
    q, mu = 1 / shards, 1 / noise_multiplier

    def divergence(epsilon: np.ndarray) -> np.ndarray:
        """For epsilon >= 0."""
        base = np.log1p(np.expm1(epsilon) / q)
        return q * (ndtr(mu / 2 - base / mu) - np.exp(base + log_ndtr(-mu / 2 - base / mu)))

    # Losses end where the Gaussian's do, beyond 12 standard deviations; what is left is put at infinity.
    last = math.ceil(np.log1p(q * np.expm1(min(700.0, mu * (mu / 2 + 12)))) / interval)
    points = np.arange(0, last + 1)
    above = np.maximum(divergence(points * interval), 0.0)
    t = np.exp(-points[:0:-1] * interval)
    profile = np.concatenate([1 - t + t * above[:0:-1], above])
    falling = np.maximum.accumulate(profile[::-1])[::-1]  # but for rounding it is
    if np.abs(falling - profile).max() > 1e-12:
        raise ArithmeticError(f"the divergence of {shards} shards with noise {noise_multiplier} does not fall")
    pmf = pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(interval, -last, last, falling)
    return privacy_loss_distribution.PrivacyLossDistribution(pmf)


@functools.lru_cache(maxsize=16)
def _step(event: dp_accounting.DpEvent, interval: float) -> privacy_loss_distribution.PrivacyLossDistribution:
    sampling_rate, noise_multiplier = parameters(event)
    if of_one_shard(event):
        return _one_of(event.source_dataset_size, noise_multiplier, interval)
    return privacy_loss_distribution.from_gaussian_mechanism(
        standard_deviation=noise_multiplier, sampling_prob=sampling_rate, value_discretization_interval=interval
    )


def privacy_loss(events: Iterable[Counted], *, interval: float = 1e-4) -> privacy_loss_distribution.PrivacyLossDistribution:
    """The privacy loss distribution of a composition, pessimistic on a grid of so wide an interval. As dp-accounting's
    PLDAccountant composes it; but the distribution of one step, which takes most of the time, is kept for other counts."""
    total = privacy_loss_distribution.identity(value_discretization_interval=interval)
    for event, count in events:
        sampling_rate, noise_multiplier = parameters(event)
        if sampling_rate == 1:
            once = gaussian_event(noise_multiplier=noise_multiplier / math.sqrt(count))
            total = total.compose(_step(once, interval))
        else:
            total = total.compose(_step(event, interval).self_compose(count))
    return total


def pld_epsilon(events: Iterable[Counted], delta: float) -> float:
    """Epsilon at `delta` by dp-accounting's privacy loss distributions: up to a second, so not for loops."""
    counted = list(events)
    if any(parameters(event)[1] == 0 for event, _ in counted):
        return math.inf
    return float(privacy_loss(counted).get_epsilon_for_delta(delta))


def spent_epsilon(events: Iterable[Counted], delta: float, accountant: Accountant = "rdp") -> float:
    """What a ledger has spent: the smallest of upper bounds, by Renyi DP, exactly for Gaussian mechanisms, and with `accountant`
    "pld" by privacy loss distributions."""
    counted = tuple(events)
    known = min(rdp_epsilon(counted, delta), gaussian_epsilon(counted, delta))
    if accountant == "rdp" or known == 0 or math.isfinite(gaussian_epsilon(counted, delta)):
        return known
    return min(known, _pld(counted, delta))


@functools.lru_cache(maxsize=4096)
def _pld(counted: tuple[Counted, ...], delta: float) -> float:
    return pld_epsilon(counted, delta)


def replacing_epsilon(events: Iterable[Counted], delta: float) -> float:
    """Epsilon at the same `delta` for replacing one record, of mechanisms with multipliers for adding or removing one.

    Replacing is removing and adding. Gaussian mechanisms: the sensitivity doubles, exactly. Others: what is (e, d)-DP for one
    step is (2 e, (1 + exp(e)) d)-DP for two, with the d for which that makes `delta`.
    """
    counted = list(events)
    if math.isfinite(gaussian_epsilon(counted, delta)):
        halved = [(with_noise(event, parameters(event)[1] / 2), count) for event, count in counted]
        return gaussian_epsilon(halved, delta)
    if math.isinf(rdp_epsilon(counted, delta)):
        return math.inf

    def fits(log_d: float) -> bool:
        return np.logaddexp(0, rdp_epsilon(counted, math.exp(log_d))) + log_d <= math.log(delta)

    low, high = math.log(delta) - 400, math.log(delta)
    if not fits(low):
        return math.inf
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return 2 * rdp_epsilon(counted, math.exp(low))


@functools.lru_cache(maxsize=1024)
def calibrate(
    *,
    epsilon: float,
    delta: float,
    sampling_rate: float,
    releases: int,
    accountant: Accountant = "rdp",
    shards: int = 1,
) -> float:
    """The smallest noise multiplier (to 1e-6; by "pld", or with shards, to 1e-4) with which `releases` Gaussian releases spend at
    most (epsilon, delta).

    Subsampled ones (or those about one of so many `shards`) by the accountant (RDP is the PSG paper's); unsampled ones exactly. A
    bisection of our own, not dp_accounting's: it asks `spent_epsilon`, which the ledger asks again, and ends on the safe side.
    Raises PrivsetError if epsilon or delta is out of range or no noise multiplier up to 10,000 is enough.
    """
    if not (epsilon > 0 and 0 < delta < 1 and releases >= 1):
        raise PrivsetError(f"epsilon = {epsilon}, delta = {delta}, releases = {releases}: must be > 0, in (0, 1), >= 1")

    def excess(noise_multiplier: float) -> float:
        event = gaussian_event(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, shards=shards)
        return spent_epsilon([(event, releases)], delta, accountant) - epsilon

    low, high, step = 0.05, 1.0, 1e-6 if shards == 1 else 1e-4
    if accountant == "pld" and (sampling_rate < 1 or shards > 1):  # Renyi DP needs more noise, and says so faster
        high = calibrate(epsilon=epsilon, delta=delta, sampling_rate=sampling_rate, releases=releases, shards=shards)
        low, step = high / 2, 1e-4
        while excess(low) <= 0:
            low, high = low / 2, low
    while excess(high) > 0:
        low, high = high, 2 * high
        if high > 1e4:
            raise PrivsetError(f"no noise multiplier up to 10,000 gives epsilon = {epsilon} with {releases} releases")
    while high - low > step * high:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high
