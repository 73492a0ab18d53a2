"""Checkpoints of a running synthesis: after a kill, a preemption or a power cut the job goes on where it was.

A checkpoint holds the method's state, the vault's ledger and the states of all three generators, so a resumed run repeats the
lost steps with the *same* batches and the same noise: no question to the data is ever answered twice with different noise, and
the result is, on a CPU, the uninterrupted run's to the bit. Nothing leaves a job before it is finished, so what a crash
destroyed was never published either.

Whoever has the state of the noise generator can subtract the noise. A checkpoint is therefore as secret as the data: it is
readable by its owner alone, lies outside every declared output, and is deleted when the set is in place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from privset.artifacts import write_atomically
from privset.cells import Trajectory
from privset.vault import Vault

INTERVAL = 30.0
"""Least seconds between two checkpoints. A kill loses at most this much, or one iteration if that takes longer."""


def fingerprint(content: Mapping[str, Any]) -> str:
    """Identifies what a checkpoint belongs to: cell, configuration, code, versions and device."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


class File:
    """A checkpoint file that knows what it belongs to, and is written at most every INTERVAL seconds."""

    def __init__(self, path: Path, *, belongs_to: str, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self.path, self.belongs_to, self.log, self.clock = path, belongs_to, log, clock
        self.last = clock()

    def load(self, device: torch.device | str) -> dict[str, Any] | None:
        """What was saved, or None. A truncated file, or one of another configuration, code or machine, is refused with a line
        in the log."""
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location=device, weights_only=True)
            if content["belongs_to"] != self.belongs_to:
                raise ValueError("it belongs to another configuration, code version or device")
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self.log(f"checkpoint {self.path} is not used ({reason}); starting from the beginning")
            return None
        return content

    def due(self) -> bool:
        return self.clock() - self.last >= INTERVAL

    def save(self, content: dict[str, Any]) -> None:
        content = {**content, "belongs_to": self.belongs_to}
        write_atomically(self.path, lambda stream: torch.save(content, stream), mode="wb", secret=True)
        self.last = self.clock()

    def delete(self) -> None:
        """After the result is in place."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.removedirs(self.path.parent)  # the empty folders above it


class Checkpoint:
    """The checkpoint of one synthesis."""

    def __init__(self, file: File, *, vault: Vault, generator: torch.Generator, trajectory: Trajectory):
        self.file, self.vault, self.generator, self.trajectory = file, vault, generator, trajectory

    def load(self) -> dict[str, Any] | None:
        """The method's state at the checkpoint, everything else being restored; None to start from the beginning."""
        content = self.file.load(self.vault.device)
        if content is None:
            return None
        self.vault.load_state(content["vault"])
        self.generator.set_state(content["generator"].cpu())
        self.trajectory.rows = [tuple(row) for row in content["rows"]]
        self.trajectory.snapshots = [(step, eps, *(t.cpu() for t in tensors)) for step, eps, *tensors in content["snapshots"]]
        self.trajectory.begin -= content["seconds"]
        self.file.log(f"resuming from {self.file.path}, epsilon spent {self.vault.ledger.spent():.4g}")
        return content["method"]

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint if the last one is old enough; `state` is the method's, tensors and numbers."""
        if self.file.due():
            content = {
                "method": state,
                "vault": self.vault.state(),
                "generator": self.generator.get_state(),
                "rows": self.trajectory.rows,
                "snapshots": self.trajectory.snapshots,
                "seconds": time.monotonic() - self.trajectory.begin,
            }
            self.file.save(content)
