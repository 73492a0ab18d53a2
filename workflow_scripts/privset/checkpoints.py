"""Checkpoint files: after a kill, a preemption or a power cut a job goes on where it was (`cells.Checkpoint` says what of)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from privset import PrivsetError
from privset.artifacts import write_atomically
from privset.devices import lock

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
        self.claimed: int | None = None

    def claim(self, *, patience: float = 60.0) -> None:
        """Keep every other process from the same cell until `delete`, or until this process ends.

        Two of them would answer the same questions to the data with different noise, and each ledger would count one answer.
        Raises PrivsetError if another process has it for `patience` seconds (a cancelled one may take some to end), or finishes
        meanwhile. Without locks in the file system there is a line in the log instead.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.claimed = lock(self._lock_path)
            while self.claimed is None and patience > 0:
                time.sleep(1.0)
                patience -= 1
                if not self._lock_path.exists():
                    raise PrivsetError(f"{self.path}: another process has just finished this cell; run again to go on")
                self.claimed = lock(self._lock_path)
        except OSError as error:
            self.log(f"{self._lock_path}: no lock ({error.strerror}): make sure that no other process computes this cell")
            return
        if self.claimed is None:
            raise PrivsetError(f"{self._lock_path}: another process is computing this cell; wait for it, or stop it first")

    @property
    def _lock_path(self) -> Path:
        return self.path.with_suffix(".lock")

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
        whole = io.BytesIO()  # when a disk fills up, torch.save into a file may raise anything; a plain write an OSError
        torch.save({**content, "belongs_to": self.belongs_to}, whole)
        write_atomically(self.path, lambda stream: stream.write(whole.getbuffer()), mode="wb", secret=True)
        self.last = self.clock()

    def delete(self) -> None:
        """After the result is in place."""
        self.path.unlink(missing_ok=True)
        if self.claimed is not None:
            self._lock_path.unlink(missing_ok=True)
            os.close(self.claimed)
            self.claimed = None
        with contextlib.suppress(OSError):
            os.removedirs(self.path.parent)  # the empty folders above it
