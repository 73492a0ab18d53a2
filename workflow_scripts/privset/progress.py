"""Progress of long jobs: a bar on a terminal, a plain line every 30 seconds in a log; and the job's frame around it."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from privset import PrivsetError
from privset.allocator import keep_freed_memory

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
        self.total = self.first = 0
        self.bar: tqdm | None = None

    def start(self, total: int) -> None:
        self.total = total
        self.begin = self.last = self.clock()
        self.bar = tqdm(total=total, desc=self.title, disable=None, leave=False, dynamic_ncols=True)

    def update(self, step: int, **numbers: Callable[[], float]) -> None:
        """`numbers` are functions, called only when something is shown: reading a loss from a GPU costs time.

        A resumed job begins with a later step than the first; its speed counts what it did itself.
        """
        self.first = self.first or step
        self.bar.update(step - self.bar.n)
        now = self.clock()
        if now - self.last < INTERVAL and step < self.total:
            return
        self.last = now
        shown = {name: f"{number():.4g}" for name, number in numbers.items()}
        self.bar.set_postfix(shown)
        speed = (step - self.first + 1) / max(now - self.begin, 1e-9)
        numbers_text = " ".join(f"{name}={value}" for name, value in shown.items())
        eta = _duration((self.total - step) / speed)
        print(f"{self.title}: {step}/{self.total} {numbers_text} {speed:.3g}/s ETA {eta}", file=self.log, flush=True)
        if step == self.total:
            self.bar.close()


@contextlib.contextmanager
def job(smk) -> Iterator[TextIO]:
    """The frame of every thin script: opens the rule's log, sets the threads and the allocator; a PrivsetError ends in one clear
    line."""
    if "torch" in sys.modules:  # reporting scripts do without
        keep_freed_memory()
        sys.modules["torch"].set_num_threads(max(1, smk.threads))
    path = Path(smk.log[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as log:
        logging.basicConfig(stream=log, format="%(message)s", force=True)
        try:
            yield log
        except PrivsetError as error:
            for stream in (log, sys.stderr):
                print(f"error: {error}", file=stream)
            sys.exit(1)
        except Exception:
            traceback.print_exc(file=log)
            raise
