"""PSM, private statistics matching: a few Gaussian releases over all records, then images whose own statistics are those.

The releases are in `psm_releases`. This is the rest, post-processing: a set of any size, as often as one likes, costs no further
privacy. docs/psm.md is the method section: sensitivities, composition, related work.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from privset import PrivsetError
from privset.data.datasets import PublicFacts
from privset.evaluation.augment import AUGMENTATIONS
from privset.jobs.blocks import Block, Count, Positive, Share
from privset.jobs.rows import Method
from privset.jobs.run import Run
from privset.methods.psm_matching import (
    AUGMENTATION,
    FIRST_SPC,
    Statistics,
    feature_loss,
    matching_loss,
    matching_network,
    optimise,
    start,
)
from privset.networks import unrolled
from privset.sets import tiles

METHOD = Method(title="PSM (ours)", family="optimised set", releases="psm_releases")

SURROGATE_SPC = 30
SURROGATE_ITERATIONS = (400, 800)
"""Images per class of the set that stands for the records in unrolled steps, and what they match in turn: features, then both."""


class Matching(Block):
    """How the released statistics are matched."""

    iterations: Count = 1800
    """Steps that match features and gradients."""
    first_iterations: Count = 1300
    """Steps that match features alone, before those, for a set of another size than the first one."""
    feature_share: Share = 0.3
    """Share of the iterations that match features, the others match gradients."""
    learning_rate: Positive = 0.05
    """Of Adam on the pixels."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the networks' passes over the set; "bfloat16" takes half the time from a few hundred images on. Releases are float32."""


class Config(Matching):
    """How a set is computed from the releases."""

    tiles: Count = 1
    """2: every stored image holds 2 x 2 training images at half the resolution (`sets.tiles`); a variant, not the method."""
    soft_labels: Share = 0.0
    """Share of each label that the trained networks give, the rest is the class; 0: hard labels. A variant, not the method."""
    unrolled_steps: Annotated[int, Field(ge=0)] = 0
    """Last steps, which descend the loss on a larger set from the same releases after training on this one (`networks.unrolled`).
    For one image per class; ten gain nothing."""
    unrolled_learning_rate: Positive = 0.02
    """Of Adam in these steps."""


def synthesize(statistics: Statistics, facts: PublicFacts, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """A set of `run.spc` stored images per class whose statistics are the released ones. No access to data."""
    if facts.size % config.tiles:
        raise PrivsetError(f"psm: tiles = {config.tiles}: {facts.size} pixels cannot be cut into as many equal parts")
    labels = run.balanced_labels(facts.classes)
    seen = tiles.unpack_labels(labels, config.tiles)
    share, precision = config.feature_share, config.precision
    of_features = feature_loss(statistics, seen, run, precision=precision)
    of_both = matching_loss(statistics, seen, run, feature_share=share, precision=precision)

    def match_features(images: Tensor) -> Tensor:
        return of_features(tiles.unpack(images, config.tiles))

    def match_both(images: Tensor) -> Tensor:
        return of_both(tiles.unpack(images, config.tiles))

    from_start = run.spc == FIRST_SPC and config.tiles == 1
    state = {"stage": 0, "set": statistics.start if from_start else start(labels, facts, run), "matching": None}
    stages = [("set", match_features, 0 if from_start else config.first_iterations, config.learning_rate)]
    stages += [("set", match_both, config.iterations, config.learning_rate)]
    known = {"set": labels}
    if config.unrolled_steps:
        known["surrogate"] = torch.arange(facts.classes, device=labels.device).repeat_interleave(SURROGATE_SPC)
        state["surrogate"] = start(known["surrogate"], facts, run)

        def unrolled_loss(images: Tensor) -> Tensor:
            return unrolled.loss(
                matching_network(facts, statistics.random[0][0].out_channels, run.generator),
                tiles.unpack(images, config.tiles),
                seen,
                state["surrogate"],
                known["surrogate"],
                augment=AUGMENTATIONS[AUGMENTATION],
                generator=run.generator,
            )

        first = feature_loss(statistics, known["surrogate"], run, precision=precision)
        both = matching_loss(statistics, known["surrogate"], run, feature_share=share, precision=precision)
        before = [
            ("surrogate", loss, iterations, config.learning_rate)
            for loss, iterations in zip((first, both), SURROGATE_ITERATIONS, strict=True)
        ]
        stages = [*before, *stages, ("set", unrolled_loss, config.unrolled_steps, config.unrolled_learning_rate)]

    run.start(sum(iterations for *_, iterations, _ in stages))
    state = run.restore() or state
    for number in range(state["stage"], len(stages)):
        name, loss, iterations, learning_rate = stages[number]
        state[name] = optimise(
            state[name],
            known[name],
            loss,
            facts,
            run if name == "set" else replace(run, snapshot=lambda step, make: None),
            iterations=iterations,
            learning_rate=learning_rate,
            offset=sum(stage[2] for stage in stages[:number]),
            restored=state["matching"],
            checkpoint=lambda matching, state=state: run.checkpoint({**state, "matching": matching}),
        )
        state = {**state, "stage": number + 1, "matching": None}
    return state["set"], labels


def soft_labels(statistics: Statistics, images: Tensor, labels: Tensor, config: Config, facts: PublicFacts) -> Tensor | None:
    """(N * tiles^2, classes): the probabilities that the trained networks give a finished set's training images, on average,
    mixed with their classes; None for hard labels. The networks were trained on the first set, so this too is post-processing."""
    if not config.soft_labels:
        return None
    if not statistics.trained:
        raise PrivsetError("psm: soft_labels need trained_networks")
    with torch.no_grad():
        shown = tiles.unpack(images, config.tiles)
        said = torch.stack([network(shown).softmax(1) for network in statistics.trained]).mean(0)
    hard = F.one_hot(tiles.unpack_labels(labels, config.tiles), said.shape[1])
    return (1 - config.soft_labels) * hard + config.soft_labels * said
