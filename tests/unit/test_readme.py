"""README's numbers are those of the published files, to the digit that it shows."""

import json
import re
import statistics

import pandas as pd
import pytest

from conftest import ROOT
from privset.reporting import dataset_title, method_title

README = (ROOT / "README.md").read_text(encoding="utf-8")
PUBLISHED = ROOT / "results" / "published"


def tables():
    """The tables of README, each a list of rows of cells, without emphasis."""
    found = re.findall(r"(?:^\|.*\n)+", README, re.MULTILINE)
    return [
        [
            [cell.strip().strip("*") for cell in line.strip().strip("|").split("|")]
            for line in table.splitlines()
            if "---" not in line
        ]
        for table in found
    ]


def spread(accuracies):
    """ "97.0 ± 0.3": over sets, each the mean of its networks; over the networks where there is one set."""
    means = [statistics.mean(networks) for networks in accuracies]
    return f"{statistics.mean(means):.1f} ± {statistics.stdev(means if len(means) > 1 else accuracies[0]):.1f}"


def runs(path):
    return [run["test_accuracy"] for run in json.loads(path.read_text(encoding="utf-8"))["runs"]]


def test_the_main_table_is_the_published_table1():
    header, *rows = tables()[0]
    published = pd.read_csv(PUBLISHED / "quick" / "table1.csv", dtype={"epsilon": str, "spc": str})
    shown = {}
    for row in published.itertuples():
        size = "1 image per class" if row.spc == "1" else f"{row.spc} images per class"
        name = method_title(row.method, row.spc).replace(f" (spc={row.spc})", f", {size}")
        cells = shown.setdefault(name, {})
        cells[f"{dataset_title(row.dataset)}, eps = {row.epsilon}"] = f"{row.reproduced:.1f}"
        if row.epsilon == "10":
            cells[f"{dataset_title(row.dataset)} reported"] = "-" if pd.isna(row.reported) else f"{row.reported:.1f}"
    printed = {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}
    real = printed.pop("real data, not private")
    assert printed == shown
    second = pd.read_csv(PUBLISHED / "quick" / "table2.csv", dtype={"epsilon": str, "spc": str})
    for row in second[(second.method == "real") & (second.network == "convnet")].itertuples():
        assert real[f"{dataset_title(row.dataset)}, eps = 10"] == f"{row.reproduced:.1f}"
        assert real[f"{dataset_title(row.dataset)} reported"] == f"{row.reported:.1f}"


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("epsilon", ["1", "10"])
def test_psms_full_size_is_the_published_sets(dataset, epsilon):
    (header, row) = next(table for table in tables() if table[0][0].startswith("PSM, 10 images"))
    sets = sorted(PUBLISHED.glob(f"psm/{dataset}_eps{epsilon}_spc10_seed*/convnet.json"))
    assert len(sets) == 3
    assert row[header.index(f"{dataset_title(dataset)}, eps = {epsilon}")] == spread([runs(path) for path in sets])


def test_the_papers_cell_is_the_published_one():
    (found,) = PUBLISHED.glob("paper/mnist_psg*/convnet.json")
    assert f"**{spread([runs(found)])}** where the paper reports 81.4" in README
