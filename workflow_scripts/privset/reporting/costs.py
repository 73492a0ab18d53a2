"""Where the time of a run went, from Snakemake's benchmark files and from what evaluations say of themselves."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from privset.reporting import NETWORKS, row_title
from privset.reporting.formats import Table
from privset.sets.files import read_json

BY_METHOD = ("release", "condense", "synthesize")
"""Rules whose time is told by method."""


def jobs(folder: Path, preset: str) -> pd.DataFrame:
    """One row per job of a preset: rule, method (None where there is none), seconds by the clock and of the processors, its peak
    of memory in MB. `folder` is results/benchmarks."""
    rows = []
    for path in sorted(folder.rglob("*.tsv")):
        rule, *where = path.relative_to(folder).with_suffix("").parts
        if rule not in ("fetch", "hold_out") and where[0] != preset:  # of a dataset, for every preset
            continue
        told = pd.read_csv(path, sep="\t", na_values="-").iloc[-1]
        method = where[2] if rule in (*BY_METHOD, "evaluate") else None
        rows.append(
            {"rule": rule, "method": method, "clock": told["s"], "processor": told["cpu_time"], "memory": told["max_rss"]}
        )
    return pd.DataFrame(rows, columns=["rule", "method", "clock", "processor", "memory"])


def networks(metrics: list[Path]) -> pd.Series:
    """Seconds of training and testing by network, from metrics files."""
    runs = [run for path in metrics for run in read_json(path)["runs"]]
    seconds = pd.DataFrame(
        [{"network": run["network"], "seconds": run["train_seconds"] + run["test_seconds"]} for run in runs],
        columns=["network", "seconds"],
    )
    return seconds.groupby("network", sort=False).seconds.sum()


def table(folder: Path, metrics: list[Path], *, preset: str) -> Table:
    """Rules by method, evaluations by network, and everything else by rule."""
    told = jobs(folder, preset)
    told["what"] = [f"{row.rule}: {row_title(row.method)}" if row.rule in BY_METHOD else row.rule for row in told.itertuples()]
    frame = told.groupby("what").agg(
        jobs=("clock", "size"), clock=("clock", "sum"), processor=("processor", "sum"), memory=("memory", "max")
    )
    whole = frame.processor.sum()
    frame = frame.sort_values("processor", ascending=False).reset_index()
    shown = pd.DataFrame(
        {
            "what": frame.what,
            "jobs": frame.jobs.astype(str),
            "clock (min)": [f"{seconds / 60:.1f}" for seconds in frame.clock],
            "processor (min)": [f"{seconds / 60:.1f}" for seconds in frame.processor],
            "share (%)": [f"{100 * seconds / whole:.1f}" for seconds in frame.processor],
            "memory (MB)": [f"{memory:.0f}" for memory in frame.memory],
        }
    )
    by_network = networks(metrics)
    each = ", ".join(f"{NETWORKS.get(name, name)} {seconds / 60:.1f}" for name, seconds in by_network.items())
    evaluating = told[told.rule == "evaluate"].clock.sum()
    return Table(
        name="table_costs",
        title="Where the time goes",
        frame=frame,
        shown=shown,
        notes=(
            f"Together {whole / 60:.0f} minutes of processor time, {frame.clock.sum() / 60:.0f} by the clocks of the jobs. "
            "Snakemake's own process is not in it.",
            f"Of `evaluate`, minutes by the clock in training and testing: {each}; starting, data and files: "
            f"{(evaluating - by_network.sum()) / 60:.1f}.",
            "Each job's last run, from results/benchmarks; jobs that share a processor lengthen each other's clock.",
        ),
    )
