"""What a run leaves of its way."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from privset.data.datasets import PublicFacts
from privset.jobs.progress import Progress
from privset.privacy.ledger import Ledger
from privset.sets import files


def log_grid(total: int) -> set[int]:
    """Two steps a decade, 1, 3, 10, 32, 100, ..., and the last."""
    return {round(10 ** (k / 2)) for k in range(2 * len(str(total)))} & set(range(total)) | {total}


class Trajectory:
    """What a run leaves of its way: at most about 1,000 rows (step, epsilon spent, loss), and the set itself at a logarithmic
    grid of steps. All of it is post-processing of the releases; no times, which follow the secret sizes of batches. Also feeds
    the progress display."""

    def __init__(self, progress: Progress, ledger: Ledger):
        self.progress, self.ledger = progress, ledger
        self.rows: list[tuple[int, float, float]] = []
        self.snapshots: list[tuple[int, float, torch.Tensor, torch.Tensor]] = []
        self.pictures: dict[str, torch.Tensor] = {}
        self.every, self.grid = 1, set()

    def start(self, total: int) -> None:
        self.every, self.grid = max(1, total // 1000), log_grid(total)
        self.progress.start(total)

    def report(self, step: int, loss: torch.Tensor) -> None:
        if step % self.every == 0:
            self.rows.append((step, self.ledger.spent(), float(loss)))
        self.progress.update(step, loss=lambda: float(loss), eps=self.ledger.spent)

    def snapshot(self, step: int, make: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> None:
        if step in self.grid:
            images, labels = make()
            self.snapshots.append((step, self.ledger.spent(), images.cpu().clone(), labels.cpu().clone()))

    def keep(self, name: str, images: torch.Tensor) -> None:
        self.pictures[name] = images.cpu()

    def write(self, path: Path) -> None:
        """The rows as CSV."""

        def write(stream) -> None:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("step", "epsilon_spent", "loss"))
            writer.writerows((step, f"{eps:.6g}", f"{loss:.6g}") for step, eps, loss in self.rows)

        files.write_atomically(path, write)

    def write_snapshots(self, path: Path, facts: PublicFacts) -> None:
        """`step` (S,), `epsilon_spent` (S,), `images` (S, N, C, H, W) float32 in pixel units, `labels` (N,); S = 0 for a
        method without steps. Beside them the images (N, C, H, W) that a method kept for pictures, by their names."""
        arrays = {
            "step": np.array([step for step, *_ in self.snapshots], dtype=np.int64),
            "epsilon_spent": np.array([eps for _, eps, *_ in self.snapshots], dtype=np.float64),
            "images": np.zeros((0, 0, *facts.shape), dtype=np.float32),
            "labels": np.zeros(0, dtype=np.int64),
        }
        if self.snapshots:
            arrays["images"] = torch.stack([facts.to_pixels(images) for *_, images, _ in self.snapshots]).numpy()
            arrays["labels"] = self.snapshots[-1][3].numpy()
        arrays |= {name: facts.to_pixels(images).numpy() for name, images in self.pictures.items()}
        files.write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays), mode="wb")
