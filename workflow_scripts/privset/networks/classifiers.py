"""The classifiers of the paper (Table 2), as small constructors.

Every constructor takes `(*, channels, classes, size)`, the shape of one image being (channels, size, size), and returns a
module that maps (N, channels, size, size) images in normalised units to (N, classes) logits. Where the published networks
have instance normalisation it is GroupNorm with one group per channel, so no statistic ever mixes two records and
per-sample gradients exist. Sizes and paddings follow the networks of the PSG reference program (NeurIPS 2022, appendix).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from privset import PrivsetError
from privset.networks.weights import initialise


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


def alexnet(*, channels: int, classes: int, size: int, width: int = 128) -> nn.Sequential:
    """AlexNet cut to small images: five convolutions, three poolings, one linear layer. `width` channels in the first layer, and
    of the published 192 and 256 in proportion."""
    padding = 4 if channels == 1 else 2
    side = (size + 2 * padding - 4) // 8
    middle, widest = 192 * width // 128, 256 * width // 128
    layers = nn.Sequential(
        nn.Conv2d(channels, width, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, middle, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(middle, widest, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(widest, middle, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(middle, middle, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(middle * side * side, classes),
    )
    # Channels last: 0.6 of a test pass' time on a CPU; networks with normalisation would take two to four times as long.
    return layers.to(memory_format=torch.channels_last)


def vgg11(*, channels: int, classes: int, size: int, width: int = 64) -> nn.Sequential:
    """VGG11 with instance norm; the last pooling leaves one position of 8 `width` features. `width` channels in the first layer,
    twice, four and eight times as many in the later ones."""
    layers: list[nn.Module] = []
    side, fan_in = size, channels
    for block, step in enumerate((1, "pool", 2, "pool", 4, 4, "pool", 8, 8, "pool", 8, 8, "pool")):
        if step == "pool":
            layers.append(nn.MaxPool2d(2))
            side //= 2
            continue
        padding = _first_padding(channels) if block == 0 else 1
        layers += [nn.Conv2d(fan_in, step * width, 3, padding=padding), _instance_norm(step * width), nn.ReLU()]
        side += 2 * padding - 2
        fan_in = step * width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(fan_in * side * side, classes))


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


def resnet18(*, channels: int, classes: int, size: int, width: int = 64) -> nn.Sequential:
    """ResNet18 for small images: a 3x3 stem of stride 1, instance norm, 4x4 average pooling. `width` channels in the stem and the
    first blocks, twice, four and eight times as many in the later ones."""
    blocks: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False), _instance_norm(width), nn.ReLU()]
    fan_in = width
    for factor, stride in ((1, 1), (2, 2), (4, 2), (8, 2)):
        blocks += [_ResidualBlock(fan_in, factor * width, stride), _ResidualBlock(factor * width, factor * width, 1)]
        fan_in = factor * width
    side = math.ceil(size / 8) // 4
    return nn.Sequential(*blocks, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(fan_in * side * side, classes))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "convnet": convnet,
    "lenet": lenet,
    "alexnet": alexnet,
    "vgg11": vgg11,
    "resnet18": resnet18,
    "mlp": mlp,
}


def build(
    name: str,
    *,
    channels: int,
    classes: int,
    size: int,
    width: int | None = None,
    generator: torch.Generator,
    **options: int,
) -> nn.Module:
    """A freshly initialised network of the registry on the generator's device; `width` is the published one if None.

    Raises KeyError with the known names for an unknown one, PrivsetError if the network has one width alone.
    """
    if name not in NETWORKS:
        raise KeyError(f"network {name!r} is unknown; choose from {', '.join(NETWORKS)}")
    if width is not None:
        if "width" not in inspect.signature(NETWORKS[name]).parameters:
            raise PrivsetError(f"width = {width}: {name} has one width alone; leave it out")
        options["width"] = width
    with generator.device:  # made where it will be: copies would have the host wait for the device
        network = NETWORKS[name](channels=channels, classes=classes, size=size, **options)
    return initialise(network, generator)
