"""Several training images in one stored image (Kim et al., ICML 2022, call it multi-formation).

A stored image is cut into tiles x tiles parts, and each part, enlarged to the full size, is one training image: at equal storage
more and coarser images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def unpack(images: Tensor, tiles: int) -> Tensor:
    """(N, C, H, W) stored images to (N * tiles^2, C, H, W) training images, those of one stored image in a row; differentiable.

    Parts are enlarged by bilinear interpolation, without looking over their borders. H and W are multiples of `tiles`.
    """
    if tiles == 1:
        return images
    n, channels, height, width = images.shape
    parts = images.view(n, channels, tiles, height // tiles, tiles, width // tiles).permute(0, 2, 4, 1, 3, 5)
    parts = parts.reshape(n * tiles * tiles, channels, height // tiles, width // tiles)
    return F.interpolate(parts, size=(height, width), mode="bilinear", align_corners=False)


def unpack_labels(labels: Tensor, tiles: int) -> Tensor:
    """(N,) labels of stored images to the (N * tiles^2,) labels of their training images."""
    return torch.repeat_interleave(labels, tiles * tiles)
