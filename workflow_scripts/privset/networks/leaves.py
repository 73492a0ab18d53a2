"""Dead leaves: images of random overlapping shapes (Lee, Mumford and Huang, IJCV 2001), which nobody's data are behind. Networks
learn from them what edges and surfaces are (Baradad et al., NeurIPS 2021)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SHAPES = 5
TEXTURE = 7
"""Side of the noise that a smooth texture is enlarged from."""


def draw(count: int, *, channels: int, size: int, generator: torch.Generator) -> Tensor:
    """(count, channels, size, size) pixels in [0, 1]: on a ground, which is black in half of the images, `SHAPES` super-ellipses
    of random place, size, angle and roundness, each with a level and a smooth texture of its own."""
    device = generator.device

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator, device=device)

    def surface() -> Tensor:
        """(count, channels, size, size): a level and a texture."""
        noise = torch.randn(count, channels, TEXTURE, TEXTURE, generator=generator, device=device)
        smooth = F.interpolate(noise, size=(size, size), mode="bicubic", align_corners=False)
        return uniform(channels, 1, 1) + uniform(1, 1, 1, high=0.25) * smooth

    grid = (torch.arange(size, device=device) + 0.5) / size
    down, right = grid[:, None], grid
    images = surface() * (uniform(1, 1, 1) < 0.5)
    for _ in range(SHAPES):
        angle = uniform(1, 1, high=torch.pi)
        y, x = down - uniform(1, 1), right - uniform(1, 1)
        along = (y * angle.cos() + x * angle.sin()) / (0.05 * 10 ** uniform(1, 1))
        across = (x * angle.cos() - y * angle.sin()) / (0.05 * 10 ** uniform(1, 1))
        power = torch.where(uniform(1, 1) < 0.5, 2.0, 6.0)
        inside = (along.abs() ** power + across.abs() ** power < 1)[:, None]
        images = torch.where(inside, surface(), images)
    return images.clamp(0, 1)
