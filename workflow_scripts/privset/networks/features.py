"""Random Fourier features (Rahimi and Recht 2007): their mean embeds a distribution, and is its characteristic function."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def frequencies(pixels: int, count: int, *, length_scale: float, generator: torch.Generator) -> Tensor:
    """(pixels, count) normals of variance 1 / `length_scale`."""
    drawn = torch.randn(pixels, count, generator=generator, device=generator.device)
    return drawn / math.sqrt(length_scale)


def fourier(images: Tensor, frequencies: Tensor) -> Tensor:
    """(B, ...) images to (B, 2 count) cosines and sines, of norm exactly 1."""
    angles = images.flatten(1) @ frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1) / math.sqrt(frequencies.shape[1])
