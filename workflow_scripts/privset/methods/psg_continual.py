"""PSG for classes that arrive task by task (Chen, Kerkouche, Fritz, NeurIPS 2022, section on continual learning).

Each task optimises the images of its own classes against the gradients of its own records. The networks in between are trained
on these images and on those of the classes before. The reference program trains them on the images of later classes too, which
are still noise; that is an option here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from privset import continual, optimisers
from privset.methods import Run, psg
from privset.vault import Vault


@dataclass(frozen=True, kw_only=True)
class Config(psg.Config):
    """PSG's hyper-parameters with the loops of the reference program's continual_learning/main_ours.py."""

    iterations: int = 200
    """Fresh networks per task."""
    outer: int = 10
    inner: int = 50
    future_noise: bool = False
    """Train the networks on the noise images of later classes too, as the reference program does."""


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images per class; those of a task are what they were when it ended."""
    facts = vault.facts
    labels = run.balanced_labels(facts.classes)
    noise = torch.randn(len(labels), *facts.shape, generator=run.generator, device=vault.device)
    sequence = continual.tasks(facts.classes)

    def learn(classes: tuple[int, ...], images: Tensor, run: Run) -> Tensor:
        own = continual.among(labels, classes)
        before = tuple(label for task in sequence[: sequence.index(classes)] for label in task)
        others = ~own if config.future_noise else continual.among(labels, before)
        pixels = images[own].requires_grad_()
        images = images.clone()
        images[own] = psg.match(
            *(vault.part(classes), config, run),
            labels=labels[own],
            render=lambda: pixels,
            optimiser=optimisers.SGD([pixels], learning_rate=config.image_learning_rate, momentum=config.image_momentum),
            others=(images[others], labels[others]),
        )
        return images

    return continual.over_tasks(run, sequence, learn, noise), labels
