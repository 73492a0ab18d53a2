"""Run a function of a network's weights and some tensors, compiled for the shapes it is called with.

The function may differentiate inside (twice even, for the matching step): it is first traced to plain tensor operations, which
`torch.compile` then fuses. A network's weights are an argument, so one compilation serves every network of a shape. On a GPU
the compiled function is replayed as one CUDA graph.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_COMPILED: dict[tuple, Callable[..., Any]] = {}


def run(function: Callable[..., Any], network: nn.Module, *tensors: Tensor, compile: bool, **constants: Any) -> Any:
    """`function(network, weights, *tensors, **constants)`, weights being the network's, detached, in `parameters()` order.

    With `compile` the first call for a network structure, tensor shapes and constants compiles (half a minute; later processes
    find most of it in PyTorch's own cache). The function must be pure: no random numbers, no dependence on values. Without a
    working compiler one line says so, and the function runs as it is.
    """
    weights = [parameter.detach() for parameter in network.parameters()]
    if not compile:
        return function(network, weights, *tensors, **constants)
    shapes = tuple((tuple(tensor.shape), tensor.dtype, tensor.device) for tensor in tensors)
    key = (function, repr(network), shapes, tuple(constants.items()), torch.get_num_threads())
    if key not in _COMPILED:
        _COMPILED[key] = _compile(function, network, weights, tensors, constants)
    return _COMPILED[key](network, weights, *tensors)


def _compile(
    function: Callable[..., Any],
    network: nn.Module,
    weights: list[Tensor],
    tensors: tuple[Tensor, ...],
    constants: dict[str, Any],
) -> Callable[..., Any]:
    """A callable of (network, weights, *tensors) that ignores the network."""
    from torch.fx.experimental.proxy_tensor import make_fx  # imports the compiler: seconds that other jobs need not spend

    on_gpu = tensors[0].device.type == "cuda"
    graph = make_fx(lambda weights, *tensors: function(network, weights, *tensors, **constants))(weights, *tensors)
    fused = torch.compile(graph, dynamic=False, mode="reduce-overhead" if on_gpu else None)

    def call(network: nn.Module, weights: list[Tensor], *tensors: Tensor) -> Any:
        with torch.no_grad():
            if not on_gpu:
                return fused(weights, *tensors)
            # A CUDA graph's outputs live in memory that its next replay overwrites.
            torch.compiler.cudagraph_mark_step_begin()
            return torch.utils._pytree.tree_map(torch.clone, fused(weights, *tensors))

    try:
        call(network, weights, *tensors)
    except RuntimeError as error:  # what PyTorch's compilers raise, a missing C++ compiler included
        reason = " ".join(str(error).split())[:200]
        logging.getLogger(__name__).warning("%s runs uncompiled: %s", function.__name__.strip("_"), reason)
        return lambda network, weights, *tensors: function(network, weights, *tensors, **constants)
    return call
