"""A set for other tools: its training images in a form that they read, with its certificate beside them."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from privset import PrivsetError
from privset.data.datasets import FILES
from privset.data.idx import write_idx
from privset.sets import arrays
from privset.sets.files import write_atomically


def _training_images(made: arrays.Set) -> tuple[np.ndarray, np.ndarray]:
    if made.tiles == 1:
        return made.images, made.labels
    import torch  # seconds that no other export needs to spend

    from privset.sets import tiles

    images, labels = map(torch.from_numpy, (made.images, made.labels))
    return tiles.unpack(images, made.tiles).numpy(), tiles.unpack_labels(labels, made.tiles).numpy()


def _whole_bytes(images: np.ndarray) -> np.ndarray:
    return (images.clip(0, 1) * 255).round().astype(np.uint8)


def _idx(images: np.ndarray, labels: np.ndarray, target: Path) -> None:
    pixels = _whole_bytes(images)
    content = pixels[:, 0] if pixels.shape[1] == 1 else pixels.transpose(0, 2, 3, 1)
    for name, array in zip(FILES[:2], (content, labels.astype(np.uint8)), strict=True):
        write_atomically(target / name, lambda stream, array=array: stream.write(write_idx(array)), mode="wb")


def _imagefolder(images: np.ndarray, labels: np.ndarray, target: Path) -> None:
    """Folders sort as the labels do: 03 before 12."""
    digits = len(str(labels.max()))
    for index, (image, label) in enumerate(zip(_whole_bytes(images), labels, strict=True)):
        folder = target / f"{label:0{digits}d}"
        folder.mkdir(exist_ok=True)
        picture = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(picture).save(folder / f"{index:05d}.png")


def _csv(images: np.ndarray, labels: np.ndarray, target: Path) -> None:
    def write(stream) -> None:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["label", *(f"pixel{index}" for index in range(images[0].size))])
        writer.writerows([label, *image.ravel().tolist()] for label, image in zip(labels.tolist(), images, strict=True))

    write_atomically(target / "set.csv", write)


FORMATS: dict[str, Callable[[np.ndarray, np.ndarray, Path], None] | None] = {
    "npz": None,  # the file as it is
    "idx": _idx,
    "imagefolder": _imagefolder,
    "csv": _csv,
}


def _emptied(target: Path, path: Path, *, force: bool) -> list[str]:
    """Makes `target` an empty folder; what was removed from it. Raises PrivsetError for content, unless `force`, and always for a
    file, and for a folder with the exported set."""
    if target.exists() and not target.is_dir():
        raise PrivsetError(f"--to {target}: there is a file of that name; name a folder")
    content = sorted(entry.name for entry in target.iterdir()) if target.exists() else []
    if content and target.resolve() in path.resolve().parents:
        raise PrivsetError(f"--to {target}: the set itself is there; name another folder")
    if content and not force:
        named = ", ".join(content[:3]) + (f" and {len(content) - 3:,} more" if len(content) > 3 else "")
        raise PrivsetError(f"--to {target}: not empty ({named}); name a new folder, or --force to remove what is there")
    for name in content:
        entry = target / name
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    target.mkdir(parents=True, exist_ok=True)
    return content


def export(path: Path, form: str, target: Path, *, force: bool = False) -> str:
    """Write the set at `path`, which was verified, into the new or empty folder `target`; a line that says what was written.

    Raises PrivsetError for a target with content unless `force`, which removes it, and where nothing can be written.
    """
    made = arrays.read_set(path)
    images, labels = _training_images(made)
    try:
        removed = _emptied(target, path, force=force)
        if (write := FORMATS[form]) is None:
            shutil.copyfile(path, target / "set.npz")
        else:
            write(images, labels, target)
        shutil.copyfile(path.with_name("certificate.json"), target / "certificate.json")
    except OSError as error:
        raise PrivsetError(f"--to {target}: could not be written ({error.strerror or error}); it is incomplete") from error
    notes = [f"removed before: {', '.join(removed)}"] if removed else []
    if form in ("idx", "imagefolder"):
        notes.append("pixels rounded to 0..255; the certificate's checksum is that of set.npz")
    if form != "npz" and made.soft_labels is not None:
        notes.append("without the soft labels, which only npz holds")
    return f"{len(images)} images to {target}" + (f" ({'; '.join(notes)})" if notes else "")
