"""What jobs need of a cluster: minutes and memory, from measured costs.

Limits, not predictions: twice what a job is expected to take, and more with every attempt (an interrupted synthesis resumes,
so attempts add up). docs/cluster.md has the measured seconds behind them. Functions of the configuration and a cell, like the
grids.
"""

from __future__ import annotations

import os
import shutil

from privset.data.datasets import base_name, dataset
from privset.jobs import rows
from privset.jobs.grids import Cell, Config, hyper_parameters, own_datasets

SECONDS = {
    # two cores, width 128; results/published/benchmarks
    "cpu": {"private": 1.0, "image": 0.01, "training": 0.4},
    # not measured: a cautious guess
    "gpu": {"private": 0.02, "image": 1e-4, "training": 0.005},
}
"""One private step and its matching step, by images in the set; one step of network training on the set."""

STEP_SECONDS = {
    # two cores beside other work, MNIST, `paper`'s networks and batches; of ensembles by scale from a tenth of their sizes
    "cpu": {
        **{"dp_cgan": 0.1, "dp_flow": 0.2, "dp_sinkhorn": 0.3, "dp_swd": 0.6},
        **{"gs_wgan": 20.0, "g_pate": 10.0, "datalens": 12.0, "pate_gan": 0.2},
    },
    # not measured: a cautious guess
    "gpu": {
        **{"dp_cgan": 0.01, "dp_flow": 0.02, "dp_sinkhorn": 0.03, "dp_swd": 0.05},
        **{"gs_wgan": 0.5, "g_pate": 0.5, "datalens": 0.5, "pate_gan": 0.02},
    },
}
"""One step of a generator that asks something of the data in each."""

MEMBERS = {"gs_wgan": 1000, "g_pate": 4000, "datalens": 4000}
"""Of an ensemble, for which its step's seconds are."""


def crowded(cores: int | None) -> str:
    """A warning if a run may use more cores than this process has, with a line's end; else nothing."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not cores or cores <= there:
        return ""
    return f"warning: --cores {cores}, and this machine has {there}: jobs wait for each other and hold their memory meanwhile\n"


def gpus(config: Config) -> int:
    """GPUs of a job that computes. "auto" looks for the driver's tool, not for torch: importing it would cost seconds."""
    return int(shutil.which("nvidia-smi") is not None if config["gpu"] == "auto" else config["gpu"])


def synthesis_minutes(config: Config, cell: Cell, attempt: int) -> int:
    values = hyper_parameters(config, cell)
    device = "gpu" if gpus(config) else "cpu"
    method = rows.method_of(cell["method"])
    if step := STEP_SECONDS[device].get(method):
        if method in MEMBERS:
            step *= values.get("members", MEMBERS[method]) / MEMBERS[method]
        return attempt * (15 + 2 * round(values.get("steps", 160_000) * step / 60))
    if "outer" not in values:
        return one_shot_minutes(config, cell, attempt)
    seconds = SECONDS[device]
    own = own_datasets(config)
    images = dataset(base_name(cell["dataset"], own), own).classes * int(cell["spc"])
    steps = values.get("iterations", 1000) * values["outer"]
    training = values["inner"] * -(-images // values.get("batch_size", 256)) * seconds["training"]
    matching = values.get("batches", 10) * (seconds["private"] + images * seconds["image"])
    tasks = 5 if rows.described(cell["method"]).tasks else 1
    return attempt * (15 + 2 * round(tasks * steps * (matching + training) / 60))


def one_shot_minutes(config: Config, cell: Cell, attempt: int) -> int:
    """A release over all records, and post-processing: minutes."""
    return 60 * attempt


def synthesis_memory(config: Config, cell: Cell, attempt: int) -> int:
    """MB."""
    return 8000 * attempt


def evaluation_minutes(config: Config, cell: Cell, attempt: int) -> int:
    """A thousand epochs of a network, three times, take minutes on a GPU, and up to hours on a CPU."""
    networks = len(cell.get("networks", "one").split("+"))
    return networks * attempt * (20 if gpus(config) else 8 * 60)


def evaluation_memory(config: Config, cell: Cell, attempt: int) -> int:
    """MB."""
    return 6000 * attempt


def snapshot_minutes(config: Config, cell: Cell, attempt: int) -> int:
    """About a dozen snapshots, each evaluated on the first network."""
    return 12 * evaluation_minutes(config, cell, attempt)


def audit_minutes(config: Config, cell: Cell, attempt: int) -> int:
    """On one core: ten runs of a row's questions, and one set from a few thousand records."""
    return 240 * attempt


def task_minutes(config: Config, cell: Cell, attempt: int) -> int:
    """Five tasks, each evaluated on the first network."""
    return 5 * evaluation_minutes(config, cell, attempt)
