"""Class-incremental learning: the classes of a dataset arrive two at a time, and a method sees each task once.

The protocol of the PSG reference program (Private-Set/continual_learning): ten classes in a fixed order, five tasks of two. A
task's records are a part of the vault, so each task has the whole epsilon (parallel composition, `ledger.compositions`). After
each task the measure is the accuracy on the test images of all classes so far.
"""

from __future__ import annotations

import torch
from torch import Tensor

from privset import PrivsetError

ORDER = (5, 6, 1, 2, 0, 8, 9, 3, 4, 7)
"""The classes as they arrive."""
PER_TASK = 2


def sequence(classes: int) -> list[tuple[int, ...]]:
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
