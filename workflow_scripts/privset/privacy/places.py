"""Whether a record's gradient depends on its place in a batch, which no sensitivity could count."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from privset import PrivsetError
from privset.data.datasets import PublicFacts
from privset.privacy.gradients import (
    Inputs,
    Loss,
    clipped_gradient_sum,
    cross_entropy,
    largest_micro_batch,
    least_rows,
    plain,
    released,
)

AT_ONCE = 64
"""Images that the vault shows a function at a time: as many as were looked at."""
_PLACES: dict[tuple, bool] = {}


def _waves(count: int, facts: PublicFacts, device: torch.device) -> Tensor:
    """Public images."""
    numbers = torch.arange(count * math.prod(facts.shape), device=device, dtype=torch.float32)
    return (numbers * math.sqrt(2)).sin().view(count, *facts.shape)


def depends_on_place(
    network: nn.Module,
    facts: PublicFacts,
    device: torch.device,
    *,
    inputs: Inputs = plain,
    loss: Loss = cross_entropy,
    weights_only: bool = False,
    compile: bool,
) -> bool:
    """Whether a record's gradient, clipped or not, has other bits in another place of a micro-batch, or in a smaller one:
    libraries compute the last rows of a product otherwise for some sizes, and a loss may mix records. Then removing a record
    would change what all others contribute.

    Looked at with images of waves, which are public, by the code that will run, once for a structure of network, and the code of
    inputs and loss.
    """
    code = (getattr(function, "__code__", function) for function in (inputs, loss))
    key = (repr(network), facts.shape, *code, device.type, torch.get_num_threads(), weights_only, compile)
    if key not in _PLACES:
        numbers = sum(parameter.numel() for parameter in released(network, weights_only=weights_only))
        size = largest_micro_batch(network, numbers, device) if device.type == "cpu" else 64
        images = _waves(size, facts, device)
        record, others = images[:1], images[1:]
        labels = torch.zeros(size, dtype=torch.int64, device=device)
        places = [
            (rows, place)
            for rows in ((size,) if compile else (size, least_rows(size, device)))
            for place in (0, 1, rows // 2, rows - 1)
        ]
        differs = False
        for clip in (1.0, 1e30):
            seen = [
                clipped_gradient_sum(
                    network,
                    inputs(torch.cat([others[:place], record, others[place : rows - 1]]), labels[:rows]),
                    labels[:rows],
                    clip=clip,
                    loss=loss,
                    present=(torch.arange(rows, device=device) == place).to(images),
                    weights_only=weights_only,
                    compile=compile,
                    micro_batch=size,
                )
                for rows, place in places
            ]
            differs = differs or any(not torch.equal(seen[0], other) for other in seen[1:])
        _PLACES[key] = differs
    return _PLACES[key]


def check_function(function: Callable[[Tensor], Tensor], facts: PublicFacts, device: torch.device) -> None:
    """Raises PrivsetError if what a function makes of an image has other bits beside other images, or in another place of up to
    `AT_ONCE`. Looked at anew each time: two closures of one code may be two functions."""
    record, *others = _waves(AT_ONCE, facts, device).split(1)
    alone = function(record)
    if any(
        not torch.equal(alone, function(torch.cat([*others[:place], record, *others[place : rows - 1]]))[place : place + 1])
        for rows in (AT_ONCE, AT_ONCE - 1, AT_ONCE // 2 + 1)
        for place in (0, 1, rows // 2, rows - 1)
    ):
        raise PrivsetError(
            "on this machine what the records are turned into depends on who else is there, which no sensitivity could count"
        )


def check_places(
    network: nn.Module,
    facts: PublicFacts,
    device: torch.device,
    *,
    inputs: Inputs,
    loss: Loss,
    weights_only: bool,
    compile: bool,
) -> None:
    """Raises PrivsetError for a network, inputs or a loss with `depends_on_place`."""
    if depends_on_place(network, facts, device, inputs=inputs, loss=loss, weights_only=weights_only, compile=compile):
        weights = sum(parameter.numel() for parameter in released(network, weights_only=weights_only))
        raise PrivsetError(
            f"{type(network).__name__} with {weights:,} weights: on this machine a record's gradient depends on its "
            "place in the batch or on who else is there, which the sensitivity cannot count; choose a width that is a "
            "multiple of 16, and inputs and a loss that take each record by itself"
        )
