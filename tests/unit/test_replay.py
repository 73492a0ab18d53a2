"""Neighbouring data, the same questions, the same randomness: no sum moves by more than the ledger states.

For every query of the vault, and for PSM, PSG and DP-MERF (and the streams in parts) from their first question to their last.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from privset import methods
from privset.data.datasets import PublicFacts
from privset.jobs.run import Run
from privset.methods import psm_releases
from privset.networks import classifiers
from privset.privacy import ensembles
from privset.privacy import vault as vaults
from privset.privacy.audit import Budget
from privset.privacy.replay import replay

RECORDS, SIZE = 48, 28
FACTS = PublicFacts(records=RECORDS, classes=10, channels=1, size=SIZE, mean=(0.5,), std=(0.5,))
ENDLESS = Budget(epsilon=math.inf, delta=1e-5)
LABELS = torch.arange(RECORDS) % 10
IMAGES = FACTS.normalise(torch.rand(RECORDS, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(3)))
PLACES = (0, RECORDS // 2, RECORDS - 1)
EXTREME = {
    "white": torch.ones(1, SIZE, SIZE),
    "black": -torch.ones(1, SIZE, SIZE),
    "not a number": torch.full((1, SIZE, SIZE), math.nan),
    "infinite": torch.full((1, SIZE, SIZE), math.inf),
    "one infinite pixel": torch.zeros(1, SIZE, SIZE).index_fill(1, torch.tensor([7]), math.inf),
    "huge": torch.full((1, SIZE, SIZE), 1e30),
}


def network(seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    return classifiers.build("convnet", channels=1, classes=10, size=SIZE, width=16, generator=generator)


def gradient_mean(**options):
    def ask(vault):
        for _ in range(6):
            vault.gradient_mean(network(), sampling_rate=0.5, clip=0.1, noise_multiplier=1.0, **options)

    return ask


def feature_sums(relation):
    def ask(vault):
        for clip in (0.5, 100.0):
            vault.feature_sums(
                lambda images, labels: images.flatten(1),
                dimension=SIZE * SIZE,
                clip=clip,
                noise_multiplier=1.0,
                relation=relation,
                chunk=8,
            )

    return ask


def batch_function(vault):
    """The sum of a batch, and how far its records are from each other."""

    def mixed(images, labels, present):
        rows = images.flatten(1)
        return torch.cat([rows.sum(0), (rows[:, None] - rows[None]).abs().sum((0, 1))])

    for clip in (0.5, 1e4):
        for _ in range(3):
            vault.batch_function(mixed, dimension=2 * SIZE * SIZE, sampling_rate=0.5, clip=clip, noise_multiplier=1.0)


def from_end_to_end(vault):
    """The worst there is: one record more turns the vector into its opposite."""
    for _ in range(6):
        vault.batch_function(
            lambda images, labels, present: torch.full((SIZE,), 1e4) * (2 * (present.sum() % 2) - 1),
            dimension=SIZE,
            sampling_rate=0.5,
            clip=0.5,
            noise_multiplier=1.0,
        )


def projected_rows(vault):
    directions, _ = torch.linalg.qr(torch.randn(SIZE * SIZE, 20, generator=torch.Generator().manual_seed(0)).double())
    for clip in (0.5, 100.0):
        for _ in range(3):
            vault.projected_rows(
                lambda images, labels: images.flatten(1), directions, sampling_rate=0.5, clip=clip, noise_multiplier=1.0
            )


class Member(nn.Module):
    """A small convolutional critic."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 5, stride=4), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))

    def forward(self, images, labels):
        return self.body(images).gather(1, labels[:, None])[:, 0]


def of_ensemble(query, **options):
    """Questions to six members that learn in between, about images that depend on the answers before."""

    def told_apart(member, images, labels):
        return nn.functional.softplus(-member(images, labels)).mean() + nn.functional.softplus(member(generated, few)).mean()

    def ask(vault):
        nonlocal generated
        generator = torch.Generator().manual_seed(0)
        generated = torch.randn(3, 1, SIZE, SIZE, generator=generator)
        ensemble = vault.ensemble(Member(), members=6, generator=generator, learning_rate=0.01)
        for _ in range(4):
            for _ in range(3):
                ensemble.train(told_apart, batch=4)
            loss = () if query == "labels" else (lambda member, images, labels: -member(images, labels).sum(),)
            answer = getattr(ensemble, query)(*loss, generated, few, noise_multiplier=1.0, **options)
            generated = generated + 0.1 * answer.sum().sign()

    few, generated = torch.tensor([0, 1, 2]), None
    return ask


ENSEMBLES = {
    "votes": of_ensemble("votes", directions=torch.full((SIZE * SIZE, 2), 0.1), clip=0.01, bins=4),
    "signed_sums": of_ensemble("signed_sums", basis=torch.eye(SIZE * SIZE), largest=50),
    "labels": of_ensemble("labels"),
    "one_gradient": of_ensemble("one_gradient", clip=0.5),
}
"""Of neighbours that replace one record; the others are of any."""

QUERIES = {
    "gradient_mean": gradient_mean(),
    "gradient_mean, weights only": gradient_mean(weights_only=True),
    "gradient_mean, transformed": gradient_mean(inputs=lambda images, labels: images.flip(3)),
    "feature_sums, add-or-remove-one": feature_sums("add-or-remove-one"),
    "batch_function": batch_function,
    "batch_function, from end to end": from_end_to_end,
    "projected_rows": projected_rows,
}


def test_every_query_of_the_vault_is_replayed_here():
    """What ends in `_answer`; a new query must come into this file."""
    methods_of_it = Path(vaults.__file__).read_text().split("\n    def ")[1:]
    queries = {text.split("(")[0] for text in methods_of_it if "self._answer(" in text}
    assert queries == {name.split(",")[0] for name in QUERIES}
    methods_of_it = Path(ensembles.__file__).read_text().split("\n    def ")[1:]
    queries = {text.split("(")[0] for text in methods_of_it if "self.__answer(" in text or "self.__sum(" in text}
    assert queries - {"__sum"} == set(ENSEMBLES)


def within(differences, *, some: bool) -> None:
    """No difference above what is stated; and, where the record counts, not none at all (it may be in no batch)."""
    for difference in differences:
        assert difference.moved <= difference.stated, difference
    assert not some or max(difference.moved for difference in differences) > 0.01 * differences[0].stated


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("place", PLACES)
def test_a_record_more_or_less_moves_no_sum_beyond_its_sensitivity(query, place):
    within(replay(QUERIES[query], IMAGES, LABELS, facts=FACTS, place=place, record=None, budget=ENDLESS), some=True)


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("kind", EXTREME)
def test_neither_does_an_extreme_one(query, kind):
    """White and black images, and images with infinity or NaN, which count as nothing and harm no other record."""
    images = IMAGES.clone()
    images[20] = EXTREME[kind]
    finite = torch.isfinite(EXTREME[kind]).all() and kind != "huge"
    within(replay(QUERIES[query], images, LABELS, facts=FACTS, place=20, record=None, budget=ENDLESS), some=finite)


@pytest.mark.parametrize("query", ENSEMBLES)
@pytest.mark.parametrize("kind", EXTREME)
def test_a_replaced_record_changes_the_answer_of_one_member(query, kind):
    moved = []
    for place in PLACES:
        record = (EXTREME[kind], (int(LABELS[place]) + 3) % 10)
        made = replay(ENSEMBLES[query], IMAGES, LABELS, facts=FACTS, place=place, record=record, budget=ENDLESS)
        within(made, some=False)
        assert len(made) == 4
        moved += [difference.moved / difference.stated for difference in made]
    if query != "labels":  # whose one vote need not change
        assert max(moved) > 0.1


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", EXTREME)
def test_a_replaced_record_moves_no_sum_beyond_its_sensitivity(place, kind):
    for label in (int(LABELS[place]), (int(LABELS[place]) + 3) % 10):
        record = (EXTREME[kind], label)
        within(
            replay(feature_sums("replace-one"), IMAGES, LABELS, facts=FACTS, place=place, record=record, budget=ENDLESS),
            some=True,
        )


@pytest.mark.parametrize("fixed", [False, True])
def test_a_vector_of_a_batch_moves_by_the_whole_diameter_and_only_where_the_record_is_there(fixed, monkeypatch):
    """Also in batches as a GPU has them, whose padding is no record."""
    if fixed:
        original = vaults.Vault.__init__

        def with_fixed_rows(self, *given, **named):
            original(self, *given, **named)
            self._fixed_rows = True

        monkeypatch.setattr(vaults.Vault, "__init__", with_fixed_rows)
    for place in PLACES:
        made = replay(from_end_to_end, IMAGES, LABELS, facts=FACTS, place=place, record=None, budget=ENDLESS)
        moved = [difference.moved / difference.stated for difference in made]
        assert max(moved) == pytest.approx(1, abs=1e-5) and 0 < sum(share > 0 for share in moved) < 6
        for kind in ("not a number", "huge"):
            images = IMAGES.clone()
            images[place] = EXTREME[kind]
            made = replay(from_start_to_end("dp_sinkhorn"), images, LABELS, facts=FACTS, place=place, record=None, budget=ENDLESS)
            within(made, some=False)
            assert kind == "huge" or not any(difference.moved for difference in made)


def test_a_records_row_moves_no_other_where_the_batch_is_put_in_random_order():
    """One row of the answer differs, and by the record's own projection; in the batch that has it it comes last."""
    directions = torch.eye(SIZE * SIZE, dtype=torch.float64)[:, :30]

    def ask(vault):
        made.append(vault)
        vault.projected_rows(
            lambda images, labels: images.flatten(1), directions, sampling_rate=1.0, clip=1e3, noise_multiplier=1.0
        )

    for place in PLACES:
        made = []
        replay(ask, IMAGES, LABELS, facts=FACTS, place=place, record=None, budget=ENDLESS)
        first, second = (vault.transcript.totals[0] for vault in made)
        differs = (first != second).flatten(1).any(1)
        assert first.shape == (RECORDS, 10, 30) and differs.sum() == 1
        assert torch.equal(first[differs][0, LABELS[place]], IMAGES[place].flatten()[:30].double())
        assert not first[differs][0, torch.arange(10) != LABELS[place]].any() and not second[differs].any()


def test_the_worst_case_reaches_the_stated_sensitivity():
    """Opposite images with the same label: a sum moves by the whole 2 C, so the check above is not a loose one."""
    images = IMAGES.clone()
    images[5] = 1.0
    record = (torch.full((1, SIZE, SIZE), -1.0), int(LABELS[5]))
    made = replay(feature_sums("replace-one"), images, LABELS, facts=FACTS, place=5, record=record, budget=ENDLESS)
    assert made[0].moved == pytest.approx(made[0].stated, rel=1e-5)


# ------------------------------------------------------------------------------------------------- methods, end to end

BLOCKS = {
    "psg": {"outer": 2, "inner": 1, "iterations": 2, "batches": 2, "batch_size": 16, "width": 16},
    "dp_merf": {"length_scale": 105.0, "features": 64, "steps": 3, "batch_size": 4},
    "pearl": {"features": 64, "steps": 3, "batch_size": 4},
    "dp_cgan": {"steps": 3, "batch_size": 16, "generated": 8, "hidden": 16, "latent": 4},
    "dp_flow": {"steps": 3, "batch_size": 16, "coefficients": 16, "couplings": 2, "hidden": 16},
    "dp_sinkhorn": {"steps": 3, "batch_size": 16, "generated": 5, "width": 2, "latent": 4},
    "dp_swd": {"steps": 3, "batch_size": 16, "generated": 10, "directions": 8},
    "gs_wgan": {"members": 6, "steps": 3, "warm_steps": 1, "critic_steps": 1, "batch_size": 4, "hidden": 8, "width": 2},
    "g_pate": {"members": 6, "steps": 3, "batch_size": 4, "hidden": 8, "width": 2},
    "datalens": {"members": 6, "steps": 3, "batch_size": 4, "hidden": 8, "width": 2},
    "pate_gan": {"members": 6, "steps": 3, "teacher_steps": 2, "student_steps": 1, "batch_size": 4, "hidden": 8},
    "psg_continual": {"outer": 2, "inner": 1, "iterations": 1, "batches": 1, "batch_size": 4, "width": 16},
    "dp_merf_continual": {"length_scale": 105.0, "features": 64, "steps": 2, "batch_size": 4},
}
RELEASES = {
    "psm": {
        "random_networks": 2,
        "trained_networks": 2,
        "rounds": 2,
        "width": 16,
        "first_iterations": 2,
        "round_iterations": 2,
    },
    "dpsgd": {"epochs": 1, "batch_size": 4, "width": 16},
}
RELEASES["taught"] = {**RELEASES["psm"], "teacher_steps": 3}
QUESTIONS = {"psg": 8, "dp_merf": 1, "pearl": 1, "psg_continual": 10, "dp_merf_continual": 5, "psm": 3, "taught": 6, "dpsgd": 10}
QUESTIONS |= {"dp_cgan": 3, "dp_flow": 3, "dp_sinkhorn": 3, "dp_swd": 3}
QUESTIONS |= {"gs_wgan": 3, "g_pate": 3, "datalens": 3, "pate_gan": 3}
ENSEMBLED = ("gs_wgan", "g_pate", "datalens", "pate_gan")
REPLACING = ("dp_merf", "pearl", *ENSEMBLED)


def from_start_to_end(method: str):
    def ask(vault):
        run = Run(spc=1, generator=torch.Generator().manual_seed(1))
        if method in RELEASES:
            module = methods.load_releases(method)
            module.release(vault, module.ReleaseConfig.model_validate(RELEASES[method]), run)
        else:
            module = methods.load(method)
            module.synthesize(vault, module.Config.model_validate(BLOCKS[method]), run)

    return ask


@pytest.mark.parametrize("method", QUESTIONS)
@pytest.mark.parametrize("change", ["removed", "white", "black", "not a number"])
def test_a_method_asks_nothing_that_moves_beyond_its_sensitivity(method, change, monkeypatch):
    """The last two questions of PSM, and all but the first of PSG and of a teacher, are about networks that depend on the answers
    before."""
    monkeypatch.setattr(psm_releases, "SCHEDULES", (1, 2))
    for place in PLACES:
        images = IMAGES.clone()
        record = None
        if method in ENSEMBLED and change == "removed":  # a place keeps a record: another one
            record = (IMAGES[place].flip(2), (int(LABELS[place]) + 3) % 10)
        if change != "removed":
            if method.startswith(REPLACING):
                record = (EXTREME[change], int(LABELS[place]))
            else:
                images[place] = EXTREME[change]
        made = replay(
            from_start_to_end(method),
            images,
            LABELS,
            facts=FACTS,
            place=place,
            record=record,
            budget=Budget(epsilon=10.0, delta=1e-5),
        )
        assert len(made) == QUESTIONS[method]
        within(made, some=change == "removed" and method not in ENSEMBLED)  # the one asked may be another; few votes change


def test_planted_faults_are_seen_here_too(monkeypatch):
    """A clip that is left out, and rows in which a record meets its neighbours."""

    def mixed(vault):
        vault.feature_sums(
            lambda images, labels: images.flatten(1) - images.flatten(1).mean(0),
            dimension=SIZE * SIZE,
            clip=1.0,
            noise_multiplier=1.0,
            relation="add-or-remove-one",
            chunk=8,
        )

    (made,) = replay(mixed, IMAGES, LABELS, facts=FACTS, place=20, record=None, budget=ENDLESS)
    assert made.moved > made.stated
    real = vaults.cut
    monkeypatch.setattr(vaults, "cut", lambda rows, clip, look: (real(rows, clip, look=look)[0], torch.ones(len(rows)).double()))
    made = replay(feature_sums("add-or-remove-one"), IMAGES, LABELS, facts=FACTS, place=20, record=None, budget=ENDLESS)
    assert made[0].moved > made[0].stated
