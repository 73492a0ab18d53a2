"""README's numbers are those of the published files, to the digit that it shows."""

import json
import re
import statistics

import pytest

from conftest import ROOT
from privset.reporting import dataset_title

README = (ROOT / "README.md").read_text(encoding="utf-8")
PUBLISHED = ROOT / "results" / "published"


def rows(table):
    """The rows of a Markdown table, each a list of cells without emphasis."""
    lines = (line for line in table.splitlines() if not re.match(r"\|:?--", line))
    return [[cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in lines]


def tables(text=README):
    """The Markdown tables of a text."""
    return [rows(table) for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]


def markdown(path):
    """The one table of a published file, header first."""
    (table,) = tables(path.read_text(encoding="utf-8"))
    return table


def spread(accuracies):
    """ "97.0 ± 0.3": over sets, each the mean of its networks; over the networks where there is one set."""
    means = [statistics.mean(networks) for networks in accuracies]
    return f"{statistics.mean(means):.1f} ± {statistics.stdev(means if len(means) > 1 else accuracies[0]):.1f}"


def runs(path):
    return [run["test_accuracy"] for run in json.loads(path.read_text(encoding="utf-8"))["runs"]]


def test_the_main_table_is_the_published_table1():
    header, *lines = tables()[0]
    columns, *published = markdown(PUBLISHED / "quick" / "table1.md")
    shown = {}
    for row in (dict(zip(columns, cells, strict=True)) for cells in published):
        name = re.sub(r" \(spc=(\d+)\)", lambda size: f", {size[1]} image{'s' * (size[1] != '1')} per class", row["method"])
        cells = shown.setdefault(name, {})
        for dataset in ("MNIST", "FashionMNIST"):
            cells[f"{dataset}, eps = {row['eps']}"] = row[f"{dataset} reproduced"].split(" ±")[0]
            if row["eps"] == "10":
                cells[f"{dataset} reported"] = row[f"{dataset} reported"]
    printed = {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in lines}
    real = printed.pop("real data, not private")
    assert printed == shown
    columns, *second = markdown(PUBLISHED / "quick" / "table2.md")
    row = next(dict(zip(columns, cells, strict=True)) for cells in second if cells[:2] == ["Real data (not private)", "ConvNet"])
    for dataset in ("MNIST", "FashionMNIST"):
        assert real[f"{dataset}, eps = 10"] == row[f"{dataset} reproduced"].split(" ±")[0]
        assert real[f"{dataset} reported"] == row[f"{dataset} reported"]


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("epsilon", ["1", "10"])
def test_psms_full_size_is_the_published_sets(dataset, epsilon):
    (header, row) = next(table for table in tables() if table[0][0].startswith("PSM, 10 images"))
    sets = sorted(PUBLISHED.glob(f"psm/{dataset}_eps{epsilon}_spc10_seed*/convnet.json"))
    assert len(sets) == 3
    assert row[header.index(f"{dataset_title(dataset)}, eps = {epsilon}")] == spread([runs(path) for path in sets])


def test_taughts_row_is_the_published_runs():
    (header, row) = next(table for table in tables() if table[0][0].startswith("Taught, 10,000 images"))
    found = runs(PUBLISHED / "taught" / "fashion_mnist_eps1_seed0" / "spc1000" / "convnet.json")
    assert len(found) == 3 and row[header.index("FashionMNIST, eps = 1")] == spread([found])


def test_the_papers_cell_is_the_published_one():
    (found,) = PUBLISHED.glob("paper/mnist_psg*/convnet.json")
    assert f"**{spread([runs(found)])}** where the paper reports 81.4" in README
