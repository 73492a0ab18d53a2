"""Arrays on disk: sets, released statistics, snapshots and predictions. Members of a zip, and no pickles anywhere."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from privset import PrivsetError
from privset.sets.files import remedy, write_atomically

LARGEST = 2**33
"""Bytes of a file of arrays, unpacked."""


def _read(path: Path, what: str) -> dict[str, np.ndarray]:
    """Every array of a file. A damaged one may make NumPy and zipfile raise anything, and announce any amount of memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > LARGEST:
                raise ValueError(f"it announces {size:,} bytes")
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except Exception as error:
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise PrivsetError(f"{path} is not a readable {what} ({reason}); {remedy(path)}") from error


@dataclass(frozen=True)
class Set:
    """A synthetic set as it is stored."""

    images: np.ndarray
    """(N, C, H, W) float32 in pixel units (0 black, 1 white, not clamped)."""
    labels: np.ndarray
    """(N,) int64."""
    tiles: int = 1
    """Each stored image holds tiles x tiles training images (`sets.tiles`)."""
    soft_labels: np.ndarray | None = None
    """(N * tiles^2, classes) float32, rows that sum to 1: what to train the training images towards, instead of `labels`."""

    def __len__(self) -> int:
        return len(self.images)


def first_of_each_class(made: Set, count: int) -> Set:
    """The first `count` images of each class, all where there are fewer, in the set's order. One image is one training image."""
    if made.tiles > 1 or made.soft_labels is not None:
        raise PrivsetError("a set of tiles or with soft labels cannot be cut")
    keep = np.sort(np.concatenate([np.flatnonzero(made.labels == label)[:count] for label in np.unique(made.labels)]))
    return Set(made.images[keep], made.labels[keep])


def write_set(path: Path, made: Set) -> None:
    check_set(made, classes=None, where=str(path))
    arrays = {"images": made.images, "labels": made.labels}
    if made.tiles > 1:
        arrays["tiles"] = np.int64(made.tiles)
    if made.soft_labels is not None:
        arrays["soft_labels"] = made.soft_labels
    write_atomically(path, lambda stream: np.savez(stream, **arrays), mode="wb")


def read_set(path: Path, *, classes: int | None = None, shape: tuple[int, int, int] | None = None) -> Set:
    """The inverse of `write_set`. Raises PrivsetError, with the reason in one line, for anything that is not a whole set."""
    arrays = _read(path, "set")
    unknown = sorted(set(arrays) - {"images", "labels", "tiles", "soft_labels"})
    if unknown or not {"images", "labels"} <= set(arrays) or not _whole_number(arrays.get("tiles", np.int64(1))):
        raise PrivsetError(f"{path} is not a readable set (it has {', '.join(sorted(arrays))}); {remedy(path)}")
    made = Set(arrays["images"], arrays["labels"], int(arrays.get("tiles", 1)), arrays.get("soft_labels"))
    check_set(made, classes=classes, where=str(path))
    if shape is not None and made.images.shape[1:] != shape:
        raise PrivsetError(f"{path}: images are {made.images.shape[1:]}, not {shape}; it was made for another dataset")
    return made


def _whole_number(array: np.ndarray) -> bool:
    return array.shape == () and array.dtype.kind in "iu"


def check_set(made: Set, *, classes: int | None, where: str) -> None:
    """Raise PrivsetError unless the arrays form a set: types, shapes, finite pixels, known labels, no class missing."""
    images, labels, soft = made.images, made.labels, made.soft_labels
    if images.dtype != np.float32 or labels.dtype != np.int64:
        raise PrivsetError(f"{where}: images are {images.dtype} and labels {labels.dtype}, not float32 and int64")
    if images.ndim != 4 or labels.ndim != 1 or len(images) != len(labels) or len(labels) == 0:
        raise PrivsetError(f"{where}: images {images.shape} and labels {labels.shape} are not (N, C, H, W) and (N,)")
    if not np.isfinite(images).all():
        raise PrivsetError(f"{where}: images contain NaN or infinity")
    if classes is not None and not np.array_equal(np.unique(labels), np.arange(classes)):
        raise PrivsetError(f"{where}: labels are not all of 0..{classes - 1} ({np.unique(labels).tolist()})")
    if made.tiles < 1 or any(side % made.tiles for side in images.shape[2:]):
        raise PrivsetError(f"{where}: images of {images.shape[2:]} cannot be cut into {made.tiles} x {made.tiles} tiles")
    if soft is not None:
        expected = (len(images) * made.tiles**2, soft.shape[-1] if classes is None else classes)
        if soft.dtype != np.float32 or soft.shape != expected:
            raise PrivsetError(f"{where}: soft labels are {soft.dtype} {soft.shape}, not float32 {expected}")
        if not (np.isfinite(soft).all() and (soft >= 0).all() and np.allclose(soft.sum(1), 1, atol=1e-4)):
            raise PrivsetError(f"{where}: soft labels are not probabilities")


# ------------------------------------------------------------------------------------------------------------ statistics


def write_statistics(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """What a method released, with the networks that it was computed with: named arrays, all finite."""
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise PrivsetError(f"{path}: {', '.join(broken)} contain NaN or infinity; lower the method's learning rate")
    write_atomically(path, lambda stream: np.savez(stream, **arrays), mode="wb")


def read_statistics(path: Path) -> dict[str, np.ndarray]:
    """The inverse of `write_statistics`."""
    arrays = _read(path, "file of arrays")
    broken = [name for name, array in arrays.items() if array.dtype.kind not in "fiu" or not np.isfinite(array).all()]
    if broken or not arrays:
        raise PrivsetError(f"{path}: {', '.join(broken) or 'nothing'} there is not finite numbers; {remedy(path)}")
    return arrays


def read_snapshots(path: Path) -> dict[str, np.ndarray]:
    """A cell's snapshots (`jobs.trajectory`)."""
    arrays = read_statistics(path)
    if not {"step", "epsilon_spent", "images", "labels"} <= set(arrays):
        raise PrivsetError(f"{path} is not a file of snapshots; delete it and run again")
    return arrays


# ----------------------------------------------------------------------------------------------------------- predictions


def write_predictions(path: Path, predicted: Mapping[str, np.ndarray], labels: np.ndarray) -> None:
    """What each run said about each test image: (R, N) for each network, and the true `labels` (N,), all uint8."""
    arrays = {name: said.astype(np.uint8) for name, said in {**predicted, "labels": labels}.items()}
    write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays), mode="wb")


def read_predictions(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The inverse of `write_predictions`."""
    arrays = _read(path, "file of predictions")
    if "labels" not in arrays or any(
        said.shape[1:] != arrays["labels"].shape for name, said in arrays.items() if name != "labels"
    ):
        raise PrivsetError(f"{path} is not a readable file of predictions; delete it and run again")
    return arrays, arrays.pop("labels")
