"""The `privset` command: verify, show, export and evaluate, for people who have a set and not the workflow."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from privset import methods
from privset.__main__ import main
from privset.data import exports
from privset.data.datasets import DATASETS, DESCRIPTION, FILES
from privset.data.idx import read_idx, write_idx
from privset.privacy import certificates
from privset.sets import arrays, files
from unit.test_certificates import a_ledger, a_run, a_set, cell_in_parts  # noqa: F401


@pytest.fixture
def cells(tmp_path):
    """Two sets with certificates, below one folder."""
    for name in ("a", "b"):
        arrays.write_set(tmp_path / name / "set.npz", arrays.Set(*a_set()))
        content = certificates.certificate(a_ledger(), tmp_path / name / "set.npz", noise_seed=None, run=a_run())
        files.write_json(tmp_path / name / "certificate.json", content)
    return tmp_path


def test_verify_prints_a_line_for_each_set_of_a_folder(cells, capsys):
    assert main(["verify", str(cells)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("ok ") and "-DP, add-or-remove-one" in line and "20 images" in line for line in lines)


def test_verify_fails_loudly_and_goes_on(cells, capsys):
    content = json.loads((cells / "a" / "certificate.json").read_text())
    (cells / "a" / "certificate.json").write_text(json.dumps({**content, "epsilon": 0.1}))
    assert main(["verify", str(cells / "a"), str(cells / "b" / "set.npz")]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("FAILED ") and "epsilon = 0.1" in first
    assert second.startswith("ok ")


def test_a_path_without_a_set_is_named(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}: no set.npz there\n"


def test_show_tells_people_what_the_certificate_says(cells, capsys):
    assert main(["show", str(cells / "a"), "--png", str(cells / "picture.png")]) == 0
    out = capsys.readouterr().out
    for part in ("may be published", "epsilon spent", "5  x gradient_mean", "labels protected  yes", "operating system"):
        assert part in out
    assert Image.open(cells / "picture.png").size[0] > 28


@pytest.mark.parametrize("form", ["npz", "idx", "imagefolder", "csv"])
def test_exported_sets_are_the_set(cells, form):
    made = arrays.read_set(cells / "a" / "set.npz")
    images, labels = made.images, made.labels
    target = cells / "out" / form
    assert main(["export", str(cells / "a"), "--format", form, "--to", str(target)]) == 0
    assert (target / "certificate.json").read_bytes() == (cells / "a" / "certificate.json").read_bytes()
    rounded = (images * 255).round().astype(np.uint8)
    if form == "npz":
        certificates.verify(target / "set.npz")
    elif form == "idx":
        assert np.array_equal(read_idx((target / "train-images-idx3-ubyte").read_bytes()), rounded[:, 0])
        assert np.array_equal(read_idx((target / "train-labels-idx1-ubyte").read_bytes()), labels)
    elif form == "imagefolder":
        assert len(list(target.rglob("*.png"))) == 20
        assert np.array_equal(np.asarray(Image.open(target / "3" / "00003.png")), rounded[3, 0])
    else:
        rows = list(csv.reader((target / "set.csv").open()))
        assert len(rows) == 21 and len(rows[0]) == 785
        assert [int(row[0]) for row in rows[1:]] == labels.tolist()
        assert np.array_equal(np.array([row[1:] for row in rows[1:]], np.float32), images.reshape(20, -1))


def test_an_export_overwrites_and_mixes_nothing(cells, capsys):
    target, here = cells / "out", cells / "a"
    for index in range(5):
        files.write_json(target / f"mine{index}.json", {})
    given = ["export", str(here), "--format", "idx", "--to"]
    assert main([*given, str(target)]) == 1
    line = capsys.readouterr().err
    assert line.endswith(
        "not empty (mine0.json, mine1.json, mine2.json and 2 more); name a new folder, or --force to remove what is there\n"
    )
    assert len(list(target.iterdir())) == 5
    assert main([*given, str(target), "--force"]) == 0
    assert "removed before: mine0.json" in capsys.readouterr().out
    assert sorted(path.name for path in target.iterdir()) == sorted(["certificate.json", *FILES[:2]])
    for place, message in (
        (here, "the set itself is there; name another folder"),
        (cells, "the set itself is there; name another folder"),
        (here / "set.npz", "there is a file of that name; name a folder"),
    ):
        before = files.sha256(here / "set.npz")
        assert main([*given, str(place), "--force"]) == 1
        assert capsys.readouterr().err == f"error: --to {place}: {message}\n"
        assert files.sha256(here / "set.npz") == before


def test_an_export_that_cannot_be_written_is_one_line(cells, capsys, monkeypatch):
    def full(self, *given, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert main(["export", str(cells / "a"), "--format", "imagefolder", "--to", str(cells / "out")]) == 1
    line = capsys.readouterr().err
    assert line == f"error: --to {cells / 'out'}: could not be written (No space left on device); it is incomplete\n"


def test_class_folders_sort_as_the_labels_do(tmp_path):
    images, _ = a_set(24)
    arrays.write_set(tmp_path / "set.npz", arrays.Set(images, np.arange(24) % 12))
    files.write_json(tmp_path / "certificate.json", {})
    exports.export(tmp_path / "set.npz", "imagefolder", tmp_path / "out")
    folders = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert [int(name) for name in folders] == list(range(12))


@pytest.mark.parametrize("command", [["show"], ["export", "--format", "npz", "--to", "out"], ["evaluate", "--data", "data"]])
def test_of_several_sets_one_must_be_named(cells, capsys, command):
    assert main([*command, str(cells)]) == 1
    line = capsys.readouterr().err
    assert line == f"error: {cells}: 2 sets are there; name one of them: {cells / 'a/set.npz'}, {cells / 'b/set.npz'}\n"


def test_verify_looks_behind_links_and_takes_a_certificate(cells, tmp_path, capsys):
    (tmp_path / "links").mkdir()
    (tmp_path / "links/b").symlink_to(cells / "b")
    assert main(["verify", str(tmp_path / "links"), str(cells / "a/certificate.json")]) == 0
    assert capsys.readouterr().out.count("ok ") == 2
    damaged = bytearray((cells / "b/set.npz").read_bytes())
    damaged[-200] ^= 1
    (cells / "b/set.npz").write_bytes(damaged)
    assert main(["verify", str(tmp_path / "links")]) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAILED") and "costs another epsilon" in out and "run again" not in out


def test_show_names_the_part_of_each_release(cell_in_parts, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(methods, "check", lambda stated, path: None)  # a ledger that no method asks for
    assert main(["show", str(cell_in_parts / "set.npz")]) == 0
    text = capsys.readouterr().out
    assert "of classes 0, 1" in text and "of classes 2, 3" in text
    assert "to which part a record belongs is not protected" in text


@pytest.fixture
def data(tmp_path):
    """A fetched dataset whose test images are the set's own, each of its class."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    images, labels = a_set()
    pixels = (255 * images[:, 0]).round().astype(np.uint8)
    for name, array in zip(FILES, (pixels, labels.astype(np.uint8)) * 2, strict=True):
        (folder / name).write_bytes(write_idx(array))
    files.write_json(folder / DESCRIPTION, dataclasses.asdict(DATASETS["digits"]))
    return folder


def test_evaluate_trains_networks_on_the_set_and_tests_them(cells, data, capsys):
    """An MLP learns twenty images by heart, and the test images are these."""
    arguments = ["evaluate", str(cells / "a"), "--data", str(data), "--network", "mlp", "--steps", "300", "--seeds", "2"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    accuracy = float(first.split()[0])
    assert accuracy > 60 and "test images, mlp, n = 2 (" in first
    assert main(arguments) == 0
    assert capsys.readouterr().out == first


def test_evaluate_refuses_images_that_the_set_was_not_made_from_unless_forced(cells, data, capsys):
    """Fashion has MNIST's shape; only the certificate tells that the accuracy would mean nothing."""
    other = data.rename(data.with_name("fashion_mnist"))
    arguments = ["evaluate", str(cells / "a"), "--data", str(other), "--network", "mlp", "--steps", "1", "--seeds", "1"]
    assert main(arguments) == 1
    line = capsys.readouterr().err
    assert "the set was made from mnist; name the folder of that, or --force" in line and line.count("\n") == 1
    assert main([*arguments, "--force"]) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--network": "lenet6"}, "--network lenet6: choose from convnet"),
        ({"--steps": "0"}, "--steps 0: must be 1 or more"),
        ({"--data": "nowhere/mnist"}, "nowhere"),
    ],
)
def test_evaluate_refuses_in_one_line(cells, data, capsys, changed, message):
    given = {"--data": str(data), "--network": "mlp", "--steps": "1", **changed}
    assert main(["evaluate", str(cells / "a"), *(word for pair in given.items() for word in pair)]) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: ") and message in line and line.count("\n") == 1
