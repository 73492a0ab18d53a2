"""The vault: nothing leaves it without clipping, noise and an entry in the ledger."""

import math
import re
from pathlib import Path

import pytest
import torch

import privset
from privset import PrivsetError
from privset.networks import classifiers
from privset.privacy import accounting, gradients, noise, places
from privset.privacy.ledger import BudgetExceeded


def small_network(generator):
    return classifiers.build("convnet", channels=1, classes=10, size=28, width=4, generator=generator)


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors])


def test_a_release_beyond_the_budget_is_refused_before_any_record_is_touched(make_vault, generator):
    vault = make_vault(epsilon=1.0)
    touched = []

    def features(images, labels):
        touched.append(len(images))
        return images.flatten(1)

    with pytest.raises(BudgetExceeded, match="nothing was released"):
        vault.feature_sums(features, dimension=784, clip=1.0, noise_multiplier=1.0, relation="replace-one")
    assert touched == []
    assert vault.ledger.releases == []
    network = small_network(generator)
    network.register_forward_hook(lambda *_: touched.append("network"))
    with pytest.raises(BudgetExceeded):
        vault.gradient_mean(network, sampling_rate=0.5, clip=0.1, noise_multiplier=0.3)
    assert touched == []


def test_the_ledger_counts_what_happened_and_stops_exactly_at_the_budget(make_vault, generator):
    vault = make_vault(epsilon=2.0)
    rate, releases = 0.1, 7
    sigma = accounting.calibrate(epsilon=2.0, delta=1e-5, sampling_rate=rate, releases=releases)
    network = small_network(generator)
    for _ in range(releases):
        vault.gradient_mean(network, sampling_rate=rate, clip=0.1, noise_multiplier=sigma)
    (entry,) = vault.ledger.releases
    assert entry.count == releases
    assert 1.99 < vault.ledger.spent() <= 2.0
    with pytest.raises(BudgetExceeded, match="release 8 "):
        vault.gradient_mean(network, sampling_rate=rate, clip=0.1, noise_multiplier=sigma)
    assert vault.ledger.releases[0].count == releases


def test_the_sum_is_divided_by_the_expected_batch_size(make_vault, generator):
    """With every record sampled and noise to neglect, the mean times n is the clipped sum."""
    vault = make_vault(epsilon=math.inf)
    network = small_network(generator)
    images, labels = vault._Vault__images, vault._Vault__labels
    expected = gradients.clipped_gradient_sum(network, images, labels, clip=0.1).float()
    mean = flat(vault.gradient_mean(network, sampling_rate=1.0, clip=0.1, noise_multiplier=1e-6))
    assert torch.allclose(mean * 40, expected, atol=1e-5)
    # At a lower rate the divisor stays rate * n, whatever the batch: an empty one releases noise / (rate * n).
    rate = 1e-9
    empty = flat(vault.gradient_mean(network, sampling_rate=rate, clip=0.1, noise_multiplier=2.0))
    scale = empty.std() * rate * 40
    assert scale == pytest.approx(0.2, rel=0.1)  # about 1,000 draws: standard error 2 %


def test_noise_has_the_stated_standard_deviation(make_vault):
    vault = make_vault(epsilon=math.inf)
    wide = 20_000

    def zeros(images, labels):
        return torch.zeros(len(images), wide)

    for relation, factor in (("add-or-remove-one", 1.0), ("replace-one", 2.0)):
        vault = make_vault(epsilon=math.inf)
        drawn = vault.feature_sums(zeros, dimension=wide, clip=3.0, noise_multiplier=0.5, relation=relation)
        assert drawn.shape == (10, wide)
        assert drawn.std().item() == pytest.approx(0.5 * 3.0 * factor, rel=0.01)  # 200,000 draws: s.e. 0.16 %
        assert abs(drawn.mean().item()) < 0.02 * factor


@pytest.mark.parametrize("scale", [0.1, 100.0])
def test_neighbours_differ_by_at_most_the_sensitivity(make_vault, generator, scale):
    """The same noise twice, over neighbouring datasets: what remains is the record's own contribution."""
    images = torch.randn(12, 1, 28, 28, generator=generator) * scale
    labels = torch.arange(12) % 10
    other = images.clone()
    other[3] = torch.randn(1, 28, 28, generator=generator) * scale
    moved = labels.clone()
    moved[3] = 7
    keep = torch.arange(12) != 3
    network = small_network(generator)

    def released(images, labels, relation):
        vault = make_vault(epsilon=math.inf, images=images, labels=labels, noise_seed=5)
        sums = vault.feature_sums(
            lambda x, labels: x.flatten(1), dimension=784, clip=1.0, noise_multiplier=1.0, relation=relation
        )
        return sums.flatten()

    rounding = 1e-4
    for relation, neighbour, sensitivity in (
        ("replace-one", (other, labels), 2.0),
        ("replace-one", (other, moved), 2.0),
        ("add-or-remove-one", (images[keep], labels[keep]), 1.0),
    ):
        distance = (released(images, labels, relation) - released(*neighbour, relation)).norm()
        assert distance <= sensitivity + rounding
    sums = []
    for chosen in (torch.ones(12, dtype=torch.bool), keep):
        vault = make_vault(epsilon=math.inf, images=images[chosen], labels=labels[chosen], noise_seed=5)
        mean = vault.gradient_mean(network, sampling_rate=1.0, clip=0.1, noise_multiplier=1.0)
        sums.append(flat(mean) * chosen.sum())
    assert 0 < (sums[0] - sums[1]).norm() <= 0.1 + rounding


def test_poisson_batches_include_each_record_at_the_sampling_rate(make_vault, generator, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "privset.privacy.vault.clipped_gradient_sum",
        lambda network, images, labels, **options: (
            seen.append(len(images)) or torch.zeros(sum(p.numel() for p in network.parameters()), dtype=torch.float64)
        ),
    )
    vault = make_vault(records=1000, epsilon=math.inf)
    network = small_network(generator)
    for _ in range(300):
        vault.gradient_mean(network, sampling_rate=0.05, clip=0.1, noise_multiplier=1.0)
    sizes = torch.tensor(seen, dtype=torch.float64)
    assert sizes.mean().item() == pytest.approx(50, abs=4 * math.sqrt(47.5 / 300))  # four standard errors
    assert sizes.var().item() == pytest.approx(47.5, rel=0.35)  # binomial variance, not a fixed size


def test_a_batch_of_fixed_size_marks_the_same_records_as_present(make_vault):
    """What a GPU does, on the CPU: the same draws give the same records, the other rows are marked absent."""
    data = torch.randn(1000, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    vaults = [make_vault(images=data, labels=torch.arange(1000) % 10) for _ in range(2)]
    vaults[1]._fixed_rows = True
    network = small_network(torch.Generator().manual_seed(0))
    for _ in range(5):
        for vault in vaults:  # the batch is that of the question charged last
            vault.gradient_mean(network, sampling_rate=0.05, clip=0.1, noise_multiplier=10.0)
        (images, labels, _), (padded, padded_labels, present) = (vault._poisson_batch(0.05) for vault in vaults)
        assert len(padded) == 160  # 50 + 12 * sqrt(50) + 12, rounded up to 32
        assert present.sum() == len(images)
        assert torch.equal(padded[present > 0], images) and torch.equal(padded_labels[present > 0], labels)


def test_a_transformation_and_weights_only_are_part_of_the_release(make_vault, generator):
    vault = make_vault(epsilon=math.inf)
    network = small_network(generator)
    options = {"sampling_rate": 1.0, "clip": 0.1, "noise_multiplier": 1e-6}
    released = vault.gradient_mean(network, **options, weights_only=True, inputs=lambda images, labels: images.flip(3))
    assert [part.ndim for part in released] == [p.ndim for p in network.parameters() if p.ndim > 1]
    images, labels = vault._Vault__images.flip(3), vault._Vault__labels
    expected = gradients.clipped_gradient_sum(network, images, labels, clip=0.1, weights_only=True).float()
    assert torch.allclose(flat(released) * 40, expected, atol=1e-5)


def test_inputs_or_a_loss_that_mix_records_are_refused(make_vault):
    """Also after the same network was found sound with others: what is looked at is the code that will run."""
    torch.manual_seed(3)  # with these weights the loss below changes a gradient's length alone, which a clip hides
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 16))
    options = {"sampling_rate": 0.5, "clip": 0.1, "noise_multiplier": 5.0}
    vault = make_vault(epsilon=math.inf)
    vault.gradient_mean(network, **options, inputs=lambda images, labels: images.flip(3))
    for mixing in (
        {"inputs": lambda images, labels: images - images.mean(0)},
        {"loss": lambda outputs, labels: (outputs[:, 0] - outputs[:, 0].mean()).square()},
    ):
        with pytest.raises(PrivsetError, match="depends on its place in the batch or on who else is there"):
            vault.gradient_mean(network, **options, **mixing)


def test_all_records_leave_only_under_an_infinite_budget(make_vault):
    with pytest.raises(BudgetExceeded):
        make_vault(epsilon=1e9).everything()
    vault = make_vault(epsilon=math.inf)
    assert len(vault.everything()[0]) == 40
    assert vault.ledger.spent() == math.inf


@pytest.mark.parametrize("delta", [0.5, 1.1e-3, 0.0, -1e-5, math.nan])
def test_a_delta_that_promises_nothing_is_refused_when_the_vault_is_opened(make_vault, delta):
    with pytest.raises(PrivsetError, match=rf"delta = {delta:g}: must be at most 0.001 and below 1/40, there being 40 records"):
        make_vault(delta=delta)
    assert make_vault(delta=delta, epsilon=math.inf).everything()  # not private anyway


def test_delta_is_below_one_in_the_records(make_vault):
    images = torch.zeros(2000, 1, 28, 28)
    with pytest.raises(PrivsetError, match=r"delta = 0.0005: must be at most 0.001 and below 1/2000, there being 2000 records"):
        make_vault(images=images, labels=torch.zeros(2000, dtype=torch.int64), delta=1 / 2000)
    make_vault(images=images, labels=torch.zeros(2000, dtype=torch.int64), delta=0.99 / 2000)
    assert make_vault(delta=1e-3).ledger.delta == 1e-3


def test_neighbouring_relations_do_not_mix(make_vault, generator):
    vault = make_vault(epsilon=100)
    vault.feature_sums(lambda x, labels: x.flatten(1), dimension=784, clip=1.0, noise_multiplier=5.0, relation="replace-one")
    with pytest.raises(ValueError, match="cannot mix"):
        vault.gradient_mean(small_network(generator), sampling_rate=0.1, clip=0.1, noise_multiplier=5.0)


@pytest.mark.parametrize("clip", [0.0, -1.0, math.nan])
def test_a_clip_that_is_no_clip_is_refused(make_vault, generator, clip):
    with pytest.raises(ValueError, match="clip"):
        make_vault().gradient_mean(small_network(generator), sampling_rate=0.1, clip=clip, noise_multiplier=5.0)


def test_more_records_than_the_proof_covers_are_refused(make_vault, monkeypatch):
    monkeypatch.setattr(noise, "RECORDS", 39)
    with pytest.raises(PrivsetError, match=r"40 records: the proof in .* covers at most 39"):
        make_vault()


def test_an_answer_of_another_size_than_announced_is_refused(make_vault):
    with pytest.raises(RuntimeError, match="size"):
        make_vault().feature_sums(
            lambda x, labels: x.flatten(1), dimension=783, clip=1.0, noise_multiplier=9.0, relation="replace-one"
        )


def test_methods_have_no_other_way_to_the_data():
    """No method opens files, loads datasets, or reaches behind the vault's door; none draws from the global generator."""
    for path in (Path(privset.__file__).parent / "methods").glob("*.py"):
        text = path.read_text()
        if path.name == "auditing.py":  # attacks methods, with data that it is given, and has their own coins
            text = re.sub("numpy|manual_seed", "", text)
        assert not re.search(r"_Vault__|\bopen\(|datasets\.load|import cells|numpy|manual_seed", text), path.name
        for call in re.findall(r"torch\.rand\w*\(.*", text):
            assert "generator=" in call, f"{path.name}: {call}"


def test_parts_have_budgets_of_their_own_and_share_the_ledger(make_vault, generator):
    vault = make_vault(epsilon=1.0)
    sigma = accounting.calibrate(epsilon=1.0, delta=1e-5, sampling_rate=1.0, releases=1)
    options = {"dimension": 784, "clip": 1.0, "noise_multiplier": sigma, "relation": "add-or-remove-one"}
    first, second = vault.part((3, 4)), vault.part((5,))
    assert (first.facts.records, second.facts.records, vault.facts.records) == (8, 4, 40)
    for part in (first, second):
        part.feature_sums(lambda images, labels: images.flatten(1), **options)
        with pytest.raises(BudgetExceeded):
            part.feature_sums(lambda images, labels: images.flatten(1), **options)
    assert [release.part for release in vault.ledger.releases] == [(3, 4), (5,)]
    assert 0.999 < vault.ledger.spent() <= 1.0
    # What touches all records touches every part.
    with pytest.raises(BudgetExceeded):
        vault.feature_sums(lambda images, labels: images.flatten(1), **options)


def test_a_part_holds_the_records_of_its_classes_alone(make_vault):
    vault = make_vault(epsilon=math.inf)
    images, labels = vault._Vault__images, vault._Vault__labels
    seen = []

    def features(x, y):
        seen.append((x, y))
        return x.flatten(1)

    options = {"dimension": 784, "clip": 1e6, "noise_multiplier": 1e-9, "relation": "add-or-remove-one"}
    sums = vault.part((7, 2)).feature_sums(features, **options)
    assert torch.equal(seen[-1][0], images[(labels == 7) | (labels == 2)])
    assert sums.shape[0] == 10
    local = vault.part((7, 2), local_labels=True)
    assert local.facts.classes == 2
    ours = local.feature_sums(features, **options)
    assert torch.equal(seen[-1][1], (labels[(labels == 7) | (labels == 2)] == 2).long())
    assert torch.allclose(ours, sums[[7, 2]], atol=0.02)


def test_parts_that_overlap_are_refused_before_any_record_is_touched(make_vault):
    vault = make_vault(epsilon=10.0)
    touched = []

    def features(images, labels):
        touched.append(len(images))
        return images.flatten(1)

    options = {"dimension": 784, "clip": 1.0, "noise_multiplier": 20.0, "relation": "add-or-remove-one"}
    vault.part((1, 2)).feature_sums(features, **options)
    with pytest.raises(ValueError, match="overlap"):
        vault.part((2, 3)).feature_sums(features, **options)
    assert len(touched) == 1 and len(vault.ledger.releases) == 1
    vault.part((1, 2)).feature_sums(features, **options)  # the same part again: it adds up
    assert vault.ledger.releases[0].count == 2
    with pytest.raises(ValueError, match="no parts"):
        vault.part((1, 2)).part((1,))


def test_records_are_seen_through_a_public_function(make_vault, generator):
    """The gradient of a linear layer at zero is 1 / classes - one-hot, times what the function shows; NaN counts nowhere."""
    vault = make_vault(epsilon=math.inf)
    images, labels = vault._Vault__images, vault._Vault__labels
    images[3, 0, 0, 0] = float("nan")
    vault._Vault__finite[3] = False
    seen = vault.seen(lambda images: torch.cat([images[:, :, :7, :7], images[:, :, 7:14, :7]], 1), channels=2, size=7)
    assert seen.facts.shape == (2, 7, 7)
    head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(98, 10, bias=False))
    torch.nn.init.zeros_(head[1].weight)
    (mean,) = seen.gradient_mean(head, sampling_rate=1.0, clip=100.0, noise_multiplier=1e-6)  # noise of 1e-4
    keep = torch.arange(40) != 3
    rows = torch.cat([images[keep, :, :7, :7], images[keep, :, 7:14, :7]], 1).flatten(1)
    error = 0.1 - torch.nn.functional.one_hot(labels[keep], 10)
    assert torch.allclose(mean * 40, error.T @ rows, atol=1e-3)
    assert len(vault.ledger.releases) == 1  # one ledger


MIXING = [lambda images: images - images.mean(0), lambda images: images.flip(0), lambda images: images.cumsum(0)]


@pytest.mark.parametrize("function", MIXING)
def test_a_function_that_mixes_records_shows_none(make_vault, function):
    with pytest.raises(PrivsetError, match="depends on who else is there"):
        make_vault(epsilon=1.0).seen(function, channels=1, size=28)


def test_each_function_is_looked_at_with_as_many_images_as_it_will_be_shown(make_vault):
    """Two closures of one code, of which the second mixes records; and no call with more images than were looked at."""
    vault, sizes = make_vault(records=150), []

    def through(mix):
        def function(images):
            sizes.append(len(images))
            return mix(images)

        return function

    vault.seen(through(lambda images: 2 * images), channels=1, size=28)
    assert max(sizes) == places.AT_ONCE and sizes[-3:] == [64, 64, 22]
    with pytest.raises(PrivsetError, match="depends on who else is there"):
        vault.seen(through(lambda images: images.flip(0)), channels=1, size=28)


def test_what_a_function_shows_has_the_announced_shape(make_vault):
    with pytest.raises(ValueError, match="not \\(N, 1, 14, 14\\)"):
        make_vault(epsilon=1.0).seen(lambda images: images, channels=1, size=14)
