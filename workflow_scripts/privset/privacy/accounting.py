"""Privacy accounting: pure functions over `dp_accounting.DpEvent`s.

Three accountants for compositions of Gaussian and Poisson-subsampled Gaussian mechanisms, all sound upper bounds:

- `rdp_epsilon`: Renyi DP (Mironov 2017; Mironov, Talwar, Zhang 2019) with the improved conversion of Balle et al. (2020),
  over Opacus' orders. The one that PSG's numbers are stated in.
- `gaussian_epsilon`: exact, for unsampled Gaussian mechanisms (Balle & Wang 2018; Gaussian DP composition, Dong et al. 2019).
- `pld_epsilon`: privacy loss distributions (dp-accounting): the tightest for sampled mechanisms, and independent of both.

| event | neighbours | `rdp` | `pld` | exact | second opinion (`certificates.verify`) |
|---|---|---|---|---|---|
| Gaussian | either; the multiplier is of their sensitivity | Opacus | dp-accounting | dp-accounting | dp-accounting's RDP |
| Poisson-subsampled Gaussian | add or remove one | Opacus | dp-accounting | - | dp-accounting's RDP |
| none (the data themselves) | - | infinite | infinite | infinite | - |

Of the vault's queries `feature_sums` is Gaussian, `gradient_mean`, `batch_function` and `projected_rows` are Poisson-subsampled
(or Gaussian, at rate 1), and `everything` is the data.

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
from dp_accounting.pld import privacy_loss_distribution

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

Accountant = Literal["rdp", "pld"]

Counted = tuple[dp_accounting.DpEvent, int]
"""An event and how many times it happened."""


def gaussian_event(*, noise_multiplier: float, sampling_rate: float = 1.0) -> dp_accounting.DpEvent:
    """One Gaussian release over a Poisson sample (each record in it independently with probability `sampling_rate`)."""
    if not 0 < sampling_rate <= 1:
        raise PrivsetError(f"sampling_rate = {sampling_rate}: must be in (0, 1]")
    if not noise_multiplier > 0 or math.isinf(noise_multiplier):
        raise PrivsetError(f"noise_multiplier = {noise_multiplier}: must be > 0 and finite")
    event = dp_accounting.GaussianDpEvent(noise_multiplier)
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
    raise ValueError(f"no dictionary for {event}")


def event_from_dict(entry: Mapping[str, Any]) -> dp_accounting.DpEvent:
    """The inverse of `event_to_dict`. Raises KeyError or ValueError for anything else."""
    if entry["kind"] == "non-private":
        return dp_accounting.NonPrivateDpEvent()
    event = gaussian_event(noise_multiplier=entry["noise_multiplier"], sampling_rate=entry["sampling_rate"])
    if event_to_dict(event)["kind"] != entry["kind"]:
        raise ValueError(f"{entry['kind']} with sampling_rate = {entry['sampling_rate']}")
    return event


def parameters(event: dp_accounting.DpEvent) -> tuple[float, float]:
    """(sampling rate, noise multiplier); a non-private event has no noise."""
    match event:
        case dp_accounting.NonPrivateDpEvent():
            return 1.0, 0.0
        case dp_accounting.GaussianDpEvent(noise_multiplier):
            return 1.0, noise_multiplier
        case dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise_multiplier)):
            return rate, noise_multiplier
    raise ValueError(f"no accountant for {event}")


@functools.lru_cache(maxsize=256)
def _rdp(sampling_rate: float, noise_multiplier: float, orders: tuple[float, ...] = ORDERS) -> np.ndarray:
    if noise_multiplier == 0:
        return np.full(len(orders), math.inf)
    return np.asarray(_OPACUS.compute_rdp(q=sampling_rate, noise_multiplier=noise_multiplier, steps=1, orders=list(orders)))


def rdp_epsilon(events: Iterable[Counted], delta: float, *, orders: tuple[float, ...] = ORDERS) -> float:
    """Epsilon at `delta` of a composition, by Renyi DP."""
    total = np.zeros(len(orders))
    for event, count in events:
        total = total + count * _rdp(*parameters(event), orders)
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


@functools.lru_cache(maxsize=16)
def _step(sampling_rate: float, noise_multiplier: float, interval: float) -> privacy_loss_distribution.PrivacyLossDistribution:
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
            total = total.compose(_step(1.0, noise_multiplier / math.sqrt(count), interval))
        else:
            total = total.compose(_step(sampling_rate, noise_multiplier, interval).self_compose(count))
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
        halved = [(gaussian_event(noise_multiplier=parameters(event)[1] / 2), count) for event, count in counted]
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


def calibrate(*, epsilon: float, delta: float, sampling_rate: float, releases: int, accountant: Accountant = "rdp") -> float:
    """The smallest noise multiplier (to 1e-6; by "pld" to 1e-4) with which `releases` Gaussian releases spend at most (epsilon,
    delta).

    Poisson-subsampled ones by the accountant (RDP is the PSG paper's); unsampled ones (sampling_rate = 1) exactly. A bisection
    of our own, not dp_accounting's: it asks `spent_epsilon`, which the ledger will ask again, and ends on the safe side of it.
    Raises PrivsetError if epsilon or delta is out of range or no noise multiplier up to 10,000 is enough.
    """
    if not (epsilon > 0 and 0 < delta < 1 and releases >= 1):
        raise PrivsetError(f"epsilon = {epsilon}, delta = {delta}, releases = {releases}: must be > 0, in (0, 1), >= 1")

    def excess(noise_multiplier: float) -> float:
        event = gaussian_event(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate)
        return spent_epsilon([(event, releases)], delta, accountant) - epsilon

    low, high, step = 0.05, 1.0, 1e-6
    if accountant == "pld" and sampling_rate < 1:  # Renyi DP needs more noise, and says so faster
        high = calibrate(epsilon=epsilon, delta=delta, sampling_rate=sampling_rate, releases=releases)
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
