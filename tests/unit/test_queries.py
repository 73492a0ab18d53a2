"""`batch_function` and `projected_rows`: what they answer without noise, what they refuse, and that places are random."""

import math

import pytest
import torch

from privset.privacy import batches, noise
from privset.privacy import vault as vaults
from privset.privacy.ledger import BudgetExceeded
from privset.privacy.noise import ROUNDING

OPTIONS = {"sampling_rate": 1.0, "noise_multiplier": 1e-6}


def directions(count, pixels=784):
    return torch.linalg.qr(torch.randn(pixels, count, generator=torch.Generator().manual_seed(1)).double())[0]


def flat(images, labels):
    return images.flatten(1)


def test_a_vector_of_a_batch_is_cut_as_a_whole_and_its_sensitivity_is_the_balls_diameter(make_vault):
    vault = make_vault(epsilon=math.inf)
    total = vault._Vault__images.flatten(1).sum(0)
    whole = vault.batch_function(lambda images, *_: images.flatten(1).sum(0), dimension=784, clip=1e4, **OPTIONS)
    assert torch.allclose(whole, total, atol=0.1)  # of noise 1e-6 * 2e4
    cut = vault.batch_function(lambda images, *_: images.flatten(1).sum(0), dimension=784, clip=0.5, **OPTIONS)
    assert torch.allclose(cut, 0.5 * total / total.norm(), atol=1e-4)
    assert [entry.sensitivity for entry in vault.ledger.releases] == [2e4 * (1 + ROUNDING), 1 * (1 + ROUNDING)]
    nothing = vault.batch_function(lambda images, *_: images.flatten(1).sum(0) * math.nan, dimension=784, clip=0.5, **OPTIONS)
    assert nothing.norm() < 1e-4


def test_the_noise_of_a_vector_is_the_multiplier_times_the_diameter(make_vault):
    vault = make_vault(epsilon=math.inf)
    drawn = vault.batch_function(
        lambda images, *_: torch.zeros(100_000), dimension=100_000, clip=3.0, sampling_rate=0.1, noise_multiplier=0.5
    )
    assert drawn.std().item() == pytest.approx(0.5 * 6.0, rel=0.01)  # standard error 0.22 %


def test_what_is_cut_must_be_one_vector_and_one_row_of_each_record(make_vault):
    """A gradient in the shape of its images would be cut image by image."""
    vault = make_vault(epsilon=math.inf)
    for shape in ((1, 784), (28, 28), (783,)):
        with pytest.raises(ValueError, match=r"the function of a batch gives \(.*\), not \(784,\)"):
            vault.batch_function(lambda *_, shape=shape: torch.ones(shape), dimension=784, clip=1.0, **OPTIONS)
    for rows in (lambda images, labels: images, lambda images, labels: images.flatten(1)[:3]):
        with pytest.raises(ValueError, match=r"the rows of 40 records are \(.*\), not \(40, d\)"):
            vault.projected_rows(rows, directions(3), clip=1.0, **OPTIONS)


def test_a_record_that_is_no_number_is_in_no_batch(make_vault):
    """So that it takes nothing from the vector of the others."""
    data = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    damaged = data.clone()
    damaged[[0, 7], 0, 3, 3] = torch.tensor([math.nan, math.inf])
    seen = []

    def function(images, labels, present):
        seen.append((images, labels, present))
        return present @ images.flatten(1)

    for fixed in (False, True):
        for images in (data[[*range(1, 7), *range(8, 40)]], damaged):
            vault = make_vault(images=images, labels=torch.arange(len(images)) % 10, epsilon=math.inf)
            vault._fixed_rows = fixed
            vault.batch_function(function, dimension=784, clip=1e4, **OPTIONS)
        (alone, _, there), (with_them, labels, present) = seen[-2:]
        assert there.sum() == present.sum() == 38
        assert torch.equal(alone[there > 0], with_them[present > 0])
        assert not with_them[present == 0].any() and not labels[present == 0].any()


def test_an_empty_batch_is_a_batch(make_vault):
    vault, seen = make_vault(epsilon=math.inf), []

    def function(images, labels, present):
        seen.append(len(images))
        return images.flatten(1).sum(0)

    drawn = vault.batch_function(function, dimension=784, sampling_rate=1e-9, clip=1.0, noise_multiplier=0.5)
    assert seen == [0] and drawn.std().item() == pytest.approx(1.0, rel=0.15)  # standard error 2.5 %
    rows = vault.projected_rows(flat, directions(30), sampling_rate=1e-9, clip=1.0, noise_multiplier=0.5)
    assert rows.shape == (32, 10, 30) and rows.std().item() == pytest.approx(0.5, rel=0.15)  # 2.3 %


def test_rows_are_each_records_own_cut_and_projected_and_in_its_class(make_vault):
    vault, along = make_vault(epsilon=math.inf), directions(20)
    for clip in (1e3, 5.0):
        answer = vault.projected_rows(flat, along, clip=clip, **OPTIONS)
        images = vault._Vault__images.flatten(1).double()
        expected = images * (clip / images.norm(dim=1)).clamp(max=1)[:, None] @ along
        closest = torch.cdist(expected, answer.double().sum(1)).min(1)
        assert closest.values.max() < 0.05 and len(closest.indices.unique()) == 40 == len(answer)
        own = answer[closest.indices, vault._Vault__labels]
        assert torch.allclose(own, expected.float(), atol=1e-2)
        assert torch.allclose(answer.norm(), own.norm(), rtol=1e-3)
        assert vault.ledger.releases[-1].sensitivity == clip * (1 + ROUNDING)
    assert not torch.equal(closest.indices, torch.arange(40))


def test_the_places_of_a_batch_are_random_and_new_each_time(make_vault):
    """Each of 40 records in each of 64 places as often as in any other: 400 batches, the fullest place by the binomial law."""
    vault = make_vault(epsilon=math.inf)
    counts = torch.zeros(40, 64)
    for _ in range(400):
        vault.projected_rows(flat, directions(2), clip=1.0, **OPTIONS)
        slots = vault._slots(1.0, torch.ones(40), 64)
        assert len(slots.unique()) == 40
        counts[torch.arange(40), slots] += 1
    assert counts.max() <= 20  # mean 6.25, deviation 2.5: 20 has a chance of 1e-5 in each of 2,560 cells
    chi2 = ((counts - 6.25).square() / 6.25).sum()
    assert abs(float(chi2) - 2520) < 6 * math.sqrt(2 * 2520)  # each record has one place: 63 degrees of freedom


def test_the_order_is_drawn_from_numbers_that_nothing_else_has(make_vault):
    """Neither the noise nor the membership of any question: with membership's, who is there would say who is where."""
    vault = make_vault(epsilon=math.inf)
    key = vault._Vault__key
    for question in range(3):
        vault.projected_rows(flat, directions(2), clip=1.0, **OPTIONS)
        order = vault._slots(1.0, torch.ones(40), 64)
        assert torch.equal(order, torch.from_numpy(noise.stream(key, question, "order").permutation(64)[:40]))
    first = [noise.stream(key, question, use).random() for question in range(50) for use in ("noise", "sample", "order")]
    first += [noise.stream(key, 2**40 + use, "sample").random() for use in range(2)]  # the attacker's coins (privacy/audit.py)
    assert len(set(first)) == 152


def test_a_batch_beyond_its_room_loses_its_last_records(make_vault, monkeypatch):
    monkeypatch.setattr(vaults, "room", lambda rate, records: 8)
    for fixed in (False, True):
        vault = make_vault(epsilon=math.inf)
        vault._fixed_rows = fixed
        answer = vault.projected_rows(flat, torch.eye(784).double(), clip=1e3, **OPTIONS)
        first = vault._Vault__images[:8].flatten(1)
        assert answer.shape == (8, 10, 784)
        assert torch.cdist(first, answer.sum(1)).min(1).values.max() < 0.2


def test_a_room_is_large_enough_for_any_batch_that_will_be_seen():
    """Chernoff's bound on a Poisson batch beyond it, at rates from the smallest to the paper's."""
    for expected in (0.01, 1, 5, 50, 256, 600, 5000):
        size = batches.room(expected / 200_000, 200_000)
        assert size >= expected
        log = -expected + size * (1 + math.log(expected / size))  # P(X >= size) <= exp(-m) (e m / size)^size
        assert log < math.log(1e-24), (expected, size)
    assert batches.room(1.0, 40) == 40


def test_directions_that_are_not_orthonormal_are_refused_before_the_budget(make_vault):
    vault = make_vault(epsilon=10.0)
    for wrong in (1.001 * directions(5), directions(5).float(), torch.ones(784, 2, dtype=torch.float64) / 28):
        with pytest.raises(ValueError, match="directions must be float64 with orthonormal columns"):
            vault.projected_rows(flat, wrong, sampling_rate=0.1, clip=1.0, noise_multiplier=5.0)
    assert vault.ledger.releases == []


def test_nothing_is_touched_beyond_the_budget(make_vault):
    vault, touched = make_vault(epsilon=0.5), []

    def look(images, *_):
        touched.append(len(images))
        return images.flatten(1)

    with pytest.raises(BudgetExceeded):
        vault.batch_function(look, dimension=784, sampling_rate=0.5, clip=1.0, noise_multiplier=0.3)
    with pytest.raises(BudgetExceeded):
        vault.projected_rows(look, directions(3), sampling_rate=0.5, clip=1.0, noise_multiplier=0.3)
    for clip in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="clip"):
            vault.batch_function(look, dimension=784, sampling_rate=0.5, clip=clip, noise_multiplier=3.0)
        with pytest.raises(ValueError, match="clip"):
            vault.projected_rows(look, directions(3), sampling_rate=0.5, clip=clip, noise_multiplier=3.0)
    assert touched == [] and vault.ledger.releases == []


def test_padded_rows_of_a_device_batch_do_not_count(make_vault):
    """What a GPU does, on the CPU: rows that are padding, marked absent."""
    data = torch.randn(1000, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    vaults_ = [make_vault(images=data, labels=torch.arange(1000) % 10, epsilon=math.inf) for _ in range(2)]
    vaults_[1]._fixed_rows = True
    options = {"sampling_rate": 0.05, "clip": 1e3, "noise_multiplier": 1e-6}
    sums, rows = (
        [ask(vault) for vault in vaults_]
        for ask in (
            lambda vault: vault.batch_function(
                lambda images, labels, present: present @ images.flatten(1), dimension=784, **options
            ),
            lambda vault: vault.projected_rows(flat, directions(4), **options),
        )
    )
    assert torch.allclose(*sums, atol=1e-2) and torch.allclose(*rows, atol=1e-2)
