"""Datasets of a user's own, in three formats, as the four IDX files of the workflow (docs/extend.md).

Nothing is dropped, wrapped or clipped: what is not certain ends in one line that names the file, the first record and the remedy.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from privset import PrivsetError
from privset.data.datasets import Dataset
from privset.data.idx import inflate, read_idx, write_idx

Log = Callable[[str], None]

WIDE = ("I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of 16-bit grey."""
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", *WIDE)
"""Pillow's modes whose pixels are bytes of grey or RGB, or surely become such."""


@contextlib.contextmanager
def _reading(what: object) -> Iterator[None]:
    """Whatever a decoder raises, in one line with the name of what it read."""
    try:
        yield
    except PrivsetError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise PrivsetError(f"{what} cannot be read: {reason}; mend it or make it again") from None


def _own_idx(dataset: Dataset, path: Path, log: Log) -> tuple[np.ndarray, np.ndarray]:
    """`PATH-images-idx3-ubyte` and `PATH-labels-idx1-ubyte`, raw or .gz."""

    def read(kind: str) -> np.ndarray:
        for suffix in ("", ".gz"):
            if (file := path.with_name(f"{path.name}-{kind}-ubyte{suffix}")).is_file():
                with _reading(file):
                    return read_idx(inflate(file.read_bytes()))
        raise PrivsetError(f"no {path}-{kind}-ubyte or .gz")

    return read("images-idx3"), read("labels-idx1")


def _own_npz(dataset: Dataset, path: Path, log: Log) -> tuple[np.ndarray, np.ndarray]:
    """`images` (N, H, W) or (N, H, W, 3) unsigned bytes, `labels` (N,) whole numbers."""
    with _reading(path):
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise PrivsetError(f"{path} is one array; save an archive with np.savez(path, images=..., labels=...)")
        with archive:
            if missing := {"images", "labels"} - set(archive):
                raise PrivsetError(f"{path} has arrays {', '.join(archive)}, and no {' and no '.join(sorted(missing))}")
            found = []
            for name in ("images", "labels"):
                with _reading(f"{name} in {path}"):
                    found.append(archive[name])
            return found[0], found[1]


def listed(path: Path) -> tuple[list[Path], list[Path]]:
    """The files in a folder and its subfolders, in order, and those that systems leave there: hidden ones, thumbnails."""
    found, left = [], []
    for folder, subfolders, names in os.walk(path, followlinks=True):
        subfolders.sort()
        parts = Path(folder).relative_to(path).parts
        for name in sorted(names):
            aside = name.lower() in ("thumbs.db", "desktop.ini") or any(part[0] == "." for part in (*parts, name))
            (left if aside or "__MACOSX" in parts else found).append(Path(folder, name))
    return found, left


def _pixels(file: Path, dataset: Dataset) -> np.ndarray:
    """An image file as unsigned bytes (H, W) or (H, W, 3). Of 16 bits the upper eight count, as in Pillow's colour images."""
    from PIL import Image, ImageOps

    size = f"{dataset.size}x{dataset.size}"
    with _reading(file), Image.open(file) as image:
        if image.size != (dataset.size, dataset.size):
            raise PrivsetError(f"{file} is {image.size[0]}x{image.size[1]}, not {size} pixels")
        if getattr(image, "n_frames", 1) > 1:
            raise PrivsetError(f"{file} has {image.n_frames} frames; save each as an image of its own")
        if image.mode not in MODES:
            raise PrivsetError(f"{file} has Pillow's mode {image.mode}; save it as grey or RGB of 8 or 16 bits")
        image = ImageOps.exif_transpose(image)  # upright, as viewers show it
        wide = image.mode in WIDE
        if image.has_transparency_data and (wide or image.convert("RGBA").getchannel("A").getextrema()[0] < 255):
            raise PrivsetError(
                f"{file} (mode {image.mode}) has transparent pixels; lay it on a background, save it without alpha"
            )
        if wide:
            values = np.asarray(image)
            if 0 < values.max() < 256:
                raise PrivsetError(f"{file} (mode {image.mode}) has no pixel above {values.max()} of 65535; save it with 8 bits")
            image = Image.fromarray((values >> 8).astype(np.uint8))
        return np.asarray(image.convert("L" if dataset.channels == 1 else "RGB"))


def _own_folder(dataset: Dataset, path: Path, log: Log) -> tuple[np.ndarray, np.ndarray]:
    """One subfolder per class, named like the class, with image files of the stated size."""
    files, left = listed(path)
    by_folder: dict[Path, list[Path]] = {path / name: [] for name in dataset.class_names}
    for file in files:
        if file.parent not in by_folder:
            count = sum(other.parent == file.parent for other in files)
            raise PrivsetError(
                f"{file.parent} has {count} file(s), {file.name} the first, but is no folder of a class (class_names: "
                f"{_some(dataset.class_names)}); name the class there, or move the files away"
            )
        by_folder[file.parent].append(file)
    for folder, inside in by_folder.items():
        if not inside:
            raise PrivsetError(f"no images in {folder}; every one of class_names needs a folder with images")
    if left:
        log(f"{path}: {len(left)} hidden or system file(s) skipped, {left[0].relative_to(path)} the first")
    labels = np.repeat(np.arange(dataset.classes), [len(inside) for inside in by_folder.values()])
    return np.stack([_pixels(file, dataset) for inside in by_folder.values() for file in inside]), labels


OWN_FORMATS = {"idx": _own_idx, "npz": _own_npz, "imagefolder": _own_folder}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def _bytes(images: np.ndarray, dataset: Dataset, path: Path) -> np.ndarray:
    """Images of unsigned bytes in the stated shape; anything else is refused, for its white could be 1, 255 or 65535."""
    shape = (dataset.size, dataset.size, *((3,) if dataset.channels == 3 else ()))
    if dataset.channels == 1 and images.shape[1:] == (*shape, 1):
        images = images[..., 0]
    if images.shape[1:] != shape or not len(images):
        expected = ", ".join(map(str, ("N", *shape)))
        raise PrivsetError(f"{path}: images have shape {images.shape}; expected ({expected}), N > 0, by size and channels")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "biuf":
        raise PrivsetError(f"{path}: images are {images.dtype}; expected uint8, 0 to 255")
    finite = np.isfinite(images).reshape(len(images), -1)
    if not finite.all():
        index = int(finite.all(1).argmin())
        raise PrivsetError(
            f"{path}: images[{index}] has the pixel {images[index].ravel()[finite[index].argmin()]}; mend or drop it"
        )
    remedy = {
        "f": "np.round(255 * images).astype(np.uint8) makes them of pixels from 0 to 1",
        "b": "255 * images.astype(np.uint8) makes them",
    }.get(images.dtype.kind, "images.astype(np.uint8) makes them of bytes, (images >> 8).astype(np.uint8) of 16 bits")
    raise PrivsetError(f"{path}: images are {images.dtype}, {images.min()} to {images.max()}; expected uint8, 0 to 255: {remedy}")


def _places(labels: np.ndarray, images: np.ndarray, dataset: Dataset, path: Path) -> np.ndarray:
    """One label for each image, (N,) unsigned bytes: its class's place in `class_names`. Whole numbers of any type will do."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        first = np.atleast_1d(labels)[:1].ravel()[:10].tolist()
        raise PrivsetError(
            f"{path}: labels have shape {labels.shape}, labels[0] = {first}; expected one number for each image, (N,): "
            "labels.argmax(1) makes them of one-hot rows"
        )
    number = labels.dtype.kind in "biuf"
    right = (labels >= 0) & (labels < dataset.classes) & (np.floor(labels) == labels) if number else np.zeros(len(labels), bool)
    if not right.all():
        index = int(right.argmin())
        raise PrivsetError(
            f"{path}: labels[{index}] = {labels[index].item()!r}; expected whole numbers from 0 to {dataset.classes - 1}, "
            f"the places in class_names ({_some(dataset.class_names)})"
        )
    if len(labels) != len(images):
        index = min(len(labels), len(images))
        odd = (
            f"labels[{index}] = {labels[index].item()!r} has no image" if index < len(labels) else f"images[{index}] has no label"
        )
        raise PrivsetError(f"{path}: {len(images)} images and {len(labels)} labels; {odd}; give each image its label")
    return labels.astype(np.uint8)


def checked(dataset: Dataset, images: np.ndarray, labels: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels as unsigned bytes. Raises PrivsetError with the first record that is not what it should be."""
    images = _bytes(images, dataset, path)
    return images, _places(labels, images, dataset, path)


def own_files(dataset: Dataset, log: Log) -> list[bytes]:
    """The four files of a dataset with `format`, `train` and `test`. Raises PrivsetError with file, record and remedy."""
    found = []
    for path in (Path(dataset.train).expanduser(), Path(dataset.test).expanduser()):
        found += map(write_idx, checked(dataset, *OWN_FORMATS[dataset.format](dataset, path, log), path))
    return found
