"""The optimisers against PyTorch's classes, and that short jobs do not pay for PyTorch's compiler."""

import subprocess
import sys

import pytest
import torch

from privset.networks import optimisers

CASES = {
    "SGD": (
        lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9, weight_decay=0.01),
        lambda p: optimisers.SGD(p, learning_rate=0.3, momentum=0.9, weight_decay=0.01),
    ),
    "plain SGD": (lambda p: torch.optim.SGD(p, lr=0.3), lambda p: optimisers.SGD(p, learning_rate=0.3)),
    "Adam": (
        lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.9, 0.99)),
        lambda p: optimisers.Adam(p, learning_rate=0.05, betas=(0.9, 0.99)),
    ),
}


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator).requires_grad_() for shape in ((4, 3), (5,))]


def gradients(step):
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(*shape, generator=generator) for shape in ((4, 3), (5,))]


@pytest.mark.parametrize("case", CASES)
def test_it_is_pytorchs_own_to_the_bit_also_after_a_resumption(case):
    theirs, ours = (parameters() for _ in range(2))
    reference, chosen = CASES[case][0](theirs), CASES[case][1](ours)
    for step in range(6):
        reference.param_groups[0]["lr"] = chosen.learning_rate = 0.3 * 0.8**step
        if step == 3:
            state, chosen = chosen.state(), CASES[case][1](ours)
            chosen.learning_rate = 0.3 * 0.8**step
            chosen.load(state)
        for parameter, gradient in zip(theirs, gradients(step), strict=True):
            parameter.grad = gradient
        reference.step()
        chosen.step(gradients(step))
    assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))


def test_a_set_is_made_without_importing_pytorchs_compiler():
    """Importing it takes longer than torch itself, in every job; the class of an optimiser, or Opacus, would."""
    program = """
import sys, torch
from privset.jobs.run import Run
from privset.data import datasets
from privset.methods import psg
from privset.privacy.vault import Vault
facts = datasets.PublicFacts(records=8, classes=2, channels=1, size=8, mean=(0.5,), std=(0.5,))
vault = Vault(torch.zeros(8, 1, 8, 8), torch.arange(8) % 2, facts=facts, epsilon=10.0, delta=1e-5, key=1)
run = Run(spc=1, generator=torch.Generator().manual_seed(0))
psg.synthesize(vault, psg.Config(width=2, outer=1, inner=1, iterations=1, batches=1, batch_size=4), run)
print([name for name in ("torch._dynamo", "sympy", "opacus") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
