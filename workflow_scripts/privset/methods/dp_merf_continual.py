"""DP-MERF for classes that arrive task by task: for each task an embedding, a release and a generator of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from privset import continual
from privset.methods import Run, dp_merf
from privset.vault import Vault


@dataclass(frozen=True, kw_only=True)
class Config(dp_merf.Config):
    """DP-MERF's hyper-parameters; the reference program's continual_learning/main_dpmerf.py has 1,000 features, and 0.1 as
    its learning rate."""

    features: int = 1000
    learning_rate: float = 0.1


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images per class, each from the generator of its task."""

    def learn(classes: tuple[int, ...], kept: list[Tensor], run: Run) -> list[Tensor]:
        images, local = dp_merf.synthesize(vault.part(classes, local_labels=True), config, run)
        return [*kept, images, torch.tensor(classes, device=local.device)[local]]

    kept = continual.over_tasks(run, continual.tasks(vault.facts.classes), learn, [])
    images, labels = torch.cat(kept[::2]), torch.cat(kept[1::2])
    order = labels.argsort(stable=True)
    return images[order], labels[order]
