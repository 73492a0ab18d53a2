"""Taught: a teacher's gradients against autograd, its budget beside PSM's, its resumption, and sets that say what it says."""

import math

import pytest
import torch
from torch.nn import functional as F

from conftest import killed_and_resumed
from privset.jobs.run import Run
from privset.methods import psm_releases, taught, taught_releases
from privset.networks import leaves

SMALL = taught_releases.ReleaseConfig(
    random_networks=3, trained_networks=2, width=16, rounds=1, first_iterations=3, teacher_steps=5, teacher_learning_rate=2.0
)
CONFIG = taught.Config(first_iterations=2, iterations=3, base_spc=2)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(psm_releases, "SCHEDULES", (2, 3))
    monkeypatch.setattr(taught, "CHUNK", 64)


def run(spc=None, seed=0, **hooks):
    return Run(spc=spc, generator=torch.Generator().manual_seed(seed), **hooks)


def two_classes(generator):
    """Records that a line separates in any features that see edges: bars that lie, and bars that stand."""
    labels = torch.arange(200) % 2
    images = 0.1 * torch.randn(200, 1, 28, 28, generator=generator)
    images[labels == 0, :, 12:16, 4:24] += 2
    images[labels == 1, :, 4:24, 12:16] += 2
    return images.clamp(-0.4, 2.8), labels


@pytest.mark.parametrize("epsilon", [0.5, 10.0])
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_teacher_and_base_spend_the_whole_budget_and_no_more(make_vault, epsilon, share):
    vault = make_vault(epsilon=epsilon)
    taught_releases.release(vault, SMALL.model_copy(update={"teacher_share": share}), run())
    entries = vault.ledger.releases
    assert [entry.count for entry in entries] == [5, 1, 1]
    assert 0.999 * epsilon < vault.ledger.spent() <= epsilon
    mu_squared = [entry.count / entry.event.noise_multiplier**2 for entry in entries]
    assert mu_squared[0] / sum(mu_squared) == pytest.approx(share, rel=1e-6)
    assert mu_squared[1] / sum(mu_squared) == pytest.approx((1 - share) * SMALL.first_share, rel=1e-6)


def test_the_teacher_is_momentum_on_the_clipped_softmax_gradient(make_vault, generator):
    """With the gradient of each record by autograd; what is left is the noise of five steps, as momentum adds it up."""
    images, labels = two_classes(generator)
    vault = make_vault(images=images, labels=labels, classes=2, epsilon=math.inf)
    config = SMALL.model_copy(update={"teacher_clip": 0.3})
    teacher = taught_releases.release(vault, config, run()).teacher
    rows = taught_releases.features(vault.facts.to_pixels(images))
    assert (rows.norm(dim=1) <= taught_releases.LENGTH * (1 + 1e-5)).all()
    weight, velocity = torch.zeros(2, rows.shape[1]), 0
    for _ in range(config.teacher_steps):
        total = 0
        for row, label in zip(rows, labels, strict=True):
            moved = weight.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy((moved @ row)[None], label[None]), [moved])
            total = total + gradient * (0.3 / gradient.norm()).clamp(max=1)
        velocity = config.teacher_momentum * velocity + total / len(rows)
        weight = weight - config.teacher_learning_rate * velocity
    step = config.teacher_learning_rate * 0.3 * vault.ledger.releases[0].event.noise_multiplier / len(rows)
    added = [sum(config.teacher_momentum**k for k in range(later)) for later in range(1, config.teacher_steps + 1)]
    left = (teacher - weight) / (step * math.hypot(*added))
    assert float(left.square().mean().sqrt()) == pytest.approx(1, rel=0.05)  # 7,940 draws: standard error 0.8 %
    assert left.abs().max() < 6
    assert ((rows @ teacher.T).argmax(1) == labels).double().mean() > 0.98


@pytest.mark.parametrize("stop", [1, 4, 5, 6, 7, 9])
def test_an_interrupted_release_ends_with_the_same_bits(make_vault, stop):
    """Stopped within the teacher's steps, after them, after PSM's first release, and in its set."""
    data = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(5))
    whole = taught_releases.release(make_vault(images=data), SMALL, run())
    rest, ledger = killed_and_resumed(
        lambda vault, run: taught_releases.release(vault, SMALL, run), lambda: make_vault(images=data), run, stop=stop
    )
    for name, tensor in whole.to_tensors().items():
        assert torch.equal(tensor, rest.to_tensors()[name]), name
    assert [entry.count for entry in ledger.releases] == [5, 1, 1]


def test_a_set_has_as_many_images_of_each_class_as_the_teacher_finds_likeliest(make_vault, generator):
    images, labels = two_classes(generator)
    vault = make_vault(images=images, labels=labels, classes=2, epsilon=math.inf)
    statistics = taught_releases.release(vault, SMALL, run())
    again = taught.Statistics.from_tensors(statistics.to_tensors(), vault.facts)
    made, made_labels = taught.synthesize(statistics, vault.facts, CONFIG, run(40))
    assert made_labels.tolist() == [0] * 40 + [1] * 40
    pixels = vault.facts.to_pixels(made)
    assert pixels.min() > -1e-5 and pixels.max() < 1 + 1e-5
    assert len(made.flatten(1).unique(dim=0)) == 80
    soft = taught.soft_labels(statistics, made, made_labels, CONFIG, vault.facts)
    assert torch.allclose(soft.sum(1), torch.ones(80)) and (soft.argmax(1) == made_labels).all()
    scores = taught_releases.features(pixels) @ statistics.teacher.T
    assert torch.allclose(soft, F.softmax(scores / CONFIG.temperature, 1), atol=1e-6)
    repeated, _ = taught.synthesize(again, vault.facts, CONFIG, run(40))
    assert torch.equal(made, repeated)


def test_a_class_that_the_teacher_never_names_gets_what_comes_closest(make_vault):
    """Of ten classes, of which the teacher always names the first."""
    vault = make_vault()
    statistics = taught_releases.release(vault, SMALL, run())
    statistics.teacher[0, -1] += 1e4
    made, labels = taught.synthesize(statistics, vault.facts, CONFIG, run(3))
    assert made.isfinite().all() and labels.bincount().tolist() == [3] * 10
    soft = taught.soft_labels(statistics, made, labels, CONFIG, vault.facts)
    assert (soft.argmax(1) == 0).all()
    assert (made.flatten(1).norm(dim=1) > 0).all()


def test_statistics_with_something_else_in_them_are_not_whole(make_vault):
    arrays = {k: v.numpy() for k, v in taught_releases.release(make_vault(), SMALL, run()).to_tensors().items()}
    assert taught_releases.whole(arrays, SMALL)
    assert not taught_releases.whole({**arrays, "more": arrays["means"]}, SMALL)
    assert not taught_releases.whole({**arrays, "teacher": arrays["teacher"][:-1]}, SMALL)
    assert not taught_releases.whole({k: v for k, v in arrays.items() if k != "teacher"}, SMALL)


def test_random_shapes_are_images_of_their_seed(generator):
    drawn = leaves.draw(300, channels=3, size=20, generator=generator)
    assert drawn.shape == (300, 3, 20, 20) and drawn.min() >= 0 and drawn.max() <= 1
    assert len(drawn.flatten(1).unique(dim=0)) > 295
    black = (drawn == 0).flatten(1).double().mean(1)
    assert 0.2 < (black > 0.2).double().mean() < 0.6  # half of the grounds are black, and shapes cover a part
    first, second = (leaves.draw(5, channels=1, size=28, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
