"""PyTorch's SGD and Adam by their functional forms, the same to the bit.

The classes of `torch.optim` import PyTorch's compiler when they are made: seconds in each of many short jobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd


class SGD:
    """Stochastic gradient descent with momentum and weight decay (added to the gradient)."""

    def __init__(self, parameters: Iterable[Tensor], *, learning_rate: float, momentum: float = 0.0, weight_decay: float = 0.0):
        self.parameters, self.learning_rate = list(parameters), learning_rate
        self.momentum, self.weight_decay = momentum, weight_decay
        self.momenta: list[Tensor | None] = [None] * len(self.parameters)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        sgd(
            self.parameters,
            list(gradients),
            self.momenta,
            foreach=True,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def state(self) -> dict[str, Any]:
        return {"momenta": self.momenta}

    def load(self, state: dict[str, Any]) -> None:
        self.momenta = state["momenta"]


class Adam:
    """Adam (Kingma and Ba 2015), with weight decay added to the gradient."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ):
        self.parameters, self.learning_rate, self.betas = list(parameters), learning_rate, betas
        self.weight_decay = weight_decay
        self.means = [torch.zeros_like(parameter, requires_grad=False) for parameter in self.parameters]
        self.squares = [mean.clone() for mean in self.means]
        self.steps = [torch.tensor(0.0) for _ in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        adam(
            self.parameters,
            list(gradients),
            self.means,
            self.squares,
            [],
            self.steps,
            lr=self.learning_rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=1e-8,
            amsgrad=False,
            weight_decay=self.weight_decay,
            maximize=False,
        )

    def state(self) -> dict[str, Any]:
        return {"means": self.means, "squares": self.squares, "steps": self.steps}

    def load(self, state: dict[str, Any]) -> None:
        self.means, self.squares = state["means"], state["squares"]
        self.steps = [step.cpu() for step in state["steps"]]
