"""The arithmetic of the bounds: against closed forms, another implementation's numbers, and by how often they are wrong."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from privset.privacy import accounting, bounds

DELTA = 1e-5


def gaussian(epsilon: float) -> tuple[accounting.Counted, ...]:
    """One Gaussian release that spends exactly so much."""
    noise = accounting.calibrate(epsilon=epsilon, delta=DELTA, sampling_rate=1.0, releases=1)
    return ((accounting.gaussian_event(noise_multiplier=noise), 1),)


@pytest.mark.parametrize(("errors", "draws"), [(0, 10), (3, 100), (447, 1000), (999, 1000), (1000, 1000)])
def test_clopper_pearson_is_the_rate_at_which_so_few_errors_are_rare(errors, draws):
    """Its definition, solved by bisection."""
    expected = 1.0
    if errors < draws:
        expected = optimize.brentq(lambda rate: stats.binom.cdf(errors, draws, rate) - 0.05, 1e-12, 1 - 1e-12)
    assert bounds.error_rate(errors, draws, 0.95) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("epsilon", [1.0, 10.0])
@pytest.mark.parametrize("false", [1e-4, 0.01, 0.2, 0.5, 0.9])
def test_the_trade_off_of_a_gaussian_release_is_the_normal_one(epsilon, false):
    """G_mu of Dong, Roth and Su; from tangents, so from below."""
    ((event, _),) = gaussian(epsilon)
    exact = stats.norm.cdf(stats.norm.ppf(1 - false) - 1 / event.noise_multiplier)
    found = bounds.least_error(gaussian(epsilon), false)
    assert exact - 2e-3 * max(exact, 0.01) - 1e-4 <= found <= exact + 1e-9


def test_the_trade_off_of_a_sampled_release_is_that_of_the_mixture():
    """Poisson-subsampled once: N(0, s) against (1 - q) N(0, s) + q N(1, s); the worse of its two directions, by thresholds."""
    rate, noise = 0.3, 0.7
    releases = ((accounting.gaussian_event(noise_multiplier=noise, sampling_rate=rate), 1),)
    for threshold in (0.2, 0.8, 1.5):
        without = stats.norm.sf(threshold, 0, noise)
        with_it = (1 - rate) * without + rate * stats.norm.sf(threshold, 1, noise)
        assert bounds.least_error(releases, without) <= 1 - with_it + 1e-9
        assert bounds.least_error(releases, 1 - with_it) <= without + 1e-9
        # Symmetric, so the least of both directions; within what tangents and pessimistic rounding cost.
        assert bounds.least_error(releases, without) >= 0.9 * min(1 - with_it, _other(without, rate, noise)) - 1e-3


def _other(missed: float, rate: float, noise: float) -> float:
    """The error beside `missed` when the records change their roles."""
    threshold = optimize.brentq(
        lambda t: (1 - rate) * stats.norm.cdf(t, 0, noise) + rate * stats.norm.cdf(t, 1, noise) - missed, -20, 20
    )
    return float(stats.norm.sf(threshold, 0, noise))


# google-deepmind/jax_privacy@8967688, jax_privacy/auditing.py: _epsilon_one_run and _epsilon_one_run_fdp (Gaussian), significance
# 0.05, delta 1e-5: (canaries, guesses, right) and the two epsilons.
PEER = [
    ((1000, 1000, 553), 0.1060563970391267, 0.21079891689639751),
    ((1000, 250, 160), 0.35062989652890414, 0.5501531119135141),
    ((1000, 1000, 841), 1.520944163869897, 2.8334336503961324),
    ((1000, 500, 480), 2.792646901008521, 4.931079925218221),
    ((1000, 250, 249), 3.93708195476999, 6.88625928253086),
    ((200, 50, 25), 0.0, 0.0),
]


@pytest.mark.parametrize(("guesses", "plain", "in_family"), PEER)
def test_one_run_agrees_with_another_implementation(guesses, plain, in_family):
    assert bounds.one_run(*guesses, delta=DELTA) == pytest.approx(plain, abs=1.1e-3)
    found = bounds.one_run_in_family(*guesses, releases=gaussian(3.0), delta=DELTA)
    assert 0.93 * in_family <= found <= in_family * (1 + 1e-6)  # two per cent of noise for a rung, and tangents


def test_one_run_without_delta_is_the_binomial():
    """100 of 100: the epsilon at which that has probability 0.05."""
    probability = 0.05 ** (1 / 100)
    assert bounds.one_run(1000, 100, 100, delta=0.0) == pytest.approx(math.log(probability / (1 - probability)), abs=1.1e-3)


@pytest.mark.parametrize("epsilon", [1.0, 10.0])
def test_bounds_are_hardly_ever_above_the_truth_and_near_it(epsilon):
    """60 audits of a Gaussian release whose epsilon is exact. At 95 % three may be above; these bounds are wrong less often,
    because both error rates have to be bounded. More than eight would have a probability below one per cent."""
    random = np.random.default_rng(0)
    releases = gaussian(epsilon)
    mu = 1 / releases[0][0].noise_multiplier
    found = np.array(
        [
            bounds.from_draws(random.normal(mu, 1, 2000), random.normal(0, 1, 2000), releases=releases, delta=DELTA)
            for _ in range(60)
        ]
    )
    assert (found > epsilon).sum(0).max() <= 8
    assert np.median(found[:, 1]) > {1.0: 0.3, 10.0: 0.85 * 10}[epsilon]
    assert np.median(found[:, 0]) < np.median(found[:, 1]), "without an assumption less can be shown"


def test_one_run_bounds_are_hardly_ever_above_the_truth():
    random = np.random.default_rng(1)
    epsilon, above = 3.0, 0
    releases = gaussian(epsilon)
    mu = 1 / releases[0][0].noise_multiplier
    best = []
    for _ in range(100):
        present = random.random(500) < 0.5
        made, right = bounds.guesses(random.normal(mu * present, 1), present, 0.25)
        best.append(bounds.one_run_in_family(500, made, right, releases=releases, delta=DELTA))
        above += bounds.one_run(500, made, right, delta=DELTA) > epsilon
    assert above == 0
    assert (np.array(best) > epsilon).sum() <= 11  # 5 expected at most; more have a probability below one per cent
    assert np.median(best) > 1.0


def test_nothing_seen_refutes_nothing():
    random = np.random.default_rng(2)
    same = [random.normal(size=2000) for _ in range(2)]
    assert bounds.from_draws(*same, releases=gaussian(1.0), delta=DELTA) == (0.0, 0.0)
    assert bounds.from_draws(np.zeros(40), np.zeros(40), releases=gaussian(1.0), delta=DELTA) == (0.0, 0.0)


def test_what_everything_gives_away_refutes_the_noisiest_and_the_claim():
    free, family = bounds.from_draws(np.ones(4000), np.zeros(4000), releases=gaussian(1.0), delta=DELTA)
    assert free == pytest.approx(math.log((1 - bounds.error_rate(0, 3000, 0.975) - DELTA) / bounds.error_rate(0, 3000, 0.975)))
    assert family > 10
