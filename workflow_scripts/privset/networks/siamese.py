"""Differentiable siamese augmentation: the same random transformation for both sides of a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from privset.data.datasets import PublicFacts


def draw(facts: PublicFacts, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """One random transformation to be applied to every image of both sides of a comparison, differentiable in the images.

    Differentiable siamese augmentation (Zhao and Bilen, ICML 2021): one of colour, crop, cut-out, scale and rotation (and a
    flip, for colour images), with their ranges: brightness +-0.5 and contrast 0.5 to 1.5, shifts up to an eighth of the side,
    a square hole of half the side, a factor of 1/1.2 to 1.2 on each axis, +-15 degrees. One draw for all images, so each
    image's result depends on that image alone. Borders and holes are 0 (mean grey).
    """
    kind = int(torch.randint(0, 5 + (facts.channels == 3), (), generator=generator, device=generator.device))
    amounts = (2 * torch.rand(4, generator=generator, device=generator.device) - 1).tolist()  # each in [-1, 1)
    size = facts.size
    if kind == 0:
        return lambda images: (
            (images - images.mean((1, 2, 3), keepdim=True)) * (1 + amounts[0] / 2)
            + (images.mean((1, 2, 3), keepdim=True) + amounts[1] / 2)
        )
    if kind == 1:
        hole = [
            slice(max(0, round((0.5 + d / 2) * size) - size // 4), round((0.5 + d / 2) * size) + size // 4) for d in amounts[:2]
        ]
        mask = torch.ones(size, size, device=generator.device)
        mask[hole[0], hole[1]] = 0
        return lambda images: images * mask
    if kind == 5:
        return (lambda images: images.flip(3)) if amounts[0] > 0 else (lambda images: images)
    angle = math.radians(15) * amounts[0] if kind == 2 else 0.0
    factors = [1.2**d if kind == 3 else 1.0 for d in amounts[:2]]
    shift = [d / 4 if kind == 4 else 0.0 for d in amounts[:2]]  # an eighth of the side is a quarter of affine_grid's unit
    matrix = [
        [math.cos(angle) * factors[0], -math.sin(angle), shift[0]],
        [math.sin(angle), math.cos(angle) * factors[1], shift[1]],
    ]
    theta = torch.tensor(matrix, device=generator.device)

    def transform(images: Tensor) -> Tensor:
        grid = F.affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)

    return transform
