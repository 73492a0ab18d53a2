"""Unrolled training: the loss of a network on other images after training on a set, as a function of the set's pixels.

The objective of dataset distillation (Wang et al. 2018); the gradient goes through the SGD steps themselves (Maclaurin, Duvenaud
and Adams, ICML 2015), through the last few alone, at a network of random age.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 10
"""SGD steps that the gradient goes through."""
LONGEST = 300
"""Steps before those, at most. The logarithm of their number is uniform: sets are judged by fresh and by converged networks."""
LEARNING_RATE = 0.03
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
BATCH = 250
"""Targets that the loss is taken on."""


def loss(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    targets: Tensor,
    target_labels: Tensor,
    *,
    augment: Callable[[Tensor, torch.Generator], Tensor],
    generator: torch.Generator,
) -> Tensor:
    """Cross-entropy of random targets at `network` after training on all the images at once, differentiable in `images`.

    Images and targets are (N, C, H, W) and (M, C, H, W) in normalised units with labels (N,) and (M,), the network's weights
    are where the training begins and stay as they are. Both sides are augmented. Returns a scalar.
    """
    names = [name for name, _ in network.named_parameters()]

    def logits(weights: list[Tensor], inputs: Tensor) -> Tensor:
        named = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(network, named, (augment(inputs, generator),))

    def step(
        weights: list[Tensor], momenta: list[Tensor], inputs: Tensor, *, create_graph: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        value = F.cross_entropy(logits(weights, inputs), labels)
        gradients = torch.autograd.grad(value, weights, create_graph=create_graph)
        momenta = [
            MOMENTUM * momentum + gradient + WEIGHT_DECAY * weight
            for momentum, gradient, weight in zip(momenta, gradients, weights, strict=True)
        ]
        weights = [weight - LEARNING_RATE * momentum for weight, momentum in zip(weights, momenta, strict=True)]
        return weights, momenta

    weights = [weight.detach() for weight in network.parameters()]
    momenta = [torch.zeros_like(weight) for weight in weights]
    age = int(math.exp(math.log(LONGEST) * torch.rand((), generator=generator, device=images.device).item()))
    for _ in range(age):
        weights, momenta = step([w.detach().requires_grad_() for w in weights], momenta, images.detach(), create_graph=False)
    weights, momenta = [w.detach().requires_grad_() for w in weights], [m.detach() for m in momenta]
    for _ in range(STEPS):
        weights, momenta = step(weights, momenta, images, create_graph=True)
    batch = torch.randint(len(targets), (BATCH,), generator=generator, device=images.device)
    return F.cross_entropy(logits(weights, targets[batch]), target_labels[batch])
