"""Evaluation augmentation, one random transformation per image, vectorised and on the images' device.

"crop_scale_rotate" is the PSG reference program's with its asymmetries: each image is either
cropped, scaled or rotated, with equal probability. Distributions and fill values are the reference's; its SciPy spline
rotation is a bicubic one here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from privset.datasets import PublicFacts


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


def scale(images: Tensor, generator: torch.Generator) -> Tensor:
    """Height and width scaled independently by 0.8 to 1.2 (nearest neighbour), centred on a zero (mean grey) canvas."""
    n, size = len(images), images.shape[-1]
    factors = 0.8 + 0.4 * torch.rand(2, n, 1, generator=generator, device=images.device)
    new = (factors * size).long()
    grid = torch.arange(size, device=images.device)
    # Where output pixel i lies in the scaled image, whose centre is the canvas' centre; then in the original.
    scaled = grid - torch.div(size - new, 2, rounding_mode="floor")
    source = torch.div(scaled * size, new, rounding_mode="floor")
    source = torch.where((scaled >= 0) & (scaled < new), source, -1)
    return _pick(images, source[0], source[1], images.new_zeros(()))


def rotate(images: Tensor, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate by a whole angle from -45 to 44 degrees; what comes from outside is `fill`."""
    angles = torch.randint(-45, 45, (len(images),), generator=generator, device=images.device) * (torch.pi / 180)
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    matrices = torch.stack([torch.stack([cosine, -sine, zero], 1), torch.stack([sine, cosine, zero], 1)], 1)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images - fill, grid, mode="bicubic", padding_mode="zeros", align_corners=False) + fill


def crop_scale_rotate(images: Tensor, generator: torch.Generator) -> Tensor:
    """One of the three for each image of the batch (N, C, H, W); the fill is the batch's mean per channel."""
    fill = images.mean((0, 2, 3))[:, None, None]
    choice = torch.randint(0, 3, (len(images),), generator=generator, device=images.device)
    result = images.clone()
    cropped, scaled, rotated = ((choice == kind).nonzero().squeeze(1) for kind in range(3))
    if len(cropped):
        result[cropped] = crop(images[cropped], fill, generator)
    if len(scaled):
        result[scaled] = scale(images[scaled], generator)
    if len(rotated):
        result[rotated] = rotate(images[rotated], fill, generator)
    return result


def siamese(facts: PublicFacts, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """One random transformation to be applied to every image of both sides of a comparison, differentiable in the images.

    Differentiable siamese augmentation (Zhao and Bilen, ICML 2021): one of colour, crop, cut-out, scale and rotation (and a
    flip, for colour images), with their ranges: brightness +-0.5 and contrast 0.5 to 1.5, shifts up to an eighth of the side,
    a square hole of half the side, a factor of 1/1.2 to 1.2 on each axis, +-15 degrees. One draw for all images, so each
    image's result depends on that image alone. Borders and holes are 0 (mean grey).
    """
    kind = int(torch.randint(0, 5 + (facts.channels == 3), (), generator=generator, device=generator.device))
    draw = (2 * torch.rand(4, generator=generator, device=generator.device) - 1).tolist()  # each in [-1, 1)
    size = facts.size
    if kind == 0:
        return lambda images: (
            (images - images.mean((1, 2, 3), keepdim=True)) * (1 + draw[0] / 2)
            + (images.mean((1, 2, 3), keepdim=True) + draw[1] / 2)
        )
    if kind == 1:
        hole = [slice(max(0, round((0.5 + d / 2) * size) - size // 4), round((0.5 + d / 2) * size) + size // 4) for d in draw[:2]]
        mask = torch.ones(size, size, device=generator.device)
        mask[hole[0], hole[1]] = 0
        return lambda images: images * mask
    if kind == 5:
        return (lambda images: images.flip(3)) if draw[0] > 0 else (lambda images: images)
    angle = math.radians(15) * draw[0] if kind == 2 else 0.0
    factors = [1.2**d if kind == 3 else 1.0 for d in draw[:2]]
    shift = [d / 4 if kind == 4 else 0.0 for d in draw[:2]]  # an eighth of the side is a quarter of affine_grid's unit
    matrix = [
        [math.cos(angle) * factors[0], -math.sin(angle), shift[0]],
        [math.sin(angle), math.cos(angle) * factors[1], shift[1]],
    ]
    theta = torch.tensor(matrix, device=generator.device)

    def transform(images: Tensor) -> Tensor:
        grid = F.affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)

    return transform


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda images, generator: images,
    "crop_scale_rotate": crop_scale_rotate,
}
