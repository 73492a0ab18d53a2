"""Checkpoint files: after a kill, a preemption or a power cut a job goes on where it was (`cells.Checkpoint` says what of)."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import torch

from privset import PrivsetError
from privset.sets.files import write_atomically

INTERVAL = 30.0
"""Least seconds between two checkpoints. A kill loses at most this much, or one iteration if that takes longer."""
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What a file system without locks answers."""
FINISHED = "finished"
"""Content of a lock's file from the end of a computation to the beginning of the next, for processes that wait for it."""


def fingerprint(content: Mapping[str, Any]) -> str:
    """Identifies what a checkpoint belongs to: cell, configuration, code, versions and device."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


class File:
    """A checkpoint file that knows what it belongs to, and is written at most every INTERVAL seconds and a tenth of the time."""

    def __init__(self, path: Path, *, belongs_to: str, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self.path, self.belongs_to, self.log, self.clock = path, belongs_to, log, clock
        self.last, self.took = clock(), 0.0
        self.claimed: filelock.BaseFileLock | None = None

    def claim(self, *, patience: float = 60.0) -> None:
        """Keep every other process from the same cell until `delete`, or until this process ends.

        Two of them would answer the same questions to the data with different noise, and each ledger would count one answer.
        Raises PrivsetError if another process has it for `patience` seconds (a cancelled one may take some to end), or finishes
        meanwhile, or if the lock's file cannot be opened. Without locks in the file system there is a line in the log instead.
        The lock's file stays where it is: whoever waited for a file that was removed would hold a lock that nobody else sees.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path.with_suffix(".lock"), mode=0o600, thread_local=False)
        waited = False
        try:
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                waited = True
                lock.acquire(timeout=patience)
        except filelock.Timeout:
            raise PrivsetError(
                f"{lock.lock_file}: another process is computing this cell; wait for it, or stop it first"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:  # a file that may not be opened, a full disk: the lock may be there, and another's
                raise PrivsetError(
                    f"{lock.lock_file} could not be locked ({error.strerror}); make its folder writable"
                ) from error
            self.log(f"{lock.lock_file}: no lock ({error}): make sure that no other process computes this cell")
            return
        self.claimed, file = lock, Path(lock.lock_file)
        if waited and file.read_text(encoding="utf-8") == FINISHED:
            raise PrivsetError(f"{self.path}: another process has just finished this cell; run again to go on")
        file.write_text("", encoding="utf-8")

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
        return self.clock() - self.last >= max(INTERVAL, 10 * self.took)

    def save(self, content: dict[str, Any]) -> None:
        start = self.clock()
        whole = io.BytesIO()  # when a disk fills up, torch.save into a file may raise anything; a plain write an OSError
        torch.save({**content, "belongs_to": self.belongs_to}, whole)
        write_atomically(self.path, lambda stream: stream.write(whole.getbuffer()), mode="wb", secret=True)
        self.last = self.clock()
        self.took = self.last - start

    def delete(self) -> None:
        """After the result is in place."""
        self.path.unlink(missing_ok=True)
        if self.claimed is not None:
            Path(self.claimed.lock_file).write_text(FINISHED, encoding="utf-8")
            self.claimed.release()
            self.claimed = None


def rows(
    file: File, todo: Sequence[tuple[Any, ...]], compute: Callable[..., dict[str, Any]], device: torch.device | str
) -> list[dict[str, Any]]:
    """`compute(*item)` for each item, one row each; an interrupted job repeats one of them."""
    done = (file.load(device) or {"rows": []})["rows"]
    for item in todo[len(done) :]:
        done.append(compute(*item))
        if file.due():
            file.save({"rows": done})
    return done
