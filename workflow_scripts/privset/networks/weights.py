"""Fresh weights, from an explicit generator and never from the global one."""

from __future__ import annotations

import math

import torch
from torch import nn


def initialise(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draw every weight afresh, by PyTorch's default rule for each layer, from `generator` (on the weights' device).

    Convolutions and linear layers: weight and bias uniform on +-1/sqrt(fan-in), where a transposed convolution's fan-in is, as in
    PyTorch, that of its output side. Norm layers: weight 1, bias 0. Embeddings: normal.
    """
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                layer.weight.uniform_(-bound, bound, generator=generator)
                if layer.bias is not None:
                    layer.bias.uniform_(-bound, bound, generator=generator)
            elif isinstance(layer, (nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d)):
                layer.reset_parameters()
            elif isinstance(layer, nn.Embedding):
                layer.weight.normal_(generator=generator)
            elif next(layer.parameters(recurse=False), None) is not None:
                raise TypeError(f"no initialisation rule for {type(layer).__name__}; add one to networks/weights.py")
    return network
