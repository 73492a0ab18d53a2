"""Held-out records: the two halves are the training half, in order, and its test images are not touched."""

import numpy as np
import pytest

from privset import PrivsetError
from privset.data import datasets, holdout
from privset.data.idx import write_idx
from privset.sets.files import write_json


def test_the_two_halves_are_the_training_half(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 9, shape, dtype=np.uint8) for shape in ((30, 8, 8), (30,), (7, 8, 8), (7,))]
    source, target = tmp_path / "toy", tmp_path / "toy_validation"
    source.mkdir()
    for name, array in zip(datasets.FILES, arrays, strict=True):
        (source / name).write_bytes(write_idx(array))
    known = {"title": "toy", "channels": 1, "size": 8, "mean": [0.5], "std": [0.5], "class_names": list("012345678")}
    write_json(source / datasets.DESCRIPTION, {**known, "augmentation": "none", "sha256": {"x": "y"}})
    holdout.hold_out(source, target, records=10)
    images, labels = zip(*(datasets.load(target, train=train) for train in (True, False)), strict=True)
    assert [len(half) for half in images] == [20, 10]
    assert np.array_equal(np.concatenate(images)[:, 0] * 255, arrays[0])
    assert np.array_equal(np.concatenate(labels), arrays[1])
    assert datasets.describe(target).title == "toy (held out)" and not datasets.describe(target).sha256
    with pytest.raises(PrivsetError, match="30 training records, and 30 of them"):
        holdout.hold_out(source, target, records=30)
