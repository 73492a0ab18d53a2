"""The figures, in one style: readable in greyscale, every font at least 8 pt at column width."""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import seaborn

from privset.reporting import dataset_title, row_title, sized_title
from privset.sets.arrays import read_set, read_snapshots
from privset.sets.files import read_json, write_atomically
from privset.sets.mosaic import mosaic

matplotlib.use("Agg")
from matplotlib import pyplot as plt

STYLE = {"font.size": 8, "axes.titlesize": 8, "figure.dpi": 150, "savefig.dpi": 300, "pdf.fonttype": 42}


PANELS = 5
"""Methods side by side."""


def save(figure: plt.Figure, paths: list[Path]) -> None:
    for path in paths:
        write_atomically(
            path, lambda stream, path=path: figure.savefig(stream, format=path.suffix[1:], bbox_inches="tight"), mode="wb"
        )
    plt.close(figure)


def samples(sets: list[Path], snapshots: list[Path], paths: list[Path], *, preset: str) -> None:
    """Image grids of the sets, one panel per (dataset, method) with its sizes side by side, one row per class; `snapshots` hold
    the images that the prior's generator makes of fresh codes."""
    grids: dict[str, dict[str, list[tuple[str, np.ndarray]]]] = {}
    for path in sets:
        cell = read_json(path.with_name("certificate.json"))["cell"]
        made = read_set(path)
        images, labels = made.images, made.labels
        columns = min(10, int(np.bincount(labels).max()))
        methods = grids.setdefault(cell["dataset"], {})
        methods.setdefault(row_title(cell["method"]), []).append((cell["spc"], mosaic(images, labels, columns=columns)))
        if columns > 1 and path.with_name("snapshots.npz") in snapshots:
            fresh = read_snapshots(path.with_name("snapshots.npz"))["fresh_codes"]
            methods[f"{row_title(cell['method'])},"] = [("fresh codes", mosaic(fresh, labels, columns=columns))]
    panels: dict[str, list[tuple[str, np.ndarray]]] = {}
    for dataset, methods in grids.items():
        for method, parts in methods.items():
            gap = np.ones((parts[0][1].shape[0], 8, *parts[0][1].shape[2:]))
            picture = np.hstack([column for _, part in parts for column in (gap, part)][1:])
            room = max(0, round(0.7 * picture.shape[0]) - picture.shape[1])  # for the title
            picture = np.pad(picture, ((0, 0), (0, room), (0, 0))[: picture.ndim], constant_values=1)
            sizes = " and ".join(size for size, _ in parts)
            title = f"{method}\n{sizes}" + (" per class" if sizes[0].isdigit() else "")
            panels.setdefault(dataset, []).append((title, picture))
    lines = [(dataset, shown[i : i + PANELS]) for dataset, shown in panels.items() for i in range(0, len(shown), PANELS)]
    longest = max(sum(picture.shape[1] for _, picture in shown) for _, shown in lines)
    titles = 0.09 * longest
    heights = [max(picture.shape[0] for _, picture in shown) + titles for _, shown in lines]
    with seaborn.axes_style("white", rc=STYLE), plt.rc_context(STYLE):
        figure = plt.figure(figsize=(6.5, 6.5 * sum(heights) / longest))
        rows = figure.subfigures(len(lines), 1, height_ratios=heights, squeeze=False)
        for row, (dataset, shown) in zip(rows[:, 0], lines, strict=True):
            widths = [picture.shape[1] for _, picture in shown]
            rest = [longest - sum(widths)] if sum(widths) < longest else []
            axes = row.subplots(1, len(widths + rest), width_ratios=widths + rest, gridspec_kw={"wspace": 0.08}, squeeze=False)[0]
            row.subplots_adjust(left=0.03, right=1, bottom=0, top=1 - titles / (titles + shown[0][1].shape[0]))
            axes[0].set_ylabel(dataset_title(dataset))
            for axis, (title, picture) in zip(axes, shown, strict=False):
                axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axis.set(title=title, xticks=[], yticks=[], anchor="N")
            for axis in axes[len(widths) :]:
                axis.axis("off")
        note = f"eps={cell['epsilon']}. One row per class; pixels below 0 are shown black, above 1 white ({preset} preset)."
        figure.text(0.5, 0, note, ha="center", va="top")
        save(figure, paths)


def confusion(predicted: np.ndarray, labels: np.ndarray, names: tuple[str, ...], paths: list[Path], *, title: str) -> None:
    """Share of each class's test images (rows) by predicted class (columns), in percent, the mean over the runs.

    `predicted` is (R, N), `labels` (N,). The accuracy by class is the diagonal, repeated beside the class's name.
    """
    share = np.zeros((len(names), len(names)))
    for run in predicted:
        np.add.at(share, (labels, run), 1)
    share *= 100 / share.sum(axis=1, keepdims=True)
    with seaborn.axes_style("white", rc=STYLE), plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(5.2, 4.6), layout="constrained")
        seaborn.heatmap(
            share,
            annot=True,
            fmt=".0f",
            cmap="Greys",
            vmin=0,
            vmax=100,
            cbar=False,
            annot_kws={"size": 8},
            xticklabels=names,
            yticklabels=[f"{name}  {share[index, index]:.1f} %" for index, name in enumerate(names)],
            ax=axis,
        )
        axis.set(
            xlabel="predicted class",
            ylabel="true class, with its accuracy",
            title=f"{title}\n(% of each row, {len(predicted)} runs)",
        )
        axis.tick_params(axis="x", rotation=90)
        axis.tick_params(axis="y", rotation=0)
        save(figure, paths)


MARKERS = "osD^vPX*<>"


def epsilons(metrics: pd.DataFrame, paths: list[Path], *, preset: str) -> None:
    """Test accuracy against epsilon, one panel per dataset, one line per method."""
    names = list(dict.fromkeys(metrics.dataset))
    with seaborn.axes_style("whitegrid", rc=STYLE), plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(names), figsize=(3.25 * len(names), 2.6), layout="constrained", squeeze=False)
        for axis, name in zip(axes[0], names, strict=True):
            for marker, ((method, spc), rows) in zip(
                itertools.cycle(MARKERS), metrics[metrics.dataset == name].groupby(["method", "spc"]), strict=False
            ):
                per_set = rows.groupby(["epsilon", "set_seed"])["test_accuracy"].mean().groupby("epsilon")
                mean, std = per_set.mean(), per_set.std()
                shade = {"psm": "black", "psg": "0.35"}.get(method, "0.6")
                axis.plot(mean.index, mean, marker=marker, markersize=4, color=shade, label=sized_title(method, spc))
                if std.notna().all():
                    axis.fill_between(mean.index, mean - std, mean + std, color=shade, alpha=0.2)
            axis.set(xscale="log", xlabel="epsilon", ylabel="test accuracy (%)", title=dataset_title(name))
            ticks = sorted(metrics.epsilon.unique())
            axis.set_xticks(ticks, [f"{value:g}" for value in ticks])
            axis.minorticks_off()
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=8)
        sets = metrics.groupby(["dataset", "method", "epsilon"]).set_seed.nunique().max()
        band = "bands: standard deviation over them" if sets > 1 else "no band: one set"
        figure.supxlabel(f"{preset} preset, {sets} set(s) per point, {band}", fontsize=8)
        save(figure, paths)


def optimisation(snapshots: list[Path], paths: list[Path], *, preset: str) -> None:
    """The first image of every class at logarithmically spaced steps of the optimisation, one panel per dataset."""
    with seaborn.axes_style("white", rc=STYLE), plt.rc_context(STYLE):
        contents = [np.load(path) for path in snapshots]
        height = 0.7 + 3 * max(len(content["step"]) / len(np.unique(content["labels"])) for content in contents)
        size = (3.25 * len(snapshots), height)
        figure, axes = plt.subplots(1, len(snapshots), figsize=size, layout="constrained", squeeze=False)
        for axis, path, content in zip(axes[0], snapshots, contents, strict=True):
            steps, images, labels = content["step"], content["images"], content["labels"]
            first = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)]
            # One row per step: mosaic draws one row per "class".
            flat = images[:, first].reshape(-1, *images.shape[2:])
            axis.imshow(
                mosaic(flat, np.repeat(np.arange(len(steps)), len(first)), columns=len(first)), cmap="gray", vmin=0, vmax=1
            )
            height = images.shape[3] + 1
            axis.set(xticks=[], yticks=[(row + 0.5) * height for row in range(len(steps))], yticklabels=steps, ylabel="step")
            cell = read_json(path.with_name("certificate.json"))["cell"]
            axis.set_title(f"{dataset_title(cell['dataset'])}, eps={cell['epsilon']}, spc={cell['spc']}")
        figure.supxlabel(f"One column per class; 0 black, 1 white ({preset} preset).", fontsize=8)
        save(figure, paths)
