"""How much is known after each task of class-incremental learning: the accuracy on the test images of all classes so far.

Tasks are counted from 0. Test images come in pixel units with their labels; every result is one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from privset.data import datasets, tasks
from privset.evaluation import training
from privset.jobs.computation import Computation
from privset.sets.arrays import Set


def classes_so_far(sequence: Sequence[tuple[int, ...]], task: int) -> tuple[int, ...]:
    return tuple(label for classes in sequence[: task + 1] for label in classes)


def of_networks(
    networks: Sequence[nn.Module], test: Sequence[np.ndarray], known: datasets.Dataset, *, device: str
) -> Callable[[int, int], dict[str, Any]]:
    """A function of (task, seed): the accuracy of the classifier of that task, which has an output for every class, none of them
    masked."""
    facts = datasets.public_facts(known, records=1)
    images, labels = (torch.from_numpy(array).to(device) for array in test)
    images, sequence = facts.normalise(images), tasks.sequence(known.classes)

    def row(task: int, seed: int) -> dict[str, Any]:
        seen = classes_so_far(sequence, task)
        part = tasks.among(labels, seen)
        predicted = training.predict(networks[task], images[part], precision="float32")
        return _row(task, seen, seed, 100 * (predicted == labels[part]).double().mean().item())

    return row


def of_sets(
    made: Set,
    test: Sequence[np.ndarray],
    known: datasets.Dataset,
    job: Computation,
    *,
    network: str,
    schedule: training.Schedule,
) -> Callable[[int, int], dict[str, Any]]:
    """A function of (task, seed): the accuracy of a fresh network with one output per class so far, trained on the set's images
    of them."""
    images, labels, test_images, test_labels = training.tensors(made, test, known, job.device)
    sequence = tasks.sequence(known.classes)

    def row(task: int, seed: int) -> dict[str, Any]:
        seen = classes_so_far(sequence, task)
        own, tested = tasks.among(labels, seen), tasks.among(test_labels, seen)
        shown = job.progress(f"{job.title} after task {task + 1}, run {seed + 1}/{schedule.seeds}")
        result, _ = training.evaluate(
            images[own],
            tasks.positions(labels[own], seen),
            test_images[tested],
            tasks.positions(test_labels[tested], seen),
            network=network,
            classes=len(seen),
            schedule=schedule,
            augmentation=known.augmentation,
            generator=job.generator("network", network, task, seed),
            start=shown.start,
            report=shown.report,
        )
        return _row(task, seen, seed, result["test_accuracy"])

    return row


def _row(task: int, seen: tuple[int, ...], seed: int, accuracy: float) -> dict[str, Any]:
    return {"task": task + 1, "classes": len(seen), "network_seed": seed, "test_accuracy": accuracy}
