"""The audit has teeth: near the claim where the claim is exact, above it for every planted fault, and a line for every query."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from privset import PrivsetError, methods
from privset.data.datasets import PublicFacts
from privset.jobs import rows
from privset.methods import auditing
from privset.privacy import accounting, audit, gradients, noise
from privset.privacy.audit import Budget
from privset.privacy.ledger import Asked, Ledger
from privset.privacy.vault import Vault

WORST = {
    "feature_sums, add or remove": [Asked(mechanism="feature_sums", sensitivity=3.0, count=1)],
    "feature_sums, replace": [Asked(mechanism="feature_sums", relation="replace-one", sensitivity=2.0, count=1)],
    "feature_sums, in shares": [
        Asked(mechanism="feature_sums", sensitivity=3.0, count=1, share=0.4),
        Asked(mechanism="feature_sums", sensitivity=0.7, count=2, share=0.6),
    ],
    "gradient_mean": [Asked(mechanism="gradient_mean", sensitivity=0.1, count=1)],
    "batch_function": [Asked(mechanism="batch_function", sensitivity=0.4, count=1)],
    "projected_rows": [Asked(mechanism="projected_rows", sensitivity=0.5, count=1)],
    "votes": [Asked(mechanism="votes", relation="replace-one", sensitivity=7.0, count=1)],
    "signed_sums": [Asked(mechanism="signed_sums", relation="replace-one", sensitivity=9.0, count=1)],
    "labels": [Asked(mechanism="labels", relation="replace-one", sensitivity=3.0, count=1)],
    "one_gradient": [Asked(mechanism="one_gradient", relation="replace-one", sensitivity=0.2, count=1)],
    "gradient_mean, of a part": [Asked(mechanism="gradient_mean", sensitivity=0.1, count=1, part=(5, 6))],
}
"""Every query of the vault where its epsilon is exact: unsampled."""
SINGLE = ["feature_sums, add or remove", "feature_sums, replace", "gradient_mean", "batch_function", "projected_rows"]
ENSEMBLES = ["votes", "signed_sums", "labels", "one_gradient"]
SAMPLED = [Asked(mechanism="gradient_mean", sensitivity=0.1, count=50, sampling_rate=0.05)]
ONE_OF_MANY = [Asked(mechanism="one_gradient", relation="replace-one", sensitivity=0.2, count=50, shards=20)]


def alone(asks):
    return audit.MECHANISMS[asks[0].mechanism].alone


def bound(asks, epsilon, *, questions=200, seed=0):
    budget = Budget(epsilon=epsilon, delta=1e-5)
    return at_release_level(audit.plan(asks, budget), budget, questions=questions, seed=seed)


def at_release_level(planned, budget, *, questions=100, seed=0):
    made = audit.transcripts(planned, budget=budget, questions=questions, seed=seed)
    return audit.release_level(made, planned=planned, budget=budget)


@pytest.mark.parametrize("kind", WORST)
@pytest.mark.parametrize(("epsilon", "least"), [(1.0, 0.5), (10.0, 8.0)])
def test_at_release_level_the_bound_comes_near_the_claim_and_not_above(kind, epsilon, least):
    found = bound(WORST[kind], epsilon, seed=5000 if kind == "votes" else 0)  # among the first few draws of 0 are unlucky ones
    assert least <= found.epsilon <= epsilon and not found.refuted
    assert found.assumption_free <= epsilon
    canaries = 20 if alone(WORST[kind]) else 1024  # twenty times as many runs, of one canary each
    assert found.draws == 200 // sum(asked.count for asked in WORST[kind]) * canaries


@pytest.mark.parametrize("epsilon", [1.0, 10.0])
def test_a_composition_of_sampled_releases_too(epsilon):
    """Renyi DP claims more than privacy loss distributions find (0.80 and 8.9 here), and the bound cannot be above those."""
    budget = Budget(epsilon=epsilon, delta=1e-5)
    tight = accounting.pld_epsilon(audit.releases(audit.plan(SAMPLED, budget)), 1e-5)
    assert tight < epsilon
    assert 0.4 * tight < bound(SAMPLED, epsilon, questions=1000).epsilon <= tight


def test_one_of_many_shards_is_audited_by_its_whole_answer(monkeypatch):
    """Noise for B gradients that are amplified one by one, though they are of one shard, is too small by sqrt(B), as in a
    published program. One canary in a run gives few draws: sound noise has a bound of about nothing, none is beyond chance."""
    budget = Budget(epsilon=10.0, delta=1e-5)
    planned = audit.plan(ONE_OF_MANY, budget)
    found = at_release_level(planned, budget, questions=100)
    assert found.epsilon <= accounting.pld_epsilon(audit.releases(planned), 1e-5) and not found.refuted
    real = noise.release
    monkeypatch.setattr(
        noise,
        "release",
        lambda *given, **named: real(*given, **{**named, "noise_multiplier": named["noise_multiplier"] / 32**0.5}),
    )
    assert at_release_level(planned, budget, questions=300).epsilon > 1.2 * budget.epsilon


@pytest.mark.parametrize("kind", [*WORST, "sampled"])
def test_the_worst_case_is_the_worst(kind):
    """A present canary, as clipped, reaches the whole sensitivity: the projection of a noiseless answer is 1, or 1/2 and -1/2."""
    asks = WORST.get(kind) or [replace(SAMPLED[0], sampling_rate=1.0, count=1)]
    budget = Budget(epsilon=math.inf, delta=1e-5)
    for asked in asks:
        worst = audit.MECHANISMS[asked.mechanism]
        asked = worst.fitted(asked, 32)
        image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)) + 0.1
        image = torch.ones(1, 1, 32, 32) if worst.alone else image
        reached = []
        for there in (1.0, audit._absent(asked)):
            vault = audit._vault(image * audit.LONG * there, asked, key=1, budget=budget)
            answer, v = worst.ask(vault, asked, 1e-6)
            reached.append(float(v @ answer @ (image.flatten() / image.norm()) / asked.sensitivity))
            assert float(answer.norm() / asked.sensitivity) == pytest.approx(abs(reached[-1]), abs=1e-3)
        assert reached[0] - reached[1] == pytest.approx(1.0, abs=1e-3)


def test_the_ledger_refuses_what_comes_after_the_plan():
    budget = Budget(epsilon=1.0, delta=1e-5)
    asked = []

    def counting(*given):
        answer = before.ask(*given)
        asked.append(1)
        return answer

    planned = audit.plan(WORST["feature_sums, in shares"], budget)
    before = audit.MECHANISMS["feature_sums"]
    audit.MECHANISMS["feature_sums"] = replace(before, ask=counting)
    try:
        audit.transcript(planned, budget=budget, seed=0)
    finally:
        audit.MECHANISMS["feature_sums"] = before
    assert len(asked) == 3


def test_one_run_shows_less_and_something():
    budget = Budget(epsilon=10.0, delta=1e-5)
    for asks in WORST.values():
        planned = audit.plan(asks, budget)
        if alone(asks):
            made = audit.transcripts(planned, budget=budget, questions=10, seed=0)
            assert audit.one_run(made, planned=planned, budget=budget) is None
            continue
        found = audit.one_run(audit.transcripts(planned, budget=budget, questions=10, seed=0), planned=planned, budget=budget)
        assert 2.5 < found.epsilon <= 10 and 1.5 < found.assumption_free <= 10


def test_every_query_of_every_method_has_its_worst_case():
    blocks = {"dp_merf": {"length_scale": 1.0}, "dp_merf_continual": {"length_scale": 1.0}, "psg": {"outer": 1, "inner": 1}}
    for name, method in rows.methods().items():
        if method.family == "real data":
            continue
        module = methods.load_releases(name) if method.releases else methods.load(name)
        config = (module.ReleaseConfig if method.releases else module.Config).model_validate(blocks.get(name, {}))
        for asked in module.asks(config, lambda part: 10_000):
            assert asked.mechanism in audit.MECHANISMS, f"{name}: {asked.mechanism} has no worst case in privacy/worst.py"


# ------------------------------------------------------------------------------------------------------------ planted faults


def release_with(change):
    """noise.release with one argument changed."""
    real = noise.release
    return lambda total, **given: real(total, **(given | change(given)))


def half_the_noise(monkeypatch):
    changed = release_with(lambda given: {"noise_multiplier": given["noise_multiplier"] / 2})
    monkeypatch.setattr(noise, "release", changed)


def no_clip(monkeypatch):
    """Rows and gradients as they are."""

    def uncut(norms, clip):
        finite = torch.isfinite(norms)
        return finite, finite.double()

    monkeypatch.setattr(gradients, "_factors", uncut)


def twice(monkeypatch):
    """Every record is there twice."""
    real = Vault.__init__

    def doubled(self, images, labels, *, facts, **rest):
        both = replace(facts, records=2 * facts.records)
        real(self, torch.cat([images, images]), torch.cat([labels, labels]), facts=both, **rest)

    monkeypatch.setattr(Vault, "__init__", doubled)


def not_counted(monkeypatch):
    """The ledger writes down what happens and never adds it up."""

    def charge(self, release):
        self.releases = self._with(release)

    monkeypatch.setattr(Ledger, "charge", charge)


def float32(monkeypatch):
    """Noise as it was until version 0.1: PyTorch's, added in float32."""

    def release(total, *, sensitivity, noise_multiplier, key, question, ahead=None):
        generator = torch.Generator().manual_seed(key % 2**63 + question)
        drawn = torch.randn(total.shape, generator=generator)
        return (total.float() + noise_multiplier * sensitivity * drawn).double()

    monkeypatch.setattr(noise, "release", release)


def same_batch(monkeypatch):
    """The batch of the first question, at every one."""
    real = Vault._uniforms

    def first(self):
        releases, self.ledger.releases = self.ledger.releases, [replace(self.ledger.releases[0], count=1)]
        uniforms = real(self)
        self.ledger.releases = releases
        return uniforms

    monkeypatch.setattr(Vault, "_uniforms", first)


@pytest.mark.parametrize(
    ("fault", "epsilon"),
    [
        (half_the_noise, 1.0),
        (no_clip, 1.0),
        (twice, 1.0),
        (not_counted, 1.0),
        (same_batch, 1.0),
        (twice, 10.0),
        (same_batch, 10.0),
    ],
)
def test_a_planted_fault_in_sampled_releases_is_found(fault, epsilon, monkeypatch):
    budget = Budget(epsilon=epsilon, delta=1e-5)
    planned = audit.plan(SAMPLED, budget)
    assert not at_release_level(planned, budget, questions=2000).refuted
    fault(monkeypatch)
    found = at_release_level(planned, budget, questions=2000)
    assert found.epsilon > 1.1 * epsilon
    assert found.refuted or (fault, epsilon) == (same_batch, 10.0)  # above the claim, but too weak to be beyond chance


def same_noise(monkeypatch):
    """The noise of the first question, at every one: it can be subtracted."""
    monkeypatch.setattr(noise, "release", release_with(lambda given: {"question": 0}))


def one_number(monkeypatch):
    """One normal for all coordinates."""

    def release(total, *, sensitivity, noise_multiplier, key, question, ahead=None):
        spacing = noise.grid(sensitivity, total.numel())
        drawn = noise.integers(key, question, 1, noise_multiplier * sensitivity / spacing)
        return ((total / spacing).round() + float(drawn[0])) * spacing

    monkeypatch.setattr(noise, "release", release)


def other_float32(monkeypatch):
    """Numpy's float32 normals, of another grain than PyTorch's."""

    def release(total, *, sensitivity, noise_multiplier, key, question, ahead=None):
        drawn = np.random.default_rng([key % 2**63, question]).standard_normal(total.shape, dtype=np.float32)
        return (total.float() + noise_multiplier * sensitivity * torch.from_numpy(drawn)).double()

    monkeypatch.setattr(noise, "release", release)


@pytest.mark.parametrize("kind", SINGLE + ENSEMBLES)
def test_noise_that_is_not_what_is_stated_is_found(kind):
    """Whatever the claim; the bounds of the other levels do not see the first three."""
    budget = Budget(epsilon=10.0, delta=1e-5)
    planned = audit.plan(WORST[kind], budget)
    for seed in range(5):
        assert not audit.fresh(planned, budget=budget, seed=seed).refuted
    for fault in (same_noise, one_number, other_float32, half_the_noise):
        with pytest.MonkeyPatch.context() as patch:
            fault(patch)
            assert audit.fresh(planned, budget=budget, seed=0).refuted, fault.__name__


FAULTS = [half_the_noise, no_clip, twice, not_counted]
PLANTED = [(kind, 10.0, fault) for kind in SINGLE for fault in FAULTS]
PLANTED += [("feature_sums, replace", 1.0, fault) for fault in FAULTS]
PLANTED += [("votes", 10.0, half_the_noise), ("one_gradient", 10.0, half_the_noise), ("one_gradient", 10.0, not_counted)]


@pytest.mark.parametrize(
    ("kind", "epsilon", "fault"),
    [
        planted
        for planted in PLANTED
        if planted[::2] != ("batch_function", twice)  # a record that is in a batch twice is no fault of any function of it
    ],
)
def test_a_planted_fault_is_found_at_release_level(kind, epsilon, fault, monkeypatch):
    budget = Budget(epsilon=epsilon, delta=1e-5)
    planned = audit.plan(WORST[kind], budget)
    fault(monkeypatch)
    found = at_release_level(planned, budget)
    assert found.epsilon > 1.2 * epsilon and found.refuted


@pytest.mark.parametrize(
    ("kind", "epsilon"),
    [
        *((kind, epsilon) for kind in SINGLE[:-1] for epsilon in (1.0, 10.0)),
        ("projected_rows", 1.0),  # a small answer: too few numbers whose grain can be seen for more than that
    ],
)
def test_float32_noise_is_found_in_the_bits_and_nowhere_else(kind, epsilon, monkeypatch):
    budget = Budget(epsilon=epsilon, delta=1e-5)
    planned = audit.plan(WORST[kind], budget)
    sound = audit.bits(planned, budget=budget, draws=200, seed=0)
    assert sound.epsilon <= epsilon / 2 and sound.assumption_free <= epsilon / 2
    float32(monkeypatch)
    found = audit.bits(planned, budget=budget, draws=200, seed=0)
    assert found.epsilon > 1.2 * epsilon and found.refuted
    if epsilon == 1.0:
        assert found.assumption_free > 2
    assert at_release_level(planned, budget).epsilon <= epsilon


# ------------------------------------------------------------------------------------------------------------------- images

FACTS = PublicFacts(records=400, classes=10, channels=1, size=28, mean=(0.5,), std=(0.5,))
GENERATOR = torch.Generator().manual_seed(5)
PIXELS = torch.rand(400, 1, 28, 28, generator=GENERATOR)
LABELS = torch.randint(10, (400,), generator=GENERATOR)
MERF = auditing.Row.of(
    "dp_merf", config={"length_scale": 105.0, "features": 64, "steps": 5}, releases={}, spc=5, where="config.yaml"
)


def of_images(row):
    budget = Budget(epsilon=1.0, delta=1e-5)
    return auditing.of_images(row, PIXELS, LABELS, FACTS, budget=budget, records=300, canaries=200, seed=0)


def test_images_of_a_private_method_tell_nothing_and_copied_records_everything(monkeypatch):
    assert of_images(MERF).epsilon < 1
    dpsgd = auditing.Row.of("dpsgd", config={}, releases={}, spc=None, where="config.yaml")
    assert of_images(dpsgd) is None

    real = auditing.Row.make

    def leak(self, vault, seed):
        real(self, vault, seed)
        there = torch.isfinite(vault._Vault__images).flatten(1).all(1)
        return vault._Vault__images[there], vault._Vault__labels[there]

    monkeypatch.setattr(auditing.Row, "make", leak)
    found = of_images(MERF)
    assert found.epsilon > 1 and found.assumption_free > 1 and found.refuted


def test_batches_shrink_with_the_records_and_rates_stay():
    block = {"outer": 1, "inner": 1, "batch_size": 256}
    row = auditing.Row.of("psg", config=block, releases={}, spc=1, where="config.yaml")
    fewer = row.on_fewer(0.1)
    assert fewer.config.batch_size == 26
    assert fewer.asks(lambda part: 6000)[0].sampling_rate == pytest.approx(256 / 60_000, rel=0.02)
    assert MERF.on_fewer(0.1) is MERF


@pytest.mark.parametrize(
    "name",
    ["psg", "dp_merf", "psm", "taught", "dpsgd", "dp_sinkhorn", "dp_swd", "dp_cgan", "dp_flow", "gs_wgan", "g_pate", "datalens"],
)
def test_the_plan_has_the_noise_that_the_method_really_takes(name, monkeypatch):
    """`asks` against the ledger of a run; and a method that takes less noise than it announces is not audited by its words."""
    blocks = {
        "psg": ({"outer": 2, "inner": 1, "iterations": 2, "batches": 2, "batch_size": 16, "width": 16}, {}),
        "dp_merf": ({"length_scale": 105.0, "features": 64, "steps": 2}, {}),
        "dp_sinkhorn": ({"steps": 3, "batch_size": 16, "generated": 4, "width": 2}, {}),
        "dp_swd": ({"steps": 3, "batch_size": 16, "generated": 8, "directions": 8}, {}),
        "dp_cgan": ({"steps": 3, "batch_size": 16, "generated": 8, "hidden": 16}, {}),
        "dp_flow": ({"steps": 3, "batch_size": 16, "coefficients": 16, "hidden": 16}, {}),
        "gs_wgan": ({"members": 5, "steps": 3, "warm_steps": 1, "critic_steps": 1, "batch_size": 4, "hidden": 8, "width": 2}, {}),
        "g_pate": ({"members": 5, "steps": 3, "batch_size": 4, "hidden": 8, "width": 2}, {}),
        "datalens": ({"members": 5, "steps": 3, "batch_size": 4, "hidden": 8, "width": 2}, {}),
        "psm": (
            {"iterations": 1, "first_iterations": 1},
            {"random_networks": 2, "trained_networks": 1, "width": 16, "first_iterations": 1, "round_iterations": 1},
        ),
        "dpsgd": ({}, {"epochs": 1, "batch_size": 10, "width": 16}),
    }
    config, releases = blocks["psm"]
    blocks["taught"] = ({**config, "base_spc": 1}, {**releases, "teacher_steps": 3})
    config, releases = blocks[name]
    row = auditing.Row.of(name, config=config, releases=releases, spc=1, where="config.yaml")
    labels = torch.arange(60) % 10
    vault = Vault(PIXELS[:60], labels, facts=replace(FACTS, records=60), epsilon=3.0, delta=1e-5, key=noise.key_of(0))
    row.make(vault, 0)
    planned = audit.plan(row.asks(auditing.counted(labels.numpy())), Budget(epsilon=3.0, delta=1e-5))
    auditing.compare(name, planned, vault.ledger)
    first = planned[0]
    less = [replace(first, noise_multiplier=first.noise_multiplier * 1.01), *planned[1:]]
    once_more = [replace(first, asked=replace(first.asked, count=first.asked.count + 1)), *planned[1:]]
    for other in (less, once_more, planned[1:] or planned * 2, [*planned, first]):
        with pytest.raises(PrivsetError, match=rf"{name}: its asks\(\) announces .*; make the two agree"):
            auditing.compare(name, other, vault.ledger)


def test_the_grain_is_that_of_pytorch():
    """Nearly all informative pairs of its float32 normals, and one in five of real ones."""
    z = torch.randn(200_000, generator=torch.Generator().manual_seed(1))
    informative = 100_000 * 1e5 / 2**24  # pairs, times the probability that a number below 10^5 comes up
    assert audit._grain(z) == pytest.approx(informative, rel=0.15)
    real = torch.from_numpy(np.random.default_rng(1).normal(size=200_000))
    assert audit._grain(real) == pytest.approx(informative / 5, rel=0.3)
    assert math.isfinite(audit._grain(torch.full((32,), 1e9)))
