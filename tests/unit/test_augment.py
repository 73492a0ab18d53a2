"""The evaluation augmentation has the published distributions and fill values."""

import itertools

import numpy as np
import pytest
import torch

from privset.data.datasets import PublicFacts
from privset.evaluation import augment, plain
from privset.networks import siamese

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
    # At any angle but 0 the corner comes from outside.
    assert ((turned[:, 0, 0, 0] + 0.4).abs() < 1e-5).double().mean() > 0.95
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


def test_every_angle_and_every_scale_give_the_plain_ones_pixels(generator):
    """SciPy's spline and PyTorch's interpolation, image by image; rotation to float32's rounding, scaling to the bit."""
    image = torch.randn(1, 2, 28, 28, generator=generator)
    fill = torch.tensor([-0.4, 0.3])[:, None, None]
    for degrees in range(-45, 45):
        ours = augment.rotated(image, torch.tensor([degrees * torch.pi / 180]), fill)[0].numpy()
        theirs = plain.rotate_one(image[0].numpy(), degrees, fill.flatten().numpy())
        assert np.abs(ours - theirs).max() < 1e-4, degrees
    sizes = list(itertools.product(range(22, 34), repeat=2))
    ours = augment.scaled(image.expand(len(sizes), -1, -1, -1), torch.tensor(sizes).T[:, :, None])
    for scaled, (height, width) in zip(ours, sizes, strict=True):
        assert np.array_equal(scaled.numpy(), plain.scale_one(image[0].numpy(), height, width)), (height, width)


def test_the_mean_images_agree_to_monte_carlo_error(generator):
    """Every pixel's mean over many draws, and its mean square, against the image-by-image version's, on one lopsided image."""
    image = torch.zeros(1, 1, 28, 28)
    image[:, :, 6:20, 8:12] = 1.0
    image[:, :, 16:20, 8:20] = 2.0
    many = image.expand(8000, 1, 28, 28).contiguous()
    ours, theirs = augment.crop_scale_rotate(many, generator), plain.augment(many, np.random.default_rng(0))
    for power in (1, 2):
        one, other = ours.double() ** power, theirs.double() ** power
        error = ((one.var(0) + other.var(0)) / len(many)).sqrt()
        # 784 pixels, of which one in 100,000 deviates by 4.4 standard errors by chance.
        assert ((one.mean(0) - other.mean(0)).abs() <= 4.4 * error + 1e-6).all()


def test_flips_and_colours_are_drawn_for_each_image(generator):
    images = torch.zeros(4000, 3, 32, 32)
    images[:, :, 10:20, 4:8] = torch.tensor([1.0, 0.5, 0.0])[:, None, None]
    out = augment.crop_flip_color(images, generator)
    # The patch stands out from the image's own background whatever its brightness and contrast.
    patch = (out - out[:, :, 16:17, 16:17]).abs().sum(1) > 1e-3
    grid = torch.arange(32.0)
    centre = (patch.sum(1) * grid).sum(1) / patch.sum((1, 2)).clamp(min=1)
    left = (centre < 16).double().mean().item()
    assert left == pytest.approx(0.5, abs=0.04)  # five standard errors
    backgrounds = out[:, :, 31, 16].mean(1)
    assert backgrounds.std() > 0.1 and len(backgrounds.unique()) > 3000


def colour(size=32):
    return PublicFacts(records=1, classes=10, channels=3, size=size, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_siamese_draws_once_for_all_images_and_mixes_none(generator):
    """Alone or in a batch, an image becomes the same; two transformations differ; gradients reach the images."""
    images = torch.randn(4, 3, 32, 32, generator=generator, requires_grad=True)
    results = []
    for _ in range(40):
        transform = siamese.draw(colour(), generator)
        together = transform(images)
        assert together.shape == images.shape
        for index in range(4):
            assert torch.allclose(transform(images[index : index + 1]), together[index : index + 1], atol=1e-6)
        (gradient,) = torch.autograd.grad(together[1].sum(), [images])
        assert gradient[1].any() and not gradient[0].any()
        results.append(together.detach())
    changed = [not torch.allclose(result, images, atol=1e-6) for result in results]
    assert 20 < sum(changed) <= 40  # a flip leaves every second image as it is: 1/12 of the draws
    assert len({round(result.sum().item(), 3) for result in results}) > 20


def test_siamese_covers_its_kinds_and_ranges(generator):
    """A bright dot tells where pixels went: shifts by at most an eighth of the side, holes of half the side."""
    facts = PublicFacts(records=1, classes=10, channels=1, size=28, mean=(0.5,), std=(0.5,))
    ones = torch.ones(1, 1, 28, 28)
    holes, shifts = 0, []
    for _ in range(300):
        transform = siamese.draw(facts, generator)
        image = transform(ones)[0, 0]
        values = image.unique()
        if len(values) == 2 and values.tolist() == [0, 1]:
            assert 7 * 7 <= (image == 0).sum() <= 14 * 14
            holes += 1
        empty = ((image == 0).all(1).sum() + (image == 0).all(0).sum()).item()
        shifts.append(empty)
    assert 35 < holes < 90  # a fifth of 300, five standard deviations
    assert 0 < max(shifts) <= 2 * 28 / 8 + 28 * (1 - 1 / 1.2) * 2
