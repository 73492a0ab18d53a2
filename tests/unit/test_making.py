"""`privset synthesize`: from images as people have them to a verified set and its accuracy, with no workflow."""

import gzip
import stat

import numpy as np
import pytest
from PIL import Image

from privset import PrivsetError
from privset.__main__ import main
from privset.data import given
from privset.data.idx import write_idx
from privset.jobs import cells
from privset.privacy import certificates
from privset.sets import arrays, files

NAMES = ("cat", "dog", "eel")
MERF = ["--method", "dp_merf", "--set", "length_scale=20", "--set", "features=50", "--set", "steps=20"]
PSM = [
    word
    for setting in ("random_networks=1", "trained_networks=1", "rounds=1", "width=8", "round_iterations=3", "iterations=3")
    for word in ("--set", setting)
] + ["--set", "first_iterations=3", "--set", "releases.first_iterations=3"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The same images as an npz, as a folder of PNGs, and as IDX files; and others, held out."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 120, (60, 16, 16), dtype=np.uint8)
    for label in range(3):
        images[labels == label, 5 * label : 5 * label + 5] += 120
    np.savez(folder / "train.npz", images=images, labels=labels)
    np.savez(folder / "held_out.npz", images=images[::-1], labels=labels[::-1])
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / "pictures" / NAMES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "pictures" / NAMES[label] / f"{index:03}.png")
    (folder / "pictures" / ".DS_Store").write_text("")
    (folder / "idx").mkdir()
    (folder / "idx/train-images-idx3-ubyte.gz").write_bytes(gzip.compress(write_idx(images)))
    (folder / "idx/train-labels-idx1-ubyte").write_bytes(write_idx(labels.astype(np.uint8)))
    return folder


def run(*words):
    return main(["synthesize", "--device", "cpu", "--epsilon", "10", "--delta", "1e-3", "--spc", "4", *map(str, words)])


def test_the_same_images_in_every_form(own):
    found = {}
    for form in ("train.npz", "pictures", "idx", "idx/train"):
        known = given.description(own / form, None)
        assert (known.size, known.channels, known.mean, known.std, known.classes) == (16, 1, (0.5,), (0.5,), 3)
        images, labels = given.read(own / form, known)
        order = np.lexsort([*images.reshape(60, -1).T, labels])  # a folder's images come class by class
        found[form] = (images[order].tobytes(), labels[order].tobytes())
    assert len(set(found.values())) == 1
    assert given.description(own / "pictures", None).class_names == NAMES
    assert given.description(own / "train.npz", 5).class_names == tuple("01234")


@pytest.mark.parametrize("kind", [np.float64, np.uint8, np.int64])
def test_labels_of_any_type_have_as_many_classes_as_there_are(kind, tmp_path):
    """Whole numbers of any type are taken, so they count as such here too: 3.0 is no sign of 256 classes."""
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4).astype(kind)[:, None])
    known = given.description(tmp_path / "x.npz", None)
    assert known.classes == 4 and given.read(tmp_path / "x.npz", known)[1].tolist() == [0, 1, 2, 3]


def test_what_is_held_out_is_never_the_training_half(own):
    """Of a folder with both halves; and where there is no other half, it is not put in its place."""
    (own / "idx/t10k-images-idx3-ubyte").write_bytes(write_idx(np.full((5, 16, 16), 7, np.uint8)))
    (own / "idx/t10k-labels-idx1-ubyte").write_bytes(write_idx(np.zeros(5, np.uint8)))
    known = given.description(own / "idx", None)
    assert [len(given.read(own / "idx", known, half)[1]) for half in (given.TRAIN, given.TEST)] == [60, 5]
    for part in ("images-idx3", "labels-idx1"):
        (own / f"idx/t10k-{part}-ubyte").unlink()
    with pytest.raises(PrivsetError, match=r"no .*t10k-images-idx3-ubyte or \.gz"):
        given.read(own / "idx", known, given.TEST)


def test_from_a_folder_of_pictures_to_a_verified_set_and_its_accuracy(own, tmp_path, capsys):
    out = tmp_path / "made"
    assert run("--data", own / "pictures", "--out", out, *MERF) == 0
    said = capsys.readouterr()
    assert "public: 60 grey images of 16x16, 3 classes (cat, dog, eel), mean 0.5 and deviation 0.5" in said.err
    assert "ETA 0:00" in said.err and "4 images for each class, epsilon 9.9999" in said.out
    assert said.out.count(".DS_Store") == 1
    stated = certificates.verify(out / "set.npz")
    assert stated["noise_source"] == "operating system" and stated["cell"]["dataset"] == "pictures"
    assert stated["config"] == {"length_scale": 20, "features": 50, "steps": 20}
    assert np.bincount(arrays.read_set(out / "set.npz", classes=3).labels).tolist() == [4, 4, 4]
    names = {path.name for path in out.iterdir()}
    assert names == {"set.npz", "certificate.json", "trajectory.csv", "snapshots.npz", "grid.png", "dataset.json"}
    assert stat.S_IMODE((out / "set.npz").stat().st_mode) == 0o444
    assert main(["verify", str(out)]) == 0
    capsys.readouterr()
    assert (
        main(["evaluate", str(out), "--data", str(own / "held_out.npz"), "--network", "mlp", "--steps", "3", "--seeds", "1"]) == 0
    )
    assert "% of pictures's test images, mlp, n = 1" in capsys.readouterr().out
    assert main(["evaluate", str(out), "--data", str(out), "--steps", "3"]) == 1
    assert "is no folder of a class" in capsys.readouterr().err
    (out / "private/data").mkdir(parents=True)  # as after a kill between the set and the end
    assert run("--data", own / "pictures", "--out", out, *MERF) == 1  # another set would cost another epsilon
    assert not (out / "private").exists()
    assert "has a set already" in capsys.readouterr().err and certificates.verify(out / "set.npz") == stated


def test_what_was_released_once_is_not_released_again(own, tmp_path, monkeypatch, capsys):
    """A job that dies between the release and the set goes on from the release; another question in its folder is refused."""
    out, condense = tmp_path / "made", cells.condense

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cells, "condense", die)
    assert run("--data", own / "train.npz", "--out", out, *PSM) == 1
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(cells, "condense", condense)
    secret = out / "private/data/train-images-idx3-ubyte"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600 and stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    released = files.sha256(out / "statistics/statistics.npz")
    assert run("--data", own / "train.npz", "--out", out, *PSM, "--set", "releases.width=16") == 1
    assert "was released for something else" in capsys.readouterr().err
    assert run("--data", own / "train.npz", "--out", out, *PSM) == 0
    assert files.sha256(out / "statistics/statistics.npz") == released
    assert certificates.verify(out / "set.npz")["statistics_sha256"] == released
    assert main(["verify", str(out)]) == 0 and not (out / "private").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--data", "nowhere"], "nowhere: nothing there; name an npz with images and labels, a folder"),
        (["--set", "stops=3"], "--set for dp_merf: unknown key 'stops'; known keys: "),
        (["--set", "steps"], "--set steps: expected KEY=VALUE"),
        (["--set", "steps=many"], "--set for dp_merf: steps = 'many': "),
        (["--epsilon", "0"], "epsilon = 0.0: must be > 0"),
        (["--epsilon", "inf"], "--epsilon inf --spc 4 --seed 0: must be finite"),
        (["--spc", "0"], "--epsilon 10 --spc 0 --seed 0: must be finite, 1 or more"),
        (["--delta", "0.5"], "delta = 0.5: must be "),
        (["--method", "real"], "--method real: choose from "),
        (["--classes", "2"], "labels[2] = 2; expected whole numbers from 0 to 1"),
    ],
)
def test_mistakes_end_in_one_line_before_anything_is_asked(words, line, own, tmp_path, capsys):
    assert run("--data", own / "train.npz", "--out", tmp_path / "made", *MERF, *words) == 1
    told = [each for each in capsys.readouterr().err.splitlines() if each.startswith("error: ")]
    assert len(told) == 1 and line in told[0]
    assert not (tmp_path / "made").exists()
