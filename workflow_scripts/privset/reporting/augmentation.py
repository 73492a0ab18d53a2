"""A picture of the evaluation's augmentation. Beside the other figures, which do without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import seaborn
import torch

from privset.data.datasets import PublicFacts
from privset.evaluation import augment, plain
from privset.reporting.figures import STYLE, plt, save


def draw(pixels: np.ndarray, facts: PublicFacts, paths: list[Path], *, draws: int = 12) -> None:
    """Draws of crop, scale and rotation, vectorised (above) and image by image (below), of a few images (N, C, H, W)."""
    images = facts.normalise(torch.from_numpy(pixels))
    rows = []
    for image in images:
        many = image.expand(draws, *image.shape).contiguous()
        ours = augment.crop_scale_rotate(many, torch.Generator().manual_seed(0))
        rows.append((image, ours, plain.augment(many, np.random.default_rng(0))))
    with seaborn.axes_style("white", rc=STYLE), plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            2 * len(rows), draws + 1, figsize=(6.5, 6.5 * 2 * len(rows) / (draws + 1)), layout="constrained"
        )
        for pair, (image, ours, theirs) in zip(axes.reshape(len(rows), 2, -1), rows, strict=True):
            for line, drawn, name in zip(pair, (ours, theirs), ("tensors", "SciPy"), strict=True):
                line[0].set_ylabel(name, rotation=0, ha="right", va="center")
                for axis, shown in zip(line, [image, *drawn], strict=True):
                    axis.imshow(
                        facts.to_pixels(shown[None])[0].permute(1, 2, 0).squeeze(-1).clamp(0, 1), cmap="gray", vmin=0, vmax=1
                    )
                    axis.set(xticks=[], yticks=[])
        axes[0, 0].set_title("image")
        save(figure, paths)
