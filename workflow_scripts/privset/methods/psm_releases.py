"""PSM's releases: all that it ever asks of the private data, once for the sets of every size.

1. The class sums of normalised features of random networks, with noisy class counts.
2. In rounds, the class sums of the last layer's gradients (error times feature) at networks trained on a set that matches what
   was released before.

docs/psm.md is the method section: sensitivities, composition, related work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from privset.data.datasets import PublicFacts
from privset.evaluation import training
from privset.jobs.blocks import Block, Count, Positive
from privset.jobs.run import Run
from privset.methods.psm_matching import (
    AUGMENTATION,
    FIRST_SPC,
    Statistics,
    error_features,
    features,
    from_weights,
    matching_loss,
    matching_network,
    optimise,
    start,
    to_weights,
)
from privset.privacy.ledger import Asked
from privset.privacy.vault import Vault

CHUNK = 50
"""Records per forward pass: what stays in a processor's cache (twice as fast as 500)."""
SCHEDULES = (40, 80, 150, 300)
"""SGD steps of the trained networks, in turn: from hardly trained to converged on the first set."""


class ReleaseConfig(Block):
    """What is asked of the private data, once for the sets of every size."""

    random_networks: Count = 20
    """Whose features are released."""
    trained_networks: Annotated[int, Field(ge=0)] = 8
    """In each round; 0: no second release, and the whole budget for the first."""
    rounds: Count = 2
    """Releases at trained networks, each after a set that matches all before it."""
    width: Count = 32
    """Channels of every matching ConvNet."""
    first_share: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """Share of the budget, in mu^2 of Gaussian DP, that the first release gets."""
    count_weight: Positive = 0.1
    """Value of the counting coordinate beside features of norm 1."""
    error_clip: Positive = 0.7
    """L2 clip of a record's error, softmax minus one-hot."""
    first_iterations: Count = 1300
    """Steps of the first set, which matches features alone."""
    round_iterations: Count = 900
    """Steps of the set between two rounds."""
    learning_rate: Positive = 0.05
    """Of Adam on the pixels of these sets."""


def whole(arrays: Mapping[str, Any], config: ReleaseConfig) -> bool:
    """Whether a file has the arrays of these statistics and no others."""
    names = {"random", "trained", "means", "gradients", "counts", "start", "width", "error_clip"}
    if set(arrays) != names or arrays["means"].ndim != 3:
        return False
    classes, trained = arrays["means"].shape[1], config.rounds * config.trained_networks
    lengths = {"random": config.random_networks, "trained": trained, "means": config.random_networks}
    lengths |= {"gradients": trained, "counts": classes, "start": FIRST_SPC * classes}
    return all(len(arrays[name]) == length for name, length in lengths.items()) and arrays["width"] == config.width


def training_steps(config: ReleaseConfig) -> list[int]:
    """SGD steps of each trained network of a round."""
    return [SCHEDULES[index * len(SCHEDULES) // config.trained_networks] for index in range(config.trained_networks)]


def asks(config: ReleaseConfig, records: Callable[[tuple[int, ...] | None], int], share: float = 1.0) -> list[Asked]:
    """Features once, and in each round the gradients, for a share of the budget."""
    features = math.sqrt(config.random_networks * (1 + config.count_weight**2))
    if not config.trained_networks:
        return [Asked(mechanism="feature_sums", sensitivity=features, count=1, share=share)]
    errors, first = config.error_clip * math.sqrt(config.trained_networks), config.first_share
    return [
        Asked(mechanism="feature_sums", sensitivity=features, count=1, share=share * first),
        Asked(mechanism="feature_sums", sensitivity=errors, count=config.rounds, share=share * (1 - first)),
    ]


def _trained_on(
    images: Tensor, labels: Tensor, config: ReleaseConfig, facts: PublicFacts, run: Run, offset: int
) -> list[nn.Sequential]:
    """Networks trained on a set; steps are reported from `offset` + 1 on."""
    made = []
    for steps in training_steps(config):
        network = matching_network(facts, config.width, run.generator).requires_grad_(True)
        training.train(
            network,
            images,
            labels,
            training.Schedule(steps=steps),
            augmentation=AUGMENTATION,
            generator=run.generator,
            report=lambda step, loss, offset=offset: run.report(offset + step, loss),
        )
        made.append(network.eval().requires_grad_(False))
        offset += steps
    return made


def release(vault: Vault, config: ReleaseConfig, run: Run, share: float = 1.0) -> Statistics:
    """The releases, and what is computed between them. They spend that share of the vault's budget together, exactly."""
    facts = vault.facts
    # mu^2 = 1 / noise multiplier^2 adds up (Dong, Roth and Su 2019).
    asked_for = asks(config, lambda part: facts.records, share)
    first_noise, *later_noise = (asked.noise_multiplier(vault.ledger) for asked in asked_for)
    random = [matching_network(facts, config.width, run.generator) for _ in range(config.random_networks)]
    chunks = -(-facts.records // CHUNK)
    steps = sum(training_steps(config))
    rounds = [config.first_iterations] + [config.round_iterations] * (config.rounds - 1 if steps else 0)
    run.start(chunks + sum(rounds) + len(rounds) * (steps + chunks) * bool(steps))
    step = 0

    def asked(rows: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """`rows`, counted as a step."""

        def count(images: Tensor, labels: Tensor) -> Tensor:
            nonlocal step
            step += 1
            run.report(step, images.new_zeros(()))
            return rows(images, labels)

        return count

    def counted_features(images: Tensor, labels: Tensor) -> Tensor:
        one = images.new_full((len(images), 1), config.count_weight)
        return torch.cat([part for network in random for part in (features(network, images), one)], dim=1)

    labels = torch.arange(facts.classes, device=vault.device).repeat_interleave(FIRST_SPC)
    first = start(labels, facts, run)  # drawn before a checkpoint restores the generator, as in an uninterrupted run
    state = run.restore() or {}
    if "sums" not in state:
        sums = vault.feature_sums(
            asked(counted_features),
            dimension=len(random) * (random[0][-1].in_features + 1),
            clip=math.sqrt(len(random) * (1 + config.count_weight**2)),
            noise_multiplier=first_noise,
            relation="add-or-remove-one",
            chunk=CHUNK,
        )
        state = {"sums": sums, "set": first, "trained": [], "gradients": [], "matching": None}
        run.checkpoint(state)
    sums = state["sums"].view(facts.classes, len(random), -1)
    counts = (sums[:, :, -1].mean(1) / config.count_weight).clamp(min=1)
    means = (sums[:, :, :-1] / counts[:, None, None]).transpose(0, 1).contiguous()
    none = means.new_zeros(0, facts.classes, facts.classes, means.shape[2])
    statistics = Statistics(
        random=random,
        trained=[network for weights in state["trained"] for network in from_weights(weights, facts, config.width)],
        means=means,
        gradients=torch.cat([none, *state["gradients"]]),
        counts=counts,
        start=state["set"],
        error_clip=config.error_clip,
    )

    for number in range(len(state["trained"]), len(rounds)):
        begun = chunks + sum(rounds[:number]) + number * (steps + chunks)
        statistics.start = optimise(
            statistics.start,
            labels,
            matching_loss(statistics, labels, run),
            facts,
            run,
            iterations=rounds[number],
            learning_rate=config.learning_rate,
            offset=begun,
            restored=state["matching"],
            checkpoint=lambda matching, state=state: run.checkpoint({**state, "matching": matching}),
        )
        if not steps:
            break
        trained = _trained_on(statistics.start, labels, config, facts, run, begun + rounds[number])

        def errors(images: Tensor, labels: Tensor, trained: list[nn.Sequential] = trained) -> Tensor:
            return torch.cat([error_features(n, images, labels, config.error_clip).flatten(1) for n in trained], dim=1)

        step = begun + rounds[number] + steps
        sums = vault.feature_sums(
            asked(errors),
            dimension=len(trained) * trained[0][-1].weight.numel(),
            clip=config.error_clip * math.sqrt(len(trained)),
            noise_multiplier=later_noise[0],
            relation="add-or-remove-one",
            chunk=CHUNK,
        )
        sums = sums.view(facts.classes, len(trained), facts.classes, -1)
        gradients = (sums / counts[:, None, None, None]).transpose(0, 1).contiguous()
        statistics.trained += trained
        statistics.gradients = torch.cat([statistics.gradients, gradients])
        state = {
            **state,
            "set": statistics.start,
            "trained": [*state["trained"], to_weights(trained)],
            "gradients": [*state["gradients"], gradients],
            "matching": None,
        }
        run.checkpoint(state)
    return statistics
