"""DP-MERF for classes that arrive task by task: for each task an embedding, a release and a generator of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from privset.data import tasks
from privset.jobs import streams
from privset.jobs.blocks import Positive
from privset.jobs.rows import Method
from privset.jobs.run import Run
from privset.methods import dp_merf
from privset.privacy.ledger import Asked
from privset.privacy.vault import Vault

METHOD = Method(title="DP-MERF", family="generator", tasks=True)


class Config(dp_merf.Config):
    """DP-MERF's hyper-parameters; the reference program's continual_learning/main_dpmerf.py has 1,000 features, and 0.1 as
    its learning rate."""

    features: Annotated[int, Field(ge=2, multiple_of=2)] = 1000
    """Dimension of the embedding per class (cosines and sines)."""
    learning_rate: Positive = 0.1
    """Of Adam."""


def asks(config: Config, records: Callable[[tuple[int, ...] | None], int]) -> list[Asked]:
    """Of the records of each task what DP-MERF asks of all."""
    return [replace(asked, part=part) for part in tasks.sequence(len(tasks.ORDER)) for asked in dp_merf.asks(config, records)]


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images per class, each from the generator of its task."""

    def learn(classes: tuple[int, ...], kept: list[Tensor], run: Run) -> list[Tensor]:
        images, local = dp_merf.synthesize(vault.part(classes, local_labels=True), config, run)
        return [*kept, images, torch.tensor(classes, device=local.device)[local]]

    kept = streams.over_tasks(run, tasks.sequence(vault.facts.classes), learn, [])
    images, labels = torch.cat(kept[::2]), torch.cat(kept[1::2])
    order = labels.argsort(stable=True)
    return images[order], labels[order]
