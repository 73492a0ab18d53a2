"""What one synthesis gets beside its data and its configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Run:
    """The method's own randomness, and the hooks by which it reports and resumes; without hooks it just runs."""

    spc: int | None
    """Samples per class of the set; None for a method whose set has no fixed size per class (the real data)."""
    generator: torch.Generator
    """The method's own randomness (initial weights and images, latent codes), on the vault's device."""
    start: Callable[[int], None] = lambda total: None
    """Announces the number of steps to come, for the progress display."""
    report: Callable[[int, Tensor], None] = lambda step, loss: None
    """Reports a finished step (counted from 1) and its loss, for the progress display and the trajectory."""
    snapshot: Callable[[int, Callable[[], tuple[Tensor, Tensor]]], None] = lambda step, make: None
    """Offers the set as it is after a step (what `make` returns: images, labels), for convergence figures."""
    keep: Callable[[str, Tensor], None] = lambda name, images: None
    """Offers images that are not part of the set, for pictures."""
    restore: Callable[[], dict[str, Any] | None] = lambda: None
    """What the method gave to `checkpoint` before it was interrupted, all generators being restored; None for a fresh start."""
    checkpoint: Callable[[dict[str, Any]], None] = lambda state: None
    """Offers the method's state (tensors and numbers, not copied) after a step; written only when a checkpoint is due."""

    def balanced_labels(self, classes: int) -> Tensor:
        """(spc * classes,) labels 0..0 1..1 ...: the same for any private data."""
        return torch.arange(classes, device=self.generator.device).repeat_interleave(self.spc)
