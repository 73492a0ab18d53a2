"""Accuracy over the course of a synthesis: against the share of the budget that was spent, and against steps."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import seaborn

from privset.reporting import dataset_title, sized_title
from privset.reporting.figures import MARKERS, STYLE, plt, save
from privset.reporting.formats import write_csv
from privset.sets.files import read_json


def tidy(paths: list[Path]) -> pd.DataFrame:
    """One row per (cell, step, network seed); `share` of the cell's budget is what stopping there would have cost."""
    rows = []
    for path in paths:
        content = read_json(path)
        for run in content["runs"]:
            share = run["epsilon_spent"] / float(content["cell"]["epsilon"])
            rows.append({**content["cell"], **run, "share": share, "images": content["images"], "protocol": content["protocol"]})
    return pd.DataFrame(rows).rename(columns={"seed": "set_seed"})


def _line(axis: plt.Axes, rows: pd.DataFrame, x: str, **style) -> None:
    """Mean over sets (or over the networks of the only set), and their standard deviation as a band."""
    several = rows.set_seed.nunique() > 1
    points = rows.groupby(["step", "set_seed"])[["share", "test_accuracy"]].mean().reset_index() if several else rows
    grouped = points.groupby("step")
    place = grouped["share"].mean() if x == "share" else pd.Series(list(grouped.groups), index=list(grouped.groups))
    mean, std = grouped["test_accuracy"].mean(), grouped["test_accuracy"].std()
    axis.plot(place, mean, markersize=3.5, **style)
    if std.notna().all():
        axis.fill_between(place, mean - std, mean + std, color=style["color"], alpha=0.2)


def write(frame: pd.DataFrame, paths: list[Path], *, preset: str) -> None:
    """The rows as .csv, the figure as .pdf and .png."""
    names = list(dict.fromkeys(frame.dataset))
    with seaborn.axes_style("whitegrid", rc=STYLE), plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, len(names), figsize=(3.25 * len(names), 4.6), layout="constrained", squeeze=False)
        for column, name in enumerate(names):
            cells = frame[frame.dataset == name].groupby(["method", "spc"], sort=False)
            shades = seaborn.color_palette("viridis", len(cells) + 1)  # from dark to light, in grey as well
            for index, ((method, spc), rows) in enumerate(cells):
                style = {
                    "marker": MARKERS[index % len(MARKERS)],
                    "color": shades[index],
                    "label": sized_title(method, spc),
                }
                style["linestyle"] = ["-", "--", ":"][index % 3]
                one_shot = rows.share.nunique() == 1
                last = rows[rows.step == rows.step.max()]
                _line(axes[0, column], last if one_shot else rows, "share", **style)
                _line(axes[1, column], rows, "step", **style)
            axes[0, column].set(title=dataset_title(name), xlabel="share of epsilon spent", ylabel="test accuracy (%)")
            axes[1, column].set(xscale="log", xlabel="iterations", ylabel="test accuracy (%)")
        handles, labels = axes[1, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=8)
        runs = frame.groupby(["dataset", "method", "spc"])
        sets, networks = runs.set_seed.nunique().max(), runs.network_seed.nunique().max()
        over = "sets" if sets > 1 else "the networks of one set" if networks > 1 else None
        figure.supxlabel(
            f"ConvNet, {preset} preset, {sets} set(s) x {networks} network(s); "
            + (f"band: standard deviation over {over}." if over else "no band: a single run.")
            + "\nA method of one release spends all of epsilon before its first step: a single point above.",
            fontsize=8,
        )
        save(figure, [path for path in paths if path.suffix != ".csv"])
    (csv,) = (path for path in paths if path.suffix == ".csv")
    write_csv(frame.assign(preset=preset), csv)
