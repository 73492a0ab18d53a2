"""Every small configuration has its tables and figures, the empty ones left out: made from fabricated runs, as a property."""

import copy
import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from privset.jobs import grids, rows
from privset.reporting import convergence, figures, formats, pairs, tables
from privset.sets import arrays

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
QUICK = CONFIG["presets"]["quick"]
REPORTED = pd.read_csv(ROOT / "resources/reported.csv", dtype={"epsilon": str, "spc": str})


@st.composite
def presets(draw):
    """A preset with some of quick's methods, sizes, epsilons, datasets and networks, with or without storage sizes."""

    def some(values):
        return draw(st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True))

    methods = {}
    for row in draw(st.lists(st.sampled_from([*QUICK["methods"]]), min_size=1, max_size=3, unique=True)):
        block = {key: value for key, value in QUICK["methods"][row].items() if key != "epsilon"}
        if "spc" in block:
            block["spc"] = some([1, 2, 10, 20] if rows.described(row).family == "optimised set" else [5, 100])
        if row == "psg_prior":
            block["epsilon"] = some([1, 10])
        methods[row] = block
    made = {"methods": methods, "epsilon": some([0.5, 1, 10]), "datasets": some(["mnist", "fashion_mnist", "digits"])}
    made |= {"networks": some(["convnet", "mlp", "lenet"]), "set_seeds": some([0, 3])}
    made |= {"storage": some([1, 10])} if draw(st.booleans()) else {}
    return made


def config_with(preset):
    config = copy.deepcopy(CONFIG)
    config["presets"]["mine"] = {key: value for key, value in QUICK.items() if key in ("noise", "evaluation")} | preset
    return config


def number(text):
    """The same for the same text."""
    return sum(map(ord, text)) % 97


def metrics_of(run):
    accuracies = [50 + number(str(run)) / 4, 51 + number(str(run)) / 5]
    made = [
        {"network": network, "network_seed": seed, "protocol": "short", "test_accuracy": accuracy}
        for network in run["networks"].split("+")
        for seed, accuracy in enumerate(accuracies)
    ]
    promise = {"epsilon": run["epsilon"], "noise_source": "seed 1"}
    more = {"images": 10 * (1000 if run["spc"] == "all" else int(run["spc"])), "device": "cpu", "code": "x"}
    return {"cell": run, "runs": made, "certificate": promise, **more}


def written(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def table_of(config, name, folder):
    cell = {"preset": "mine"}
    runs = grids.table1_runs(config, cell) if name == "table1_pairs" else grids.table_runs(config, {**cell, "table": name})
    files = [written(folder, f"{name}/{index}.json", metrics_of(run)) for index, run in enumerate(runs)]
    if name == "table1_pairs":
        said = []
        for index, run in enumerate(runs):
            random = np.random.default_rng(number(str(run)))
            said.append(folder / f"{index}.npz")
            guesses = random.integers(0, 10, (2, 50)).astype(np.uint8)
            arrays.write_predictions(said[-1], {run["networks"]: guesses}, np.arange(50) % 10)
        return pairs.table(files, said)
    text = {"epsilon": str, "spc": str}
    formats.write_csv(tables.tidy(files), folder / f"{name}.csv")
    metrics = pd.read_csv(folder / f"{name}.csv", dtype=text)
    datasets = grids.datasets(config, cell)
    if name == "table_storage":
        return tables.storage(metrics, datasets=datasets)
    return tables.comparison(name, metrics, REPORTED, datasets=datasets)


@settings(max_examples=25, deadline=None)
@given(preset=presets())
def test_every_small_configuration_has_its_tables(preset, tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("tables"), config_with(preset)
    names = grids.tables(config, "mine")
    private = [row for row in preset["methods"] if row not in ("real", "psg_prior")]
    assert ("table1" in names) == bool(private) and "table_privacy" in names
    assert ("table3" in names) == ("psg_prior" in preset["methods"])
    storage = ["table_storage"] if grids.storage_cells(config, {"preset": "mine"}) else []
    for name in [*names, *storage]:
        if name == "table_privacy":
            continue
        table = table_of(config, name, folder)
        assert len(table.shown) and len(table.frame)
        for form in (formats.markdown, formats.latex, formats.page):
            assert table.title in form(table, preset="mine").replace(r"\%", "%")
        if name in ("table1", "table2"):
            made = grids.table_runs(config, {"preset": "mine", "table": name})
            keys = ("method", "spc", "dataset", "epsilon")  # nothing is averaged but seeds
            each = {(*(run[key] for key in keys), name) for run in made for name in run["networks"].split("+")}
            assert table.frame.reproduced.notna().sum() == len(each)


@settings(max_examples=15, deadline=None)
@given(preset=presets())
def test_every_small_configuration_has_its_figures(preset, tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("figures"), config_with(preset)
    for name in grids.figures(config, "mine"):
        out = [folder / f"{name}.png"]
        if name == "fig_samples":
            sets = []
            for index, cell in enumerate(grids.sample_cells(config, {"preset": "mine"})):
                spc = int(cell["spc"])
                written(folder, f"{index}/certificate.json", {"cell": cell})
                images = np.random.default_rng(index).random((10 * spc, 1, 8, 8), dtype=np.float32)
                sets.append(folder / f"{index}/set.npz")
                arrays.write_set(sets[-1], arrays.Set(images=images, labels=np.repeat(np.arange(10), spc)))
            figures.samples(sets, [], out, preset="mine")
        else:
            files = []
            for index, run in enumerate(grids.snapshot_runs(config, {"preset": "mine", "figure": name})):
                steps = [
                    {"step": step, "epsilon_spent": step / 4, "network_seed": 0, "test_accuracy": 50.0 + step}
                    for step in (1, 2, 4)
                ]
                content = {"cell": run, "runs": steps, "images": 10, "protocol": "short"}
                files.append(written(folder, f"{name}/{index}.json", content))
            convergence.write(convergence.tidy(files), [*out, folder / f"{name}.csv"], preset="mine")
        assert out[0].stat().st_size > 1000
