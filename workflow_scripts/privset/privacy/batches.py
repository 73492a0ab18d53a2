"""Poisson batches: their rows, and what these are cut to."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_clip(clip: float) -> None:
    """Raises ValueError unless rows can be cut to that norm."""
    if not clip > 0:
        raise ValueError(f"clip = {clip}: must be > 0")


def room(sampling_rate: float, records: int) -> int:
    """Places for a Poisson batch: for 12 standard deviations more records than expected. A larger batch, whose probability (below
    1e-24 at the paper's rate, by Chernoff's bound) vanishes beside delta, loses its last records."""
    expected = sampling_rate * records
    return min(records, math.ceil((expected + 12 * math.sqrt(expected) + 12) / 32) * 32)


def rows_of_batch(images: Tensor, labels: Tensor, mask: Tensor, *, size: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """The records that `mask` (N,) marks: images, labels and presence, all 1.

    With a `size` there are so many rows, as on a GPU, so that the host need not wait to learn their number: the absent ones are
    zeros, of class 0, and have presence 0. A batch that is larger loses its last records.
    """
    if size is None:
        if mask.all():  # a pass over all records, which may be many gigabytes
            return images, labels, images.new_ones(len(images))
        rows = mask.nonzero().squeeze(1)
        return images[rows], labels[rows], images.new_ones(len(rows))
    rows = torch.nonzero_static(mask, size=size, fill_value=-1).squeeze(1)
    there, rows = rows >= 0, rows.clamp(min=0)
    chosen = torch.where(there.view(-1, 1, 1, 1), images[rows], 0)
    return chosen, labels[rows] * there, there.to(images.dtype)
