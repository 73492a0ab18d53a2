"""One cell of the grid: its vault, its generators, its trajectory and its picture."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from privset import artifacts, datasets
from privset.datasets import PublicFacts
from privset.progress import Progress
from privset.seeds import derived_seed
from privset.vault import Ledger, Vault, noise_generator


def title(cell: Mapping[str, str]) -> str:
    """What a cell is called in progress lines."""
    return f"{cell['method']} {cell['dataset']} eps={cell['epsilon']} spc={cell['spc']} seed={cell['seed']}"


def open_vault(cell: Mapping[str, str], data: Path, *, delta: float, noise: str, device: str) -> tuple[Vault, int | None]:
    """The vault over a cell's training data, and the seed of its noise (None: the operating system's entropy).

    `noise` is "os", or "seeded": then sampling and noise follow from the cell's name, for runs that must be repeatable.
    """
    pixels, labels = datasets.load(data, train=True)
    facts = datasets.public_facts(datasets.describe(data), records=len(pixels))
    seed = {use: None if noise == "os" else derived_seed(use, *_name(cell)) for use in ("sampling", "noise")}
    vault = Vault(
        facts.normalise(torch.from_numpy(pixels).to(device)),
        torch.from_numpy(labels).to(device),
        facts=facts,
        epsilon=math.inf if cell["epsilon"] == "inf" else float(cell["epsilon"]),
        delta=delta,
        sampling=noise_generator(device, seed=seed["sampling"]),
        noise=noise_generator(device, seed=seed["noise"]),
    )
    return vault, seed["noise"]


def method_generator(cell: Mapping[str, str], device: str) -> torch.Generator:
    """The method's own, public randomness."""
    return torch.Generator(device).manual_seed(derived_seed("method", *_name(cell)))


def network_generator(cell: Mapping[str, str], seed: int, device: str) -> torch.Generator:
    """The randomness of one evaluation run: initial weights, order and augmentation."""
    return torch.Generator(device).manual_seed(derived_seed("network", seed, cell["network"], *_name(cell)))


def _name(cell: Mapping[str, str]) -> list[str]:
    """What seeds follow from. Not the preset: presets that agree on a cell's method make the same set."""
    return [cell[part] for part in ("dataset", "method", "epsilon", "spc", "seed")]


def log_grid(total: int) -> set[int]:
    """Four steps a decade, 1, 2, 3, 6, 10, 18, 32, 56, 100, ..., and the last."""
    return {round(10 ** (k / 4)) for k in range(4 * len(str(total)))} & set(range(total)) | {total}


class Trajectory:
    """What a run leaves of its way: at most about 1,000 rows (step, epsilon spent, loss, seconds), and the set itself at a
    logarithmic grid of steps. All of it is post-processing of the releases. Also feeds the progress display."""

    def __init__(self, progress: Progress, ledger: Ledger):
        self.progress, self.ledger = progress, ledger
        self.rows: list[tuple[int, float, float, float]] = []
        self.snapshots: list[tuple[int, float, torch.Tensor, torch.Tensor]] = []
        self.every, self.grid, self.begin = 1, set(), time.monotonic()

    def start(self, total: int) -> None:
        self.every, self.grid = max(1, total // 1000), log_grid(total)
        self.progress.start(total)

    def report(self, step: int, loss: torch.Tensor) -> None:
        if step % self.every == 0:
            self.rows.append((step, self.ledger.spent(), float(loss), time.monotonic() - self.begin))
        self.progress.update(step, loss=lambda: float(loss), eps=self.ledger.spent)

    def snapshot(self, step: int, make: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> None:
        if step in self.grid:
            images, labels = make()
            self.snapshots.append((step, self.ledger.spent(), images.cpu().clone(), labels.cpu().clone()))

    def write(self, path: Path) -> None:
        """The rows as CSV."""

        def write(stream) -> None:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("step", "epsilon_spent", "loss", "seconds"))
            writer.writerows((step, f"{eps:.6g}", f"{loss:.6g}", f"{sec:.3f}") for step, eps, loss, sec in self.rows)

        artifacts.write_atomically(path, write)

    def write_snapshots(self, path: Path, facts: PublicFacts) -> None:
        """`step` (S,), `epsilon_spent` (S,), `images` (S, N, C, H, W) float32 in pixel units, `labels` (N,); S = 0 for a
        method without steps."""
        arrays = {
            "step": np.array([step for step, *_ in self.snapshots], dtype=np.int64),
            "epsilon_spent": np.array([eps for _, eps, *_ in self.snapshots], dtype=np.float64),
            "images": np.zeros((0, 0, *facts.shape), dtype=np.float32),
            "labels": np.zeros(0, dtype=np.int64),
        }
        if self.snapshots:
            arrays["images"] = torch.stack([facts.to_pixels(images) for *_, images, _ in self.snapshots]).numpy()
            arrays["labels"] = self.snapshots[-1][3].numpy()
        artifacts.write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays), mode="wb")
