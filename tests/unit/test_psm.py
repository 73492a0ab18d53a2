"""PSM: its queries against autograd and their stated norms, its budget, its resumption, and that sets need no vault."""

import contextlib
import copy
import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from conftest import killed_and_resumed
from privset import PrivsetError
from privset.evaluation import training
from privset.jobs.blocks import parse
from privset.jobs.run import Run
from privset.methods import psm, psm_matching, psm_releases
from privset.networks import unrolled
from privset.privacy import accounting
from privset.sets import tiles

SMALL = psm_releases.ReleaseConfig(random_networks=3, trained_networks=2, width=4, rounds=1, first_iterations=3)
TWO_ROUNDS = SMALL.model_copy(update={"rounds": 2, "round_iterations": 4})


@pytest.fixture(autouse=True)
def short_training(monkeypatch):
    monkeypatch.setattr(psm_releases, "SCHEDULES", (2, 3))
    monkeypatch.setattr(psm, "SURROGATE_SPC", 4)
    monkeypatch.setattr(psm, "SURROGATE_ITERATIONS", (2, 3))
    monkeypatch.setattr(unrolled, "LONGEST", 3)


def run(spc=None, seed=0, **hooks):
    return Run(spc=spc, generator=torch.Generator().manual_seed(seed), **hooks)


def test_error_features_are_the_last_layers_gradients(make_vault, generator):
    """For each record by autograd, divided by the feature's norm; the clip is far away."""
    network = psm_matching.matching_network(make_vault().facts, 4, generator).requires_grad_(True)
    images, labels = torch.randn(6, 1, 28, 28, generator=generator), torch.tensor([0, 1, 2, 3, 9, 9])
    rows = psm_matching.error_features(network, images, labels, clip=100.0)
    for image, label, row in zip(images, labels, rows, strict=True):
        loss = F.cross_entropy(network(image[None]), label[None])
        (gradient,) = torch.autograd.grad(loss, [network[-1].weight])
        norm = network[:-1](image[None]).norm()
        assert torch.allclose(row, gradient / norm, rtol=1e-4, atol=1e-7)


def test_a_records_rows_have_the_norm_that_is_stated_as_sensitivity(make_vault, generator):
    """Tight: nothing that the vault would have to cut, whatever the image."""
    vault = make_vault()
    asked = []

    def spy(features, *, clip, **options):
        rows = features(10 * torch.randn(50, 1, 28, 28, generator=generator), torch.arange(50) % 10)
        asked.append((rows.norm(dim=1), clip))
        return original(features, clip=clip, **options)

    original, vault.feature_sums = vault.feature_sums, spy
    psm_releases.release(vault, SMALL, run())
    (first, first_clip), (second, second_clip) = asked
    assert first_clip == pytest.approx(math.sqrt(3 * 1.01)) and second_clip == pytest.approx(0.7 * math.sqrt(2))
    assert torch.allclose(first, first.new_full((), first_clip), rtol=1e-5)
    assert (second <= second_clip * (1 + 1e-6)).all() and second.max() > 0.3 * second_clip


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_two_releases_spend_the_whole_budget_and_no_more(make_vault, epsilon, share):
    vault = make_vault(epsilon=epsilon)
    psm_releases.release(vault, SMALL.model_copy(update={"first_share": share}), run())
    first, second = vault.ledger.releases
    assert (first.count, second.count) == (1, 1)
    assert 0.999 * epsilon < vault.ledger.spent() <= epsilon
    multipliers = [entry.event.noise_multiplier for entry in (first, second)]
    mu_squared = [1 / multiplier**2 for multiplier in multipliers]
    assert mu_squared[0] / sum(mu_squared) == pytest.approx(share, rel=1e-6)
    assert accounting.pld_epsilon([(entry.event, 1) for entry in (first, second)], 1e-5) == pytest.approx(epsilon, rel=2e-3)


@pytest.mark.parametrize("rounds", [1, 3])
def test_rounds_share_the_budget_of_the_second_release(make_vault, rounds):
    vault = make_vault(epsilon=2.0)
    statistics = psm_releases.release(vault, SMALL.model_copy(update={"rounds": rounds, "round_iterations": 2}), run())
    assert len(statistics.trained) == len(statistics.gradients) == 2 * rounds
    first, rest = vault.ledger.releases
    assert (first.count, rest.count) == (1, rounds)
    mu_squared, rest_squared = (entry.count / entry.event.noise_multiplier**2 for entry in (first, rest))
    assert mu_squared / (mu_squared + rest_squared) == pytest.approx(0.4, rel=1e-6)
    assert 0.999 * 2 < vault.ledger.spent() <= 2


def test_a_round_asks_at_networks_that_were_trained_on_what_came_before(make_vault):
    """One round's networks are the first of two rounds', to the bit; the second round's come from a later set."""
    data = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(5))
    one, two = (psm_releases.release(make_vault(images=data), config, run()) for config in (SMALL, TWO_ROUNDS))
    weights = two.to_tensors()["trained"]
    assert torch.equal(weights[:2], one.to_tensors()["trained"]) and not torch.equal(weights[2:], weights[:2])
    assert not torch.equal(one.start, two.start)


def test_with_hardly_any_noise_the_statistics_are_the_class_means(make_vault, generator, monkeypatch):
    monkeypatch.setattr(accounting, "calibrate", lambda **_: 1e-5)
    images = torch.randn(60, 1, 28, 28, generator=generator)
    labels = torch.cat([torch.zeros(30), torch.arange(30) % 9 + 1]).long()
    statistics = psm_releases.release(make_vault(images=images, labels=labels, epsilon=math.inf), SMALL, run())
    assert torch.allclose(statistics.counts, torch.bincount(labels).float(), rtol=1e-3)
    for network, means in zip(statistics.random, statistics.means, strict=True):
        expected = torch.stack([psm_matching.features(network, images[labels == label]).mean(0) for label in range(10)])
        assert torch.allclose(means, expected, atol=1e-3)
    for network, gradients in zip(statistics.trained, statistics.gradients, strict=True):
        rows = psm_matching.error_features(network, images, labels, 0.7)
        expected = torch.stack([rows[labels == label].mean(0) for label in range(10)])
        assert torch.allclose(gradients, expected, atol=1e-3)


def test_sets_of_every_size_come_from_the_same_statistics_without_a_vault(make_vault):
    vault = make_vault()
    statistics = psm_releases.release(vault, SMALL, run())
    again = psm.Statistics.from_tensors(statistics.to_tensors(), vault.facts)
    config = psm.Config(iterations=4, first_iterations=3)
    for spc in (1, psm.FIRST_SPC, 12):
        losses = []
        hooks = {"report": lambda step, loss, losses=losses: losses.append(float(loss))}
        images, labels = psm.synthesize(statistics, vault.facts, config, run(spc, **hooks))
        assert images.shape == (10 * spc, 1, 28, 28) and torch.equal(labels, torch.arange(10).repeat_interleave(spc))
        pixels = vault.facts.to_pixels(images)
        assert pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6
        assert len(losses) == (4 if spc == psm.FIRST_SPC else 7) and all(map(math.isfinite, losses))
        repeated, _ = psm.synthesize(again, vault.facts, config, run(spc))
        assert torch.equal(images, repeated)
        assert not torch.equal(images, psm.synthesize(again, vault.facts, config, run(spc, seed=1))[0])


def test_unrolled_steps_are_trained_on_the_surrogate_and_change_the_set_alone(make_vault, monkeypatch):
    """The loss is asked for the set and the surrogate, made from the same statistics; no snapshot shows the surrogate."""
    vault = make_vault()
    statistics = psm_releases.release(vault, SMALL, run())
    config = psm.Config(iterations=4, first_iterations=3, unrolled_steps=2)
    asked, original = [], unrolled.loss

    def spy(network, images, labels, targets, target_labels, **options):
        asked.append((images.detach().clone(), labels, targets, target_labels))
        return original(network, images, labels, targets, target_labels, **options)

    monkeypatch.setattr(unrolled, "loss", spy)
    steps, shown = [], []
    hooks = {"report": lambda step, loss: steps.append(step), "start": lambda total: steps.append(-total)}
    hooks["snapshot"] = lambda step, make: shown.append((step, len(make()[0])))
    images, labels = psm.synthesize(statistics, vault.facts, config, run(1, **hooks))
    assert steps == [-14, *range(1, 15)] and shown == [(step, 10) for step in range(6, 15)]
    (first, *_), (second, *_) = asked
    assert not torch.equal(first, second) and not torch.equal(second, images)
    for _, asked_labels, targets, target_labels in asked:
        assert torch.equal(asked_labels, labels) and len(targets) == 40
        assert torch.equal(target_labels, torch.arange(10).repeat_interleave(4))
        assert torch.equal(targets, asked[0][2])


def test_a_set_may_be_computed_in_bfloat16_and_no_release_is(make_vault, monkeypatch):
    """Every pass of a release, those between its rounds included, asks for float32; every pass of such a set for bfloat16."""
    vault, asked, original = make_vault(), [], training.autocast

    def spy(precision, device):
        asked.append(precision)
        return original(precision, device)

    monkeypatch.setattr(training, "autocast", spy)
    statistics = psm_releases.release(vault, TWO_ROUNDS, run())
    assert set(asked) == {"float32"}
    asked.clear()
    config = psm.Config(iterations=4, first_iterations=3, precision="bfloat16")
    images, _ = psm.synthesize(statistics, vault.facts, config, run(12))
    assert asked == ["bfloat16"] * 7 and torch.isfinite(images).all() and images.dtype == torch.float32

    image = torch.linspace(-1, 1, 784).view(1, 1, 28, 28)
    exact, rough = (psm_matching.features(statistics.random[0], image, precision) for precision in ("float32", "bfloat16"))
    assert exact.dtype == rough.dtype == torch.float32
    assert torch.allclose(exact, rough, atol=0.02) and torch.allclose(rough.norm(), torch.ones(()), atol=1e-5)
    has_bfloat16 = not isinstance(original("bfloat16", image.device), contextlib.nullcontext)
    assert torch.equal(exact, rough) != has_bfloat16


def test_matching_brings_the_sets_statistics_to_the_released_ones(make_vault, generator):
    """On two easy classes and with hardly any noise the images come to look like their classes."""
    labels = torch.arange(200) % 2
    images = 0.3 * torch.randn(200, 1, 28, 28, generator=generator)
    images[labels == 0, :, 4:12, 4:24] += 2
    images[labels == 1, :, 16:24, 4:24] += 2
    vault = make_vault(images=images.clamp(-1, 1), labels=labels, classes=2, epsilon=1e6)
    statistics = psm_releases.release(vault, SMALL.model_copy(update={"width": 8, "first_iterations": 100}), run())
    made, made_labels = psm.synthesize(statistics, vault.facts, psm.Config(iterations=100), run(psm.FIRST_SPC))
    for label in (0, 1):
        ours, other = (
            torch.cosine_similarity(made[made_labels == label].mean(0).flatten(), images[labels == k].mean(0).flatten(), 0)
            for k in (label, 1 - label)
        )
        assert ours > 0.5 and ours > other + 0.3


@pytest.mark.parametrize("stop", [1, 2, 4, 5, 7, 9, 10])
def test_an_interrupted_release_ends_with_the_same_bits(make_vault, stop):
    """Stopped after any checkpoint: after the first release, in the first set, at its end; after the first round, in the set
    that follows and at its end; after the second."""
    data = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(5))
    steps = []
    hooks = {"report": lambda step, loss: steps.append(step), "start": lambda total: steps.append(-total)}
    whole = psm_releases.release(make_vault(images=data), TWO_ROUNDS, run(**hooks))
    assert steps == [-max(steps), *range(1, max(steps) + 1)]

    rest, ledger = killed_and_resumed(
        lambda vault, run: psm_releases.release(vault, TWO_ROUNDS, run), lambda: make_vault(images=data), run, stop=stop
    )
    for name, tensor in whole.to_tensors().items():
        assert (tensor == rest.to_tensors()[name]).all(), name
    assert [entry.count for entry in ledger.releases] == [1, 2]


@pytest.mark.parametrize(
    "stop, unrolled_steps",
    [(2, 0), (5, 0), *((stop, 3) for stop in (1, 2, 4, 5, 7, 8, 11, 12, 14))],
)
def test_an_interrupted_set_ends_with_the_same_bits(make_vault, stop, unrolled_steps):
    """Stopped within and at the end of every stage: with unrolled steps those of the surrogate (2 and 3 steps) come first."""
    vault = make_vault()
    statistics = psm_releases.release(vault, SMALL, run())
    config = psm.Config(iterations=4, first_iterations=3, unrolled_steps=unrolled_steps)
    whole, _ = psm.synthesize(statistics, vault.facts, config, run(2))
    saved, interrupted = [], run(2)

    def checkpoint(state):
        saved.append(copy.deepcopy((state, interrupted.generator.get_state())))

    psm.synthesize(statistics, vault.facts, config, dataclasses.replace(interrupted, checkpoint=checkpoint))
    state, generator_state = saved[stop - 1]
    resumed = run(2)

    def restore():
        resumed.generator.set_state(generator_state)
        return state

    rest, _ = psm.synthesize(statistics, vault.facts, config, dataclasses.replace(resumed, restore=restore))
    assert torch.equal(whole, rest)


def test_shares_and_rounds_that_are_none_are_refused():
    for cls, key, value, remedy in (
        (psm_releases.ReleaseConfig, "first_share", 1, "must be < 1"),
        (psm_releases.ReleaseConfig, "rounds", 0, "must be >= 1"),
        (psm.Config, "unrolled_steps", -1, "must be >= 0"),
        (psm.Config, "soft_labels", 1.5, "must be <= 1"),
        (psm.Config, "precision", "half", "choose from 'float32' or 'bfloat16'"),
        (psm.Config, "iterations", "many", "Input should be a valid integer"),
    ):
        with pytest.raises(PrivsetError, match=rf"^here: {key} = {value!r}: {remedy}$"):
            parse(cls, {key: value}, "here")


def test_tiled_sets_store_one_image_for_four(make_vault):
    vault = make_vault()
    statistics = psm_releases.release(vault, SMALL, run())
    config = psm.Config(iterations=4, first_iterations=3, tiles=2)
    losses = []
    images, labels = psm.synthesize(statistics, vault.facts, config, run(2, report=lambda step, loss: losses.append(loss)))
    assert images.shape == (20, 1, 28, 28) and torch.equal(labels, torch.arange(10).repeat_interleave(2))
    assert len(losses) == 7
    with pytest.raises(PrivsetError, match="tiles = 3: 28 pixels"):
        psm.synthesize(statistics, vault.facts, config.model_copy(update={"tiles": 3}), run(2))


@pytest.mark.parametrize("count", [1, 2])
def test_soft_labels_are_what_the_trained_networks_say(make_vault, count):
    vault = make_vault()
    statistics = psm_releases.release(vault, SMALL, run())
    config = psm.Config(iterations=4, first_iterations=3, tiles=count, soft_labels=0.25)
    images, labels = psm.synthesize(statistics, vault.facts, config, run(2))
    soft = psm.soft_labels(statistics, images, labels, config, vault.facts)
    shown, classes = tiles.unpack(images, count), tiles.unpack_labels(labels, count)
    said = sum(F.softmax(network(shown), 1) for network in statistics.trained) / len(statistics.trained)
    assert soft.shape == (20 * count**2, 10) and torch.allclose(soft.sum(1), torch.ones(len(soft)))
    assert torch.allclose(soft, 0.25 * said + 0.75 * torch.eye(10)[classes], atol=1e-6)
    assert psm.soft_labels(statistics, images, labels, config.model_copy(update={"soft_labels": 0.0}), vault.facts) is None


def test_soft_labels_need_trained_networks_and_a_share(make_vault):
    vault = make_vault()
    statistics = psm_releases.release(vault, SMALL.model_copy(update={"trained_networks": 0}), run())
    config = psm.Config(iterations=2, first_iterations=2, soft_labels=1.0)
    with pytest.raises(PrivsetError, match="soft_labels need trained_networks"):
        psm.soft_labels(statistics, *psm.synthesize(statistics, vault.facts, config, run(2)), config, vault.facts)
