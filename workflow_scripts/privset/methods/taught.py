"""Taught: images that a private teacher labels. What it asks of the private data is in `taught_releases`.

Any number of images, in thirds: PSM's own, transformed and mixed in pairs; the same under random shapes; and random shapes alone.
Each comes with the teacher's probabilities, which carry more than a class does (Hinton et al. 2015). All of it is
post-processing, so a set of any size costs no further privacy.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from privset.data.datasets import PublicFacts
from privset.evaluation.augment import AUGMENTATIONS
from privset.jobs.blocks import Count, Positive
from privset.jobs.rows import Method
from privset.jobs.run import Run
from privset.methods import psm
from privset.methods.psm_matching import AUGMENTATION
from privset.methods.taught_releases import Statistics, features
from privset.networks import leaves

METHOD = Method(title="Taught (ours)", family="optimised set", releases="taught_releases", labelled=True)

KINDS = ("mixed", "covered", "leaves")
COVER = 0.6
"""The most that random shapes weigh over an image."""
CHUNK = 512
"""Images that are drawn at a time."""
PATIENCE = 5
"""Times as many draws as a set has images, until classes that are not full take what comes closest."""


class Config(psm.Matching):
    """How a set is computed from the releases; PSM's settings are for the images that it is mixed from."""

    base_spc: Count = 50
    """PSM's images per class."""
    temperature: Positive = 2.0
    """Of the probabilities: the teacher's scores are divided by it."""


def probabilities(statistics: Statistics, pixels: Tensor, temperature: float) -> Tensor:
    """(N, classes): what the teacher says of images in [0, 1]."""
    scores = torch.cat([features(part) @ statistics.teacher.T for part in pixels.split(CHUNK)])
    return (scores / temperature).softmax(1)


def _draw(kind: str, base: Tensor, facts: PublicFacts, generator: torch.Generator) -> Tensor:
    """(CHUNK, C, H, W) pixels in [0, 1] of one kind, from base images in normalised units."""
    device = base.device

    def some() -> Tensor:
        chosen = torch.randint(len(base), (CHUNK,), generator=generator, device=device)
        return facts.to_pixels(AUGMENTATIONS[AUGMENTATION](base[chosen], generator)).clamp(0, 1)

    weight = torch.rand(CHUNK, 1, 1, 1, generator=generator, device=device)
    if kind == "mixed":
        return torch.lerp(some(), some(), weight)
    shapes = leaves.draw(CHUNK, channels=facts.channels, size=facts.size, generator=generator)
    return shapes if kind == "leaves" else torch.lerp(some(), shapes, COVER * weight)


def synthesize(statistics: Statistics, facts: PublicFacts, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images of each class that the teacher finds likeliest; of a class that it hardly ever does, those to which it
    gives most. No access to data."""
    matching = psm.Config.model_validate(config.model_dump(include=set(psm.Matching.model_fields)))
    base = psm.synthesize(statistics.base, facts, matching, replace(run, spc=config.base_spc))[0]
    labels = run.balanced_labels(facts.classes)
    images = labels.new_zeros(len(labels), *facts.shape, dtype=torch.float32)
    filled, draws = [0] * facts.classes, 0
    patience = PATIENCE * (1 + len(labels) // CHUNK)
    with torch.no_grad():
        while min(filled) < run.spc:
            pixels = _draw(KINDS[draws % len(KINDS)], base, facts, run.generator)
            said = probabilities(statistics, pixels, config.temperature)
            likeliest = said.argmax(1)
            for label, before in enumerate(filled):
                chosen = (likeliest == label).nonzero()[:, 0]
                if draws > patience:
                    chosen = said[:, label].topk(CHUNK // facts.classes).indices
                chosen = chosen[: run.spc - before]
                filled[label] += len(chosen)
                images[label * run.spc + before : label * run.spc + filled[label]] = facts.normalise(pixels[chosen])
            draws += 1
    return images, labels


def soft_labels(statistics: Statistics, images: Tensor, labels: Tensor, config: Config, facts: PublicFacts) -> Tensor:
    """(N, classes): the teacher's probabilities for the finished images."""
    with torch.no_grad():
        return probabilities(statistics, facts.to_pixels(images), config.temperature)
