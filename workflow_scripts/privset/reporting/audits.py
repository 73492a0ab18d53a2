"""Claimed epsilons beside the lower bounds that an audit found: a table and a figure."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import seaborn

from privset.jobs import rows
from privset.reporting import row_title
from privset.reporting.figures import STYLE, plt, save
from privset.reporting.formats import Table
from privset.sets.files import read_json


def tidy(audits: list[Path]) -> pd.DataFrame:
    """One row per bound, from the audits' files."""
    found = []
    for path in audits:
        content = read_json(path)
        fixed = {"method": content["cell"]["method"], "delta": content["settings"]["delta"], "code": content["code"]}
        found += [{**fixed, **bound} for bound in content["bounds"]]
    return pd.DataFrame(found).rename(columns={"epsilon": "bound"})


def table(frame: pd.DataFrame) -> Table:
    """One line per row and claim."""
    shown = []
    for (method, claimed), group in frame.groupby(["method", "claimed"], sort=False):
        bounds = group.set_index("level")
        stronger = bounds[["bound", "assumption_free"]].max(axis=1)
        release = bounds.loc["release"]
        line = {
            "method": _title(method),
            "claimed": f"{claimed:g}",
            "PLD": f"{release.upper:.2f}",
            "release": f"{release.bound:.2f}",
        }
        line["release, assumption-free"] = f"{release.assumption_free:.2f}"
        line["bits"] = f"{bounds.bound['bits']:.2f}"
        line |= {level: f"{stronger[level]:.2f}" if level in stronger else "-" for level in ("one run", "images")}
        refuted = [level for level in bounds.index if bounds.refuted[level]]
        line |= {"draws": f"{int(release.draws):,}", "verdict": f"REFUTED: {', '.join(refuted)}" if refuted else "not refuted"}
        shown.append(line)
    return Table(
        name="table_audit",
        title=f"Lower bounds on epsilon at delta = {frame.delta.iloc[0]:g}, from attacks on the running code",
        frame=frame.drop(columns="delta"),
        shown=pd.DataFrame(shown),
        notes=(
            "Each number is a lower bound at 95 % confidence, a privacy loss that an attacker showed (0.00: none); one in twenty "
            "may be above the truth. Refuted: a bound at 99.99 % is above the claim. What one below it can show: docs/audit.md.",
            "PLD: what the row's noise allows at most, by privacy loss distributions; less than the claim where that was made by "
            "Renyi DP.",
            "release: the attacker chose all records, sees every answer of the vault, and knows all but one bit. The bound is in "
            "the family of the row's own releases; assumption-free: by (epsilon, delta) alone. draws: of this column.",
            "bits: whether the low bits of answers tell what was added to the noise, as PyTorch's float32 normals do; "
            f"{_draws(frame, 'bits')} draws.",
            f"one run: all canaries in one transcript, at most {_draws(frame, 'one run')} guesses. images: from the published "
            "images alone, half of the canaries among the records, real images under wrong labels; one set, at one claim. '-': "
            "not attacked.",
            "one run, images: the better of the bounds with and without the family; the CSV has both. Images could "
            "refute small claims alone (docs/audit.md). Rows of the continual experiment: their first task.",
            "The verdict also has that noise is as stated: on the grid, of the stated variance, without correlations.",
        ),
    )


def _draws(frame: pd.DataFrame, level: str) -> str:
    return f"{int(frame.draws[frame.level == level].max()):,}"


MARKERS = {"release": ("o", "black"), "one run": ("D", "white"), "images": ("x", "black"), "bits": ("+", "0.5")}


def draw(frame: pd.DataFrame, paths: list[Path], *, preset: str) -> None:
    """Bounds by row, one panel per claim."""
    order = list(frame.method.unique())[::-1]
    claims = sorted(frame.claimed.unique())
    with seaborn.axes_style("whitegrid", rc=STYLE), plt.rc_context(STYLE):
        size = (6.5, 1.1 + 0.22 * len(order))
        figure, axes = plt.subplots(1, len(claims), figsize=size, sharey=True, layout="constrained", squeeze=False)
        for axis, claimed in zip(axes[0], claims, strict=True):
            chosen = frame[frame.claimed == claimed]
            axis.axvline(claimed, color="black", linestyle="--", linewidth=1, label="claimed")
            for row in order:  # a short line: by privacy loss distributions no attack can come further
                axis.plot([chosen[chosen.method == row].upper.iloc[0]], [order.index(row)], "|", color="black", label="PLD")
            for level, (marker, face) in MARKERS.items():
                found = chosen[chosen.level == level]
                style = {"facecolor": face, "edgecolor": "black"} if marker in "oD" else {"color": face}
                axis.scatter(found.bound, found.method.map(order.index), marker=marker, s=18, label=level, zorder=3, **style)
            axis.set(xlim=(-0.06 * claimed, 1.2 * claimed), title=f"claimed: {claimed:g}", xticks=[0, claimed / 2, claimed])
            axis.set_xticklabels(["0", f"{claimed / 2:g}", f"{claimed:g}"])
        axes[0, 0].set_yticks(range(len(order)), [_title(row) for row in order])
        found = dict(zip(*reversed(axes[0, -1].get_legend_handles_labels()), strict=True))
        figure.legend(found.values(), found, loc="outside upper center", ncols=len(found), fontsize=8)
        figure.supxlabel(f"epsilon: lower bounds at 95 % confidence ({preset} preset)", fontsize=8)
        save(figure, paths)


def _title(row: str) -> str:
    """The row's, and that it is one of the continual experiment."""
    return row_title(row) + (", task by task" if rows.described(row).tasks else "")
