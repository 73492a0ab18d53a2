"""Class-incremental learning: the classes of a dataset arrive two at a time, and a method sees each task once.

The protocol of the PSG reference program (Private-Set/continual_learning): ten classes in a fixed order, five tasks of two. A
task's records are a part of the vault, so each task has the whole epsilon (parallel composition, `vault.compositions`). After
each task the measure is the accuracy on the test images of all classes so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from privset import PrivsetError
from privset.methods import Run

ORDER = (5, 6, 1, 2, 0, 8, 9, 3, 4, 7)
"""The classes as they arrive."""
PER_TASK = 2


def tasks(classes: int) -> list[tuple[int, ...]]:
    """The classes of each task. Raises PrivsetError for a dataset that the protocol is not defined for."""
    if classes != len(ORDER):
        raise PrivsetError(f"continual learning is defined for {len(ORDER)} classes, not {classes}")
    return [ORDER[first : first + PER_TASK] for first in range(0, len(ORDER), PER_TASK)]


def among(labels: Tensor, classes: tuple[int, ...]) -> Tensor:
    """Mask (N,) of the labels that are of some classes."""
    return torch.isin(labels, torch.tensor(classes, device=labels.device, dtype=labels.dtype))


def positions(labels: Tensor, classes: tuple[int, ...]) -> Tensor:
    """Each label's place in `classes`, of which it must be one."""
    return (labels[:, None] == torch.tensor(classes, device=labels.device)).int().argmax(1)


def over_tasks(run: Run, sequence: list[tuple[int, ...]], learn: Callable[[tuple[int, ...], Any, Run], Any], kept: Any) -> Any:
    """`kept = learn(classes, kept, run)` for one task after another; returns what is kept in the end.

    Each task's `run` looks to its method like a run of its own. An interrupted one resumes within its task.
    """
    state = run.restore() or {"task": 0, "kept": kept, "inner": None}
    kept, inner = state["kept"], state["inner"]
    for task in range(state["task"], len(sequence)):
        steps = [0]

        def start(total: int, steps: list[int] = steps) -> None:
            steps[0] = total
            run.start(total * len(sequence))

        inside = replace(
            run,
            start=start,
            report=lambda step, loss, task=task, steps=steps: run.report(task * steps[0] + step, loss),
            snapshot=lambda step, make: None,
            restore=lambda inner=inner: inner,
            checkpoint=lambda inner, task=task, kept=kept: run.checkpoint({"task": task, "kept": kept, "inner": inner}),
        )
        kept, inner = learn(sequence[task], kept, inside), None
        run.checkpoint({"task": task + 1, "kept": kept, "inner": None})
    return kept
