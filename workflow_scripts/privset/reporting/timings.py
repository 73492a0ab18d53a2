"""Benchmarks as a CSV (one row per program and size), a Markdown table (seconds and ratios) and a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import seaborn

from privset.reporting import NETWORKS
from privset.reporting.benchmarks import OURS
from privset.reporting.figures import STYLE, plt, save
from privset.sets.files import write_atomically

MARKERS = ("o", "s", "^", "v", "D", "x", "+", "P", "*", "d")


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.1 else f"{1000 * value:.1f} ms"


def shown(frame: pd.DataFrame, sizes: list[str]) -> str:
    """Markdown: programs down, sizes across; each entry is the median, and how many times ours that is."""
    names = {
        size: " ".join(f"{key} {value:,.10g}" if isinstance(value, (int, float)) else str(value) for key, value in size)
        for size in _sizes(frame, sizes)
    }
    lines = {}
    for row in frame.itertuples():
        size = tuple((key, getattr(row, key)) for key in sizes)
        lines.setdefault(row.program, {})[names[size]] = f"{_seconds(row.seconds)} ({row.ratio:.2f})"
    table = pd.DataFrame.from_dict(lines, orient="index")
    return table.rename_axis("program").reset_index().to_markdown(index=False, disable_numparse=True)


def _sizes(frame: pd.DataFrame, sizes: list[str]) -> list[tuple]:
    return [tuple(zip(sizes, row, strict=True)) for row in frame[sizes].drop_duplicates().itertuples(index=False)]


def _curve(axis: plt.Axes, frame: pd.DataFrame, x: str, title: str, y: str = "seconds") -> None:
    for marker, (program, rows) in zip(MARKERS, frame.groupby("program", sort=False), strict=False):
        rows = rows.sort_values(x)
        style = {"color": "black", "linewidth": 1.6} if program == OURS else {"linewidth": 0.9}
        axis.plot(rows[x], rows[y], marker=marker, markersize=4, label=program, **style)
        if y == "seconds":
            axis.fill_between(rows[x], rows.lower, rows.upper, alpha=0.2, color=style.get("color"))
    axis.set(xscale="log", yscale="log", title=title, xlabel=x)
    values = sorted(frame[x].unique())
    axis.set_xticks(values, [f"{value:g}" for value in values])
    axis.minorticks_off()


def private_step(frame: pd.DataFrame, paths: list[Path]) -> None:
    """The benchmark of rule private_step, to its .csv, .md and .png."""
    gradient, matching = (frame[frame.step == step] for step in ("private gradient", "matching step"))
    width = gradient.width.mode()[0]
    batch = gradient[gradient.width != width].batch.iloc[0]
    by_batch, by_width = gradient[gradient.width == width], gradient[gradient.batch == batch].sort_values("width", kind="stable")
    first = frame.iloc[0]
    noises = "\n".join(
        f"- {row.program}: {row.seconds * 1e9:,.0f} ns ({row.ratio:,.2f})" for row in frame[frame.step == "noise"].itertuples()
    )
    text = f"""## The private step

Median seconds (and the ratio to ours in the same rounds) of {first.n} interleaved rounds on {first.device}, torch {first.torch},
opacus {first.opacus}. Ours is compiled, as the `paper` preset uses it. Batches of a fixed
size, ConvNet on 28x28 images. Ours adds its noise on the grid; "float32 sum and noise" is what ours did until version 0.1, in the
same rounds; the other programs add none.

### Clipped per-record gradients, batch sizes, width {width:g}

{shown(by_batch, ["batch"])}

### Clipped per-record gradients, network widths, batch {batch:g}

{shown(by_width, ["width"])}

Peak memory of one call (MB above what was in use) at the largest batch, {by_batch.batch.max():g}, and width {width:g}:
{", ".join(f"{row.program} {row.peak_mb:.0f}" for row in by_batch[by_batch.batch == by_batch.batch.max()].itertuples())}.

### Matching step (the gradient of the matching loss in the images), width {width:g}

{shown(matching, ["images"])}

### Noise, per coordinate

{noises}
"""

    def picture() -> plt.Figure:
        figure, axes = plt.subplots(2, 2, figsize=(6.5, 5.6), layout="constrained")
        _curve(axes[0, 0], by_batch, "batch", f"private gradient, width {width:g}")
        _curve(axes[0, 1], by_width, "width", f"private gradient, batch {batch:g}")
        _curve(axes[1, 0], matching, "images", f"matching step, width {width:g}")
        _curve(axes[1, 1], by_batch.assign(peak_mb=by_batch.peak_mb.clip(lower=1)), "batch", "peak memory", "peak_mb")
        axes[0, 0].set_ylabel("seconds (median, quartiles)")
        axes[1, 0].set_ylabel("seconds (median, quartiles)")
        axes[1, 1].set_ylabel("MB")
        axes[1, 0].legend(fontsize=8)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
        return figure

    _write(frame, text, picture, paths)


def evaluation_speed(frame: pd.DataFrame, paths: list[Path]) -> None:
    """The benchmark of rule evaluation_speed, to its .csv, .md and .png."""
    epochs, tests = frame[frame.step == "epoch"], frame[frame.step == "test pass"]
    first = frame.iloc[0]
    sections = [
        f"### {NETWORKS.get(name, name)}, one epoch\n\n{shown(rows, ['images'])}"
        for name, rows in epochs.groupby("network", sort=False)
    ]
    text = f"""## The evaluation

Median seconds (and the ratio to ours in the same rounds) of {first.n} interleaved rounds on {first.device}, torch {first.torch}.
An epoch is its number of steps times one measured step of at most 256 images, augmentation included. Ours has
{first.precision} products; the plain loop is eager float32 with SciPy's augmentation, image by image, as published programs
have it.

{chr(10).join(section + chr(10) for section in sections)}
### Test pass of {tests.images.iloc[0]:,} images

{shown(tests, ["network"])}
"""

    def picture() -> plt.Figure:
        figure, axes = plt.subplots(2, 3, figsize=(6.5, 5.0), layout="constrained")
        for axis, (name, rows) in zip(axes.flat, epochs.groupby("network", sort=False), strict=False):
            _curve(axis, rows, "images", NETWORKS.get(name, name))
            axis.set_xlabel("images in the set")
            axis.tick_params(axis="x", rotation=45)
        figure.supylabel("seconds per epoch (median, quartiles)", fontsize=8)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
        return figure

    _write(frame, text, picture, paths)


def _write(frame: pd.DataFrame, text: str, picture: Callable[[], plt.Figure], paths: list[Path]) -> None:
    for path in paths:
        match path.suffix:
            case ".csv":
                write_atomically(path, lambda stream: frame.to_csv(stream, index=False, float_format="%.6g"))
            case ".md":
                write_atomically(path, lambda stream: stream.write(text))
            case ".png":
                with seaborn.axes_style("whitegrid", rc=STYLE), plt.rc_context(STYLE):
                    save(picture(), [path])
