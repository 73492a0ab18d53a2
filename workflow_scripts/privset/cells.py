"""One cell of the grid: its vault, its generators, its trajectory and its picture."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from privset import artifacts, checkpoints, datasets, mosaic
from privset.datasets import PublicFacts
from privset.methods import Run
from privset.progress import Progress
from privset.seeds import cell_seed
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
    seed = {use: None if noise == "os" else cell_seed(use, cell) for use in ("sampling", "noise")}
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
    return torch.Generator(device).manual_seed(cell_seed("method", cell))


def log_grid(total: int) -> set[int]:
    """Two steps a decade, 1, 3, 10, 32, 100, ..., and the last."""
    return {round(10 ** (k / 2)) for k in range(2 * len(str(total)))} & set(range(total)) | {total}


class Trajectory:
    """What a run leaves of its way: at most about 1,000 rows (step, epsilon spent, loss, seconds), and the set itself at a
    logarithmic grid of steps. All of it is post-processing of the releases. Also feeds the progress display."""

    def __init__(self, progress: Progress, ledger: Ledger):
        self.progress, self.ledger = progress, ledger
        self.rows: list[tuple[int, float, float, float]] = []
        self.snapshots: list[tuple[int, float, torch.Tensor, torch.Tensor]] = []
        self.pictures: dict[str, torch.Tensor] = {}
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

    def keep(self, name: str, images: torch.Tensor) -> None:
        self.pictures[name] = images.cpu()

    def write(self, path: Path) -> None:
        """The rows as CSV."""

        def write(stream) -> None:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("step", "epsilon_spent", "loss", "seconds"))
            writer.writerows((step, f"{eps:.6g}", f"{loss:.6g}", f"{sec:.3f}") for step, eps, loss, sec in self.rows)

        artifacts.write_atomically(path, write)

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
        artifacts.write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays), mode="wb")


class Checkpoint:
    """The checkpoint of one synthesis; `vault` is None for one that only post-processes earlier releases.

    It holds the method's state, the vault's ledger and the states of all three generators, so a resumed run repeats the lost
    steps with the *same* batches and the same noise: no question to the data is ever answered twice with different noise, and
    the result is, on a CPU, the uninterrupted run's to the bit. Nothing leaves a job before it is finished, so what a crash
    destroyed was never published either.

    Whoever has the state of the noise generator can subtract the noise. A checkpoint is therefore as secret as the data: it is
    readable by its owner alone, lies outside every declared output, and is deleted when the set is in place.
    """

    def __init__(self, file: checkpoints.File, *, vault: Vault | None, generator: torch.Generator, trajectory: Trajectory):
        self.file, self.vault, self.generator, self.trajectory = file, vault, generator, trajectory

    def load(self) -> dict[str, Any] | None:
        """The method's state at the checkpoint, everything else being restored; None to start from the beginning."""
        content = self.file.load(self.generator.device)
        if content is None:
            return None
        if self.vault:
            self.vault.load_state(content["vault"])
        self.generator.set_state(content["generator"].cpu())
        self.trajectory.rows = [tuple(row) for row in content["rows"]]
        self.trajectory.snapshots = [(step, eps, *(t.cpu() for t in tensors)) for step, eps, *tensors in content["snapshots"]]
        self.trajectory.begin -= content["seconds"]
        self.file.log(f"resuming from {self.file.path}, epsilon spent {self.trajectory.ledger.spent():.4g}")
        return content["method"]

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint if the last one is old enough; `state` is the method's, tensors and numbers."""
        if self.file.due():
            content = {
                "method": state,
                "vault": self.vault.state() if self.vault else None,
                "generator": self.generator.get_state(),
                "rows": self.trajectory.rows,
                "snapshots": self.trajectory.snapshots,
                "seconds": time.monotonic() - self.trajectory.begin,
            }
            self.file.save(content)


def start(
    cell: Mapping[str, str],
    *,
    ledger: Ledger,
    vault: Vault | None,
    generator: torch.Generator,
    checkpoint: Path,
    belongs_to: Mapping[str, Any],
    log: TextIO,
) -> tuple[Run, Trajectory, checkpoints.File]:
    """What a method gets beside its data: the run with its hooks, the trajectory that they fill, and the checkpoint's file,
    to be deleted once the results are in place."""
    trajectory = Trajectory(Progress(title(cell), log), ledger)
    file = checkpoints.File(
        checkpoint,
        belongs_to=checkpoints.fingerprint(belongs_to),
        log=lambda line: print(line, file=log, flush=True),
    )
    if vault is not None:
        file.claim()
    hooks = Checkpoint(file, vault=vault, generator=generator, trajectory=trajectory)
    run = Run(
        spc=int(cell["spc"]) if cell["spc"].isdigit() else None,
        generator=generator,
        start=trajectory.start,
        report=trajectory.report,
        snapshot=trajectory.snapshot,
        keep=trajectory.keep,
        restore=hooks.load,
        checkpoint=hooks.save,
    )
    return run, trajectory, file


def write(
    output: Any,
    images: torch.Tensor,
    labels: torch.Tensor,
    trajectory: Trajectory,
    facts: PublicFacts,
    *,
    tiles: int = 1,
    soft_labels: torch.Tensor | None = None,
) -> None:
    """A finished set (normalised images), its trajectory, its snapshots and its picture, at the rule's outputs."""
    pixels, soft = facts.to_pixels(images).cpu().numpy(), None if soft_labels is None else soft_labels.cpu().numpy()
    artifacts.write_set(Path(output.images), artifacts.Set(pixels, labels.cpu().numpy(), tiles, soft))
    trajectory.write(Path(output.trajectory))
    trajectory.write_snapshots(Path(output.snapshots), facts)
    mosaic.write_grid(Path(output.grid), Path(output.images))
