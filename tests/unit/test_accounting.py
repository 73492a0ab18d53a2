"""Accounting against the reference program's noise multipliers, closed forms and dp-accounting."""

import math

import dp_accounting
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import norm

from privset import PrivsetError
from privset.privacy import accounting

RATE = 256 / 60_000


@pytest.mark.parametrize(
    ("releases", "epsilon", "expected"),
    [
        (10_000, 1, 1.8793),
        (10_000, 10, 0.6038),
        (100_000, 1, 5.5098),
        (100_000, 10, 0.9657),
        (200_000, 1, 7.7557),
        (200_000, 10, 1.2136),
        (500_000, 1, 12.228),
        (500_000, 10, 1.7413),
        (20_000, 1, 2.5530),
        (20_000, 10, 0.6683),
        (2_000, 10, 0.508),
    ],
)
def test_psg_noise_multipliers(releases, epsilon, expected):
    """PSG's own sigmas (its reference program's accountant and root finding), for every row of its grid."""
    sigma = accounting.calibrate(epsilon=epsilon, delta=1e-5, sampling_rate=RATE, releases=releases)
    assert sigma == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("epsilon", "expected"), [(1, 3.7306), (10, 0.4999), (0.2, 16.304)])
def test_one_shot_noise_multipliers(epsilon, expected):
    sigma = accounting.calibrate(epsilon=epsilon, delta=1e-5, sampling_rate=1, releases=1)
    assert sigma == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("epsilon", "sigma"), [(0.5, 2.0), (1.0, 3.7306), (3.0, 1.0)])
def test_exact_epsilon_is_the_closed_forms_inverse(epsilon, sigma):
    delta = norm.cdf(0.5 / sigma - epsilon * sigma) - math.exp(epsilon) * norm.cdf(-0.5 / sigma - epsilon * sigma)
    events = [(accounting.gaussian_event(noise_multiplier=sigma), 1)]
    assert accounting.gaussian_epsilon(events, delta) == pytest.approx(epsilon, rel=1e-9)


def test_exact_gaussian_composition_agrees_with_privacy_loss_distributions():
    events = [(accounting.gaussian_event(noise_multiplier=8.0), 3), (accounting.gaussian_event(noise_multiplier=5.0), 1)]
    exact = accounting.gaussian_epsilon(events, 1e-5)
    assert accounting.pld_epsilon(events, 1e-5) == pytest.approx(exact, rel=1e-3)
    assert exact < accounting.rdp_epsilon(events, 1e-5)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.6, 8), st.floats(1e-3, 0.05), st.integers(1, 5000))
def test_rdp_agrees_with_dp_accounting(noise_multiplier, rate, count):
    """At whole orders; between them dp-accounting interpolates, from above, and ours is exact (next test)."""
    event = accounting.gaussian_event(noise_multiplier=noise_multiplier, sampling_rate=rate)
    orders = (*accounting.WHOLE_ORDERS, *accounting.LARGE_ORDERS)
    independent = dp_accounting.rdp.RdpAccountant(orders=list(orders))
    independent.compose(event, count)
    ours = accounting.rdp_epsilon([(event, count)], 1e-5, orders=orders)
    assert ours == pytest.approx(independent.get_epsilon(1e-5), rel=1e-3, abs=1e-9)


@pytest.mark.parametrize(("rate", "sigma"), [(0.03125, 0.75), (RATE, 0.6038), (0.0445, 0.52), (0.01, 3.0)])
def test_renyi_divergences_at_fractional_orders_are_the_integral(rate, sigma):
    """Mironov, Talwar, Zhang 2019, sec. 3, by quadrature: E[((1 - q) + q exp((2z - 1) / 2 sigma^2))^alpha], z ~ N(0, sigma^2)."""
    z = np.linspace(-60 * sigma, 60 * sigma, 400_001)
    density = -(z**2) / (2 * sigma**2) - 0.5 * math.log(2 * math.pi * sigma**2)
    ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * z - 1) / (2 * sigma**2))
    for order, ours in zip(
        accounting.ORDERS, accounting._rdp(accounting.gaussian_event(noise_multiplier=sigma, sampling_rate=rate)), strict=True
    ):
        if order <= 10:
            integral = logsumexp(density + order * ratio) + math.log(z[1] - z[0])
            assert ours == pytest.approx(integral / (order - 1), rel=1e-5, abs=1e-9)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.05, 15), st.floats(1e-3, 1.0), st.integers(1, 3000))
@example(0.1, 256 / 60_000, 700)
def test_calibrated_noise_spends_at_most_the_budget_and_nearly_all_of_it(epsilon, rate, releases):
    sigma = accounting.calibrate(epsilon=epsilon, delta=1e-5, sampling_rate=rate, releases=releases)
    event = accounting.gaussian_event(noise_multiplier=sigma, sampling_rate=rate)
    spent = accounting.spent_epsilon([(event, releases)], 1e-5)
    assert spent <= epsilon
    # Without noise to speak of the bound jumps (RDP orders are integers there); elsewhere the calibration is tight.
    assert spent >= 0.999 * epsilon or sigma < 0.3


def test_privacy_loss_distributions_are_tighter_than_rdp_for_sampled_releases():
    event = accounting.gaussian_event(noise_multiplier=0.6038, sampling_rate=RATE)
    rdp, pld = accounting.rdp_epsilon([(event, 10_000)], 1e-5), accounting.pld_epsilon([(event, 10_000)], 1e-5)
    assert rdp == pytest.approx(10, abs=1e-3)
    assert 0.8 * rdp < pld < rdp


def test_without_releases_nothing_is_spent_and_without_noise_everything():
    assert accounting.spent_epsilon([], 1e-5) == 0
    assert accounting.spent_epsilon([(dp_accounting.NonPrivateDpEvent(), 1)], 1e-5) == math.inf


@pytest.mark.parametrize(
    "bad", [{"epsilon": 0}, {"epsilon": -3}, {"delta": 0}, {"delta": 1}, {"releases": 0}, {"sampling_rate": 0}]
)
def test_impossible_calibrations_are_refused(bad):
    with pytest.raises(ValueError, match="must be"):
        accounting.calibrate(**{"epsilon": 1.0, "delta": 1e-5, "sampling_rate": 0.1, "releases": 10, **bad})


def test_the_orders_are_opacus_defaults_and_larger_ones():
    from opacus.accountants import RDPAccountant

    assert list(accounting.ORDERS) == [*RDPAccountant.DEFAULT_ALPHAS, *accounting.LARGE_ORDERS]


@pytest.mark.parametrize(("epsilon", "order"), [(1.0, 63), (0.1, 1024)])
def test_small_budgets_need_large_orders_and_others_do_not(epsilon, order):
    """PSG's noise at epsilon = 1 is the reference program's to the bit; at 0.1 there would be none."""
    sigma = accounting.calibrate(epsilon=epsilon, delta=1e-5, sampling_rate=RATE, releases=10_000)
    event = accounting.gaussian_event(noise_multiplier=sigma, sampling_rate=RATE)
    enough = tuple(known for known in accounting.ORDERS if known <= order)
    counted = [(event, 10_000)]
    assert accounting.rdp_epsilon(counted, 1e-5) == accounting.rdp_epsilon(counted, 1e-5, orders=enough)
    fewer = tuple(known for known in accounting.ORDERS if known < 64)
    assert (accounting.rdp_epsilon(counted, 1e-5, orders=fewer) > epsilon) == (epsilon == 0.1)


# ------------------------------------------------------------------------------------------------- one of many shards

POINTS, STEP = np.linspace(-12, 12, 2401, retstep=True)


def mixture(weights, centres, sigma):
    return sum(weight * norm.pdf(POINTS, centre, sigma) for weight, centre in zip(weights, centres, strict=True)) * STEP


def divergence(one, other, epsilon):
    """Hockey-stick, of probabilities on a grid."""
    return float(np.maximum(one - math.exp(epsilon) * other, 0).sum())


def delta(shards, sigma, count, epsilon):
    event = accounting.gaussian_event(noise_multiplier=sigma, shards=shards)
    return accounting.privacy_loss([(event, count)], interval=1e-3).get_delta_for_epsilon(epsilon)


@pytest.mark.parametrize(("shards", "sigma"), [(4, 0.7), (20, 0.7), (20, 2.0)])
@pytest.mark.parametrize("others", [-0.5, 0.5, 0.0, None], ids=["absent", "present", "between", "both"])
def test_neighbours_of_one_shard_are_within_its_privacy_loss(shards, sigma, others):
    """Answers at 1/2 with the record and at -1/2 without it, wherever the other shards' are; once and twice, on a grid."""
    centres = [others] if others is not None else [-0.5, 0.5]
    rest = [(1 - 1 / shards) / len(centres)] * len(centres)
    there, gone = (mixture([*rest, 1 / shards], [*centres, own], sigma) for own in (0.5, -0.5))
    for first, second in ((there, gone), (gone, there)):
        for epsilon in (-1.0, -0.3, 0.0, 0.1, 0.5, 1.0, 2.0):
            assert divergence(first, second, epsilon) <= delta(shards, sigma, 1, epsilon) + 1e-6
        twice = [np.outer(part, part) for part in (first, second)]
        for epsilon in (0.0, 0.2, 1.0):
            assert divergence(*twice, epsilon) <= delta(shards, sigma, 2, epsilon) + 1e-6
    if others == -0.5:  # the worst case: no other bound is lower
        for epsilon in (0.0, 0.1, 0.5, 1.0):
            assert divergence(there, gone, epsilon) == pytest.approx(delta(shards, sigma, 1, epsilon), rel=5e-3, abs=1e-6)


@pytest.mark.parametrize("order", [2, 5, 16])
def test_renyi_divergence_of_one_shard_is_above_the_integral(order):
    for shards, sigma in ((4, 1.0), (20, 2.0)):
        (bound,) = accounting._rdp(accounting.gaussian_event(noise_multiplier=sigma, shards=shards), (order,))
        for others in (-0.5, 0.0, 0.5):
            there, gone = (mixture([1 - 1 / shards, 1 / shards], [others, own], sigma) for own in (0.5, -0.5))
            for first, second in ((there, gone), (gone, there)):
                divergence = logsumexp(order * np.log(first) + (1 - order) * np.log(second)) / (order - 1)
                assert 0 < divergence <= bound


@pytest.mark.parametrize(
    ("shards", "count", "epsilon", "needed"),
    [(1000, 20_000, 10, 0.508), (1000, 20_000, 1, 1.338), (100, 1000, 10, 0.636), (100, 1000, 1, 2.708), (50, 1000, 10, 0.854)],
)
def test_noise_for_one_of_many_shards(shards, count, epsilon, needed):
    """To 0.001, the multipliers that another program found with dp-accounting; privacy loss distributions find less spent."""
    for noise_multiplier, low in ((needed + 0.001, False), (needed - 0.001, True)):
        events = [(accounting.gaussian_event(noise_multiplier=noise_multiplier, shards=shards), count)]
        assert (accounting.rdp_epsilon(events, 1e-5) > epsilon) == low
    assert accounting.pld_epsilon(events, 1e-5) < 0.75 * epsilon


def test_one_shard_is_all_of_them_and_samples_have_no_shards():
    assert accounting.gaussian_event(noise_multiplier=1.0, shards=1) == accounting.gaussian_event(noise_multiplier=1.0)
    with pytest.raises(PrivsetError, match="shards = 3: must be at least 1, and records are sampled in one way"):
        accounting.gaussian_event(noise_multiplier=1.0, shards=3, sampling_rate=0.5)
    event = accounting.gaussian_event(noise_multiplier=1.5, shards=7)
    assert accounting.event_from_dict(accounting.event_to_dict(event)) == event
    assert accounting.parameters(accounting.with_noise(event, 3.0)) == (1 / 7, 3.0)
    with pytest.raises(ValueError, match=r"gaussian-of-one-shard with sampling_rate = 0\.15"):
        accounting.event_from_dict({"kind": "gaussian-of-one-shard", "sampling_rate": 0.15, "noise_multiplier": 1.0})
