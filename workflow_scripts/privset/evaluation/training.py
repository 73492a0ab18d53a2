"""Train a fresh network on a set, test it on the real test images: the measure of every table.

The protocol is the PSG reference program's (`schedule` fields give its values): SGD with momentum and weight decay,
augmentation, a tenth of the learning rate after half of the epochs with a *new* optimiser (the momentum is forgotten), the
accuracy after the last epoch, and no selection of any kind. Sets too large for a thousand epochs get a stated number of SGD
steps instead; the schedule is the same in steps.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from privset import PrivsetError
from privset.data import datasets
from privset.evaluation.augment import AUGMENTATIONS
from privset.jobs.blocks import Block, Count, Positive
from privset.jobs.checkpoints import File
from privset.jobs.progress import Progress
from privset.networks import classifiers
from privset.networks.optimisers import SGD
from privset.sets import tiles
from privset.sets.arrays import Set


class Schedule(Block):
    """How a network is trained. Exactly one of `epochs` and `steps` is given."""

    epochs: Count | None = None
    """The reference's setting is 1000, and it runs one more: `epochs` + 1."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """SGD steps."""
    batch_size: Count = 256
    """Images per step, at most."""
    learning_rate: Positive = 0.01
    """A tenth of it in the second half."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Of SGD."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """"bfloat16": matrix products in bfloat16 (autocast), where the processor has instructions for them."""
    width: Annotated[int, Field(ge=4)] | None = None
    """Channels of the network's first layer (units of an MLP's), the later ones in proportion. Without it, as published."""
    augment: bool = True
    """Whether the images are transformed at random; not where a teacher gave its probabilities to the very image."""
    seeds: Count = 1
    """Networks trained on each set."""

    @model_validator(mode="after")
    def _one_length(self) -> Schedule:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        return self

    @property
    def protocol(self) -> str:
        """What tables call the schedule: "psg" if it is the reference program's, otherwise what it is."""
        if self == Schedule(epochs=1000, seeds=self.seeds):
            return "psg"
        length = f"{self.epochs:,} epochs" if self.steps is None else f"{self.steps:,} steps"
        words = [f"{length} of {self.batch_size} at {self.learning_rate:g}"]
        for name, value in (("momentum", self.momentum), ("weight decay", self.weight_decay)):
            if value != Schedule.model_fields[name.replace(" ", "_")].default:
                words.append(f"{name} {value:g}")
        words += [f"width {self.width}"] if self.width else []
        words += [] if self.augment else ["not augmented"]
        return ", ".join(words) + (f" in {self.precision}" if self.precision != "float32" else "")


def autocast(precision: str, device: torch.device):
    """The context in which forward passes run; float32 where the device has no fast bfloat16."""
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported()
    else:
        has_bfloat16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if precision == "float32" or not has_bfloat16:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    schedule: Schedule,
    *,
    augmentation: str,
    generator: torch.Generator,
    start: Callable[[int], None] = lambda total: None,
    report: Callable[[int, Tensor], None] = lambda step, loss: None,
    restore: Callable[[], dict[str, Any] | None] = lambda: None,
    checkpoint: Callable[[Callable[[], dict[str, Any]]], None] = lambda make: None,
) -> int:
    """Train `network` in place on normalised images; return the number of SGD steps.

    `checkpoint` is offered a function that makes the state after each step; `restore` gives such a state back, or None.
    """
    augment = AUGMENTATIONS[augmentation if schedule.augment else "none"]
    per_epoch = -(-len(images) // schedule.batch_size)
    if schedule.steps is not None:
        steps, drop_at = schedule.steps, schedule.steps // 2
    else:
        steps, drop_at = (schedule.epochs + 1) * per_epoch, (schedule.epochs // 2 + 2) * per_epoch

    network.train()
    start(steps)
    weights = [weight for weight in network.parameters() if weight.requires_grad]

    def optimiser(learning_rate: float) -> SGD:
        return SGD(weights, learning_rate=learning_rate, momentum=schedule.momentum, weight_decay=schedule.weight_decay)

    chosen = optimiser(schedule.learning_rate)
    batches: list[Tensor] = []
    done = 0
    if state := restore():
        done, batches, generator_state = state["step"], state["batches"], state["generator"]
        generator.set_state(generator_state.cpu())
        with torch.no_grad():
            for weight, saved in zip(weights, state["weights"], strict=True):
                weight.copy_(saved)
        chosen = optimiser(schedule.learning_rate / (10 if done > drop_at else 1))
        chosen.load(state["optimiser"])

    def state_after(step: int) -> dict[str, Any]:
        return {
            "step": step,
            "weights": [weight.detach() for weight in weights],
            "batches": batches,
            "optimiser": chosen.state(),
            "generator": generator.get_state(),
        }

    for step in range(done + 1, steps + 1):
        if step == drop_at + 1:
            chosen = optimiser(schedule.learning_rate / 10)
        if not batches:
            order = torch.randperm(len(images), generator=generator, device=images.device)
            batches = list(order.split(schedule.batch_size))
        batch = batches.pop(0)
        augmented = augment(images[batch], generator)
        with autocast(schedule.precision, images.device):
            loss = F.cross_entropy(network(augmented), labels[batch])
        chosen.step(torch.autograd.grad(loss, weights))
        report(step, loss.detach())
        checkpoint(functools.partial(state_after, step))
    return steps


def predict(network: nn.Module, images: Tensor, *, precision: str, chunk: int | None = None) -> Tensor:
    """Predicted classes (N,) of normalised images."""
    if chunk is None:  # what stays in a processor's cache; a GPU wants more at once
        chunk = 50 if images.device.type == "cpu" else 2000
    network.eval()
    with torch.inference_mode(), autocast(precision, images.device):
        return torch.cat([network(part).argmax(1) for part in images.split(chunk)])


def tensors(made: Set, test: Sequence[np.ndarray], known: datasets.Dataset, device: str) -> list[Tensor]:
    """What `evaluate` takes first: a set's training images and labels, and the test images and labels, images normalised."""
    labels = made.labels if made.soft_labels is None else made.soft_labels
    images, labels, test_images, test_labels = (torch.from_numpy(a).to(device) for a in (made.images, labels, *test))
    facts = datasets.public_facts(known, records=len(made))
    if made.soft_labels is None:
        labels = tiles.unpack_labels(labels, made.tiles)
    return [tiles.unpack(facts.normalise(images), made.tiles), labels, facts.normalise(test_images), test_labels]


def evaluate(
    images: Tensor,
    labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    *,
    network: str,
    classes: int,
    schedule: Schedule,
    augmentation: str,
    generator: torch.Generator,
    **hooks: Callable,
) -> tuple[dict[str, float], Tensor]:
    """One run: a fresh network trained on the set; its test accuracy in percent with what it cost, and its predictions.

    All images are (N, C, H, W) in normalised units, labels (N,) int64, on one device. Initial weights, order and
    augmentation come from `generator`. `hooks` are those of `train`.
    """
    begin = time.monotonic()
    shape = {"channels": images.shape[1], "classes": classes, "size": images.shape[-1]}
    model = classifiers.build(network, **shape, width=schedule.width, generator=generator)
    steps = train(model, images, labels, schedule, augmentation=augmentation, generator=generator, **hooks)
    trained = time.monotonic()
    predicted = predict(model, test_images, precision=schedule.precision)
    accuracy = 100 * (predicted == test_labels).double().mean().item()
    if not torch.isfinite(next(model.parameters())).all():
        raise PrivsetError(f"training {network} diverged (weights are not finite); lower evaluation learning_rate")
    result = {
        "test_accuracy": accuracy,
        "steps": steps,
        "train_seconds": trained - begin,
        "test_seconds": time.monotonic() - trained,
    }
    return result, predicted


def repeat(
    images: Tensor,
    labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    *,
    schedules: Mapping[str, Schedule],
    classes: int,
    augmentation: str,
    generator: Callable[[str, int], torch.Generator],
    progress: Callable[[str, int], Progress],
    checkpoint: File,
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """`evaluate` each network by its schedule, with the generators of seeds 0, 1, ... of that; one row per run, and each
    network's predictions (seeds, test images) uint8.

    Finished runs and the state of the one under way go to the checkpoint; an interrupted job ends with the same numbers.
    """
    todo = [(network, seed) for network, schedule in schedules.items() for seed in range(schedule.seeds)]
    saved = checkpoint.load(images.device) or {"runs": [], "predictions": [], "training": None}
    runs, predictions, training = saved["runs"], [part.cpu() for part in saved["predictions"]], saved["training"]
    if runs or training:
        checkpoint.log(f"resuming from {checkpoint.path}, run {len(runs) + 1}/{len(todo)}")

    def save(make: Callable[[], dict[str, Any] | None]) -> None:
        if checkpoint.due():
            checkpoint.save({"runs": runs, "predictions": predictions, "training": make()})

    for network, seed in todo[len(runs) :]:
        schedule, shown = schedules[network], progress(network, seed)
        row, predicted = evaluate(
            images,
            labels,
            test_images,
            test_labels,
            network=network,
            classes=classes,
            schedule=schedule,
            augmentation=augmentation,
            generator=generator(network, seed),
            start=shown.start,
            report=shown.report,
            restore=lambda state=training: state,
            checkpoint=save,
        )
        training = None
        runs.append({"network": network, "network_seed": seed, "protocol": schedule.protocol, **row})
        predictions.append(predicted.cpu().to(torch.uint8))
        save(lambda: None)
        checkpoint.log(f"{shown.title}: test accuracy {row['test_accuracy']:.2f} %")
    by_network = {name: [said for (of, _), said in zip(todo, predictions, strict=True) if of == name] for name in schedules}
    return runs, {name: torch.stack(said) for name, said in by_network.items()}
