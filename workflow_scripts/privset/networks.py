"""The classifiers of the paper (Table 2) and the generators of the generative methods, as small constructors.

Every constructor takes `(*, channels, classes, size)`, the shape of one image being (channels, size, size), and returns a
module that maps (N, channels, size, size) images in normalised units to (N, classes) logits. Where the published networks
have instance normalisation it is GroupNorm with one group per channel, so no statistic ever mixes two records and
per-sample gradients exist. Sizes and paddings follow the networks of the PSG reference program (NeurIPS 2022, appendix).

Weights are drawn by `initialise` from an explicit generator, never from the global one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def _instance_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels, channels)


def _first_padding(channels: int) -> int:
    """Grey 28x28 images are padded to 32x32 by the first 3x3 convolution, so that five halvings are possible."""
    return 3 if channels == 1 else 1


class AveragePool(nn.Module):
    """2x2 average pooling. On a CPU as one product with a constant sparse matrix over pairs of rows: the same numbers as
    `avg_pool2d`, about three times as fast there (forward and backward; five times in bfloat16)."""

    def forward(self, images: Tensor) -> Tensor:
        if images.device.type != "cpu":
            return nn.functional.avg_pool2d(images, 2)
        n, channels, height, width = images.shape
        pairs = images[:, :, : height // 2 * 2, : width // 2 * 2].reshape(n, channels, height // 2, -1)
        pick = torch.eye(width // 2, dtype=images.dtype).repeat_interleave(2, dim=0) / 4
        return pairs @ pick.repeat(2, 1)


def convnet(*, channels: int, classes: int, size: int, width: int = 128, depth: int = 3) -> nn.Sequential:
    """The paper's default network: `depth` blocks of 3x3 convolution, instance norm, ReLU, 2x2 average pooling."""
    layers: list[nn.Module] = []
    side, fan_in = size, channels
    for block in range(depth):
        padding = _first_padding(channels) if block == 0 else 1
        layers += [nn.Conv2d(fan_in, width, 3, padding=padding), _instance_norm(width), nn.ReLU(), AveragePool()]
        side = (side + 2 * padding - 2) // 2
        fan_in = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * side * side, classes))


def mlp(*, channels: int, classes: int, size: int, width: int = 128) -> nn.Sequential:
    """Two hidden layers of `width` ReLU units."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * size * size, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


def lenet(*, channels: int, classes: int, size: int) -> nn.Sequential:
    """LeNet-5 with ReLU and max pooling."""
    padding = 2 if channels == 1 else 0
    side = ((size + 2 * padding - 4) // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * side * side, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


def alexnet(*, channels: int, classes: int, size: int) -> nn.Sequential:
    """AlexNet cut to small images: five convolutions, three poolings, one linear layer."""
    padding = 4 if channels == 1 else 2
    side = (size + 2 * padding - 4) // 8
    layers = nn.Sequential(
        nn.Conv2d(channels, 128, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(128, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(192, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 192, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(192, 192, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(192 * side * side, classes),
    )
    # Channels last: 0.6 of a test pass' time on a CPU; networks with normalisation would take two to four times as long.
    return layers.to(memory_format=torch.channels_last)


def vgg11(*, channels: int, classes: int, size: int) -> nn.Sequential:
    """VGG11 with instance norm; the last pooling leaves one position of 512 features."""
    layers: list[nn.Module] = []
    side, fan_in = size, channels
    for block, step in enumerate((64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")):
        if step == "pool":
            layers.append(nn.MaxPool2d(2))
            side //= 2
            continue
        padding = _first_padding(channels) if block == 0 else 1
        layers += [nn.Conv2d(fan_in, step, 3, padding=padding), _instance_norm(step), nn.ReLU()]
        side += 2 * padding - 2
        fan_in = step
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * side * side, classes))


class _ResidualBlock(nn.Module):
    def __init__(self, fan_in: int, width: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(fan_in, width, 3, stride=stride, padding=1, bias=False),
            _instance_norm(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            _instance_norm(width),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or fan_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(fan_in, width, 1, stride=stride, bias=False), _instance_norm(width))

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.body(images) + self.shortcut(images))


def resnet18(*, channels: int, classes: int, size: int) -> nn.Sequential:
    """ResNet18 for small images: a 3x3 stem of stride 1, instance norm, 4x4 average pooling."""
    blocks: list[nn.Module] = [nn.Conv2d(channels, 64, 3, padding=1, bias=False), _instance_norm(64), nn.ReLU()]
    fan_in = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [_ResidualBlock(fan_in, width, stride), _ResidualBlock(width, width, 1)]
        fan_in = width
    side = math.ceil(size / 8) // 4
    return nn.Sequential(*blocks, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(512 * side * side, classes))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "convnet": convnet,
    "lenet": lenet,
    "alexnet": alexnet,
    "vgg11": vgg11,
    "resnet18": resnet18,
    "mlp": mlp,
}


class ConditionalGenerator(nn.Module):
    """ConvCondGen of DP-MERF (Harder et al., AISTATS 2021, code): a 28x28 grey image in [0, 1] from a latent code and a class.

    Latent codes are (N, latent), labels (N,) integers. Batch normalisation is harmless here: the generator sees no record.
    """

    def __init__(self, *, latent: int, classes: int):
        super().__init__()
        self.latent, self.classes = latent, classes
        self.body = nn.Sequential(
            nn.Linear(latent + classes, 200),
            nn.BatchNorm1d(200),
            nn.ReLU(),
            nn.Linear(200, 784),
            nn.BatchNorm1d(784),
            nn.Unflatten(1, (16, 7, 7)),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(16, 8, 5, padding=2),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(8, 1, 5, padding=2),
            nn.Sigmoid(),
        )

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        return self.body(torch.cat([codes, nn.functional.one_hot(labels, self.classes).to(codes)], dim=1))


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


def initialise(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draw every weight afresh, by PyTorch's default rule for each layer, from `generator` (on the weights' device).

    Convolutions and linear layers: weight and bias uniform on +-1/sqrt(fan-in), where a transposed convolution's fan-in is, as in
    PyTorch, that of its output side. Norm layers: weight 1, bias 0.
    """
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                layer.weight.uniform_(-bound, bound, generator=generator)
                if layer.bias is not None:
                    layer.bias.uniform_(-bound, bound, generator=generator)
            elif isinstance(layer, (nn.GroupNorm, nn.BatchNorm1d)):
                layer.reset_parameters()
            elif next(layer.parameters(recurse=False), None) is not None:
                raise TypeError(f"no initialisation rule for {type(layer).__name__}; add one to networks.initialise")
    return network


def build(name: str, *, channels: int, classes: int, size: int, generator: torch.Generator, **options: int) -> nn.Module:
    """A freshly initialised network of the registry on the generator's device.

    Raises KeyError with the known names for an unknown one.
    """
    if name not in NETWORKS:
        raise KeyError(f"network {name!r} is unknown; choose from {', '.join(NETWORKS)}")
    network = NETWORKS[name](channels=channels, classes=classes, size=size, **options)
    return initialise(network.to(generator.device), generator)
