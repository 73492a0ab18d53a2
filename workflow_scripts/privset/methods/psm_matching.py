"""What PSM's releases and PSM's sets share: the statistics that left the vault, and images that are moved to have the same.

Used between the releases of a run (`psm_releases`) and afterwards, for the sets (`psm`). Nothing here sees private data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from privset.data.datasets import PublicFacts
from privset.evaluation import training
from privset.jobs.run import Run
from privset.networks import classifiers, optimisers

FIRST_SPC = 10
"""Images per class of the sets that the trained networks are trained on."""
AUGMENTATION = "crop_scale_rotate"
"""Of every network that is trained on the way to a set."""


@dataclass
class Statistics:
    """What left the vault, and the networks that give it a meaning."""

    random: list[nn.Sequential]
    trained: list[nn.Sequential]
    means: Tensor
    """(random networks, classes, F): noisy mean features of each class."""
    gradients: Tensor
    """(trained networks, classes, classes, F): noisy mean error times feature of the records of each class."""
    counts: Tensor
    """(classes,): noisy numbers of records."""
    start: Tensor
    """(FIRST_SPC * classes, C, H, W): the set that the last round's networks were trained on."""
    error_clip: float

    def to_tensors(self) -> dict[str, Tensor]:
        """Everything by name, for a file."""
        tensors = {
            "random": to_weights(self.random),
            "trained": to_weights(self.trained),
            "means": self.means,
            "gradients": self.gradients,
            "counts": self.counts,
            "start": self.start,
            "width": torch.tensor(self.random[0][0].out_channels),
            "error_clip": torch.tensor(self.error_clip),
        }
        return {name: tensor.detach() for name, tensor in tensors.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], facts: PublicFacts) -> Statistics:
        """The inverse of `to_tensors`."""
        width = int(tensors["width"])
        return cls(
            random=from_weights(tensors["random"], facts, width),
            trained=from_weights(tensors["trained"], facts, width),
            means=tensors["means"],
            gradients=tensors["gradients"],
            counts=tensors["counts"],
            start=tensors["start"],
            error_clip=float(tensors["error_clip"]),
        )


def to_weights(networks: list[nn.Sequential]) -> Tensor:
    """(networks, weights)."""
    flat = [nn.utils.parameters_to_vector(network.parameters()).detach() for network in networks]
    return torch.stack(flat) if flat else torch.zeros(0, 0)


def from_weights(weights: Tensor, facts: PublicFacts, width: int) -> list[nn.Sequential]:
    """The inverse of `to_weights`."""
    made = [matching_network(facts, width, torch.Generator(weights.device)) for _ in weights]
    for network, vector in zip(made, weights, strict=True):
        nn.utils.vector_to_parameters(vector, network.parameters())
    return [network.requires_grad_(False) for network in made]


def matching_network(facts: PublicFacts, width: int, generator: torch.Generator) -> nn.Sequential:
    """A fresh ConvNet, its weights fixed."""
    network = classifiers.build(
        "convnet",
        channels=facts.channels,
        classes=facts.classes,
        size=facts.size,
        generator=generator,
        width=width,
    )
    return network.requires_grad_(False)


def _raw(network: nn.Sequential, images: Tensor, precision: str) -> Tensor:
    """(N, F): what the last layer sees."""
    with training.autocast(precision, images.device):
        return network[:-1](images).float()


def features(network: nn.Sequential, images: Tensor, precision: str = "float32") -> Tensor:
    """(N, F): what the last layer sees, scaled to norm 1."""
    return F.normalize(_raw(network, images, precision), dim=1)


def error_features(network: nn.Sequential, images: Tensor, labels: Tensor, clip: float, precision: str = "float32") -> Tensor:
    """(N, classes, F): gradient of each image's cross-entropy in the last layer's weights, with the feature scaled to norm 1
    and the error, softmax minus one-hot, clipped to `clip`; so its own norm is at most `clip`."""
    raw = _raw(network, images, precision)
    error = network[-1](raw).softmax(1) - F.one_hot(labels, network[-1].out_features)
    error = error * (clip / error.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
    return error[:, :, None] * F.normalize(raw, dim=1)[:, None, :]


def start(labels: Tensor, facts: PublicFacts, run: Run) -> Tensor:
    """Images from noise, in normalised units."""
    return 0.5 * torch.randn(len(labels), *facts.shape, generator=run.generator, device=labels.device)


def optimise(
    images: Tensor,
    labels: Tensor,
    loss: Callable[[Tensor], Tensor],
    facts: PublicFacts,
    run: Run,
    *,
    iterations: int,
    learning_rate: float,
    offset: int,
    restored: dict[str, Any] | None,
    checkpoint: Callable[[dict[str, Any]], None],
) -> Tensor:
    """Adam with a cosine decay to a twentieth, on pixels that stay in their range; steps are reported from `offset` + 1 on."""
    images = images.clone().requires_grad_()
    optimiser = optimisers.Adam([images], learning_rate=learning_rate, betas=(0.9, 0.99))
    black, white = (facts.normalise(images.new_full((1, facts.channels, 1, 1), value)) for value in (0.0, 1.0))
    done = 0
    if restored:
        done = restored["iteration"]
        images.data.copy_(restored["images"])
        optimiser.load(restored["optimiser"])
    for iteration in range(done + 1, iterations + 1):
        decay = 0.05 + 0.95 * (1 + math.cos(math.pi * (iteration - 1) / iterations)) / 2
        optimiser.learning_rate = learning_rate * decay
        value = loss(images)
        optimiser.step(torch.autograd.grad(value, [images]))
        with torch.no_grad():
            images.clamp_(black, white)
        run.report(offset + iteration, value.detach())
        run.snapshot(offset + iteration, lambda: (images.detach(), labels))
        checkpoint({"iteration": iteration, "images": images.detach(), "optimiser": optimiser.state()})
    return images.detach()


def _average(labels: Tensor, classes: int) -> Tensor:
    """(classes, N): the matrix that averages rows by class."""
    one_hot = F.one_hot(labels, classes).float().T
    return one_hot / one_hot.sum(1, keepdim=True)


def feature_loss(statistics: Statistics, labels: Tensor, run: Run, *, precision: str = "float32") -> Callable[[Tensor], Tensor]:
    """Squared distance of the class means of features, at one network at random."""
    random, means = statistics.random, statistics.means
    average = _average(labels, means.shape[1])

    def loss(images: Tensor) -> Tensor:
        index = int(torch.randint(len(random), (), generator=run.generator, device=images.device))
        return (average @ features(random[index], images, precision) - means[index]).square().sum()

    return loss


def matching_loss(
    statistics: Statistics, labels: Tensor, run: Run, *, feature_share: float = 0.3, precision: str = "float32"
) -> Callable[[Tensor], Tensor]:
    """Squared distance of the class means of gradients, at one trained network at random; or that of features, with
    probability `feature_share`, and always where there are no trained networks."""
    match_features = feature_loss(statistics, labels, run, precision=precision)
    average = _average(labels, statistics.means.shape[1])

    def loss(images: Tensor) -> Tensor:
        if not statistics.trained or torch.rand((), generator=run.generator, device=images.device) < feature_share:
            return match_features(images)
        index = int(torch.randint(len(statistics.trained), (), generator=run.generator, device=images.device))
        rows = error_features(statistics.trained[index], images, labels, statistics.error_clip, precision)
        ours = (average @ rows.flatten(1)).view_as(statistics.gradients[index])
        return (ours - statistics.gradients[index]).square().sum()

    return loss
