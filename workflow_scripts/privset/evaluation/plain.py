"""The evaluation as published programs write it: an eager loop, each image augmented by itself with NumPy and SciPy.

Slow on purpose and short: the independent check of `evaluation` and `augment` in the tests, and what their speed is measured
against in the benchmark. Nothing in a table comes from here.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def scale_one(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resized (nearest neighbour), pasted into the middle of a canvas of zeros, the middle of which is cut out."""
    channels, size, _ = image.shape
    resized = F.interpolate(torch.from_numpy(image)[None], size=(height, width))[0].numpy()
    side = max(height, width, size)
    canvas = np.zeros((channels, side, side), dtype=np.float32)
    top, left, start = (side - height) // 2, (side - width) // 2, (side - size) // 2
    canvas[:, top : top + height, left : left + width] = resized
    return canvas[:, start : start + size, start : start + size]


def rotate_one(image: np.ndarray, degrees: int, fill: np.ndarray) -> np.ndarray:
    """Turned by SciPy's spline onto a canvas that holds all of it, the middle of which is cut out."""
    size = image.shape[-1]
    planes = [scipy.ndimage.rotate(plane, degrees, order=3, cval=value) for plane, value in zip(image, fill, strict=True)]
    start = (len(planes[0]) - size) // 2
    return np.stack(planes)[:, start : start + size, start : start + size].astype(np.float32)


def augment_one(image: np.ndarray, fill: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One image (C, H, W) cropped, scaled or rotated as the PSG reference program does; `fill` (C,) is the batch's mean."""
    channels, size, _ = image.shape
    kind = random.integers(3)
    if kind == 0:
        framed = np.full((channels, size + 8, size + 8), fill[:, None, None], dtype=np.float32)
        framed[:, 4:-4, 4:-4] = image
        row, column = random.integers(8, size=2)
        return framed[:, row : row + size, column : column + size]
    if kind == 1:
        height, width = (int(random.uniform(0.8, 1.2) * size) for _ in range(2))
        return scale_one(image, height, width)
    return rotate_one(image, int(random.integers(-45, 45)), fill)


def augment(images: Tensor, random: np.random.Generator) -> Tensor:
    """A batch (N, C, H, W), image by image."""
    fill = images.mean((0, 2, 3)).numpy()
    return torch.from_numpy(np.stack([augment_one(image, fill, random) for image in images.numpy()]))


def train(
    network: nn.Module, images: Tensor, labels: Tensor, *, epochs: int, batch_size: int, seed: int, augmented: bool = True
) -> None:
    """`epochs` + 1 epochs of SGD; a tenth of the learning rate, and a new optimiser, after epoch index `epochs // 2 + 1`."""
    random, order = np.random.default_rng(seed), torch.Generator().manual_seed(seed)

    def optimiser(rate: float) -> torch.optim.SGD:
        return torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)

    chosen = optimiser(0.01)
    for epoch in range(epochs + 1):
        for batch in torch.randperm(len(images), generator=order).split(batch_size):
            pixels = augment(images[batch], random) if augmented else images[batch]
            loss = F.cross_entropy(network(pixels), labels[batch])
            chosen.zero_grad()
            loss.backward()
            chosen.step()
        if epoch == epochs // 2 + 1:
            chosen = optimiser(0.001)


def accuracy(network: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 256) -> float:
    """Test accuracy in percent."""
    with torch.no_grad():
        predicted = torch.cat([network(part).argmax(1) for part in images.split(batch_size)])
    return 100 * (predicted == labels).double().mean().item()
