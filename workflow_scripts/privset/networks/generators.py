"""The generators of the generative methods and of PSG's prior. They see no record, so whatever they contain is harmless."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from privset import PrivsetError


class ConditionalGenerator(nn.Module):
    """ConvCondGen of DP-MERF (Harder et al., AISTATS 2021, code): an image in [0, 1] from a latent code and a class.

    There for 28x28 grey ones; here of any size that is a multiple of 4. Latent codes are (N, latent), labels (N,) integers. Batch
    normalisation is harmless: the generator sees no record. Raises PrivsetError for another size.
    """

    def __init__(self, *, latent: int, classes: int, channels: int = 1, size: int = 28):
        super().__init__()
        _quartered(size)
        self.latent, self.classes = latent, classes
        maps = 16 * (size // 4) ** 2
        self.body = nn.Sequential(
            nn.Linear(latent + classes, 200),
            nn.BatchNorm1d(200),
            nn.ReLU(),
            nn.Linear(200, maps),
            nn.BatchNorm1d(maps),
            nn.Unflatten(1, (16, size // 4, size // 4)),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(16, 8, 5, padding=2),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(8, channels, 5, padding=2),
            nn.Sigmoid(),
        )

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        return self.body(torch.cat([codes, nn.functional.one_hot(labels, self.classes).to(codes)], dim=1))


class DenseGenerator(nn.Module):
    """DP-CGAN's (Torkzadehmahani et al. 2019): one hidden layer from a code and a class to an image in [0, 1] of any shape."""

    def __init__(self, *, latent: int, classes: int, hidden: int, shape: tuple[int, int, int]):
        super().__init__()
        self.classes = classes
        self.body = nn.Sequential(
            nn.Linear(latent + classes, hidden),
            nn.ReLU(),
            nn.Linear(hidden, math.prod(shape)),
            nn.Sigmoid(),
            nn.Unflatten(1, shape),
        )

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        return self.body(torch.cat([codes, nn.functional.one_hot(labels, self.classes).to(codes)], dim=1))


class DeconvolutionGenerator(nn.Module):
    """DP-Sinkhorn's (Cao et al., NeurIPS 2021, code): an image in [0, 1] from a latent code and a learned vector of its class, by
    transposed convolutions to a quarter, a half and the whole of its size.

    Latent codes are (N, latent), labels (N,) integers. Raises PrivsetError for a size that is not a multiple of 4.
    """

    def __init__(self, *, latent: int, classes: int, width: int = 64, channels: int = 1, size: int = 28):
        super().__init__()
        _quartered(size)
        self.vectors = nn.Embedding(classes, 8)
        self.body = nn.Sequential(
            nn.Unflatten(1, (latent + 8, 1, 1)),
            nn.ConvTranspose2d(latent + 8, 4 * width, size // 4),
            nn.BatchNorm2d(4 * width),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        return self.body(torch.cat([codes, self.vectors(labels)], dim=1)) / 2 + 0.5


def _quartered(size: int) -> None:
    if size % 4:
        raise PrivsetError(f"images of {size}x{size}: this generator makes sizes that are a multiple of 4")


@torch.no_grad()
def sampled(generator: nn.Module, codes: Tensor, labels: Tensor) -> Tensor:
    """Its images of codes (N, latent) and labels (N,), with the statistics of its batch normalisation as they are."""
    training = generator.training
    generator.eval()
    images = torch.cat([generator(*part) for part in zip(codes.split(1000), labels.split(1000), strict=True)])
    generator.train(training)
    return images


class LatentGenerator(nn.Module):
    """The prior of PSG's Table 3 (reference program, DCGAN): a 28x28 grey image in normalised units from a code and a class.

    Latent codes are (N, latent), labels (N,) integers. Features are scaled to mean square 1 at every position ("pixel norm").
    """

    def __init__(self, *, latent: int, classes: int, width: int = 64):
        super().__init__()
        self.classes, self.width = classes, width
        self.project = nn.Linear(latent + classes, 4 * width * 4 * 4)
        self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 5)
        self.up2 = nn.ConvTranspose2d(2 * width, width, 5)
        self.up3 = nn.ConvTranspose2d(width, 1, 8, stride=2)

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        def activate(maps: Tensor) -> Tensor:
            maps = maps.relu()
            return maps * (maps.square().mean(1, keepdim=True) + 1e-8).rsqrt()

        one_hot = nn.functional.one_hot(labels, self.classes).to(codes)
        maps = self.project(torch.cat([codes, one_hot], dim=1)).view(-1, 4 * self.width, 4, 4)
        maps = activate(self.up1(activate(maps))[:, :, :7, :7])
        return self.up3(activate(self.up2(maps)))
