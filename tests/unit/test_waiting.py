"""Nothing in PSG's loop makes the host wait for a graphics card: no number is read back, no shape depends on data. Seen on a CPU,
in the form that runs on a card; `tests/gpu` looks again where there is one, and at what goes to the card as well."""

import contextlib

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from privset.jobs.run import Run
from privset.methods import psg
from privset.networks import compiled

READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim", "repeat_interleave")
"""Operations whose result, or its shape, a host can have only when the card is done."""


class NoWaiting(TorchDispatchMode):
    """Refuses operations that a host would wait for."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        name = operation.overloadpacket.__name__
        masks = name.startswith("index") and any(
            isinstance(each, torch.Tensor) and each.dtype == torch.bool for each in arguments[1] if name != "index_select"
        )
        if name in READS or masks:
            raise RuntimeError(f"{name}: the host would wait")
        return operation(*arguments, **(options or {}))


@contextlib.contextmanager
def no_waiting():
    """`NoWaiting`, and no tensor becomes Python's, numpy's or the CPU's: on a CPU these are not operations."""

    def refused(name):
        def read(tensor, *arguments, **options):
            raise RuntimeError(f"{name}: the host would wait")

        return read

    with pytest.MonkeyPatch.context() as patch, NoWaiting():
        for name in ("tolist", "numpy", "cpu", "__array__"):
            patch.setattr(torch.Tensor, name, refused(name))
        yield


WAITS = [
    *(lambda x: x.sum().item(), lambda x: x.nonzero(), lambda x: x[x > 0], lambda x: bool((x > 0).any())),
    *(lambda x: x.tolist(), lambda x: x.numpy(), lambda x: x.cpu(), np.asarray, lambda x: float(x.sum().detach().cpu())),
]


@pytest.mark.parametrize("waits", WAITS)
def test_what_waits_is_found(waits):
    with no_waiting(), pytest.raises(RuntimeError, match="the host would wait"):
        waits(torch.arange(3.0))


def test_the_loop_of_psg_never_waits(make_vault, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)  # traced, as for a card; not made into C++
    monkeypatch.setattr(compiled, "_COMPILED", {})
    config = psg.Config(iterations=2, outer=2, inner=1, batches=2, batch_size=20, width=16, compile=True)

    images = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(1))

    def run():
        vault = make_vault(epsilon=10.0, images=images)
        vault._fixed_rows = True  # as on a card: batches of one shape
        made = psg.synthesize(vault, config, Run(spc=1, generator=torch.Generator().manual_seed(0)))[0]
        return made, vault.ledger.releases[0].count

    first, count = run()  # traces; and looks once whether gradients depend on places
    with no_waiting():
        again, _ = run()
    assert count == 8 and torch.equal(first, again)
