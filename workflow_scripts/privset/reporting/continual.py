"""Class-incremental learning: accuracy on all classes so far after each task."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import seaborn

from privset.jobs.rows import method_of
from privset.reporting import METHODS, dataset_title, row_title
from privset.reporting.figures import MARKERS, STYLE, plt, save
from privset.reporting.formats import write_csv
from privset.sets.files import read_json


def tidy(paths: list[Path]) -> pd.DataFrame:
    """One row per (stream, task, network seed)."""
    contents = [read_json(path) for path in paths]
    rows = [{**content["cell"], **run, "protocol": content["protocol"]} for content in contents for run in content["runs"]]
    return pd.DataFrame(rows).rename(columns={"seed": "set_seed"})


def write(frame: pd.DataFrame, paths: list[Path], *, preset: str) -> None:
    """The rows as .csv, the figure as .pdf and .png: a line per method with the standard deviation over set seeds as its band."""
    order = sorted(dict.fromkeys(frame.method), key=lambda row: (-list(METHODS).index(method_of(row)), row))
    keys = ["dataset", "method", "epsilon", "classes", "set_seed"]
    points = frame.groupby(keys, sort=False)["test_accuracy"].mean().reset_index()
    several_epsilons = points.epsilon.nunique() > 1
    points["row"] = points.method.map(row_title) + (", eps=" + points.epsilon if several_epsilons else "")
    titles = [
        title for row in order for title in sorted(points.row[points.method == row].unique(), key=lambda text: (len(text), text))
    ]
    shades = dict(zip(titles, (str(0.7 * index / max(1, len(titles) - 1)) for index in range(len(titles))), strict=True))
    names = list(dict.fromkeys(frame.dataset))
    with seaborn.axes_style("whitegrid", rc=STYLE), plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(names), figsize=(3.25 * len(names), 2.8), layout="constrained", squeeze=False)
        for axis, name in zip(axes[0], names, strict=True):
            seaborn.lineplot(
                points[points.dataset == name],
                x="classes",
                y="test_accuracy",
                hue="row",
                style="row",
                hue_order=titles,
                style_order=titles,
                palette=shades,
                markers=dict(zip(titles, MARKERS * len(titles), strict=False)),
                errorbar="sd",
                ax=axis,
            )
            axis.set(xlabel="classes seen", ylabel="accuracy on them (%)", title=dataset_title(name), ylim=(0, 104))
            axis.set_xticks(sorted(points.classes.unique()))
        handles, labels = axes[0, 0].get_legend_handles_labels()
        for axis in axes[0]:
            axis.get_legend().remove()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=8)
        sets, networks = points.set_seed.nunique(), frame.network_seed.nunique()
        figure.supxlabel(
            f"eps={', '.join(dict.fromkeys(points.epsilon))} per task, on its own records; {preset} preset, {sets} run(s) per "
            "line, "
            + ("band: standard deviation over them.\n" if sets > 1 else "no band.\n")
            + f"Sets: up to {networks} network(s) trained on each after every task; DP-SGD: its one network.",
            fontsize=8,
        )
        save(figure, [path for path in paths if path.suffix != ".csv"])
    (csv,) = (path for path in paths if path.suffix == ".csv")
    write_csv(frame.assign(preset=preset), csv)
