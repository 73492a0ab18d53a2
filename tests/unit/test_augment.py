"""The evaluation augmentation has the published distributions and fill values."""

import pytest
import torch

from privset import augment

FILL = torch.tensor(-0.4)[None, None]


def dots(count, row=14, column=14, size=28):
    """Images that are 0 with a single bright pixel, whose place tells what was done."""
    images = torch.zeros(count, 1, size, size)
    images[:, 0, row, column] = 5
    return images


def positions(images):
    return torch.stack(torch.where(images[:, 0] == 5)[1:], 1)


def test_crop_shifts_by_minus_four_to_plus_three_uniformly(generator):
    """The reference draws the offset into the padded image from 0..7, never 8."""
    moved = augment.crop(dots(8000), FILL, generator)
    shifts = 14 - positions(moved)
    for axis in range(2):
        values, counts = shifts[:, axis].unique(return_counts=True)
        assert values.tolist() == list(range(-4, 4))
        assert (counts - 1000).abs().max() < 150  # five standard deviations of a binomial(8000, 1/8)


def test_crop_fills_the_border_with_the_given_value(generator):
    cropped = augment.crop(torch.ones(50, 1, 28, 28), FILL, generator)
    assert cropped.unique().tolist() == [pytest.approx(-0.4), 1.0]


def test_scale_leaves_zeros_around_smaller_images_and_never_more_than_a_fifth(generator):
    scaled = augment.scale(torch.ones(4000, 1, 28, 28), generator)
    assert set(scaled.unique().tolist()) == {0.0, 1.0}
    heights = scaled[:, 0].amax(2).sum(1)
    assert heights.min() == int(0.8 * 28) and heights.max() == 28
    # int(U(0.8, 1.2) * 28) is below 28 in half of the draws.
    assert (heights < 28).double().mean().item() == pytest.approx(0.5, abs=0.04)
    # Height and width are drawn independently.
    widths = scaled[:, 0].amax(1).sum(1)
    assert torch.corrcoef(torch.stack([heights, widths]))[0, 1].abs() < 0.08


def test_scale_keeps_the_centre(generator):
    image = torch.zeros(500, 1, 28, 28)
    image[:, :, 12:16, 12:16] = 1
    scaled = augment.scale(image, generator)[:, 0]
    grid = torch.arange(28) + 0.5
    centre = (scaled.sum(2) * grid).sum(1) / scaled.sum((1, 2))
    assert (centre - 14).abs().max() <= 1.01


def test_rotation_angles_lie_between_minus_45_and_44_degrees(generator):
    image = torch.zeros(3000, 1, 28, 28)
    image[:, :, 13:15, 20:26] = 1  # a bar to the right of the centre
    turned = augment.rotate(image, torch.zeros(1, 1), generator)[:, 0].clamp(min=0)
    grid = torch.arange(28) - 13.5
    x = (turned.sum(1) * grid).sum(1) / turned.sum((1, 2))
    y = (turned.sum(2) * grid).sum(1) / turned.sum((1, 2))
    angles = torch.rad2deg(torch.atan2(y, x))
    assert -46 < angles.min() < -42 and 42 < angles.max() < 46
    assert angles.std().item() == pytest.approx(90 / 12**0.5, rel=0.05)  # uniform


def test_rotation_fills_the_corners(generator):
    turned = augment.rotate(torch.ones(200, 1, 28, 28), FILL, generator)
    # Beyond a few degrees the corner comes wholly from outside (nearer to 0 the cubic kernel reaches the image).
    assert ((turned[:, 0, 0, 0] + 0.4).abs() < 1e-5).double().mean() > 0.75
    assert turned[:, 0, 13, 13].min().item() == pytest.approx(1, abs=1e-3)


def test_each_image_gets_exactly_one_of_the_three(generator, monkeypatch):
    monkeypatch.setattr(augment, "crop", lambda images, fill, generator: torch.full_like(images, 1))
    monkeypatch.setattr(augment, "scale", lambda images, generator: torch.full_like(images, 2))
    monkeypatch.setattr(augment, "rotate", lambda images, fill, generator: torch.full_like(images, 3))
    kinds = augment.crop_scale_rotate(torch.zeros(9000, 1, 4, 4), generator)[:, 0, 0, 0]
    values, counts = kinds.unique(return_counts=True)
    assert values.tolist() == [1, 2, 3]
    assert (counts - 3000).abs().max() < 225  # five standard deviations


def test_colour_images_keep_their_channels_together(generator):
    images = torch.randn(30, 3, 32, 32, generator=generator)
    images[:, 1] = images[:, 0]
    for function in (augment.scale,):
        out = function(images, generator)
        assert torch.equal(out[:, 0], out[:, 1])
    assert augment.crop_scale_rotate(images, generator).shape == images.shape
