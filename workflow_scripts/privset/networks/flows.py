"""A normalizing flow over the lowest frequencies of images, conditioned on their class: affine couplings (Dinh, Sohl-Dickstein,
Bengio, ICLR 2017, "RealNVP"), here of plain linear layers, for which gradients record by record are cheap.

What comes before the flow is public: an orthonormal cosine transform, and a unit for each frequency by a law of natural images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from privset.networks.cosine_transform import lowest, waves


class Frequencies(nn.Module):
    """The lowest coefficients of the cosine transform of each channel, min(count, size^2) of them, in public units.

    Images are in normalised units, where a pixel's variance is about 1. The unit of coefficient (i, j) is the standard deviation
    that it has if all coefficients together have the variance of the pixels, and power falls as 1 / (16 + i^2 + j^2): as in
    natural images (Field 1987) for details, and level for what is larger than a quarter of the image. No record is looked at.
    """

    def __init__(self, shape: Sequence[int], count: int):
        super().__init__()
        self.shape = tuple(shape)
        size = self.shape[-1]
        pairs, basis = lowest(size, count), waves(size, count)
        power = torch.tensor([1 / (16 + i * i + j * j) for i, j in lowest(size, size**2)], dtype=torch.float64)
        units = (power * size**2 / power.sum()).sqrt()[: len(pairs)]
        self.features = self.shape[0] * len(pairs)
        self.register_buffer("analysis", (basis / units).float())
        self.register_buffer("synthesis", (basis * units).T.float())

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W), or flat, to (B, features), channel by channel."""
        return (images.reshape(len(images), self.shape[0], -1) @ self.analysis).flatten(1)

    def inverse(self, coefficients: Tensor) -> Tensor:
        """(B, features) to (B, C, H, W): all higher frequencies are zero."""
        return (coefficients.reshape(len(coefficients), self.shape[0], -1) @ self.synthesis).view(-1, *self.shape)


def bounded(raw: Tensor) -> Tensor:
    """Log-scales within +-2: no layer stretches by more than e^2, whatever noise its weights have taken up."""
    return 2 * (raw / 2).tanh()


class Coupling(nn.Module):
    """Shifts and scales half of the coordinates by what a small network makes of the other half and the class.

    Coupling k parts them by a binary digit of their places, the one numbered k modulo the number of digits; in the next round
    the halves change roles.
    """

    def __init__(self, *, features: int, classes: int, hidden: int, k: int):
        super().__init__()
        turn, which = divmod(k, max(1, (features - 1).bit_length()))
        moves = ((torch.arange(features) >> which) & 1) != turn % 2
        order = moves.int().argsort(stable=True)
        self.kept = features - int(moves.sum())
        self.register_buffer("order", order)
        self.register_buffer("back", order.argsort())
        self.first = nn.Linear(self.kept + classes, hidden)
        self.last = nn.Linear(hidden, 2 * (features - self.kept))

    def halves(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The coordinates that stay, those that move, and the latter's shifts and log-scales."""
        kept, moved = x[:, self.order].tensor_split([self.kept], dim=1)
        shift, raw = self.last(F.silu(self.first(torch.cat([kept, condition], dim=1)))).chunk(2, dim=1)
        return kept, moved, shift, bounded(raw)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(B, features) and (B, classes) to (B, features) and the logarithm of the Jacobian's determinant, (B,)."""
        kept, moved, shift, log_scale = self.halves(x, condition)
        return torch.cat([kept, (moved + shift) * log_scale.exp()], dim=1)[:, self.back], log_scale.sum(1)

    def inverse(self, z: Tensor, condition: Tensor) -> Tensor:
        kept, moved, shift, log_scale = self.halves(z, condition)
        return torch.cat([kept, moved * (-log_scale).exp() - shift], dim=1)[:, self.back]


class ConditionalFlow(nn.Module):
    """A density of vectors for each class: a mean and a scale of each coordinate for each class, then couplings."""

    def __init__(self, *, features: int, classes: int, hidden: int, couplings: int):
        super().__init__()
        self.features = features
        self.base = nn.Linear(classes, 2 * features, bias=False)
        layers = (Coupling(features=features, classes=classes, hidden=hidden, k=k) for k in range(couplings))
        self.couplings = nn.ModuleList(layers)

    @torch.no_grad()
    def become_identity(self) -> None:
        """Last layers of zero: vectors of any class are standard normals."""
        for layer in (self.base, *(coupling.last for coupling in self.couplings)):
            for parameter in layer.parameters():
                parameter.zero_()

    def encode(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(B, features) and (B, classes) to codes (B, features) and the logarithm of the Jacobian's determinant, (B,)."""
        shift, raw = self.base(condition).chunk(2, dim=1)
        log_scale = bounded(raw)
        z, total = (x + shift) * log_scale.exp(), log_scale.sum(1)
        for coupling in self.couplings:
            z, more = coupling(z, condition)
            total = total + more
        return z, total

    def decode(self, z: Tensor, condition: Tensor) -> Tensor:
        """The inverse of `encode`."""
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z, condition)
        shift, raw = self.base(condition).chunk(2, dim=1)
        return z * (-bounded(raw)).exp() - shift

    def log_density(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B,) in nats, codes being standard normals."""
        z, log_determinant = self.encode(x, condition)
        return log_determinant - z.square().sum(1) / 2 - self.features / 2 * math.log(2 * math.pi)


class ImageFlow(nn.Module):
    """A `ConditionalFlow` over the `Frequencies` of images (C, H, W).

    A class is `class_scale` at its place and 0 elsewhere. A weight's gradient is proportional to what the weight multiplies, so
    the larger that is beside the coefficients, of norm about sqrt(features), the faster the classes are told apart.
    """

    def __init__(self, *, shape: Sequence[int], classes: int, class_scale: float, coefficients: int, hidden: int, couplings: int):
        super().__init__()
        self.classes, self.class_scale = classes, class_scale
        self.frequencies = Frequencies(shape, coefficients)
        self.flow = ConditionalFlow(features=self.frequencies.features, classes=classes, hidden=hidden, couplings=couplings)

    def labelled(self, images: Tensor, labels: Tensor) -> Tensor:
        """(B, C, H, W) in normalised units and (B,) to what `forward` is given, (B, C * H * W + classes)."""
        return torch.cat([images.flatten(1), self.condition(labels).to(images)], dim=1)

    def condition(self, labels: Tensor) -> Tensor:
        """(B,) to (B, classes)."""
        return self.class_scale * F.one_hot(labels, self.classes)

    def forward(self, labelled: Tensor) -> Tensor:
        """(B,) log-densities of the coefficients."""
        pixels, condition = labelled.tensor_split([labelled.shape[1] - self.classes], dim=1)
        return self.flow.log_density(self.frequencies(pixels), condition)

    @torch.no_grad()
    def images(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Codes (B, features) and labels (B,) to (B, C, H, W) in normalised units."""
        return self.frequencies.inverse(self.flow.decode(codes, self.condition(labels).to(codes)))
