"""One cell of the grid: its vault, its checkpoint, and the files of its set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from privset.data import datasets
from privset.data.datasets import PublicFacts
from privset.jobs import checkpoints
from privset.jobs.computation import Computation
from privset.jobs.run import Run
from privset.jobs.seeds import cell_seed
from privset.jobs.trajectory import Trajectory
from privset.privacy.accounting import Accountant
from privset.privacy.ledger import Ledger
from privset.privacy.noise import fresh_key, key_of
from privset.privacy.vault import Vault
from privset.sets import arrays, mosaic


def open_vault(
    cell: Mapping[str, str], data: Path, *, delta: float, accountant: Accountant, noise: str, device: str
) -> tuple[Vault, int | None]:
    """The vault over a cell's training data, and the seed of its noise (None: the operating system's entropy).

    `noise` is "os", or "seeded": then sampling and noise follow from the cell's name, for runs that must be repeatable.
    """
    pixels, labels = datasets.load(data, train=True)
    facts = datasets.public_facts(datasets.describe(data), records=len(pixels))
    seed = None if noise == "os" else cell_seed("noise", cell)
    vault = Vault(
        facts.normalise(torch.from_numpy(pixels).to(device)),
        torch.from_numpy(labels).to(device),
        facts=facts,
        epsilon=math.inf if cell["epsilon"] == "inf" else float(cell["epsilon"]),
        delta=delta,
        accountant=accountant,
        key=fresh_key() if seed is None else key_of(seed),
    )
    return vault, seed


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
            }
            self.file.save(content)


def start(
    job: Computation, *, ledger: Ledger, vault: Vault | None, belongs_to: Mapping[str, Any]
) -> tuple[Run, Trajectory, checkpoints.File]:
    """What a method gets beside its data: the run with its hooks, the trajectory that they fill, and the checkpoint's file,
    to be deleted once the results are in place."""
    generator = job.generator("method")  # the method's own, public randomness
    trajectory = Trajectory(job.progress(job.title), ledger)
    file = job.checkpoint(**belongs_to)
    if vault is not None:
        file.claim()
    hooks = Checkpoint(file, vault=vault, generator=generator, trajectory=trajectory)
    run = Run(
        spc=int(job.cell["spc"]) if job.cell["spc"].isdigit() else None,
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
    arrays.write_set(Path(output.images), arrays.Set(pixels, labels.cpu().numpy(), tiles, soft))
    trajectory.write(Path(output.trajectory))
    trajectory.write_snapshots(Path(output.snapshots), facts)
    mosaic.write_grid(Path(output.grid), Path(output.images))
