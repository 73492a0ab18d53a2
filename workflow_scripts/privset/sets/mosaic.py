"""Pictures of sets: image grids with one row per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from privset.sets import arrays, files


def mosaic(images: np.ndarray, labels: np.ndarray, *, columns: int = 10) -> np.ndarray:
    """The first `columns` images of each class, one row per class, (H, W) or (H, W, 3) in [0, 1] (clamped); 1 px between."""
    rows = []
    for label in np.unique(labels):
        chosen = images[labels == label][:columns]
        blank = np.ones((columns - len(chosen), *images.shape[1:]), dtype=images.dtype)
        rows.append(np.concatenate([chosen, blank]))
    grid = np.pad(np.stack(rows).clip(0, 1), ((0, 0), (0, 0), (0, 0), (1, 0), (1, 0)), constant_values=1)
    picture = grid.transpose(0, 3, 1, 4, 2).reshape(grid.shape[0] * grid.shape[3], -1, grid.shape[2])
    return picture[..., 0] if picture.shape[-1] == 1 else picture


def write_grid(path: Path, set_path: Path) -> None:
    """The set's picture, as stored, at twice the size."""
    made = arrays.read_set(set_path)
    columns = min(10, int(np.bincount(made.labels).max()))
    picture = Image.fromarray((mosaic(made.images, made.labels, columns=columns) * 255).round().astype(np.uint8))
    picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
    files.write_atomically(path, lambda stream: picture.save(stream, format="PNG"), mode="wb")
