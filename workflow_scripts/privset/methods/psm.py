"""PSM, private statistics matching: a few Gaussian releases over all records, then images whose own statistics are those.

1. The class sums of normalised features of random networks, with noisy class counts.
2. In rounds, the class sums of the last layer's gradients (error times feature) at networks trained on a set that matches what
   was released before.

Everything else is post-processing: a set of any size, as often as one likes, costs no further privacy. docs/psm.md is the method
section: sensitivities, composition, related work.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from privset import PrivsetError, accounting, evaluation, networks, optimisers, tiles, unrolled
from privset.augment import AUGMENTATIONS
from privset.datasets import PublicFacts
from privset.methods import Run
from privset.vault import Vault

CHUNK = 50
"""Records per forward pass: what stays in a processor's cache (twice as fast as 500)."""
SCHEDULES = (40, 80, 150, 300)
"""SGD steps of the trained networks, in turn: from hardly trained to converged on the first set."""
FIRST_SPC = 10
"""Images per class of the sets that the trained networks are trained on."""
AUGMENTATION = "crop_scale_rotate"
"""Of every network that is trained on the way to a set."""
SURROGATE_SPC = 30
SURROGATE_ITERATIONS = (400, 800)
"""Images per class of the set that stands for the records in unrolled steps, and what they match in turn: features, then both."""


@dataclass(frozen=True, kw_only=True)
class ReleaseConfig:
    """What is asked of the private data."""

    random_networks: int = 20
    trained_networks: int = 8
    """In each round; 0: no second release, and the whole budget for the first."""
    rounds: int = 2
    """Releases at trained networks, each after a set that matches all before it."""
    width: int = 32
    """Channels of every matching ConvNet."""
    first_share: float = 0.4
    """Share of the budget, in mu^2 of Gaussian DP, that the first release gets."""
    count_weight: float = 0.1
    """Value of the counting coordinate beside features of norm 1."""
    error_clip: float = 0.7
    """L2 clip of a record's error, softmax minus one-hot."""
    first_iterations: int = 1300
    """Steps of the first set, which matches features alone."""
    round_iterations: int = 900
    """Steps of the set between two rounds."""
    learning_rate: float = 0.05

    def __post_init__(self):
        if not 0 < self.first_share < 1:
            raise PrivsetError(f"psm: first_share = {self.first_share}: must be between 0 and 1")
        if self.rounds < 1:
            raise PrivsetError(
                f"psm: rounds = {self.rounds}: must be 1 or more (trained_networks: 0 for the first release alone)"
            )


@dataclass(frozen=True, kw_only=True)
class Config:
    """How a set is computed from the releases."""

    iterations: int = 1800
    first_iterations: int = 1300
    """Steps that match features alone, before those, for a set of another size than the first one."""
    feature_share: float = 0.3
    """Share of the iterations that match features, the others match gradients."""
    learning_rate: float = 0.05
    tiles: int = 1
    """2: every stored image holds 2 x 2 training images at half the resolution (`privset.tiles`); a variant, not the method."""
    soft_labels: float = 0.0
    """Share of each label that the trained networks give, the rest is the class; 0: hard labels. A variant, not the method."""
    unrolled_steps: int = 0
    """Last steps, which descend the loss on a larger set from the same releases after training on this one (`privset.unrolled`).
    For one image per class; ten gain nothing."""
    unrolled_learning_rate: float = 0.02
    precision: str = "float32"
    """Of the networks' passes over the set; "bfloat16" takes half the time from a few hundred images on. Releases are float32."""

    def __post_init__(self):
        evaluation.check_precision("psm", self.precision)
        if self.unrolled_steps < 0:
            raise PrivsetError(f"psm: unrolled_steps = {self.unrolled_steps}: must be 0 or more")
        if not 0 <= self.soft_labels <= 1:
            raise PrivsetError(f"psm: soft_labels = {self.soft_labels}: must be between 0 and 1")


@dataclass
class Statistics:
    """What left the vault, and the networks that give it a meaning."""

    random: list[nn.Sequential]
    trained: list[nn.Sequential]
    means: Tensor
    """(random networks, classes, F): noisy mean features of each class."""
    gradients: Tensor
    """(trained networks, classes, classes, F): noisy mean error times feature of the records of each class."""
    counts: Tensor
    """(classes,): noisy numbers of records."""
    start: Tensor
    """(FIRST_SPC * classes, C, H, W): the set that the last round's networks were trained on."""
    error_clip: float

    def to_tensors(self) -> dict[str, Tensor]:
        """Everything by name, for a file."""

        tensors = {"random": _weights(self.random), "trained": _weights(self.trained), "means": self.means}
        tensors |= {"gradients": self.gradients, "counts": self.counts, "start": self.start}
        tensors |= {"width": torch.tensor(self.random[0][0].out_channels), "error_clip": torch.tensor(self.error_clip)}
        return {name: tensor.detach() for name, tensor in tensors.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], facts: PublicFacts) -> Statistics:
        """The inverse of `to_tensors`."""

        random, trained = (_bank(tensors[name], facts, int(tensors["width"])) for name in ("random", "trained"))
        rest = {name: tensors[name] for name in ("means", "gradients", "counts", "start")}
        return cls(random=random, trained=trained, error_clip=float(tensors["error_clip"]), **rest)


def _weights(bank: list[nn.Sequential]) -> Tensor:
    """(networks, weights)."""
    flat = [nn.utils.parameters_to_vector(network.parameters()).detach() for network in bank]
    return torch.stack(flat) if flat else torch.zeros(0, 0)


def _bank(weights: Tensor, facts: PublicFacts, width: int) -> list[nn.Sequential]:
    """The inverse of `_weights`."""
    made = [_network(facts, width, torch.Generator(weights.device)) for _ in weights]
    for network, vector in zip(made, weights, strict=True):
        nn.utils.vector_to_parameters(vector, network.parameters())
    return [network.requires_grad_(False) for network in made]


def _network(facts: PublicFacts, width: int, generator: torch.Generator) -> nn.Sequential:
    network = networks.build(
        "convnet", channels=facts.channels, classes=facts.classes, size=facts.size, generator=generator, width=width
    )
    return network.requires_grad_(False)


def _raw(network: nn.Sequential, images: Tensor, precision: str) -> Tensor:
    """(N, F): what the last layer sees."""
    with evaluation.autocast(precision, images.device):
        return network[:-1](images).float()


def features(network: nn.Sequential, images: Tensor, precision: str = "float32") -> Tensor:
    """(N, F): what the last layer sees, scaled to norm 1."""
    return F.normalize(_raw(network, images, precision), dim=1)


def error_features(network: nn.Sequential, images: Tensor, labels: Tensor, clip: float, precision: str = "float32") -> Tensor:
    """(N, classes, F): gradient of each image's cross-entropy in the last layer's weights, with the feature scaled to norm 1
    and the error, softmax minus one-hot, clipped to `clip`; so its own norm is at most `clip`."""
    raw = _raw(network, images, precision)
    error = network[-1](raw).softmax(1) - F.one_hot(labels, network[-1].out_features)
    error = error * (clip / error.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
    return error[:, :, None] * F.normalize(raw, dim=1)[:, None, :]


def _optimise(
    images: Tensor,
    labels: Tensor,
    loss: Callable[[Tensor], Tensor],
    facts: PublicFacts,
    run: Run,
    *,
    iterations: int,
    learning_rate: float,
    offset: int,
    restored: dict[str, Any] | None,
    checkpoint: Callable[[dict[str, Any]], None],
) -> Tensor:
    """Adam with a cosine decay to a twentieth, on pixels that stay in their range; steps are reported from `offset` + 1 on."""
    images = images.clone().requires_grad_()
    optimiser = optimisers.Adam([images], learning_rate=learning_rate, betas=(0.9, 0.99))
    black, white = (facts.normalise(images.new_full((1, facts.channels, 1, 1), value)) for value in (0.0, 1.0))
    done = 0
    if restored:
        done = restored["iteration"]
        images.data.copy_(restored["images"])
        optimiser.load(restored["optimiser"])
    for iteration in range(done + 1, iterations + 1):
        decay = 0.05 + 0.95 * (1 + math.cos(math.pi * (iteration - 1) / iterations)) / 2
        optimiser.learning_rate = learning_rate * decay
        value = loss(images)
        optimiser.step(torch.autograd.grad(value, [images]))
        with torch.no_grad():
            images.clamp_(black, white)
        run.report(offset + iteration, value.detach())
        run.snapshot(offset + iteration, lambda: (images.detach(), labels))
        checkpoint({"iteration": iteration, "images": images.detach(), "optimiser": optimiser.state()})
    return images.detach()


def _average(labels: Tensor, classes: int) -> Tensor:
    """(classes, N): the matrix that averages rows by class."""
    one_hot = F.one_hot(labels, classes).float().T
    return one_hot / one_hot.sum(1, keepdim=True)


def _feature_loss(statistics: Statistics, labels: Tensor, config: Config, run: Run) -> Callable[[Tensor], Tensor]:
    """Squared distance of the class means of features, at one network at random."""
    random, means = statistics.random, statistics.means
    average = _average(labels, means.shape[1])

    def loss(images: Tensor) -> Tensor:
        index = int(torch.randint(len(random), (), generator=run.generator, device=images.device))
        return (average @ features(random[index], images, config.precision) - means[index]).square().sum()

    return loss


def _matching_loss(statistics: Statistics, labels: Tensor, config: Config, run: Run) -> Callable[[Tensor], Tensor]:
    """Squared distance of the class means of gradients, at one trained network at random; or that of features, with
    probability `config.feature_share`, and always where there are no trained networks."""
    match_features = _feature_loss(statistics, labels, config, run)
    average = _average(labels, statistics.means.shape[1])

    def loss(images: Tensor) -> Tensor:
        if not statistics.trained or torch.rand((), generator=run.generator, device=images.device) < config.feature_share:
            return match_features(images)
        index = int(torch.randint(len(statistics.trained), (), generator=run.generator, device=images.device))
        rows = error_features(statistics.trained[index], images, labels, statistics.error_clip, config.precision)
        ours = (average @ rows.flatten(1)).view_as(statistics.gradients[index])
        return (ours - statistics.gradients[index]).square().sum()

    return loss


def _start(labels: Tensor, facts: PublicFacts, run: Run) -> Tensor:
    return 0.5 * torch.randn(len(labels), *facts.shape, generator=run.generator, device=labels.device)


def _trained_on(
    images: Tensor, labels: Tensor, config: ReleaseConfig, facts: PublicFacts, run: Run, offset: int
) -> list[nn.Sequential]:
    """Networks trained on a set; steps are reported from `offset` + 1 on."""
    made = []
    for steps in _training(config):
        network = _network(facts, config.width, run.generator).requires_grad_(True)
        evaluation.train(
            *(network, images, labels, evaluation.Schedule(steps=steps)),
            augmentation=AUGMENTATION,
            generator=run.generator,
            report=lambda step, loss, offset=offset: run.report(offset + step, loss),
        )
        made.append(network.eval().requires_grad_(False))
        offset += steps
    return made


def _training(config: ReleaseConfig) -> list[int]:
    """SGD steps of each trained network of a round."""
    return [SCHEDULES[index * len(SCHEDULES) // config.trained_networks] for index in range(config.trained_networks)]


def release(vault: Vault, config: ReleaseConfig, run: Run) -> Statistics:
    """The releases, and what is computed between them. They spend the vault's whole budget together, exactly."""
    facts = vault.facts
    whole = accounting.calibrate(epsilon=vault.ledger.epsilon, delta=vault.ledger.delta, sampling_rate=1.0, releases=1)
    # mu^2 = 1 / noise multiplier^2 adds up (Dong, Roth and Su 2019); the last factor is for rounding.
    share = config.first_share if config.trained_networks else 1.0
    random = [_network(facts, config.width, run.generator) for _ in range(config.random_networks)]
    chunks = -(-facts.records // CHUNK)
    training = sum(_training(config))
    rounds = (
        [config.first_iterations] + [config.round_iterations] * (config.rounds - 1) if training else [config.first_iterations]
    )
    run.start(chunks + sum(rounds) + len(rounds) * (training + chunks) * bool(training))
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
    start = _start(labels, facts, run)  # drawn before a checkpoint restores the generator, as in an uninterrupted run
    state = run.restore() or {}
    if "sums" not in state:
        sums = vault.feature_sums(
            asked(counted_features),
            clip=math.sqrt(len(random) * (1 + config.count_weight**2)),
            noise_multiplier=whole / math.sqrt(share) * (1 + 1e-9),
            relation="add-or-remove-one",
            chunk=CHUNK,
        )
        state = {"sums": sums, "set": start, "trained": [], "gradients": [], "matching": None}
        run.checkpoint(state)
    sums = state["sums"].view(facts.classes, len(random), -1)
    counts = (sums[:, :, -1].mean(1) / config.count_weight).clamp(min=1)
    means = (sums[:, :, :-1] / counts[:, None, None]).transpose(0, 1).contiguous()
    none = means.new_zeros(0, facts.classes, facts.classes, means.shape[2])
    statistics = Statistics(
        random=random,
        trained=[network for weights in state["trained"] for network in _bank(weights, facts, config.width)],
        means=means,
        gradients=torch.cat([none, *state["gradients"]]),
        counts=counts,
        start=state["set"],
        error_clip=config.error_clip,
    )

    for number in range(len(state["trained"]), len(rounds)):
        begun = chunks + sum(rounds[:number]) + number * (training + chunks)
        statistics.start = _optimise(
            *(statistics.start, labels, _matching_loss(statistics, labels, Config(), run), facts, run),
            iterations=rounds[number],
            learning_rate=config.learning_rate,
            offset=begun,
            restored=state["matching"],
            checkpoint=lambda matching, state=state: run.checkpoint({**state, "matching": matching}),
        )
        if not training:
            break
        trained = _trained_on(statistics.start, labels, config, facts, run, begun + rounds[number])

        def errors(images: Tensor, labels: Tensor, trained: list[nn.Sequential] = trained) -> Tensor:
            return torch.cat([error_features(n, images, labels, config.error_clip).flatten(1) for n in trained], dim=1)

        step = begun + rounds[number] + training
        sums = vault.feature_sums(
            asked(errors),
            clip=config.error_clip * math.sqrt(len(trained)),
            noise_multiplier=whole / math.sqrt((1 - share) / len(rounds)) * (1 + 1e-9),
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
            "trained": [*state["trained"], _weights(trained)],
            "gradients": [*state["gradients"], gradients],
            "matching": None,
        }
        run.checkpoint(state)
    return statistics


def synthesize(statistics: Statistics, facts: PublicFacts, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """A set of `run.spc` stored images per class whose statistics are the released ones. No access to data."""
    if config.tiles < 1 or facts.size % config.tiles:
        raise PrivsetError(f"psm: tiles = {config.tiles}: {facts.size} pixels cannot be cut into as many equal parts")
    labels = run.balanced_labels(facts.classes)
    seen = tiles.unpack_labels(labels, config.tiles)
    feature_loss = _feature_loss(statistics, seen, config, run)
    both_loss = _matching_loss(statistics, seen, config, run)

    def match_features(images: Tensor) -> Tensor:
        return feature_loss(tiles.unpack(images, config.tiles))

    def match_both(images: Tensor) -> Tensor:
        return both_loss(tiles.unpack(images, config.tiles))

    from_start = run.spc == FIRST_SPC and config.tiles == 1
    state = {"stage": 0, "set": statistics.start if from_start else _start(labels, facts, run), "matching": None}
    stages = [("set", match_features, 0 if from_start else config.first_iterations, config.learning_rate)]
    stages += [("set", match_both, config.iterations, config.learning_rate)]
    known = {"set": labels}
    if config.unrolled_steps:
        known["surrogate"] = torch.arange(facts.classes, device=labels.device).repeat_interleave(SURROGATE_SPC)
        state["surrogate"] = _start(known["surrogate"], facts, run)

        def unrolled_loss(images: Tensor) -> Tensor:
            network = _network(facts, statistics.random[0][0].out_channels, run.generator)
            pairs = (tiles.unpack(images, config.tiles), seen, state["surrogate"], known["surrogate"])
            return unrolled.loss(network, *pairs, augment=AUGMENTATIONS[AUGMENTATION], generator=run.generator)

        losses = [make(statistics, known["surrogate"], config, run) for make in (_feature_loss, _matching_loss)]
        before = [
            ("surrogate", loss, iterations, config.learning_rate)
            for loss, iterations in zip(losses, SURROGATE_ITERATIONS, strict=True)
        ]
        stages = [*before, *stages, ("set", unrolled_loss, config.unrolled_steps, config.unrolled_learning_rate)]

    run.start(sum(iterations for *_, iterations, _ in stages))
    state = run.restore() or state
    for number in range(state["stage"], len(stages)):
        name, loss, iterations, learning_rate = stages[number]
        state[name] = _optimise(
            *(state[name], known[name], loss, facts),
            run if name == "set" else replace(run, snapshot=lambda step, make: None),
            iterations=iterations,
            learning_rate=learning_rate,
            offset=sum(stage[2] for stage in stages[:number]),
            restored=state["matching"],
            checkpoint=lambda matching, state=state: run.checkpoint({**state, "matching": matching}),
        )
        state = {**state, "stage": number + 1, "matching": None}
    return state["set"], labels


def soft_labels(statistics: Statistics, images: Tensor, labels: Tensor, config: Config) -> Tensor | None:
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
