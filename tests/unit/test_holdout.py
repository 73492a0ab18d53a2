"""Held-out records: the two halves are the training half, in order, and its test images are not touched. Of the datasets known
here they are the last ones; of a user's own, of each class by its share."""

import numpy as np
import pytest

from privset import PrivsetError
from privset.data import datasets, holdout
from privset.data.idx import write_idx
from privset.sets.files import write_json


def fetched(folder, images, labels, **more):
    """A folder as `sources.fetch` leaves it."""
    folder.mkdir()
    for name, array in zip(datasets.FILES, (images, labels, images[:7], labels[:7]), strict=True):
        (folder / name).write_bytes(write_idx(array))
    known = {"title": "toy", "channels": 1, "size": 8, "mean": [0.5], "std": [0.5], "class_names": list("0123456789")}
    write_json(folder / datasets.DESCRIPTION, {**known, "augmentation": "none", "sha256": {"x": "y"}, **more})
    return folder


OWN = {"format": "npz", "train": "train.npz", "test": "test.npz"}


def test_the_two_halves_are_the_training_half(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 9, shape, dtype=np.uint8) for shape in ((30, 8, 8), (30,))]
    source, target = fetched(tmp_path / "toy", *arrays), tmp_path / "toy_validation"
    holdout.hold_out(source, target, records=10)
    images, labels = zip(*(datasets.load(target, train=train) for train in (True, False)), strict=True)
    assert [len(half) for half in images] == [20, 10]
    assert np.array_equal(np.concatenate(images)[:, 0] * 255, arrays[0])
    assert np.array_equal(np.concatenate(labels), arrays[1])
    assert datasets.describe(target).title == "toy (held out)" and not datasets.describe(target).sha256
    with pytest.raises(PrivsetError, match="30 training records, and 30 of them"):
        holdout.hold_out(source, target, records=30)


def halves(source, target, records=holdout.HELD_OUT):
    """(images, labels) of the two halves; each image's first byte pair is its place."""
    holdout.hold_out(source, target, records=records)
    for train in (True, False):
        images, labels = datasets.load(target, train=train)
        pixels = (255 * images).round().astype(int)
        yield pixels[:, 0, 0, 0] * 256 + pixels[:, 0, 0, 1], labels


def numbered(count):
    images = np.zeros((count, 8, 8), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(count), 256)
    return images


def test_ones_own_records_are_held_out_of_each_class_however_they_lie(tmp_path):
    labels = np.repeat(np.arange(10, dtype=np.uint8), 600)  # sorted by class
    source = fetched(tmp_path / "mine", numbered(6000), labels, **OWN)
    (kept, kept_labels), (held, held_labels) = halves(source, tmp_path / "mine_validation")
    assert np.bincount(kept_labels).tolist() == [100] * 10 and np.bincount(held_labels).tolist() == [500] * 10
    assert sorted([*kept, *held]) == list(range(6000)) and (np.diff(kept) > 0).all() and (np.diff(held) > 0).all()
    assert np.array_equal(labels[kept], kept_labels) and np.array_equal(labels[held], held_labels)
    assert len(set(held % 600)) > 590  # no pattern in the places
    again = fetched(tmp_path / "again", numbered(6000), labels, **OWN)
    assert np.array_equal(next(halves(again, tmp_path / "again_validation"))[0], kept)


def test_uneven_classes_have_their_share_to_one_record():
    rng = np.random.default_rng(1)
    labels = rng.choice(10, 700, p=np.arange(1, 11) / 55)
    mask = holdout.stratified(labels, 123)
    assert mask.sum() == 123
    shares = np.bincount(labels) * 123 / 700
    assert (np.abs(np.bincount(labels[mask], minlength=10) - shares) < 1).all()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "digits"])
def test_of_the_datasets_known_here_the_last_ones_are_held_out(name, tmp_path):
    assert datasets.DATASETS[name].format is None
    source = fetched(tmp_path / name, numbered(5600), np.sort(np.arange(5600) % 10).astype(np.uint8))
    (kept, _), (held, _) = halves(source, tmp_path / f"{name}_validation")
    assert kept.tolist() == list(range(600)) and held.tolist() == list(range(600, 5600))


def test_too_few_of_ones_own_are_refused_in_one_line(tmp_path):
    def refused(labels, records):
        source = fetched(tmp_path / f"mine{len(labels)}", numbered(len(labels)), labels.astype(np.uint8), **OWN)
        with pytest.raises(PrivsetError) as error:
            holdout.hold_out(source, tmp_path / "target", records=records)
        assert not (tmp_path / "target").exists() and "\n" not in str(error.value)
        return str(error.value)

    said = refused(np.arange(1500) % 10, 5000)
    assert "1500 training records, and 5000 of them are to be held out; put records aside yourself" in said
    assert "of the 3 training records of class '0' 0 would be held out (20 of all 903)" in refused(
        np.append(np.arange(900) % 9 + 1, [0, 0, 0]), 20
    )
    assert "of the 2 training records of class '1' 2 would be held out" in refused(np.array([*[0] * 400, 1, 1]), 398)


def test_only_a_name_that_is_none_of_ones_own_is_a_part():
    assert datasets.base_name("mnist_validation", ()) == datasets.base_name("mnist_validation", {"mine"}) == "mnist"
    assert datasets.base_name("x_validation", {"x_validation", "x"}) == "x_validation"
    assert datasets.base_name("x_validation_validation", {"x_validation"}) == "x_validation"
