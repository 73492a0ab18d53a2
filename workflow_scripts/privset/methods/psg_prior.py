"""PSG with a generator prior (the PSG paper's Table 3): the same releases, but what is optimised is a DCGAN's weights.

The set is what the generator makes of codes that are drawn once and kept. Fresh codes through the finished generator look like
more samples of the same kind; they are kept for the pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from privset import PrivsetError
from privset.jobs.blocks import Count, Positive
from privset.jobs.rows import Method
from privset.jobs.run import Run
from privset.methods import psg
from privset.networks import optimisers
from privset.networks.generators import LatentGenerator
from privset.networks.weights import initialise
from privset.privacy.vault import Vault

METHOD = Method(title="PSG with prior", family="optimised set")


class Config(psg.Matching):
    """PSG's hyper-parameters with the loops of the prior (reference program, main_prior.py)."""

    outer: Count = 2
    """Outer steps per network."""
    inner: Count = 10
    """Epochs of network training on the set between two outer steps."""
    latent: Count = 10
    """Dimension of a code."""
    generator_learning_rate: Positive = 0.01
    """Of Adam, on the generator's weights."""


asks = psg.asks


def synthesize(vault: Vault, config: Config, run: Run) -> tuple[Tensor, Tensor]:
    """`run.spc` images per class from the matched generator and its fixed codes."""
    facts, device = vault.facts, vault.device
    if facts.shape != (1, 28, 28):
        raise PrivsetError(f"psg_prior: its generator makes 1x28x28 images, not {'x'.join(map(str, facts.shape))}")
    labels = run.balanced_labels(facts.classes)
    generator = initialise(LatentGenerator(latent=config.latent, classes=facts.classes).to(device), run.generator)
    codes, fresh = (torch.randn(len(labels), config.latent, generator=run.generator, device=device) for _ in range(2))
    images = psg.match(
        vault,
        config,
        run,
        labels=labels,
        render=lambda: generator(codes, labels),
        optimiser=optimisers.Adam(generator.parameters(), learning_rate=config.generator_learning_rate),
    )
    with torch.no_grad():
        run.keep("fresh_codes", generator(fresh, labels))
    return images, labels
