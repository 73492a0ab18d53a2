"""The processor of a job: a graphics card of its own where there is one and the job asked for one, else the CPU."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import torch

from privset import PrivsetError


def _cards() -> list[str]:
    """Identifiers of the visible cards, in torch's order; CUDA_VISIBLE_DEVICES has already left out the others."""
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]


@contextmanager
def device(*, gpu: bool, wait: float = 1.0, patience: float = 600.0) -> Iterator[str]:
    """ "cpu", or "cuda:I" of a card that no other job of this user has while the context is open.

    Snakemake counts cards but does not say which one a job may use; a lock file per card does, for all workflows of a user on a
    machine. A Slurm job that sees one card has it from Slurm and takes no lock: several may share it on purpose. Where it sees
    several (`salloc` with four cards, and Snakemake in it) locks apply. Raises PrivsetError if no card becomes free in `patience`
    seconds: then more jobs run at a time than there are cards.
    """
    cards = _cards() if gpu and torch.cuda.is_available() else []
    if not cards:
        yield "cpu"
        return
    torch.set_float32_matmul_precision("high")  # TF32 products; stated in every certificate
    torch.backends.cudnn.allow_tf32 = True
    if "SLURM_JOB_ID" in os.environ and len(cards) == 1:
        yield "cuda:0"
        return
    begin = time.monotonic()
    while True:
        for index, card in enumerate(cards):
            lock = filelock.FileLock(Path(tempfile.gettempdir()) / f"privset-{os.getuid()}-{card}.lock", mode=0o600)
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                continue
            try:
                yield f"cuda:{index}"
            finally:
                lock.release()
            return
        if time.monotonic() - begin > patience:
            raise PrivsetError(f"none of {len(cards)} GPUs became free in {patience:g} s; give --resources gpu={len(cards)}")
        time.sleep(wait)
