"""Paired comparison of methods on the same test images, with bootstrap intervals."""

from __future__ import annotations

import functools
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd

from privset.reporting import dataset_title, method_title, sized_title
from privset.reporting.formats import DIGITS, Table
from privset.sets.arrays import read_predictions
from privset.sets.files import read_json

RESAMPLES = 2000


@functools.cache
def _resampled_images(images: int) -> np.ndarray:
    """(resamples, images): how often, in shares, a resample has each image; the same resamples for every pair."""
    return np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), size=RESAMPLES) / images


def difference(a: np.ndarray, b: np.ndarray, random: np.random.Generator) -> tuple[float, float, float]:
    """Mean accuracy of `a` minus that of `b` in percentage points, and its 95 % bootstrap interval.

    `a` and `b` are (runs, test images) booleans, right or wrong, on the same images in the same order. Test images are
    resampled jointly for both (the comparison is paired), runs within each.
    """
    weights = _resampled_images(a.shape[1])

    def resampled(right: np.ndarray) -> np.ndarray:
        by_run = weights @ right.T.astype(float)  # (resamples, runs)
        runs = random.integers(len(right), size=(RESAMPLES, len(right)))
        return np.take_along_axis(by_run, runs, axis=1).mean(axis=1)

    low, high = np.quantile(100 * (resampled(a) - resampled(b)), [0.025, 0.975])
    return 100 * (a.mean() - b.mean()), low, high


def table(metrics: list[Path], predictions: list[Path]) -> Table:
    """Every pair of methods with the same dataset and epsilon, from the first network's runs."""
    right: dict[tuple[str, str], dict[str, list[np.ndarray]]] = {}
    cells = [read_json(path)["cell"] for path in metrics]
    several = {a["method"] for a, b in product(cells, cells) if a["method"] == b["method"] and a["spc"] != b["spc"]}
    for cell, said in zip(cells, predictions, strict=True):
        title = (sized_title if cell["method"] in several else method_title)(cell["method"], cell["spc"])
        predictions, labels = read_predictions(said)
        (predicted,) = predictions.values()  # a job of the first network has no other
        group = right.setdefault((cell["dataset"], cell["epsilon"]), {})
        group.setdefault(title, []).append(predicted == labels)
    rows = []
    for (dataset, epsilon), methods in right.items():
        for (first, a), (second, b) in combinations(methods.items(), 2):
            mean, low, high = difference(np.concatenate(a), np.concatenate(b), np.random.default_rng(1))
            rows.append(
                {
                    "dataset": dataset_title(dataset),
                    "eps": epsilon,
                    "first": first,
                    "second": second,
                    "difference": mean,
                    "low": low,
                    "high": high,
                    "n": f"{len(a)}x{len(a[0])}, {len(b)}x{len(b[0])}",
                }
            )
    frame = pd.DataFrame(rows, columns=["dataset", "eps", "first", "second", "difference", "low", "high", "n"])
    shown = frame.assign(
        difference=[f"{row.difference:+.1f}" for row in frame.round(DIGITS).itertuples()],
        interval=[f"{row.low:+.1f} to {row.high:+.1f}" for row in frame.round(DIGITS).itertuples()],
    ).drop(columns=["low", "high"])
    return Table(
        name="table1_pairs",
        title="Table 1 in pairs. Difference of test accuracy (percentage points), first minus second",
        frame=frame,
        shown=shown[["dataset", "eps", "first", "second", "difference", "interval", "n"]],
        notes=(
            f"interval: 95 % by {RESAMPLES} bootstrap resamples of the test images (the same for both methods) and of the "
            "runs of each. With one set per method it says what these sets do, not what another draw of noise would.",
            "n: sets x networks per set, of first and second.",
        ),
    )
