"""Critics: networks that tell real images from generated ones, small enough that an ensemble has hundreds."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Critic(nn.Module):
    """A score for an image, (B,): of one output per class the label's. With `hidden` 0 it is linear in the pixels."""

    def __init__(self, *, shape: tuple[int, int, int], classes: int, hidden: int):
        super().__init__()
        pixels = math.prod(shape)
        layers = (
            [nn.Linear(pixels, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, classes)] if hidden else [nn.Linear(pixels, classes)]
        )
        self.body = nn.Sequential(*layers)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.body(images.flatten(1)).gather(1, labels[:, None])[:, 0]


Scores = Callable[[Tensor, Tensor], Tensor]
"""Of images (B, C, H, W) and labels (B,): (B,)."""


def cross_entropy(critic: Scores, real: Tensor, labels: Tensor, made: Tensor, made_labels: Tensor) -> Tensor:
    """Binary, with the score as the logit of "real"."""
    return F.softplus(-critic(real, labels)).mean() + F.softplus(critic(made, made_labels)).mean()


def wasserstein(
    critic: Scores, real: Tensor, labels: Tensor, made: Tensor, made_labels: Tensor, mix: Tensor, *, penalty: float, drift: float
) -> Tensor:
    """The critic's loss of WGAN-GP (Gulrajani et al. 2017): as many real images as made ones, `mix` (B, 1, 1, 1) in [0, 1] of
    each pair between them, where the gradient's norm should be 1; and `drift`, of the squared scores of real ones."""
    between = mix * real + (1 - mix) * made
    slopes = torch.func.grad(lambda images: critic(images, labels).sum())(between).flatten(1).norm(dim=1)
    scores = critic(real, labels)
    loss = critic(made, made_labels).mean() - scores.mean()
    return loss + penalty * (slopes - 1).square().mean() + drift * scores.square().mean()
