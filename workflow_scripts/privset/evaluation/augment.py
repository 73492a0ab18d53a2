"""Evaluation augmentation, one random transformation per image, vectorised and on the images' device.

"crop_scale_rotate" is the PSG reference program's with its asymmetries: each image is either
cropped, scaled or rotated, with equal probability. Distributions and fill values are the reference's; its SciPy spline
rotation is a bicubic one here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


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
