"""Progress of long jobs: a bar on a terminal, a plain line every 30 seconds in a log; and what a run has finished."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

INTERVAL = 30.0
"""Seconds between two lines of a log."""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Counts steps. `update(step, **numbers)` shows e.g. `psg mnist eps=10 spc=1: 40/1000 loss=311 eps=1.2 0.8/s ETA 20:00`."""

    def __init__(self, title: str, log: TextIO, *, clock: Callable[[], float] = time.monotonic):
        self.title, self.log, self.clock = title, log, clock
        self.total = 0
        self.shown: int | None = None
        self.bar: tqdm | None = None

    def start(self, total: int) -> None:
        self.total = total
        self.last = self.clock()
        self.bar = tqdm(total=total, desc=self.title, disable=None, leave=False, dynamic_ncols=True)

    def update(self, step: int, **numbers: Callable[[], float]) -> None:
        """`numbers` are functions, called only when something is shown: reading a loss from a GPU costs time.

        The speed is that since the line before, so that neither a resumed job's earlier steps nor the seconds that compiling
        took at first count.
        """
        self.shown = step - 1 if self.shown is None else self.shown
        self.bar.update(step - self.bar.n)
        now = self.clock()
        if now - self.last < INTERVAL and step < self.total:
            return
        speed = (step - self.shown) / max(now - self.last, 1e-9)
        self.last, self.shown = now, step
        shown = {name: f"{number():.4g}" for name, number in numbers.items()}
        self.bar.set_postfix(shown)
        numbers_text = " ".join(f"{name}={value}" for name, value in shown.items())
        eta = _duration((self.total - step) / speed)
        print(f"{self.title}: {step}/{self.total} {numbers_text} {speed:.3g}/s ETA {eta}", file=self.log, flush=True)
        if step == self.total:
            self.bar.close()

    def report(self, step: int, loss: Any) -> None:
        """`update` with a loss, which is read only when it is shown."""
        self.update(step, loss=lambda: float(loss))


def finished_tables(preset: str, *, since: float) -> str:
    """The tables that a run has made since a time, for the terminal."""
    written = sorted(Path(f"results/{preset}/tables").glob("*.md"))
    return "".join(f"\n{path.read_text(encoding='utf-8')}" for path in written if path.stat().st_mtime >= since)
