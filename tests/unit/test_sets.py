"""Sets as they are stored: what is refused, and several training images in one stored image."""

import numpy as np
import pytest
import torch
from PIL import Image

from privset import PrivsetError
from privset.sets import arrays, tiles


def test_parts_come_row_by_row_and_enlarged_without_their_neighbours():
    """Four flat parts stay flat: nothing is interpolated over the borders between them."""
    stored = torch.zeros(2, 1, 28, 28)
    for image in range(2):
        for part, (row, column) in enumerate(((0, 0), (0, 14), (14, 0), (14, 14))):
            stored[image, :, row : row + 14, column : column + 14] = 10 * image + part
    shown = tiles.unpack(stored, 2)
    assert shown.shape == (8, 1, 28, 28)
    assert [sorted(set(image.flatten().tolist())) for image in shown] == [[v] for v in (0, 1, 2, 3, 10, 11, 12, 13)]
    assert tiles.unpack_labels(torch.tensor([7, 3]), 2).tolist() == [7] * 4 + [3] * 4


def test_enlarging_is_bilinear(generator):
    """Against Pillow, on the first part."""
    stored = torch.rand(1, 1, 28, 28, generator=generator)
    part = Image.fromarray(stored[0, 0, :14, :14].numpy()).resize((28, 28), Image.Resampling.BILINEAR)
    assert np.allclose(tiles.unpack(stored, 2)[0, 0].numpy(), np.asarray(part), atol=1e-6)


def test_one_tile_is_the_image_itself(generator):
    stored = torch.rand(3, 3, 32, 32, generator=generator)
    assert tiles.unpack(stored, 1) is stored


def test_sets_keep_their_tiles_and_soft_labels(tmp_path):
    rng = np.random.default_rng(0)
    soft = rng.dirichlet(np.ones(2), size=16).astype(np.float32)
    made = arrays.Set(rng.random((4, 1, 28, 28), dtype=np.float32), np.arange(4) % 2, 2, soft)
    arrays.write_set(tmp_path / "set.npz", made)
    again = arrays.read_set(tmp_path / "set.npz", classes=2, shape=(1, 28, 28))
    assert again.tiles == 2 and np.array_equal(again.soft_labels, soft)


@pytest.mark.parametrize(
    ("count", "soft", "message"),
    [
        (3, None, "cannot be cut into 3 x 3 tiles"),
        (0, None, "cannot be cut into 0 x 0 tiles"),
        (1, np.full((4, 2), 0.4, np.float32), "soft labels are not probabilities"),
        (1, np.array([[2, -1]] * 4, np.float32), "soft labels are not probabilities"),
        (2, np.full((4, 2), 0.5, np.float32), "soft labels are float32"),
        (1, np.full((4, 2), 0.5), "soft labels are float64"),
    ],
)
def test_impossible_tiles_and_soft_labels_are_refused(tmp_path, count, soft, message):
    images = np.zeros((4, 1, 28, 28), np.float32)
    with pytest.raises(PrivsetError, match=message):
        arrays.write_set(tmp_path / "set.npz", arrays.Set(images, np.arange(4) % 2, count, soft))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda images, labels: (np.where(images > 0.9, np.nan, images), labels), "contain NaN or infinity"),
        (lambda images, labels: (images[:, :, 1:], labels), "made for another dataset"),
        (lambda images, labels: (images[labels > 0], labels[labels > 0]), r"labels are not all of 0..9"),
        (lambda images, labels: (images, labels + 1), r"labels are not all of 0..9"),
    ],
    ids=["nan", "shape", "missing class", "label out of range"],
)
def test_a_bad_set_is_refused_in_one_line(tmp_path, spoil, reason):
    rng = np.random.default_rng(0)
    images, labels = spoil(rng.random((20, 1, 8, 8), dtype=np.float32), np.arange(20) % 10)
    np.savez(tmp_path / "set.npz", images=images.astype(np.float32), labels=labels)
    with pytest.raises(PrivsetError, match=reason) as error:
        arrays.read_set(tmp_path / "set.npz", classes=10, shape=(1, 8, 8))
    assert "\n" not in str(error.value) and "set.npz" in str(error.value)
