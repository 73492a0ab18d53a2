"""The real training data, without privacy: the upper bound in the tables. Its budget must be infinite."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from privset.jobs.blocks import Block
from privset.jobs.rows import Method
from privset.jobs.run import Run
from privset.privacy.ledger import Asked
from privset.privacy.vault import Vault

METHOD = Method(title="Real data (not private)", family="real data")


class Config(Block):
    """Nothing to choose."""


def asks(config: Config, records: Callable[[tuple[int, ...] | None], int]) -> list[Asked]:
    """Everything."""
    return [Asked(mechanism="everything", relation=None, sensitivity=math.inf, count=1)]


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """All images and labels as they are."""
    return vault.everything()
