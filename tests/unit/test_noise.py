"""The guarantee down to the bits: noise without a grain, sums that neighbours cannot shift, answers on a public grid."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privset.networks import classifiers
from privset.privacy import noise
from privset.privacy.gradients import clipped_gradient_sum, per_record_gradients


def grain(normals):
    """How far from whole numbers 2^24 exp(-(z_j^2 + z_{j+8}^2) / 2) is, in the median over the small ones: PyTorch's float32
    normals on a CPU are Box-Muller pairs of 24-bit uniforms, in blocks of 16, and give 0; real normals give 0.25."""
    z = normals.double().flatten()
    z = z[: len(z) // 16 * 16].view(-1, 16)
    k = torch.exp(-(z[:, :8] ** 2 + z[:, 8:] ** 2) / 2) * 2**24
    k = k[k < 3000]
    assert len(k) > 50
    return (k - k.round()).abs().median().item()


def test_the_grain_test_finds_float32_noise_and_not_ours():
    assert grain(torch.randn(640_000, generator=torch.Generator().manual_seed(1))) < 0.05
    zeros = torch.zeros(640_000, dtype=torch.float64)
    assert grain(noise.release(zeros, sensitivity=1.0, noise_multiplier=1.0, key=1, question=0)) > 0.15


@pytest.fixture
def wide(generator):
    return classifiers.build("mlp", channels=1, classes=10, size=28, width=700, generator=generator)


def answers(vault, network):
    """Noise alone, in units of its standard deviation, as each kind of query returns it; 550,000 to 1,050,000 numbers."""
    rate = 1e-9  # an empty batch
    mean = vault.gradient_mean(network, sampling_rate=rate, clip=0.1, noise_multiplier=2.0)
    yield torch.cat([part.flatten() for part in mean]) * (rate * vault.facts.records / 0.2 / (1 + noise.ROUNDING))
    zeros = 64_000
    for relation, sensitivity in (("add-or-remove-one", 3.0), ("replace-one", 6.0)):
        sums = vault.feature_sums(
            lambda x, labels: torch.zeros(len(x), zeros), dimension=zeros, clip=3.0, noise_multiplier=2.0, relation=relation
        )
        vault.ledger.releases.clear()  # a ledger has one relation
        yield sums / (2.0 * sensitivity * (1 + noise.ROUNDING))


def test_no_query_answers_with_a_grain(make_vault, wide, monkeypatch):
    vault = make_vault(epsilon=math.inf)
    for answer in answers(vault, wide):
        assert answer.std().item() == pytest.approx(1, abs=0.01)
        assert grain(answer) > 0.15
    # The same queries with float32 noise are found out, so this test can fail.
    generator = torch.Generator().manual_seed(3)
    monkeypatch.setattr(
        noise,
        "release",
        lambda total, *, sensitivity, noise_multiplier, **_: (
            total + (torch.randn(total.shape, generator=generator) * noise_multiplier * sensitivity).double()
        ),
    )
    assert all(grain(answer) < 0.05 for answer in answers(vault, wide))


def test_neighbours_cannot_shift_a_sum_by_more_than_is_stated(make_vault, monkeypatch):
    """60,000 numbers below 1, of which the first is removed. Sums of 50 numbers lie just above the middle between two float32
    numbers, and just below it once every number has moved up by one place: so the float32 sum moved by two."""
    totals = []
    original = noise.release
    monkeypatch.setattr(noise, "release", lambda total, **options: totals.append((total, options)) or original(total, **options))
    unit = 2.0**-8  # between 32,768 and 65,536
    chunks = torch.empty(1200, 50, dtype=torch.float64)
    chunks[::2, 0], chunks[1::2, 0] = 0.99, 0.99 - 0.02 * unit
    chunks[::2, 1:] = (49 + 0.51 * unit - 0.99) / 49
    chunks[1::2, 1:] = (49 + 0.2 * unit - 0.99) / 49
    pixels = chunks.flatten().float()
    images = pixels[:, None, None, None].expand(60_000, 1, 28, 28)
    labels = torch.zeros(60_000, dtype=torch.int64)

    def float32(chosen):
        """As it was until version 0.1."""
        total = torch.zeros(1)
        for part in chosen.split(50):
            total += part[:, 0, 0, :1].sum(0)
        return total.item()

    assert abs(float32(images) - float32(images[1:])) > 1.5
    for chosen in (images, images[1:]):
        vault = make_vault(images=chosen, labels=labels[: len(chosen)], epsilon=math.inf)
        vault.feature_sums(
            lambda x, y: x[:, 0, 0, :1], dimension=1, clip=1.0, noise_multiplier=1.0, relation="add-or-remove-one", chunk=50
        )
    (first, options), (second, _) = totals
    assert 0.9 < (first - second).norm() <= options["sensitivity"]
    assert options["sensitivity"] == 1.0 * (1 + noise.ROUNDING)
    # And what was answered, on the grid, with the same noise.
    seen = [original(total, **options) for total in (first, second)]
    assert (seen[0] - seen[1]).norm() <= options["sensitivity"]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.floats(1e-3, 1e3), st.floats(0.05, 50), st.integers(0, 2**40))
def test_every_answer_is_on_its_public_grid(dimension, sensitivity, multiplier, question):
    total = torch.linspace(-sensitivity, 7 * sensitivity, dimension, dtype=torch.float64)
    answer = noise.release(total, sensitivity=sensitivity, noise_multiplier=multiplier, key=5, question=question)
    spacing = noise.grid(sensitivity, dimension)
    assert math.log2(spacing).is_integer()
    assert spacing * math.sqrt(dimension) <= sensitivity * 2.0**-21 < 2 * spacing * math.sqrt(dimension)
    for numbers in (answer, answer.float().double()):  # what methods get is float32
        units = numbers / spacing
        assert torch.equal(units, units.round())


def test_the_noise_is_normal():
    n, key = 1_000_000, 11
    zeros = torch.zeros(n, dtype=torch.float64)
    drawn = noise.release(zeros, sensitivity=2.0, noise_multiplier=0.7, key=key, question=3).numpy() / 1.4
    assert abs(drawn.mean()) < 4 / math.sqrt(n)
    assert drawn.var() == pytest.approx(1, abs=4 * math.sqrt(2 / n))
    assert stats.kstest(drawn, "norm").pvalue > 1e-3


def test_tails_beyond_six_standard_deviations_occur_at_their_rate():
    """2 x 10^9 draws, 3.95 of them expected beyond 6 (Poisson: 1 to 12 with 98 %; the key is fixed). PyTorch's float32 normals on
    a CPU end at sqrt(2 ln 2^24) = 5.77."""

    def beyond(question):
        return int((np.abs(noise.stream(2, question, "noise").standard_normal(20_000_000)) > 6).sum())

    with ThreadPoolExecutor(2) as pool:
        assert 1 <= sum(pool.map(beyond, range(100))) <= 12
    assert torch.randn(10**7, generator=torch.Generator().manual_seed(0)).abs().max() < 5.78


def test_questions_and_uses_have_numbers_of_their_own_and_repeat():
    draws = {
        (question, use): noise.stream(9, question, use).random(4).tobytes()
        for question in range(50)
        for use in ("noise", "sample")
    }
    assert len(set(draws.values())) == 100
    assert noise.stream(9, 49, "sample").random(4).tobytes() == draws[49, "sample"]
    assert noise.stream(8, 0, "noise").random(4).tobytes() != draws[0, "noise"]
    assert noise.fresh_key() != noise.fresh_key() and noise.fresh_key().bit_length() > 90
    assert noise.key_of(3) == noise.key_of(3) != noise.key_of(4)


def test_drawing_ahead_gives_the_same_numbers_in_whatever_order_they_are_asked():
    ahead = noise.Ahead(questions=3, threads=2)
    for question, dimension in ((0, 100), (1, 100), (2, 7), (3, 100), (5, 100), (4, 100)):
        assert np.array_equal(ahead.integers(6, question, dimension, 2.0**20), noise.integers(6, question, dimension, 2.0**20))
    assert len(ahead.pending) <= 3


def test_random_rounding_keeps_the_mean_between_two_points_of_the_grid():
    """Noise much smaller than the grid: what is left is the dither, whose mean is the value that was rounded."""
    units = noise.integers(1, 0, 400_000, 0.25)
    assert set(np.unique(units)) <= {-2, -1, 0, 1, 2}
    assert units.mean() == pytest.approx(0, abs=4 * math.sqrt((0.25**2 + 0.25) / 400_000))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("compile", [False, True])
def test_a_record_that_is_not_finite_counts_as_zeros_and_harms_no_other(generator, bad, compile):
    network = classifiers.build("mlp", channels=1, classes=10, size=28, width=5, generator=generator)
    images, labels = torch.randn(20, 1, 28, 28, generator=generator), torch.arange(20) % 10
    spoilt = images.clone()
    spoilt[7, 0, 3, 3] = bad
    others = torch.arange(20) != 7
    alone = clipped_gradient_sum(network, images[others], labels[others], clip=0.1)
    both = clipped_gradient_sum(network, spoilt, labels, clip=0.1, compile=compile)
    assert torch.isfinite(both).all()
    assert (both - alone).norm() <= (0.1 + 1e-6 if bad == 3e38 else 1e-6)  # huge but finite: it may count, up to the clip


def test_features_that_are_not_finite_count_as_zeros(make_vault):
    images = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    images[5] = math.nan
    sums = make_vault(images=images, epsilon=math.inf).feature_sums(
        lambda x, labels: x.flatten(1), dimension=784, clip=1.0, noise_multiplier=1e-6, relation="add-or-remove-one"
    )
    others = [index for index in range(40) if index % 10 == 5 and index != 5]
    rows = images[others].flatten(1)
    assert torch.allclose(sums[5], (rows / rows.norm(dim=1, keepdim=True)).sum(0), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1e-30, 1e-3, 1.0, 1e4, 1e30]), st.floats(1e-3, 100))
def test_no_cut_row_is_longer_than_the_clip(seed, scale, clip):
    from privset.privacy.gradients import cut

    rows = torch.randn(5, 1000, generator=torch.Generator().manual_seed(seed)) * scale
    exact, factors = cut(rows, clip, look=True)
    for row in exact * factors[:, None]:
        assert math.fsum(float(value) ** 2 for value in row) <= clip**2  # an exact sum of squares


@pytest.mark.parametrize("name", ["convnet", "lenet", "mlp"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_records_gradient_is_the_same_to_the_bit_whoever_else_is_in_its_micro_batch(generator, name, threads):
    """What the sum's sensitivity takes for granted of float32 arithmetic, for the sizes that micro-batches have."""
    options = {"width": 16} if name == "convnet" else {}
    network = classifiers.build(name, channels=1, classes=10, size=28, generator=generator, **options)
    images, labels = torch.randn(32, 1, 28, 28, generator=generator), torch.arange(32) % 10
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = torch.cat(per_record_gradients(network, images, labels), dim=1)
        order = torch.randperm(32, generator=generator)
        moved = torch.cat(per_record_gradients(network, images[order], labels[order]), dim=1)
        assert torch.equal(moved, whole[order])
        for size in range(8 * threads, 32):
            part = torch.cat(per_record_gradients(network, images[32 - size :], labels[32 - size :]), dim=1)
            assert torch.equal(part, whole[32 - size :]), size
    finally:
        torch.set_num_threads(before)
