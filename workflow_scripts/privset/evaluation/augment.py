"""Evaluation augmentation, one random transformation per image, vectorised and on the images' device.

"crop_scale_rotate" is the PSG reference program's with its asymmetries: each image is either
cropped, scaled or rotated, with equal probability. Distributions, fill values and geometry are the reference's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor


def _pick(images: Tensor, rows: Tensor, columns: Tensor, fill: Tensor) -> Tensor:
    """Pixel (rows[n, i], columns[n, j]) of image n at (i, j), or `fill` where that lies outside. Rows, columns: (N, size)."""
    size = images.shape[-1]
    inside = ((rows >= 0) & (rows < size))[:, None, :, None] & ((columns >= 0) & (columns < size))[:, None, None, :]
    n = torch.arange(len(images), device=images.device)[:, None, None]
    picked = images[n, :, rows.clamp(0, size - 1)[:, :, None], columns.clamp(0, size - 1)[:, None, :]]
    return torch.where(inside, picked.permute(0, 3, 1, 2), fill)


def crop(images: Tensor, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by -4 to +3 pixels in each direction (the reference never draws +4); the border is `fill`."""
    n, size = len(images), images.shape[-1]
    offsets = torch.randint(0, 8, (2, n, 1), generator=generator, device=images.device) - 4
    grid = torch.arange(size, device=images.device)
    return _pick(images, grid + offsets[0], grid + offsets[1], fill)


def scaled(images: Tensor, new: Tensor) -> Tensor:
    """Image n resized to `new`[0, n] rows and `new`[1, n] columns (nearest neighbour; (2, N, 1) int64) and centred on zeros.

    Centred as in the reference: both the image and what is cut out lie in a canvas as large as the largest of rows, columns and
    `size`, each halved on its own, so that odd differences move an image by one pixel.
    """
    size = images.shape[-1]
    canvas = new.amax(0).clamp(min=size)
    grid = torch.arange(size, device=images.device)
    # Where output pixel i lies in the resized image; then in the original.
    inside = grid + (canvas - size) // 2 - (canvas - new) // 2
    source = torch.where((inside >= 0) & (inside < new), inside * size // new, -1)
    return _pick(images, source[0], source[1], images.new_zeros(()))


def scale(images: Tensor, generator: torch.Generator) -> Tensor:
    """Height and width scaled independently by 0.8 to 1.2, centred on a zero (mean grey) canvas."""
    n, size = len(images), images.shape[-1]
    factors = 0.8 + 0.4 * torch.rand(2, n, 1, generator=generator, device=images.device)
    return scaled(images, (factors * size).long())


@functools.lru_cache
def _spline(size: int) -> Tensor:
    """(size, size) float64: from the values at 0, 1, ... to the coefficients of the cubic spline through them, mirrored at the
    first and the last."""
    values = torch.eye(size, dtype=torch.float64) * 4
    for place in range(size):
        for neighbour in (abs(place - 1), size - 1 - abs(size - 2 - place)):
            values[place, neighbour] += 1
    return torch.linalg.inv(values / 6)


def _cubic(offset: Tensor) -> Tensor:
    """Weights (..., 4) of the coefficients at -1, 0, 1, 2 of a point at `offset` in [0, 1) of a cubic spline."""
    t, u = offset, 1 - offset
    return torch.stack([u**3, 4 - 3 * t**2 * (2 - t), 4 - 3 * u**2 * (2 - u), t**3], -1) / 6


def rotated(images: Tensor, angles: Tensor, fill: Tensor) -> Tensor:
    """Image n turned by `angles`[n] radians about its centre, by the cubic spline through its pixels; what comes from outside of
    it is `fill`.

    As the reference cuts it out of the turned image's bounding box, whose side is a whole number of pixels: half a pixel towards
    the upper left if that side and `size` differ by an odd number.
    """
    n, channels, size, _ = images.shape
    cosine, sine = angles.cos()[:, None, None], angles.sin()[:, None, None]
    side = (size * (cosine.abs() + sine.abs()) + 0.5).floor()
    grid = torch.arange(size, device=images.device) + ((side - size) / 2).floor() - (side - 1) / 2  # from the box's centre
    down, right = grid.transpose(1, 2), grid
    middle = (size - 1) / 2
    rows, columns = cosine * down + sine * right + middle, cosine * right - sine * down + middle
    outside = (torch.maximum(rows, columns) > size - 1) | (torch.minimum(rows, columns) < 0)

    mirror = torch.arange(-1, size + 2, device=images.device).abs()
    mirror = torch.where(mirror < size, mirror, 2 * (size - 1) - mirror)
    spline = _spline(size).to(images)
    table = (spline @ images @ spline.T)[:, :, mirror][:, :, :, mirror].flatten(2)  # a margin of 1 before, 2 after
    whole = [part.floor().clamp(0, size - 1) for part in (rows, columns)]
    taps = torch.arange(4, device=images.device)
    first, second = (part.long()[..., None] + taps for part in whole)
    places = (first[..., :, None] * (size + 3) + second[..., None, :]).reshape(n, 1, -1).expand(-1, channels, -1)
    weights = [_cubic(part - low) for part, low in zip((rows, columns), whole, strict=True)]
    values = table.gather(2, places).view(n, channels, size, size, 4, 4)
    turned = torch.einsum("ncijab,nija,nijb->ncij", values, *weights)
    return torch.where(outside[:, None], fill, turned)


def rotate(images: Tensor, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate by a whole angle from -45 to 44 degrees; what comes from outside is `fill`."""
    angles = torch.randint(-45, 45, (len(images),), generator=generator, device=images.device) * (torch.pi / 180)
    return rotated(images, angles, fill)


def crop_scale_rotate(images: Tensor, generator: torch.Generator) -> Tensor:
    """One of the three for each image of the batch (N, C, H, W); the fill is the batch's mean per channel."""
    fill = images.mean((0, 2, 3))[:, None, None]
    choice = torch.randint(0, 3, (len(images),), generator=generator, device=images.device)
    result = images.clone()
    crops, scales, rotations = ((choice == kind).nonzero().squeeze(1) for kind in range(3))
    if len(crops):
        result[crops] = crop(images[crops], fill, generator)
    if len(scales):
        result[scales] = scale(images[scales], generator)
    if len(rotations):
        result[rotations] = rotate(images[rotations], fill, generator)
    return result


def crop_flip_color(images: Tensor, generator: torch.Generator) -> Tensor:
    """For colour images: shifted by -4 to +4 pixels (border 0, mean grey), flipped left to right with probability 1/2, and
    brightness (+-0.5), saturation (0 to 2) and contrast (0.5 to 1.5) drawn for each image of the batch (N, C, H, W); the
    ranges are those of differentiable siamese augmentation (Zhao and Bilen, ICML 2021), in normalised units."""
    n, size = len(images), images.shape[-1]
    offsets = torch.randint(-4, 5, (2, n, 1), generator=generator, device=images.device)
    grid = torch.arange(size, device=images.device)
    flipped = torch.rand(n, 1, generator=generator, device=images.device) < 0.5
    columns = torch.where(flipped, size - 1 - grid, grid)
    moved = _pick(images, grid + offsets[0], columns + offsets[1], images.new_zeros(()))
    brightness, saturation, contrast = torch.rand(3, n, 1, 1, 1, generator=generator, device=images.device)
    moved = moved + (brightness - 0.5)
    grey = moved.mean(1, keepdim=True)
    moved = (moved - grey) * (2 * saturation) + grey
    middle = moved.mean((1, 2, 3), keepdim=True)
    return (moved - middle) * (0.5 + contrast) + middle


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda images, generator: images,
    "crop_scale_rotate": crop_scale_rotate,
    "crop_flip_color": crop_flip_color,
}
