"""Per-record gradients of a loss, clipped and summed: the inner part of DP-SGD (Abadi et al. 2016, Algorithm 1).

One forward and one backward pass give each layer's input and the gradient at its output; a record's parameter gradient
follows from these two by one small matrix product per layer. Records are processed in micro-batches that stay in the
processor's cache, so that memory does not grow with the batch.

Called by the vault alone: what this module returns is not yet private.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from privset.networks import compiled


def _columns(layer: nn.Conv2d, images: Tensor) -> Tensor:
    """The patches that a convolution sees, (B, channels * kernel, positions): `unfold` as one strided copy, which is several
    times as fast on a CPU."""
    (rows, columns), (down, right), (apart, across) = layer.kernel_size, layer.stride, layer.dilation
    padded = F.pad(images, (layer.padding[1],) * 2 + (layer.padding[0],) * 2)
    n, channels, height, width = padded.shape
    height, width = (height - apart * (rows - 1) - 1) // down + 1, (width - across * (columns - 1) - 1) // right + 1
    s = padded.stride()
    patches = padded.as_strided(
        (n, channels, rows, columns, height, width),
        (s[0], s[1], s[2] * apart, s[3] * across, s[2] * down, s[3] * right),
    )
    return patches.reshape(n, channels * rows * columns, height * width)


def _conv2d(layer: nn.Conv2d, inputs: Tensor, outgrads: Tensor) -> list[Tensor]:
    columns = _columns(layer, inputs)
    outgrads = outgrads.flatten(2)
    weight = torch.bmm(outgrads, columns.transpose(1, 2))
    return [weight] if layer.bias is None else [weight, outgrads.sum(2)]


def _linear(layer: nn.Linear, inputs: Tensor, outgrads: Tensor) -> list[Tensor]:
    weight = outgrads[:, :, None] * inputs[:, None, :]
    return [weight] if layer.bias is None else [weight, outgrads]


def _group_norm(layer: nn.GroupNorm, inputs: Tensor, outgrads: Tensor) -> list[Tensor]:
    normalised = F.group_norm(inputs, layer.num_groups, eps=layer.eps)
    return [(outgrads * normalised).flatten(2).sum(2), outgrads.flatten(2).sum(2)]


_RULES = {nn.Conv2d: _conv2d, nn.Linear: _linear, nn.GroupNorm: _group_norm}
"""Layer type -> per-record gradients of its parameters, (B, ...) each, in the order of `layer.parameters()`."""


@contextmanager
def _recorded(layers: list[nn.Module]) -> Iterator[dict[nn.Module, tuple[Tensor, Tensor]]]:
    """While open, every call of a layer leaves (input, output) under the layer."""
    record: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if layer in record:
            raise ValueError(f"a {type(layer).__name__} is used twice in one pass; per-record gradients need it once")
        record[layer] = (inputs[0].detach(), output)

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


Loss = Callable[[Tensor, Tensor], Tensor]
"""Of a network's outputs (B, ...) and the labels (B,): (B,), each record's from its own alone."""


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """(B,)."""
    return F.cross_entropy(outputs, labels, reduction="none")


def _backward(
    network: nn.Module, inputs: Tensor, labels: Tensor, weights: Sequence[Tensor], loss: Loss
) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Each layer with parameters, what it was given, and the gradient of each record's loss at its output.

    Raises TypeError for a layer with parameters that is not Conv2d, Linear or GroupNorm (batch norm mixes records).
    """
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise TypeError(f"{type(layer).__name__} mixes records; there is no gradient of one of them")
    layers = [layer for layer in network.modules() if next(layer.parameters(recurse=False), None) is not None]
    for layer in layers:
        if type(layer) not in _RULES or getattr(layer, "groups", 1) != 1:
            raise TypeError(f"no per-record gradient for {layer}; the rules are {[rule.__name__ for rule in _RULES]}")
    # Only gradients at outputs are wanted: with detached weights autograd skips the summed weight gradients.
    with _recorded(layers) as record, torch.enable_grad():
        named = dict(zip((name for name, _ in network.named_parameters()), weights, strict=True))
        outputs = torch.func.functional_call(network, named, (inputs.detach().requires_grad_(),))
        total = loss(outputs, labels).sum()
        outgrads = torch.autograd.grad(total, [record[layer][1] for layer in layers])
    return [(layer, record[layer][0], outgrad) for layer, outgrad in zip(layers, outgrads, strict=True)]


def per_record_gradients(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    weights: Sequence[Tensor] | None = None,
    loss: Loss = cross_entropy,
) -> list[Tensor]:
    """Each record's own gradient of its loss, one (B, numel) tensor per parameter, in `parameters()` order.

    `weights`, in that order, are used instead of the network's own if given. Raises TypeError as `_backward`.
    """
    weights = [weight.detach() for weight in (network.parameters() if weights is None else weights)]
    by_parameter: dict[int, Tensor] = {}
    with torch.no_grad():
        for layer, given, outgrad in _backward(network, inputs, labels, weights, loss):
            gradients = _RULES[type(layer)](layer, given, outgrad)
            for parameter, gradient in zip(layer.parameters(recurse=False), gradients, strict=True):
                by_parameter[id(parameter)] = gradient.flatten(1)
    return [by_parameter[id(parameter)] for parameter in network.parameters()]


def released(network: nn.Module, *, weights_only: bool) -> list[nn.Parameter]:
    """The parameters whose gradients are released: all, or only the matrices and kernels (no biases, no norm layers)."""
    return [parameter for parameter in network.parameters() if parameter.ndim > 1 or not weights_only]


def _factors(norms: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Which rows of these float64 norms (B,) are finite, and the factors that cut each to at most `clip`; 0 for the others.

    With certainty: the norm of float32 numbers, taken in float64, is wrong by less than 2^-28 of itself up to 2^24 coordinates,
    and the factor is smaller by that.
    """
    finite = torch.isfinite(norms)
    return finite, torch.where(finite, (clip * (1 - 2.0**-28) / norms).clamp(max=1.0), 0.0)


def cut(rows: Tensor, clip: float, *, look: bool) -> tuple[Tensor, Tensor]:
    """The rows (B, n) in float64, and the factors (B,) that cut each to L2 norm at most `clip`.

    A row with NaN or infinity is zeros instead, and harms no other; with `look` its absence is looked for and saves a pass, which
    a compiled function cannot do and a GPU would have to wait for.
    """
    exact = rows.double()
    finite, factors = _factors(torch.linalg.vector_norm(exact, dim=1), clip)
    if not look or not finite.all():
        exact = torch.where(finite[:, None], exact, 0.0)
    return exact, factors


def _clipped_sum(
    network: nn.Module,
    weights: Sequence[Tensor],
    images: Tensor,
    labels: Tensor,
    present: Tensor,
    *,
    clip: float,
    loss: Loss,
    weights_only: bool,
    look: bool,
) -> Tensor:
    """One micro-batch of `clipped_gradient_sum`; `present` (B,) is 1 for a record and 0 for padding."""
    if only_linear(network):
        return _clipped_linear_sum(network, weights, images, labels, present, clip=clip, loss=loss, weights_only=weights_only)
    gradients = [
        gradient
        for gradient, weight in zip(
            per_record_gradients(network, images, labels, weights=weights, loss=loss), weights, strict=True
        )
        if weight.ndim > 1 or not weights_only
    ]
    if look:
        rows, factors = cut(torch.cat(gradients, dim=1), clip, look=True)
        return (factors * present) @ rows
    # As `cut` does, in a form that a compiler fuses: each gradient is read twice, and nothing of its size is written.
    finite, factors = _factors(sum(gradient.double().square().sum(1) for gradient in gradients).sqrt(), clip)
    scale = (factors * present)[:, None]
    return torch.cat([torch.where(finite[:, None], part.double() * scale, 0.0).sum(0) for part in gradients])


def only_linear(network: nn.Module) -> bool:
    """Whether all parameters are of linear layers, so that no record's gradient need be written down."""
    owners = [layer for layer in network.modules() if next(layer.parameters(recurse=False), None) is not None]
    return all(type(layer) is nn.Linear for layer in owners)


def _clipped_linear_sum(
    network: nn.Module,
    weights: Sequence[Tensor],
    inputs: Tensor,
    labels: Tensor,
    present: Tensor,
    *,
    clip: float,
    loss: Loss,
    weights_only: bool,
) -> Tensor:
    """The same for linear layers: a record's gradient there is the outer product g a' (and g for the bias), of norm |g| |a|, and
    the sum of the clipped ones is one product of matrices (Goodfellow 2015). In float64, in which each product of two float32
    numbers is exact, and in which the proof of `noise` has the sum."""
    layers = []
    for layer, given, outgrad in _backward(network, inputs, labels, weights, loss):
        if given.ndim != 2:
            raise TypeError(f"{layer} is given {tuple(given.shape)}; a record's gradient there is known for (B, features) alone")
        layers.append((layer, given.double(), outgrad.double()))
    squares = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
    for layer, given, outgrad in layers:
        biased = 1.0 if layer.bias is not None and not weights_only else 0.0
        squares = squares + outgrad.square().sum(1) * (given.square().sum(1) + biased)
    finite, factors = _factors(squares.sqrt(), clip)
    scale = (factors * present)[:, None]
    by_parameter: dict[int, Tensor] = {}
    for layer, given, outgrad in layers:
        kept = torch.where(finite[:, None], outgrad * scale, 0.0)
        by_parameter[id(layer.weight)] = kept.T @ torch.where(finite[:, None], given, 0.0)
        if layer.bias is not None:
            by_parameter[id(layer.bias)] = kept.sum(0)
    return torch.cat([by_parameter[id(parameter)].flatten() for parameter in released(network, weights_only=weights_only)])


def largest_micro_batch(network: nn.Module, size: int, device: torch.device) -> int:
    """Records at a time for gradients of `size` numbers: what fits the cores' caches; GPUs and linear layers want more."""
    if device.type != "cpu":
        return 1024
    if only_linear(network):
        return 256
    return max(16 if size > 100_000 else 32, 16 * torch.get_num_threads())


Inputs = Callable[[Tensor, Tensor], Tensor]
"""Of images (B, C, H, W) and labels (B,): what a network is given, (B, ...), each record's from its own alone."""


def plain(images: Tensor, labels: Tensor) -> Tensor:
    """The images as they are."""
    return images


def least_rows(micro_batch: int, device: torch.device) -> int:
    """To which a smaller micro-batch is filled up."""
    return min(32, micro_batch // 2) if device.type == "cpu" else micro_batch // 2


def clipped_gradient_sum(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    clip: float,
    present: Tensor | None = None,
    loss: Loss = cross_entropy,
    weights_only: bool = False,
    compile: bool = False,
    micro_batch: int | None = None,
) -> Tensor:
    """Sum over records of their gradients, each cut to L2 norm at most `clip` over all released parameters together.

    Returns one flat float64 vector in `parameters()` order (zeros for an empty batch); `weights_only` leaves the one-dimensional
    parameters out, of the norm too. `present` (B,), if given, is 0 for rows that are padding and do not count.

    The gradients themselves are float32. That a record's is the same to the bit whoever else is in its micro-batch, and in
    whichever place, holds for micro-batches of 8 rows and more per thread (a unit test looks), so none is smaller.
    """
    size = sum(parameter.numel() for parameter in released(network, weights_only=weights_only))
    if micro_batch is None:
        micro_batch = largest_micro_batch(network, size, images.device)
    if present is None:
        present = images.new_ones(len(images))
    parts = max(1, -(-len(images) // micro_batch))
    padded = parts * micro_batch if compile else max(len(images), least_rows(micro_batch, images.device))  # compiled: one shape
    if missing := padded - len(images):
        images, labels, present = (
            torch.cat([part, part.new_zeros(missing, *part.shape[1:])]) for part in (images, labels, present)
        )
    total = torch.zeros(size, device=images.device, dtype=torch.float64)
    options = {"clip": clip, "loss": loss, "weights_only": weights_only, "look": images.device.type == "cpu" and not compile}
    for part in zip(*(tensor.tensor_split(parts) for tensor in (images, labels, present)), strict=True):
        total += compiled.run(_clipped_sum, network, *part, compile=compile, **options)
    return total
