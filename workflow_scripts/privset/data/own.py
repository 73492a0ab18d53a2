"""Datasets of a user's own, in three formats, as the four IDX files of the workflow (docs/extend.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from privset.data.datasets import Dataset
from privset.data.idx import inflate, read_idx, write_idx


def _own_idx(dataset: Dataset, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """`PATH-images-idx3-ubyte` and `PATH-labels-idx1-ubyte`, raw or .gz."""

    def read(kind: str) -> np.ndarray:
        for suffix in ("", ".gz"):
            if (file := path.with_name(f"{path.name}-{kind}-ubyte{suffix}")).is_file():
                return read_idx(inflate(file.read_bytes()))
        raise FileNotFoundError(f"no {path}-{kind}-ubyte or .gz")

    return read("images-idx3"), read("labels-idx1")


def _own_npz(dataset: Dataset, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """`images` (N, H, W) or (N, H, W, 3) unsigned bytes, `labels` (N,) integers."""
    with np.load(path, allow_pickle=False) as archive:
        return archive["images"], archive["labels"].astype(np.uint8)


def _own_folder(dataset: Dataset, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One subfolder per class, named like the class, with image files of the stated size."""
    images, labels = [], []
    for label, name in enumerate(dataset.class_names):
        files = sorted(file for file in (path / name).glob("*") if file.is_file())
        if not files:
            raise FileNotFoundError(f"no images in {path / name}")
        for file in files:
            with Image.open(file) as image:
                images.append(np.asarray(image.convert("L" if dataset.channels == 1 else "RGB")))
                labels.append(label)
            if images[-1].shape[:2] != (dataset.size, dataset.size):
                raise ValueError(f"{file} is not {dataset.size}x{dataset.size} pixels")
    return np.stack(images), np.array(labels, dtype=np.uint8)


OWN_FORMATS = {"idx": _own_idx, "npz": _own_npz, "imagefolder": _own_folder}


def own_files(dataset: Dataset) -> list[bytes]:
    """The four files of a dataset with `format`, `train` and `test`. Raises ValueError or OSError with the reason."""
    found = []
    shape = (dataset.size, dataset.size, *((3,) if dataset.channels == 3 else ()))
    for path in (dataset.train, dataset.test):
        images, labels = OWN_FORMATS[dataset.format](dataset, Path(path).expanduser())
        if images.dtype != np.uint8 or images.shape[1:] != shape or len(images) != len(labels):
            raise ValueError(
                f"{path}: images {images.dtype} {images.shape}, labels {labels.shape}; expected uint8 {(-1, *shape)}"
            )
        if not set(np.unique(labels).tolist()) <= set(range(dataset.classes)):
            raise ValueError(f"{path}: labels {np.unique(labels).tolist()} are not all in 0..{dataset.classes - 1}")
        found += [write_idx(images), write_idx(labels)]
    return found
