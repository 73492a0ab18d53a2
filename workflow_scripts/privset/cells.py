"""One cell of the grid: its vault, its generators, its trajectory and its picture."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from privset import artifacts, datasets
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
    pixels, labels = datasets.load(cell["dataset"], data, train=True)
    facts = datasets.public_facts(cell["dataset"], records=len(pixels))
    seed = {use: None if noise == "os" else derived_seed(use, *cell.values()) for use in ("sampling", "noise")}
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
    return torch.Generator(device).manual_seed(derived_seed("method", *cell.values()))


class Trajectory:
    """At most about 1,000 rows of a run: step, epsilon spent, loss, seconds. Also feeds the progress display."""

    def __init__(self, progress: Progress, ledger: Ledger):
        self.progress, self.ledger = progress, ledger
        self.rows: list[tuple[int, float, float, float]] = []
        self.every, self.begin = 1, time.monotonic()

    def start(self, total: int) -> None:
        self.every = max(1, total // 1000)
        self.progress.start(total)

    def report(self, step: int, loss: torch.Tensor) -> None:
        if step % self.every == 0:
            self.rows.append((step, self.ledger.spent(), float(loss), time.monotonic() - self.begin))
        self.progress.update(step, loss=lambda: float(loss), eps=self.ledger.spent)

    def write(self, path: Path) -> None:
        def write(stream) -> None:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("step", "epsilon_spent", "loss", "seconds"))
            writer.writerows((step, f"{eps:.6g}", f"{loss:.6g}", f"{sec:.3f}") for step, eps, loss, sec in self.rows)

        artifacts.write_atomically(path, write)
