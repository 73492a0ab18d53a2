"""Where all noise comes from, and the one function that every query ends in.

**Stream.** One secret key of 128 bits per vault, from the operating system or, for repeatable runs, from a seed. AES in counter
mode under that key is the stream. Each question to the data has blocks of counters of its own, so its numbers are a function of
the key and of the question's place in the ledger: a resumed run answers a lost question with the same bits, and no two questions
share a number. Normals are float64, by the ziggurat method, whose tail is not cut off.

**Grid.** Floats are not reals: the low bits of a float depend on how it came about, and could tell what was summed (Mironov
2012). So an answer is an integer multiple of a public spacing g, a power of two. With S the float64 sum of clipped rows, Z normal
and U uniform in [0, 1),

    answer / g  =  round(S / g)  +  floor(sigma Z / g + U),

which equals floor((sigma Z + g round(S / g)) / g + U): a randomised rounding of the real-valued Gaussian mechanism on the rounded
sum, that is, post-processing of it. No bit of the answer depends on S but through an integer. U also smooths the grain of Z
itself: a cell of the grid holds thousands of values of a float64 normal, and what is left of their unevenness is about the
square of that fraction. That, and AES for randomness, is what the real-number theorem is taken on trust for.

**Sensitivity.** Let the exact sums of two neighbours differ by at most C in L2, every row having norm at most C. The mechanism
sees round(S / g), where S is the computed sum, so its sensitivity is at most C + g sqrt(d) + 2 E:

- rounding moves each of d coordinates by at most g / 2, twice; g <= C 2^-21 / sqrt(d) makes that C 2^-21;
- E bounds the L2 error of a float64 sum over n rows, taken in chunks whose sums are added up: with h the depth of that (rows of a
  chunk plus number of chunks), E <= h 2^-53 n C (Higham 2002, section 4.2, for each coordinate, and Minkowski's inequality over
  them). For n <= 2^18 records in chunks of 8 to 1,024: 2 E <= 2 (2^18 / 8 + 1,024) 2^-53 2^18 C < C 2^-18.9.

Together less than C 2^-18 = `ROUNDING` C; ledgers state the sensitivity C (1 + ROUNDING), and the noise is scaled to that.
"""

from __future__ import annotations

import hashlib
import math
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from randomgen import AESCounter
from torch import Tensor

STREAM = "AES-128 in counter mode; normals and sums in float64"
ROUNDING = 2.0**-18
RECORDS = 2**18
"""The most records that the proof covers."""
DIMENSION = 2**24
"""The most coordinates of one answer."""


def fresh_key() -> int:
    """128 bits from the operating system's entropy."""
    return int.from_bytes(os.urandom(16), "little")


def key_of(seed: int) -> int:
    """The key of a repeatable run. Whoever knows the seed can subtract the noise."""
    return int.from_bytes(hashlib.sha256(f"privset noise {seed}".encode()).digest()[:16], "little")


def stream(key: int, question: int, use: Literal["noise", "sample", "order"]) -> np.random.Generator:
    """The random numbers of one question, counted from 0: its noise, which records are in its batch, and in which order."""
    block = 2**42 + question if use == "order" else 2 * question + ("noise", "sample").index(use)
    return np.random.Generator(AESCounter(key=key, counter=block << 64))


def grid(sensitivity: float, dimension: int) -> float:
    """The spacing g of an answer of so many coordinates: the largest power of two up to sensitivity 2^-21 / sqrt(dimension)."""
    if not 1 <= dimension <= DIMENSION:
        raise ValueError(f"an answer of {dimension} coordinates: must be 1 to {DIMENSION}")
    return 2.0 ** math.floor(math.log2(sensitivity) - 21 - math.log2(dimension) / 2)


def integers(key: int, question: int, dimension: int, scale: float) -> np.ndarray:
    """(dimension,) int64: normal noise of standard deviation `scale` in units of the grid, randomly rounded to it."""
    random = stream(key, question, "noise")
    drawn = random.standard_normal(dimension)
    drawn *= scale
    drawn += random.random(dimension)
    return np.floor(drawn, out=drawn).astype(np.int64)


def release(
    total: Tensor, *, sensitivity: float, noise_multiplier: float, key: int, question: int, ahead: Ahead | None = None
) -> Tensor:
    """The sum `total` with Gaussian noise of standard deviation `noise_multiplier * sensitivity` on each coordinate, on its grid.

    `total` is a float64 tensor of any shape, `sensitivity` the stated one. Returns float64 of that shape. Every query of the
    vault ends here, and nowhere else is noise drawn.
    """
    if total.dtype != torch.float64:
        raise TypeError(f"the sum is {total.dtype}, not float64")
    spacing = grid(sensitivity, total.numel())
    draw = integers if ahead is None else ahead.integers
    drawn = draw(key, question, total.numel(), noise_multiplier * sensitivity / spacing)
    noise = on_device(drawn, total.device).view(total.shape)
    return ((total / spacing).round().to(torch.int64) + noise).to(torch.float64) * spacing


def on_device(numbers: np.ndarray, device: torch.device) -> Tensor:
    """A copy of what was drawn, for which the host does not wait."""
    tensor = torch.from_numpy(numbers)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


class Ahead:
    """Draws the noise of the questions to come while a GPU computes: the same numbers, only sooner.

    Drawing takes 20 ns a coordinate, as long as a fast card needs for the whole step.
    """

    def __init__(self, *, questions: int = 8, threads: int = 4):
        self.questions, self.pool = questions, ThreadPoolExecutor(threads)
        self.pending: dict[tuple[int, int, int, float], Future[np.ndarray]] = {}

    def integers(self, key: int, question: int, dimension: int, scale: float) -> np.ndarray:
        """As the function of that name."""
        wanted = [(key, later, dimension, scale) for later in range(question, question + self.questions)]
        self.pending = {ask: self.pending.get(ask) or self.pool.submit(integers, *ask) for ask in wanted}
        return self.pending.pop(wanted[0]).result()
