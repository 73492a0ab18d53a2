"""A job that computes: its processor, what identifies its result, its random numbers, its checkpoint and its progress."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import torch

from privset.jobs import checkpoints, devices
from privset.jobs.blocks import T, parse
from privset.jobs.frame import job
from privset.jobs.progress import Progress
from privset.jobs.seeds import cell_seed
from privset.sets.arrays import read_statistics


@dataclass(frozen=True, kw_only=True)
class Computation:
    """What the scripts of sets, releases and evaluations start from."""

    cell: dict[str, str]
    """The parts of the job's path."""
    device: str
    """ "cpu" or "cuda:I"."""
    log: TextIO
    params: Any
    """The rule's, by name."""
    details: dict[str, Any]
    """The cell, its configuration, the code and the machine: stands in the result, and says what a checkpoint belongs to."""

    @property
    def title(self) -> str:
        """What the cell is called in progress lines."""
        spc = f" spc={self.cell['spc']}" if "spc" in self.cell else ""
        return f"{self.cell['method']} {self.cell['dataset']} eps={self.cell['epsilon']}{spc} seed={self.cell['seed']}"

    def say(self, line: str) -> None:
        print(line, file=self.log, flush=True)

    def parse(self, cls: type[T], block: Mapping[str, Any], where: str) -> T:
        """A block of the configuration; errors name where it stands in the preset."""
        return parse(cls, block, f"config.yaml: {self.cell['preset']}.{where}")

    def tensors(self, path: Path) -> dict[str, torch.Tensor]:
        """Released statistics, on the job's device."""
        return {name: torch.from_numpy(array).to(self.device) for name, array in read_statistics(path).items()}

    def generator(self, use: str, *more: object) -> torch.Generator:
        """The random numbers of one use in this cell."""
        return torch.Generator(self.device).manual_seed(cell_seed(use, {"spc": "any", **self.cell}, *more))

    def checkpoint(self, **belongs_to: Any) -> checkpoints.File:
        """The job's checkpoint, bound to `details` and to what is given."""
        identity = checkpoints.fingerprint({**self.details, **belongs_to})
        return checkpoints.File(Path(self.params["checkpoint"]), belongs_to=identity, log=self.say)

    def progress(self, title: str) -> Progress:
        return Progress(title, self.log)


@contextlib.contextmanager
def computation(smk, **more: str) -> Iterator[Computation]:
    """The frame of a script that computes; `more` are parts of the cell that the job's path does not have."""
    with job(smk) as log, devices.device(gpu=smk.resources.get("gpu", 0) > 0) as device:
        if device == "cpu" and smk.resources.get("gpu", 0) > 0:
            for stream in (log, sys.stderr):
                print(
                    f"warning: {smk.rule} was given a GPU, but PyTorch sees none: this runs on the CPU", file=stream, flush=True
                )
        cell = {**smk.wildcards, **more}
        blocks = {key: smk.params[key] for key in ("config", "schedule", "schedules") if key in smk.params.keys()}  # noqa: SIM118
        details = {"cell": cell, **blocks, "code": smk.params.code, **provenance(device)}
        yield Computation(cell=cell, device=device, log=log, params=smk.params, details=details)


def provenance(device: str) -> dict[str, Any]:
    """Versions and hardware of a run; `device` is a torch device's name ("cpu", "cuda:0")."""
    if device.startswith("cuda"):
        precision = {"highest": "float32", "high": "TF32"}.get(torch.get_float32_matmul_precision(), "bfloat16")
        hardware = f"{torch.cuda.get_device_name(device)}, {precision} products"
    else:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        hardware = f"{models[0] if models else platform.machine()}, {torch.get_num_threads()} thread(s)"
    names = ("torch", "numpy", "opacus", "dp-accounting")
    return {
        "device": f"{device.split(':')[0]} ({hardware})",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
    }
