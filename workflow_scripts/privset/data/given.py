"""Labelled images as somebody has them, named on the command line: an npz, a folder per class, IDX files, or a known dataset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from privset import PrivsetError
from privset.data import own, sources
from privset.data.datasets import DATASETS, DESCRIPTION, FILES, Dataset, describe
from privset.data.idx import read_idx, write_idx
from privset.sets.files import write_atomically, write_json

GREY = ("1", "L", "LA", *own.WIDE)
"""Pillow's modes of images that are read as grey."""


TRAIN, TEST = "train", "t10k"
"""The halves of a folder that holds both, as in the names of its files."""


def kind_of(path: Path, half: str = TRAIN) -> tuple[str, Path]:
    """How images at a path are stored (a key of `own.OWN_FORMATS`, or "fetched", the workflow's), and where, without `~`.

    Of a folder of IDX files the `half`. Raises PrivsetError that lists what would do.
    """
    path = path.expanduser()

    def has_idx(prefix: Path) -> bool:
        return any(prefix.with_name(f"{prefix.name}-images-idx3-ubyte{suffix}").is_file() for suffix in ("", ".gz"))

    if (path / DESCRIPTION).is_file() and (path / FILES[0]).is_file():
        return "fetched", path
    if path.is_file():
        return "npz", path
    if path.is_dir() and any(has_idx(path / each) for each in (TRAIN, TEST)):
        return "idx", path / half
    if path.is_dir():
        return "imagefolder", path
    if has_idx(path):
        return "idx", path
    raise PrivsetError(
        f"{path}: nothing there; name an npz with images and labels, a folder with a folder of images for each class, the "
        f"beginning of IDX files' names (PATH-images-idx3-ubyte), or one of {', '.join(DATASETS)}"
    )


def described(path: Path, classes: int | None) -> Dataset:
    """What is taken as public about images of one's own: their size, their colours, and the names of their classes.

    Names are those of the folders, else the numbers below `classes`, else those up to the largest label. Mean and standard
    deviation are 0.5, as those of the images would not be public.
    """
    kind, path = kind_of(path)
    if kind == "imagefolder":
        names = tuple(sorted(folder.name for folder in path.iterdir() if folder.is_dir() and own.listed(folder)[0]))
        if not names:
            raise PrivsetError(f"{path}: no folder with images in it; give each class a folder of its own")
        size, channels = _of_first(own.listed(path / names[0])[0][0])
    else:
        anything = Dataset(title="", channels=1, size=1, mean=(0.5,), std=(0.5,), class_names=(), sha256={}, augmentation="none")
        images, labels = own.OWN_FORMATS[kind](anything, path, print)
        if images.ndim < 3 or images.shape[1] != images.shape[2]:
            raise PrivsetError(f"{path}: images have shape {images.shape}; expected (N, H, H) or (N, H, H, 3): make them square")
        size, channels = images.shape[1], 3 if images.shape[3:] == (3,) else 1
        numbers = labels.size and labels.dtype.kind in "biuf"
        whole = numbers and bool(((labels >= 0) & (labels < 256) & (np.floor(labels) == labels)).all())
        names = tuple(map(str, range(classes or (int(labels.max()) + 1 if whole else 256))))  # `read` says which is not
    if classes is not None and classes != len(names):
        raise PrivsetError(f"--classes {classes}: {path} has {len(names)} folders of images")
    grey = (0.5,) * channels
    return Dataset(
        title=path.name,
        channels=channels,
        size=size,
        mean=grey,
        std=grey,
        class_names=names,
        sha256={},
        augmentation="none",
    )


def _of_first(file: Path) -> tuple[int, int]:
    """Height and channels of an image file; every other one must have the same."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.size[1], 1 if image.mode in GREY else 3
    except OSError as error:
        raise PrivsetError(f"{file} cannot be read: {error}; mend it or make it again") from None


def read(path: Path, known: Dataset, half: str = TRAIN) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W) or (N, H, W, 3) and labels (N,), unsigned bytes; of a folder that holds both halves the `half`."""
    kind, path = kind_of(path, half)
    if kind == "fetched":
        images, labels = (read_idx((path / name).read_bytes()) for name in (FILES[:2] if half == TRAIN else FILES[2:]))
        return images, labels
    return own.checked(known, *own.OWN_FORMATS[kind](known, path, print), path)


def folder_of(name: str, root: Path) -> Path:
    """A known dataset's folder below `root`, fetched if it is not there."""
    folder = root / name
    if not (folder / DESCRIPTION).exists():
        sources.fetch(name, folder, sources=["torchvision", "packages"], directory=None, timeout=10)
    return folder


def keep(images: np.ndarray, labels: np.ndarray, known: Dataset, folder: Path) -> None:
    """A copy of private images and labels, as `read` gives them, as the workflow keeps its data; for their owner alone."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name, array in zip(FILES, (images, labels), strict=False):
        write_atomically(folder / name, lambda stream, array=array: stream.write(write_idx(array)), mode="wb", secret=True)
    write_json(folder / DESCRIPTION, asdict(known))


def description(path: Path, classes: int | None) -> Dataset:
    """Of the workflow's folders what stands in them, else `described`."""
    kind, path = kind_of(path)
    return describe(path) if kind == "fetched" else described(path, classes)
