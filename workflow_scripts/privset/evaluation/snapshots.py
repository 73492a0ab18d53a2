"""How good a set was on the way: networks trained on its snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from privset.data import datasets
from privset.evaluation import training
from privset.jobs.computation import Computation


def accuracy(
    made: Mapping[str, np.ndarray],
    test: Sequence[np.ndarray],
    known: datasets.Dataset,
    job: Computation,
    *,
    network: str,
    schedule: training.Schedule,
) -> Callable[[int, int], dict[str, Any]]:
    """A function of (index of a snapshot, network seed) that trains, tests and returns one row.

    `made` are a cell's snapshots (`arrays.read_snapshots`), `test` the test images in pixel units and their labels.
    """
    facts = datasets.public_facts(known, records=len(made["labels"]))
    images, labels, test_images, test_labels = (
        torch.from_numpy(array).to(job.device) for array in (made["images"], made["labels"], *test)
    )

    def row(index: int, seed: int) -> dict[str, Any]:
        step = int(made["step"][index])
        shown = job.progress(f"{job.title} after {step} steps, run {seed + 1}/{schedule.seeds}")
        result, _ = training.evaluate(
            facts.normalise(images[index]),
            labels,
            facts.normalise(test_images),
            test_labels,
            network=network,
            classes=known.classes,
            schedule=schedule,
            augmentation=known.augmentation,
            generator=job.generator("network", network, seed),
            start=shown.start,
            report=shown.report,
        )
        spent = float(made["epsilon_spent"][index])
        return {"step": step, "epsilon_spent": spent, "network_seed": seed, "test_accuracy": result["test_accuracy"]}

    return row
