"""The methods that turn private data into a synthetic set, one file each.

A method is a module with

- `Config`, a frozen dataclass: its block in config.yaml (unknown keys are errors);
- `synthesize(vault, config, run) -> (images, labels)`: images (N, C, H, W) in normalised units and labels (N,) on the
  vault's device.

One whose releases do not depend on the size of the set has instead

- `ReleaseConfig` and `release(vault, config, run) -> Statistics`, whose arrays are stored with a certificate of their own;
- `Config` and `synthesize(statistics, facts, config, run) -> (images, labels)`, which is post-processing;
- `soft_labels(statistics, images, labels, config)`, probabilities for the finished set's training images, or None.

A method reaches private data through `vault` alone, and draws its own randomness from `run.generator`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from privset.rows import method_of


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one synthesis gets besides its data and its configuration."""

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


def load(name: str) -> ModuleType:
    """The module of a method or of a variant of one. Imported by name, so that a change in one method's file leaves the other
    methods' cells alone."""
    return importlib.import_module(f"privset.methods.{method_of(name)}")
