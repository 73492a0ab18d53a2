"""A classifier trained with DP-SGD (Abadi et al. 2016) on classes that arrive task by task, without replay.

The baseline of PSG's continual learning (reference program, continual_learning/main_dpsgd.py). It makes no set; what it
releases is the network's weights, as they are after each task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from privset.data import tasks
from privset.data.datasets import Dataset, PublicFacts
from privset.jobs import streams
from privset.jobs.blocks import Block, Count, Positive, parse
from privset.jobs.rows import Method
from privset.jobs.run import Run
from privset.networks import classifiers
from privset.privacy.ledger import Asked, rate_of
from privset.privacy.vault import Vault

METHOD = Method(title="DP-SGD classifier", family="classifier", releases="dpsgd", tasks=True)


class ReleaseConfig(Block):
    """The defaults are the reference program's."""

    epochs: Count = 5
    """Of 1 / sampling rate steps each, rounded down, for every task."""
    batch_size: Count = 256
    """Expected size of a Poisson batch."""
    clip: Positive = 0.1
    """L2 clip of a record's gradient over all parameters."""
    learning_rate: Positive = 0.01
    """Of plain SGD."""
    width: Count = 128
    """Channels of the ConvNet."""
    compile: bool = False
    """Compile the private step (`compiled.run`)."""


@dataclass
class Weights:
    """Every parameter by its name, (tasks, *shape): as it was after each task."""

    tensors: dict[str, Tensor]

    def to_tensors(self) -> dict[str, Tensor]:
        """Everything by name, for a file."""
        return self.tensors


def networks(tensors: Mapping[str, Tensor], config: Mapping[str, Any], facts: Dataset | PublicFacts) -> list[nn.Module]:
    """The classifier as it was after each task, from its weights by name and the block that it was trained with."""
    stacked = next(iter(tensors.values()))
    made = []
    for task in range(len(stacked)):
        network = build(parse(ReleaseConfig, config, "dpsgd"), facts, torch.Generator(stacked.device))
        network.load_state_dict({name: values[task] for name, values in tensors.items()})
        made.append(network)
    return made


def whole(arrays: Mapping[str, Any], config: ReleaseConfig) -> bool:
    """Whether a file has the weights of this network after each task and no others."""
    facts = PublicFacts(records=1, classes=len(tasks.ORDER), channels=1, size=28, mean=(0.0,), std=(1.0,))
    narrow = build(config.model_copy(update={"width": 1}), facts, torch.Generator())
    if set(arrays) != {name for name, _ in narrow.named_parameters()}:
        return False
    lengths = {len(array) for array in arrays.values()}
    return lengths == {len(tasks.ORDER) // tasks.PER_TASK} and arrays["0.weight"].shape[1] == config.width


def _rate(config: ReleaseConfig, records: int) -> float:
    """A task with fewer records than a batch has them all in each."""
    return rate_of(min(config.batch_size, records), records)


def asks(config: ReleaseConfig, records: Callable[[tuple[int, ...] | None], int]) -> list[Asked]:
    """Of the records of each task, a gradient per step."""
    made = []
    for part in tasks.sequence(len(tasks.ORDER)):
        rate = _rate(config, records(part))
        count = config.epochs * int(1 / rate)
        made.append(Asked(mechanism="gradient_mean", sensitivity=config.clip, count=count, sampling_rate=rate, part=part))
    return made


def build(config: ReleaseConfig, facts: Dataset | PublicFacts, generator: torch.Generator) -> nn.Module:
    """The network as it is before the first task."""
    return classifiers.build(
        "convnet",
        channels=facts.channels,
        classes=facts.classes,
        size=facts.size,
        width=config.width,
        generator=generator,
    )


def release(vault: Vault, config: ReleaseConfig, run: Run) -> Weights:
    """Train the network on one task after another."""
    network = build(config, vault.facts, run.generator)
    weights = [weight.detach() for weight in network.parameters()]

    def set_weights(saved: list[Tensor]) -> None:
        for weight, value in zip(weights, saved, strict=True):
            weight.copy_(value)

    def task(classes: tuple[int, ...], kept: list[list[Tensor]], run: Run) -> list[list[Tensor]]:
        part = vault.part(classes)
        sampling_rate = _rate(config, part.facts.records)
        steps = config.epochs * int(1 / sampling_rate)
        noise_multiplier = part.ledger.calibrate(sampling_rate=sampling_rate, releases=steps)
        run.start(steps)
        state = run.restore() or {"step": 0, "weights": kept[-1] if kept else [weight.clone() for weight in weights]}
        set_weights(state["weights"])
        for step in range(state["step"] + 1, steps + 1):
            gradients = part.gradient_mean(
                network,
                sampling_rate=sampling_rate,
                clip=config.clip,
                noise_multiplier=noise_multiplier,
                compile=config.compile,
            )
            torch._foreach_add_(weights, gradients, alpha=-config.learning_rate)
            run.report(step, sum(gradient.square().sum() for gradient in gradients).sqrt())  # no loss ever leaves the vault
            run.checkpoint({"step": step, "weights": weights})
        return [*kept, [weight.clone() for weight in weights]]

    kept = streams.over_tasks(run, tasks.sequence(vault.facts.classes), task, [])
    names = [name for name, _ in network.named_parameters()]
    return Weights({name: torch.stack(values) for name, values in zip(names, zip(*kept, strict=True), strict=True)})
