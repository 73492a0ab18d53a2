"""PSG for classes that arrive task by task (Chen, Kerkouche, Fritz, NeurIPS 2022, section on continual learning).

Each task optimises the images of its own classes against the gradients of its own records. The networks in between are trained
on these images and on those of the classes before. The reference program trains them on the images of later classes too, which
are still noise; that is an option here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from privset.data import tasks
from privset.jobs import streams
from privset.jobs.blocks import Count
from privset.jobs.rows import Method
from privset.jobs.run import Run
from privset.methods import psg
from privset.networks import optimisers
from privset.privacy.ledger import Asked
from privset.privacy.vault import Vault

METHOD = Method(title="PSG", family="optimised set", tasks=True)


class Config(psg.Config):
    """PSG's hyper-parameters with the loops of the reference program's continual_learning/main_ours.py."""

    iterations: Count = 200
    """Fresh networks per task."""
    outer: Count = 10
    """Outer steps per network."""
    inner: Count = 50
    """Epochs of network training on the set between two outer steps."""
    future_noise: bool = False
    """Train the networks on the noise images of later classes too, as the reference program does."""


def asks(config: Config, records: Callable[[tuple[int, ...] | None], int]) -> list[Asked]:
    """Of the records of each task what PSG asks of all."""
    parts = tasks.sequence(len(tasks.ORDER))
    return [replace(asked, part=part) for part in parts for asked in psg.asks(config, lambda _, part=part: records(part))]


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images per class; those of a task are what they were when it ended."""
    facts = vault.facts
    labels = run.balanced_labels(facts.classes)
    noise = torch.randn(len(labels), *facts.shape, generator=run.generator, device=vault.device)
    sequence = tasks.sequence(facts.classes)

    def learn(classes: tuple[int, ...], images: Tensor, run: Run) -> Tensor:
        own = tasks.among(labels, classes)
        before = tuple(label for task in sequence[: sequence.index(classes)] for label in task)
        others = ~own if config.future_noise else tasks.among(labels, before)
        pixels = images[own].requires_grad_()
        images = images.clone()
        images[own] = psg.match(
            vault.part(classes),
            config,
            run,
            labels=labels[own],
            render=lambda: pixels,
            optimiser=optimisers.SGD([pixels], learning_rate=config.image_learning_rate, momentum=config.image_momentum),
            others=(images[others], labels[others]),
        )
        return images

    return streams.over_tasks(run, sequence, learn, noise), labels
