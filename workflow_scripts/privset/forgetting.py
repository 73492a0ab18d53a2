"""How much is known after each task of class-incremental learning: the accuracy on the test images of all classes so far.

`sequence` is the tasks' classes (`continual.tasks`), `task` counts them from 0; images are normalised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from privset import evaluation
from privset.continual import among, positions


def classes_so_far(sequence: Sequence[tuple[int, ...]], task: int) -> tuple[int, ...]:
    return tuple(label for classes in sequence[: task + 1] for label in classes)


def of_network(network: nn.Module, test_images: Tensor, test_labels: Tensor, seen: tuple[int, ...], *, precision: str) -> float:
    """Accuracy in percent of a classifier with an output for every class, none of them masked."""
    part = among(test_labels, seen)
    predicted = evaluation.predict(network, test_images[part], precision=precision)
    return 100 * (predicted == test_labels[part]).double().mean().item()


def of_set(
    images: Tensor, labels: Tensor, test_images: Tensor, test_labels: Tensor, seen: tuple[int, ...], **options: Any | Callable
) -> float:
    """Accuracy in percent of a fresh network with one output per class so far, trained on the set's images of them.

    `options` are those of `evaluation.evaluate`.
    """
    tensors = []
    for x, y in ((images, labels), (test_images, test_labels)):
        part = among(y, seen)
        tensors += [x[part], positions(y[part], seen)]
    result, _ = evaluation.evaluate(*tensors, classes=len(seen), **options)
    return result["test_accuracy"]
