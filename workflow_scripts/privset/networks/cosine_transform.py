"""The discrete cosine transform (Ahmed, Natarajan, Rao 1974) of square images: public, and the same for any data."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def lowest(size: int, count: int) -> list[tuple[int, int]]:
    """The `count` lowest of the size^2 frequencies (vertical, horizontal): by their sum, then by the vertical one."""
    return sorted(((i, j) for i in range(size) for j in range(size)), key=lambda pair: (sum(pair), pair))[:count]


def cosines(size: int) -> Tensor:
    """(size, size) float64, orthonormal: row k is the k-th vector of the discrete cosine transform (DCT-II)."""
    k, x = torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64)
    rows = (math.pi * k * (2 * x + 1) / (2 * size)).cos() * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows


def waves(size: int, count: int) -> Tensor:
    """(size^2, min(count, size^2)) float64, orthonormal columns: the flattened images of the lowest frequencies."""
    vectors = cosines(size)
    return torch.stack([torch.outer(vectors[i], vectors[j]).flatten() for i, j in lowest(size, count)], dim=1)


def low_frequencies(channels: int, size: int, count: int | None) -> Tensor:
    """(channels size^2, channels count) float64, orthonormal columns: those of `waves` for each channel; for None the pixels'."""
    return torch.block_diag(*[torch.eye(size**2, dtype=torch.float64) if count is None else waves(size, count)] * channels)
