"""The `privset` command: verify, show and export, for people who have a set and not the workflow."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from privset import artifacts, certificates
from privset.__main__ import main
from privset.idx import read_idx
from unit.test_certificates import a_ledger, a_set, cell_in_parts  # noqa: F401


@pytest.fixture
def cells(tmp_path):
    """Two sets with certificates, below one folder."""
    for name in ("a", "b"):
        artifacts.write_set(tmp_path / name / "set.npz", artifacts.Set(*a_set()))
        content = certificates.certificate(a_ledger(), tmp_path / name / "set.npz", noise_seed=None, run={})
        artifacts.write_json(tmp_path / name / "certificate.json", content)
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
    made = artifacts.read_set(cells / "a" / "set.npz")
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


def test_show_names_the_part_of_each_release(cell_in_parts, capsys):  # noqa: F811
    assert main(["show", str(cell_in_parts / "set.npz")]) == 0
    text = capsys.readouterr().out
    assert "of classes 0, 1" in text and "of classes 2, 3" in text
    assert "touches two" in text
