"""Class-incremental learning: tasks, their budgets, interruption, and the accuracy on all classes so far."""

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from privset import PrivsetError
from privset.data import tasks
from privset.data.datasets import DATASETS
from privset.evaluation import forgetting, training
from privset.jobs.progress import Progress
from privset.jobs.run import Run
from privset.methods import dp_merf_continual, dpsgd, psg_continual
from privset.networks import classifiers
from privset.privacy import noise
from privset.sets.arrays import Set

TASKS = [(5, 6), (1, 2), (0, 8), (9, 3), (4, 7)]
PSG = psg_continual.Config(iterations=2, outer=2, inner=1, batches=1, batch_size=4, width=4, image_learning_rate=5)
DPSGD = dpsgd.ReleaseConfig(epochs=2, batch_size=4, width=4, clip=1, learning_rate=0.1)


def run(spc, *, seed=0, **hooks):
    return Run(spc=spc, generator=torch.Generator().manual_seed(seed), **hooks)


def test_the_order_is_the_reference_programs():
    assert tasks.sequence(10) == TASKS
    with pytest.raises(PrivsetError, match="10 classes, not 7"):
        tasks.sequence(7)


def test_each_task_spends_the_budget_on_its_own_records(make_vault):
    vault = make_vault(epsilon=10.0)
    images, labels = psg_continual.synthesize(vault, PSG, run(2))
    assert images.shape == (20, 1, 28, 28) and labels.tolist() == sorted(labels.tolist())
    assert [(entry.part, entry.count) for entry in vault.ledger.releases] == [(task, 4) for task in TASKS]
    assert {entry.event.sampling_probability for entry in vault.ledger.releases} == {4 / 8}  # each task has 8 of the 40 records
    assert 9.99 < vault.ledger.spent() <= 10.0


@pytest.mark.parametrize("future_noise", [False, True])
def test_psg_trains_on_the_classes_so_far_unless_asked_otherwise(make_vault, monkeypatch, future_noise):
    seen = []
    original = psg_continual.psg._train
    monkeypatch.setattr(
        psg_continual.psg, "_train", lambda n, i, labels, *rest: seen.append(labels) or original(n, i, labels, *rest)
    )
    config = PSG.model_copy(update={"iterations": 1, "future_noise": future_noise})
    psg_continual.synthesize(make_vault(), config, run(1))
    expected = [10] * 5 if future_noise else [2, 4, 6, 8, 10]
    assert [len(labels.unique()) for labels in seen] == expected
    if not future_noise:
        assert [set(labels.tolist()) for labels in seen] == [
            {label for task in TASKS[: count + 1] for label in task} for count in range(5)
        ]


def test_a_task_leaves_the_images_of_other_tasks_alone(make_vault):
    after = {}
    hooks = {"checkpoint": lambda state: after.update({state["task"]: state["kept"].clone()})}
    images, labels = psg_continual.synthesize(make_vault(), PSG, run(2, **hooks))
    for done, task in enumerate(TASKS, start=1):
        own = tasks.among(labels, task)
        assert not torch.equal(after[done - 1][own], after[done][own])
        assert torch.equal(after[done - 1][~own], after[done][~own])
        assert torch.equal(after[done][own], images[own])


IMAGES = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(5))


def interrupted(make_vault, make, keep_after):
    """The result of `make(vault, run)` when it is killed at checkpoint `keep_after` and resumed with everything restored."""
    generator = torch.Generator().manual_seed(0)
    vault = make_vault(images=IMAGES)
    saved = []

    class Killed(Exception):
        pass

    def checkpoint(state):
        saved.append(True)
        if len(saved) == keep_after:
            # A checkpoint file would have copied everything.
            copied = torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, state)
            saved[-1] = (copied, vault.state(), generator.get_state())
            raise Killed

    with pytest.raises(Killed):
        make(vault, Run(spc=2, generator=generator, checkpoint=checkpoint))
    state, vault_state, generator_state = saved[-1]
    second = make_vault(noise_seed=99, images=IMAGES)
    generator = torch.Generator().manual_seed(0)

    def restore():
        second.load_state(vault_state)
        generator.set_state(generator_state)
        return state

    return make(second, Run(spc=2, generator=generator, restore=restore)), second


@pytest.mark.parametrize("keep_after", [1, 3, 4, 12])
def test_an_interrupted_stream_ends_with_the_same_bits(make_vault, keep_after):
    vault = make_vault(images=IMAGES)
    whole, _ = psg_continual.synthesize(vault, PSG, run(2))
    (resumed, _), second = interrupted(make_vault, lambda v, r: psg_continual.synthesize(v, PSG, r), keep_after)
    assert torch.equal(whole, resumed)
    assert second.ledger.releases == vault.ledger.releases
    vault = make_vault(images=IMAGES)
    whole = dpsgd.release(vault, DPSGD, run(2)).to_tensors()
    resumed, second = interrupted(make_vault, lambda v, r: dpsgd.release(v, DPSGD, r), keep_after)
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.to_tensors().items())
    assert second.ledger.releases == vault.ledger.releases


def test_dp_sgd_is_dp_sgd(make_vault, monkeypatch):
    """Without its noise, with no clipping and the whole task as a batch: plain gradient descent on one task after another."""
    labels = torch.arange(40) % 10
    vault = make_vault(images=IMAGES, labels=labels)
    monkeypatch.setattr(noise, "integers", lambda key, question, dimension, scale: np.zeros(dimension, dtype=np.int64))
    config = dpsgd.ReleaseConfig(epochs=3, batch_size=8, width=4, clip=1e3, learning_rate=0.05)
    released = dpsgd.release(vault, config, run(None))
    after_tasks = dpsgd.networks(released.to_tensors(), config.model_dump(), vault.facts)
    network = dpsgd.build(config, vault.facts, torch.Generator().manual_seed(0))
    for index, classes in enumerate(TASKS):
        mine = tasks.among(labels, classes)
        for _ in range(3):
            loss = torch.nn.functional.cross_entropy(network(IMAGES[mine]), labels[mine])
            for weight, slope in zip(network.parameters(), torch.autograd.grad(loss, list(network.parameters())), strict=True):
                weight.data -= 0.05 * slope
        for ours, theirs in zip(after_tasks[index].parameters(), network.parameters(), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)


def test_dp_merf_has_a_generator_for_each_task(make_vault):
    vault = make_vault(epsilon=10.0)
    config = dp_merf_continual.Config(length_scale=105, features=20, steps=2)
    images, labels = dp_merf_continual.synthesize(vault, config, run(3))
    assert labels.tolist() == [label for label in range(10) for _ in range(3)]
    assert torch.isfinite(images).all()
    assert [(entry.part, entry.relation) for entry in vault.ledger.releases] == [(task, "replace-one") for task in TASKS]


class Five(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.one_hot(torch.full((len(x),), 5), 10).float()


def test_accuracy_is_on_all_classes_so_far():
    """A network that answers 5 for everything knows half of the first task, and a tenth in the end."""
    test = np.zeros((40, 1, 28, 28), dtype=np.float32), np.tile(np.arange(10), 4)
    assert forgetting.classes_so_far(TASKS, 1) == (5, 6, 1, 2)
    accuracy = forgetting.of_networks([Five()] * 5, test, DATASETS["digits"], device="cpu")
    rows = [accuracy(task, 0) for task in range(5)]
    assert [row["test_accuracy"] for row in rows] == pytest.approx([50, 25, 100 / 6, 12.5, 10])
    assert [(row["task"], row["classes"]) for row in rows] == [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]


def test_a_set_is_judged_by_its_classes_so_far(generator, monkeypatch):
    """Images that tell their class: an MLP learns them, with as many outputs as there are classes so far."""
    labels = np.tile(np.arange(10), 20)
    images = np.zeros((200, 1, 28, 28), dtype=np.float32)
    images[np.arange(200), 0, labels] = 1.0
    built = []
    build = classifiers.build
    monkeypatch.setattr(classifiers, "build", lambda *args, **kwargs: built.append(kwargs["classes"]) or build(*args, **kwargs))
    job = SimpleNamespace(
        device="cpu",
        title="toy",
        generator=lambda *use: generator,
        progress=lambda title: Progress(title, io.StringIO()),
    )
    known = replace(DATASETS["digits"], augmentation="none")
    schedule = training.Schedule(steps=60, learning_rate=0.1)
    accuracy = forgetting.of_sets(Set(images, labels), (images, labels), known, job, network="mlp", schedule=schedule)
    assert [accuracy(task, 0)["test_accuracy"] for task in (0, 4)] == [100, 100]
    assert built == [2, 10]
