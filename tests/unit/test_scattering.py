"""Scattering coefficients: kymatio's numbers, and what follows from the definition."""

import csv
from pathlib import Path

import torch

from privset.networks import scattering


def waves(count: int, size: int) -> torch.Tensor:
    numbers = torch.arange(count * size * size, dtype=torch.float32)
    return (numbers * 2**0.5).sin().view(count, 1, size, size) / 2 + 0.5


def test_the_numbers_are_kymatios():
    """Those of kymatio 0.3.0, whose filters have 3.1415 for pi: 3e-5 of each. In the file: of `Scattering2D(J=2, shape=(size,
    size))` of these waves, each path's mean and its upper right corner."""
    with open(Path(__file__).with_name("kymatio.csv"), encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * 81
    for size in (8, 28, 30):
        found = scattering.coefficients(waves(1, size))[0]
        theirs = [row for row in rows if row["size"] == str(size)]
        for path, row in enumerate(theirs):
            assert abs(float(found[path].mean()) - float(row["mean"])) < 3e-5 * 0.6, (size, path)
            assert abs(float(found[path, 0, -1]) - float(row["corner"])) < 3e-5 * 0.6, (size, path)


def test_an_image_of_one_level_has_an_average_and_no_waves():
    flat = torch.full((1, 1, 28, 28), 0.7)
    found = scattering.coefficients(flat)[0]
    assert torch.allclose(found[0], torch.tensor(0.7), atol=1e-5)
    assert found[1:].abs().max() < 1e-5


def test_a_shift_by_a_step_moves_the_maps():
    """Of an image far from its border."""
    image = torch.zeros(1, 1, 40, 40)
    image[..., 12:20, 14:24] = waves(1, 16)[..., :8, :10]
    moved = torch.roll(image, (scattering.STEP, -scattering.STEP), (2, 3))
    before, after = scattering.coefficients(image)[0], scattering.coefficients(moved)[0]
    assert torch.allclose(after, torch.roll(before, (1, -1), (1, 2)), atol=1e-3 * float(before.max()))


def test_each_channel_is_an_image_of_its_own():
    images = waves(6, 28)
    colour = scattering.coefficients(images.view(2, 3, 28, 28))
    assert torch.equal(colour.view(6, 81, 7, 7), scattering.coefficients(images))
