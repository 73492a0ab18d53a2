"""PSG and DP-MERF: their formulas, and that they ask the vault exactly as often as they were calibrated for."""

import dataclasses
import io
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

from privset import PrivsetError
from privset.data.datasets import PublicFacts
from privset.jobs import rows
from privset.jobs.blocks import Block, parse
from privset.jobs.run import Run
from privset.jobs.seeds import derived_seed
from privset.methods import dp_merf, load, load_releases, psg, psg_prior
from privset.privacy import accounting
from privset.privacy.noise import ROUNDING
from privset.privacy.vault import Vault


def run(spc, seed=0):
    return Run(spc=spc, generator=torch.Generator().manual_seed(seed))


def test_matching_loss_is_the_papers(generator):
    """One minus cosine per output row, summed; biases and norm layers do not enter. Directly, row by row."""
    shapes = [(4, 2, 3, 3), (4,), (5, 7), (5,)]
    a, b = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
    expected = 0.0
    for x, y in zip(a, b, strict=True):
        if x.ndim == 1:
            continue
        for row, other in zip(x.reshape(len(x), -1).numpy(), y.reshape(len(y), -1).numpy(), strict=True):
            expected += 1 - row @ other / (np.linalg.norm(row) * np.linalg.norm(other) + 1e-6)
    assert psg.matching_loss(a, b).item() == pytest.approx(expected, rel=1e-5)
    assert psg.matching_loss(a, a).item() == pytest.approx(0, abs=1e-5)
    assert psg.matching_loss(a, [-x for x in a]).item() == pytest.approx(2 * 9, rel=1e-5)


def test_the_other_metrics_compare_all_tensors_as_one_vector(generator):
    shapes = [(4, 2, 3, 3), (4,), (5, 7), (5,)]
    a, b = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
    x, y = (np.concatenate([tensor.numpy().ravel() for tensor in tensors]) for tensors in (a, b))
    assert psg.matching_loss(a, b, "mse").item() == pytest.approx(((x - y) ** 2).sum(), rel=1e-5)
    cosine = x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
    assert psg.matching_loss(a, b, "cos").item() == pytest.approx(1 - cosine, rel=1e-5)


@pytest.mark.parametrize("option", ["metric", "augmentation"])
def test_an_unknown_option_is_named_with_its_choices(option):
    with pytest.raises(PrivsetError, match=f"psg: {option} = 'best': choose from"):
        parse(psg.Config, {"outer": 1, "inner": 1, option: "best"}, "psg")


SMALL = {"iterations": 3, "outer": 2, "inner": 1, "batches": 2, "batch_size": 20, "width": 4}


def test_psg_makes_exactly_the_releases_it_was_calibrated_for(make_vault):
    vault = make_vault(epsilon=5.0)
    images, labels = psg.synthesize(vault, psg.Config(**SMALL), run(2))
    assert images.shape == (20, 1, 28, 28)
    assert labels.tolist() == [label for label in range(10) for _ in range(2)]
    (entry,) = vault.ledger.releases
    assert entry.count == 3 * 2 * 2
    assert 4.99 < vault.ledger.spent() <= 5.0
    event = accounting.gaussian_event(noise_multiplier=entry.event.event.noise_multiplier, sampling_rate=20 / 40)
    assert entry.event == event


@pytest.mark.parametrize(
    "options",
    [
        {"augmentation": "siamese"},
        {"weights_only": True},
        {"metric": "cos"},
        {"metric": "mse", "network": "mlp"},
        {"network": "lenet"},
        {"depth": 2},
    ],
)
def test_every_option_of_psg_runs_and_changes_the_set_but_not_the_accounting(options, make_vault):
    vaults = [make_vault(images=DATA) for _ in range(2)]
    plain, other = (
        psg.synthesize(vault, psg.Config(**{**SMALL, **chosen}), run(1))[0]
        for vault, chosen in zip(vaults, ({}, options), strict=True)
    )
    assert torch.isfinite(other).all() and not torch.equal(plain, other)
    (first,), (second,) = (vault.ledger.releases for vault in vaults)
    assert second == dataclasses.replace(first, dimension=second.dimension)


def test_compiled_psg_makes_the_same_set_up_to_rounding(make_vault):
    small = {**SMALL, "depth": 1, "iterations": 1}
    plain, fused = (
        psg.synthesize(make_vault(images=DATA), psg.Config(**small, compile=compile), run(2))[0] for compile in (False, True)
    )
    # Four updates: rounding differences of 1e-6 in a gradient do not grow to more than this.
    assert (plain - fused).norm() / plain.norm() < 1e-3


def test_psg_repeats_to_the_bit_and_depends_on_its_seed(make_vault):
    def images(seed, noise_seed=1):
        return psg.synthesize(make_vault(images=DATA, noise_seed=noise_seed), psg.Config(**SMALL), run(2, seed))[0]

    assert torch.equal(images(1), images(1))
    assert not torch.equal(images(1), images(2))
    assert not torch.equal(images(1), images(1, noise_seed=9))


DATA = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(8))


def test_psg_with_hardly_any_noise_learns_the_classes(make_vault):
    """A sanity check, never a result: on two easy classes and a huge budget a network trained on the set is right."""
    images, labels = easy_classes()
    vault = make_vault(images=images, labels=labels, classes=2, epsilon=1e6)
    config = psg.Config(iterations=20, outer=1, inner=1, batches=5, batch_size=50, width=8, clip=1.0, image_learning_rate=1.0)
    start = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    learned, _ = psg.synthesize(vault, config, run(1))
    truth = torch.stack([images[labels == label].mean(0) for label in (0, 1)])

    def match(candidates):
        return [torch.cosine_similarity(c.flatten(), t.flatten(), 0).item() for c, t in zip(candidates, truth, strict=True)]

    assert all(after > before + 0.2 for before, after in zip(match(start), match(learned), strict=True))


def test_the_prior_makes_the_same_kind_of_releases_and_its_set_is_the_generators(make_vault):
    """The set and the fresh samples come from one generator: other codes, other images, the same releases."""
    vault, kept = make_vault(epsilon=5.0, images=DATA), {}
    config = psg_prior.Config(iterations=3, inner=1, batches=2, batch_size=20, width=4)
    start = run(2)
    made = Run(spc=2, generator=start.generator, keep=lambda name, images: kept.update({name: images}))
    images, labels = psg_prior.synthesize(vault, config, made)
    assert images.shape == kept["fresh_codes"].shape == (20, 1, 28, 28) and not images.requires_grad
    assert labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert not torch.equal(images, kept["fresh_codes"])
    (entry,) = vault.ledger.releases
    assert entry.count == 3 * 2 * 2 and 4.99 < vault.ledger.spent() <= 5.0
    again, _ = psg_prior.synthesize(make_vault(epsilon=5.0, images=DATA), config, run(2))
    assert torch.equal(images, again)


def easy_classes():
    """Two classes that anyone can tell apart: a bright block above or below the middle."""
    labels = torch.arange(200) % 2
    images = 0.3 * torch.randn(200, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    images[labels == 0, :, 4:12, 4:24] += 2
    images[labels == 1, :, 16:24, 4:24] += 2
    return images, labels


def test_the_prior_learns_the_classes_through_the_generators_weights(make_vault):
    """A sanity check, never a result: with hardly any noise each class's image is more like its own class than the other."""
    images, labels = easy_classes()
    vault = make_vault(images=images, labels=labels, classes=2, epsilon=1e6)
    options = {"iterations": 20, "outer": 1, "inner": 1, "batches": 5, "batch_size": 50, "width": 8, "clip": 1.0}
    learned, _ = psg_prior.synthesize(vault, psg_prior.Config(**options), run(1))
    truth = torch.stack([images[labels == label].mean(0) for label in (0, 1)])
    likeness = torch.cosine_similarity(learned.flatten(1)[:, None], truth.flatten(1)[None], dim=2)
    assert likeness[0, 0] > likeness[0, 1] + 0.3 and likeness[1, 1] > likeness[1, 0] + 0.3


def test_dp_merf_makes_one_release_at_the_exact_noise_multiplier(make_vault):
    vault = make_vault(epsilon=1.0)
    config = dp_merf.Config(length_scale=105, features=100, steps=5, batch_size=20)
    images, labels = dp_merf.synthesize(vault, config, run(3))
    assert images.shape == (30, 1, 28, 28)
    assert torch.equal(labels, torch.arange(10).repeat_interleave(3))
    (entry,) = vault.ledger.releases
    assert (entry.count, entry.relation, entry.sensitivity) == (1, "replace-one", 2.0 * (1 + ROUNDING))
    assert entry.event.noise_multiplier == pytest.approx(3.7306, abs=1e-3)
    pixels = vault.facts.to_pixels(images)
    assert pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6


GENERATORS = {
    "dp_merf": {"length_scale": 105.0, "features": 64, "steps": 2, "batch_size": 4},
    "pearl": {"features": 64, "steps": 5, "batch_size": 4},
    "dp_cgan": {"steps": 6, "batch_size": 20, "generated": 8, "hidden": 16, "latent": 4},
    "dp_flow": {"steps": 6, "batch_size": 20, "coefficients": 16, "couplings": 2, "hidden": 16},
    "dp_sinkhorn": {"steps": 6, "batch_size": 20, "generated": 5, "width": 2, "latent": 4},
    "dp_swd": {"steps": 6, "batch_size": 20, "generated": 10, "directions": 8},
    "gs_wgan": {"members": 4, "steps": 6, "warm_steps": 2, "critic_steps": 1, "batch_size": 8, "hidden": 8, "width": 2},
    "g_pate": {"members": 4, "steps": 6, "batch_size": 5, "hidden": 8, "width": 2, "latent": 4},
    "datalens": {"members": 4, "steps": 6, "batch_size": 5, "hidden": 8, "width": 2, "latent": 4, "largest": 20},
    "pate_gan": {"members": 4, "steps": 6, "teacher_steps": 1, "student_steps": 2, "batch_size": 8, "hidden": 16, "latent": 4},
}
SAMPLING = ["dp_cgan", "dp_flow", "dp_sinkhorn", "dp_swd"]
ENSEMBLES = ["gs_wgan", "g_pate", "datalens", "pate_gan"]


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32)])
def test_generators_make_the_images_that_the_data_have(name, channels, size):
    facts = PublicFacts(records=40, classes=3, channels=channels, size=size, mean=(0.5,) * channels, std=(0.5,) * channels)
    images, labels = torch.zeros(40, channels, size, size), torch.zeros(40, dtype=torch.int64)
    vault = Vault(images, labels, facts=facts, epsilon=1.0, delta=1e-5, key=1)
    module = load(name)
    made, made_labels = module.synthesize(vault, module.Config.model_validate(GENERATORS[name]), run(2))
    assert made.shape == (6, channels, size, size) and torch.equal(made_labels, torch.arange(3).repeat_interleave(2))
    pixels = facts.to_pixels(made)
    assert torch.isfinite(made).all() and pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6


@pytest.mark.parametrize("name", ["dp_merf", "pearl", "dp_sinkhorn", "dp_swd", "gs_wgan", "g_pate", "datalens"])
def test_a_size_that_a_generator_cannot_make_is_one_line(name):
    facts = PublicFacts(records=40, classes=10, channels=1, size=30, mean=(0.5,), std=(0.5,))
    vault = Vault(torch.zeros(40, 1, 30, 30), torch.zeros(40, dtype=torch.int64), facts=facts, epsilon=1.0, delta=1e-5, key=1)
    module = load(name)
    with pytest.raises(PrivsetError, match="images of 30x30: this generator makes sizes that are a multiple of 4"):
        module.synthesize(vault, module.Config.model_validate(GENERATORS[name]), run(1))


PSG = {"psg": SMALL, "psg_prior": {"iterations": 1, "inner": 1, "batches": 1, "width": 4}, "psg_continual": SMALL}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_more_members_than_records_are_one_line(name, make_vault):
    module, vault = load(name), make_vault(images=DATA)
    config = module.Config.model_validate(GENERATORS[name] | {"members": 41})
    with pytest.raises(PrivsetError, match=r"^41 members: there are 40 records, and each needs one$"):
        module.synthesize(vault, config, run(1))
    assert vault.ledger.releases == []


def test_datalens_cannot_give_more_signs_than_there_are_pixels(make_vault):
    module = load("datalens")
    with pytest.raises(PrivsetError, match=r"^largest = 785: a gradient has 784 coordinates; choose at most as many$"):
        module.synthesize(
            make_vault(images=DATA), module.Config.model_validate(GENERATORS["datalens"] | {"largest": 785}), run(1)
        )


@pytest.mark.parametrize("name", [*PSG, *SAMPLING])
def test_a_batch_of_more_records_than_there_are_is_one_line(name, make_vault):
    """Before anything is asked; of a task it is its own records that count."""
    module, vault = load(name), make_vault(images=DATA)
    config = module.Config.model_validate({**GENERATORS, **PSG}[name] | {"batch_size": 41})
    there = 8 if name == "psg_continual" else 40
    line = f"batch_size = 41: more than there are records ({there}); choose a batch_size of at most {there}"
    for ask in (lambda: module.synthesize(vault, config, run(1)), lambda: module.asks(config, lambda part: 8 if part else 40)):
        with pytest.raises(PrivsetError) as error:
            ask()
        assert str(error.value) == line
    assert vault.ledger.releases == []


def test_a_task_without_records_is_one_line(make_vault):
    labels = torch.arange(40) % 5  # of the classes 5 and 6, which come first, there are none
    for name in ("psg_continual", "dpsgd"):
        module = load(name) if name in PSG else load_releases(name)
        config = module.Config.model_validate(SMALL) if name in PSG else module.ReleaseConfig(epochs=1, width=4)
        act = module.synthesize if name in PSG else module.release
        with pytest.raises(PrivsetError, match=r"more than there are records \(0\); each class or task needs records"):
            act(make_vault(images=DATA, labels=labels), config, run(1))


CGAN = {"label_outputs": True, "discriminator_optimiser": "adam", "momentum": 0.5}


class Interrupted(Exception):
    """Raised after a checkpoint."""


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("dp_cgan", {}), ("dp_cgan", CGAN), ("dp_flow", {}), ("dp_sinkhorn", {"decay": 0.5}), ("dp_swd", {"frequencies": 16})),
        *((name, {}) for name in ENSEMBLES),
    ],
)
def test_a_resumed_run_makes_the_same_set_to_the_bit(name, options, make_vault):
    module = load(name)
    config = module.Config.model_validate(GENERATORS[name] | options)
    whole_vault = make_vault(images=DATA)
    whole, _ = module.synthesize(whole_vault, config, run(2))
    vault, source, file = make_vault(images=DATA), torch.Generator().manual_seed(0), io.BytesIO()

    def interrupt(state):
        if state["step"] == 3:
            torch.save({"method": state, "vault": vault.state(), "generator": source.get_state()}, file)
            raise Interrupted

    with pytest.raises(Interrupted):
        module.synthesize(vault, config, Run(spc=2, generator=source, checkpoint=interrupt))
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    vault, source = make_vault(images=DATA, noise_seed=5), torch.Generator().manual_seed(9)

    def restore():
        vault.load_state(kept["vault"])
        source.set_state(kept["generator"])
        return kept["method"]

    again, _ = module.synthesize(vault, config, Run(spc=2, generator=source, restore=restore))
    assert torch.equal(whole, again) and vault.ledger.releases == whole_vault.ledger.releases


@pytest.mark.parametrize("name", SAMPLING + ENSEMBLES)
def test_methods_in_steps_make_exactly_the_releases_they_were_calibrated_for(name, make_vault):
    module, vault = load(name), make_vault(epsilon=5.0, images=DATA)
    config = module.Config.model_validate(GENERATORS[name])
    images, labels = module.synthesize(vault, config, run(3))
    assert images.shape == (30, 1, 28, 28) and torch.isfinite(images).all()
    assert torch.equal(labels, torch.arange(10).repeat_interleave(3))
    (entry,), (asked,) = vault.ledger.releases, module.asks(config, lambda part: 40)
    assert (entry.count, entry.mechanism, entry.relation) == (6, asked.mechanism, asked.relation)
    assert entry.sensitivity == pytest.approx(asked.sensitivity * (1 + ROUNDING), rel=1e-12)
    assert accounting.parameters(entry.event)[0] == asked.rate == {"gs_wgan": 1 / 4, **dict.fromkeys(SAMPLING, 0.5)}.get(name, 1)
    assert 4.99 < vault.ledger.spent() <= 5.0


@pytest.mark.parametrize("name", SAMPLING)
def test_a_batch_may_be_empty(name, make_vault):
    """At one record expected, one batch in three is."""
    module = load(name)
    config = module.Config.model_validate(GENERATORS[name] | {"batch_size": 1, "steps": 12})
    images, _ = module.synthesize(make_vault(images=DATA), config, run(1))
    assert torch.isfinite(images).all()


VOTERS = {"teacher_steps": 1, "teacher_learning_rate": 0.0002, "learning_rate": 0.001}
CRITICS = {"hidden": 16, "width": 8, "critic_learning_rate": 0.003, "learning_rate": 0.003}
TEACHERS = {"hidden": 16, "width": 8, "teacher_learning_rate": 0.003, "learning_rate": 0.003}
LEARNING = {
    "pearl": {"features": 400, "steps": 150, "batch_size": 40},
    "dp_cgan": {"steps": 400, "batch_size": 100, "generated": 60, "learning_rate": 0.002, "last_learning_rate": 0.002, **CGAN},
    "dp_sinkhorn": {"steps": 120, "batch_size": 50, "generated": 10, "width": 8, "learning_rate": 0.003, "blur": 20},
    "dp_swd": {"steps": 200, "batch_size": 100, "generated": 50, "directions": 20, "frequencies": 64, "learning_rate": 0.01},
    "gs_wgan": {"members": 5, "steps": 80, "warm_steps": 20, "critic_steps": 1, "batch_size": 10, **CRITICS, "average": 0.9},
    "g_pate": {"members": 10, "steps": 150, "batch_size": 10, "directions": 100, "bins": 2, **TEACHERS},
    "datalens": {"members": 10, "steps": 150, "batch_size": 10, "threshold": 0.2, **TEACHERS},
    "pate_gan": {"members": 10, "steps": 400, "batch_size": 32, "hidden": 128, "spread": 0.5, "weight_clip": 1.0, **VOTERS},
}


@pytest.mark.parametrize("name", LEARNING)
def test_without_noise_a_generator_learns_the_classes(name, make_vault):
    """A sanity check, never a result: each class's images are more like their own class than like the other."""
    images, labels = easy_classes()
    facts = make_vault().facts
    images = facts.normalise((images - images.min()) / (images.max() - images.min()))
    vault = make_vault(images=images, labels=labels, classes=2, epsilon=1e6)
    module = load(name)
    learned, own = module.synthesize(vault, module.Config.model_validate(LEARNING[name]), run(20))
    truth = torch.stack([images[labels == label].mean(0) for label in (0, 1)])
    likeness = torch.cosine_similarity(learned.flatten(1)[:, None], truth.flatten(1)[None], dim=2)
    right = likeness.argmax(1) == own
    assert right.float().mean() > 0.9


def test_pearl_gives_every_frequency_the_weight_of_the_density_that_its_critic_chose():
    """Importance weights: densities of N(0, 1 / s) over those of N(0, 1 / 129), up to a common factor."""
    drawn = torch.randn(6, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 129**0.5
    scales = torch.linspace(100, 150, 6, dtype=torch.float64)
    chosen = torch.distributions.Normal(0, scales.rsqrt()[:, None]).log_prob(drawn).sum(0)
    before = torch.distributions.Normal(0, 129**-0.5).log_prob(drawn).sum(0)
    assert torch.allclose(load("pearl").weights(drawn, scales, 129.0), (chosen - before).softmax(0))


def test_sinkhorn_transports_at_the_smallest_cost():
    """Against SciPy's assignment of equal numbers of points, at a small blur; margins hold, and who is absent gets nothing."""
    module = load("dp_sinkhorn")
    points = torch.rand(24, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    costs = torch.cdist(points[:10], points[10:]).square()
    present = (torch.arange(14) < 10).double()
    plan = module.transport(costs, present, largest=4.0, blur=1e-3)
    rows, columns = scipy.optimize.linear_sum_assignment(costs[:, :10].numpy())
    best = costs[rows, columns].mean()
    assert float((plan * costs).sum()) == pytest.approx(float(best), rel=0.02)
    assert torch.allclose(plan.sum(1), torch.full((10,), 0.1).double(), atol=1e-6) and not plan[:, 10:].any()
    assert torch.allclose(plan.sum(0)[:10], torch.full((10,), 0.1).double(), atol=5e-3)
    even = module.transport(costs, torch.ones(14).double(), largest=4.0, blur=1e3)
    assert torch.allclose(even, torch.full((10, 14), 1 / 140).double(), rtol=1e-2)


def test_the_cost_is_of_pixels_and_classes_side_by_side():
    module, generator = load("dp_sinkhorn"), torch.Generator().manual_seed(0)
    ours, theirs = torch.rand(3, 5, generator=generator), torch.rand(4, 5, generator=generator)
    own, other = torch.tensor([0, 1, 2]), torch.tensor([0, 0, 2, 1])
    found = module.cost(ours, theirs, own, other, absolute=3.0, class_scale=15.0)
    for i in range(3):
        for j in range(4):
            a, b = (torch.cat([image, 15 * torch.eye(3)[label]]) for image, label in ((ours[i], own[i]), (theirs[j], other[j])))
            assert float(found[i, j]) == pytest.approx(float((a - b).square().sum() + 3 * (a - b).abs().sum()), rel=1e-4)


def test_the_distance_along_a_direction_is_scipys():
    """Of order 2 by sorted values; SciPy's of order 1 for samples that one shift relates, where both are that shift."""
    module, generator = load("dp_swd"), torch.Generator().manual_seed(0)
    ours = torch.randn(50, 2, 3, generator=generator)
    shifted = ours[torch.randperm(50, generator=generator)] + 0.5
    assert float(module.distance(ours, shifted)) == pytest.approx(6 * 0.25, rel=1e-5)
    assert scipy.stats.wasserstein_distance(ours[:, 0, 0], shifted[:, 0, 0]) == pytest.approx(0.5, rel=1e-5)
    theirs = torch.randn(50, 2, 3, generator=generator)
    best = 0.0
    for k in range(6):
        a, b = ours.flatten(1)[:, k], theirs.flatten(1)[:, k]
        costs = (a[:, None] - b).square().numpy()
        rows, columns = scipy.optimize.linear_sum_assignment(costs)
        best += costs[rows, columns].mean()
    assert float(module.distance(ours, theirs)) == pytest.approx(best, rel=1e-4)


def test_the_real_rows_are_refused_under_a_budget_and_say_what_they_are(make_vault):
    real = load("real")
    vault = make_vault(epsilon=math.inf)
    images, _ = real.synthesize(vault, real.Config(), run(None))
    assert len(images) == 40
    assert vault.ledger.spent() == math.inf


@pytest.mark.parametrize("name", rows.methods())
def test_every_method_has_the_parts_that_it_promises(name):
    method, module = rows.methods()[name], load(name)
    assert method == module.METHOD  # what is read from the file is what the file says
    blocks = []
    if method.releases:
        assert callable(load_releases(name).release)
        blocks.append(load_releases(name).ReleaseConfig)
    if method.family != "classifier":
        assert callable(module.synthesize)
        blocks.append(module.Config)
    assert blocks
    for block in blocks:
        assert issubclass(block, Block)
        assert all(field.description for field in block.model_fields.values()), block
        with pytest.raises(ValueError, match="frozen"):
            block.model_construct().__setattr__("outer", 1)


def test_seeds_follow_from_names():
    assert derived_seed("noise", "mnist", 0) == derived_seed("noise", "mnist", 0)
    assert len({derived_seed("noise", "mnist", seed) for seed in range(1000)}) == 1000
    assert derived_seed("noise", "mnist", 0) != derived_seed("sampling", "mnist", 0)
    assert all(0 <= derived_seed(seed) < 2**63 for seed in range(100))
