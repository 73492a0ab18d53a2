"""The grids are functions of the configuration: cells, runs of tables, overlays, schedules, and one line for what cannot be."""

import copy
import inspect
import re
from pathlib import Path

import pytest
import yaml

from privset import PrivsetError
from privset.jobs import config as config_module
from privset.jobs import grids, needs
from privset.networks import classifiers

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text())
QUICK, PAPER = {"preset": "quick"}, {"preset": "paper"}
CELL = {"preset": "quick", "dataset": "mnist", "method": "psg", "epsilon": "10", "spc": "10", "seed": "0", "networks": "mlp"}


ENSEMBLES = {"gs_wgan", "g_pate", "datalens", "pate_gan"}
GENERATORS = {"dp_merf", "pearl", "dp_cgan", "dp_flow", "dp_sinkhorn", "dp_swd", *ENSEMBLES}
VARIANTS = {"psg_tight_accounting", "dp_cgan_label_outputs"}


def edited(**quick):
    config = copy.deepcopy(CONFIG)
    config["presets"]["quick"] |= quick
    return config


def test_cells_are_the_product_of_what_each_method_asks_for():
    found = grids.cells(CONFIG, QUICK)
    counts = {}
    for cell in found:
        counts[cell["method"]] = counts.get(cell["method"], 0) + 1
    # two datasets; two epsilons (the prior: one, the real data: infinity), three sizes or two (generators one, the real data all)
    expected = {"psg": 12, "psg_tight_accounting": 8, "psg_prior": 4, "psm": 8, "dp_cgan_label_outputs": 4, "real": 2}
    assert counts == expected | dict.fromkeys(GENERATORS, 4)
    assert {(cell["epsilon"], cell["spc"]) for cell in found if cell["method"] == "real"} == {("inf", "all")}
    assert len({tuple(cell.values()) for cell in found}) == len(found)


def test_another_seed_adds_as_many_cells_again():
    once, twice = (grids.cells(edited(set_seeds=seeds), QUICK) for seeds in ([0], [0, 7]))
    assert len(twice) == 2 * len(once) and {cell["seed"] for cell in twice} == {"0", "7"}


@pytest.mark.parametrize(
    ("table", "methods", "networks", "epsilons"),
    [
        ("table1", {"psg", "psm", *VARIANTS, *GENERATORS}, 1, {"1", "10"}),
        ("table2", {"psg", "psm", *VARIANTS, *GENERATORS, "real"}, 6, {"10", "inf"}),
        ("table3", {"psg", "psg_prior"}, 1, {"10"}),
        ("table_storage", {"psg", "psm", *GENERATORS}, 1, {"10"}),
        ("fig_psm_epsilon", {"psg", "psm", *GENERATORS}, 1, {"0.1", "0.3", "1", "3", "10", "20"}),
    ],
)
def test_runs_of_a_table(table, methods, networks, epsilons):
    runs = grids.table_runs(CONFIG, {**QUICK, "table": table})
    assert {run["method"] for run in runs} == methods
    assert len({name for run in runs for name in run["networks"].split("+")}) == networks
    assert {run["epsilon"] for run in runs} == epsilons
    if table == "table2":
        assert "1" not in {run["spc"] for run in runs}
    if table == "table_storage":
        assert {run["spc"] for run in runs if run["method"] == "psg"} == {"1", "10", "20", "50"}


def test_a_smaller_size_of_a_generator_is_of_its_largest_set():
    run = {**QUICK, "dataset": "mnist", "epsilon": "10", "seed": "0"}
    for method, spc, behind in [("dp_flow", "10", "1000"), ("dp_merf", "50", "1000"), ("psg", "20", "20"), ("psm", "50", "50")]:
        found = grids.set_behind(CONFIG, {**run, "method": method, "spc": spc})
        assert found["images"] == f"results/quick/sets/mnist/{method}/eps10/spc{behind}/seed0/set.npz"
        cut = grids.images_per_class(CONFIG, {**run, "method": method, "spc": spc})
        assert cut == (int(spc) if behind != spc else None)
    for spc in ("1000", "2000"):  # there is one, or a smaller one does not have as many
        assert grids.images_per_class(CONFIG, {**run, "method": "dp_flow", "spc": spc}) is None
        assert f"/spc{spc}/" in grids.set_behind(CONFIG, {**run, "method": "dp_flow", "spc": spc})["images"]
    assert "/spcall/" in grids.set_behind(CONFIG, {**run, "method": "real", "epsilon": "inf", "spc": "all"})["images"]
    two = edited(methods={"dp_flow": {"spc": [10, 1000]}})
    assert grids.images_per_class(two, {**run, "method": "dp_flow", "spc": "10"}) is None
    assert grids.images_per_class(two, {**run, "method": "dp_flow", "spc": "20"}) == 20


def test_an_audit_has_every_private_row_with_its_smallest_set():
    rows = {cell["method"] for cell in grids.audit_cells(CONFIG, QUICK)}
    assert rows == {
        *("psg", "psg_prior", "psm", *VARIANTS, *GENERATORS),
        *("psg_continual", "dp_merf_continual", "dpsgd", "dpsgd_tuned"),
    }
    audited = grids.audited(CONFIG, {**QUICK, "method": "psg_tight_accounting"})
    assert audited["spc"] == 1 and audited["config"]["iterations"] == 80 and audited["accountant"] == "pld"
    assert audited["epsilon"] == [0.5, 1, 3, 10] and audited["delta"] == 1e-5
    assert grids.audited(CONFIG, {**QUICK, "method": "dpsgd"})["spc"] is None
    assert grids.audited(CONFIG, {**QUICK, "method": "dp_merf"})["config"]["length_scale"] == 105
    assert grids.audit_data(CONFIG, QUICK)[0].startswith("results/data/mnist/")
    with pytest.raises(PrivsetError, match="audit in preset = calibration: choose from quick, paper"):
        grids.audited(CONFIG, {"preset": "calibration", "method": "psg"})
    with pytest.raises(PrivsetError, match="method = nothing: choose from"):
        grids.audited(CONFIG, {**QUICK, "method": "nothing"})
    elsewhere = edited(audit=CONFIG["presets"]["quick"]["audit"] | {"image_epsilon": 2})
    with pytest.raises(PrivsetError, match=r"audit.image_epsilon = 2: must be one of audit.epsilon, \[0.5, 1, 3, 10\]"):
        grids.audited(elsewhere, {**QUICK, "method": "psg"})


def test_overlays_of_size_and_dataset():
    config = edited(
        methods={
            "psg": {
                "spc": [1, 10],
                "config": {"clip": 0.1, "width": 16},
                "by_spc": {10: {"width": 8, "inner": 2}},
                "by_dataset": {"mnist": {"inner": 3}},
            }
        }
    )
    assert grids.hyper_parameters(config, CELL) == {"clip": 0.1, "width": 8, "inner": 3}
    assert grids.hyper_parameters(config, {**CELL, "spc": "1"}) == {"clip": 0.1, "width": 16, "inner": 3}
    assert grids.hyper_parameters(config, {**CELL, "dataset": "fashion_mnist"}) == {"clip": 0.1, "width": 8, "inner": 2}
    held_out = {**CELL, "dataset": "mnist_validation"}
    assert grids.hyper_parameters(config, held_out)["inner"] == 3
    config["presets"]["quick"]["methods"]["psg"]["by_dataset"]["mnist_validation"] = {"inner": 4}
    assert grids.hyper_parameters(config, held_out)["inner"] == 4 and grids.hyper_parameters(config, CELL)["inner"] == 3


def test_a_variant_says_what_differs_from_its_method():
    preset = CONFIG["presets"]["quick"]
    base, variant = (grids.method_block(preset, row) for row in ("psm", "psm_mosaics"))
    assert variant["config"] == {**base["config"], "tiles": 2} and variant["releases"] == base["releases"]


def test_variants_that_ask_the_same_of_the_data_share_the_methods_releases():
    cell = {**CELL, "method": "psm_mosaics"}
    assert "/psm/eps10/seed0/" in grids.releases_behind(CONFIG, cell)["statistics"]
    alone = grids.releases_behind(CONFIG, {**cell, "method": "psm_features_alone"})
    assert alone["certificate"] == "results/quick/releases/mnist/psm_features_alone/eps10/seed0/certificate.json"


def test_schedules_by_the_size_of_the_set_and_the_network():
    small = {"default": {"steps": 5, "seeds": 2}, "mlp": {"epochs": 7}}
    config = edited(evaluation={"small_up_to_spc": 10, "small_sets": small, "large_sets": {"default": {"steps": 9}}})
    mlp, lenet = {"seeds": 2, "epochs": 7}, {"steps": 5, "seeds": 2}  # epochs replace steps
    assert grids.schedules(config, CELL) == {"mlp": mlp}
    assert grids.schedules(config, {**CELL, "networks": "lenet+mlp"}) == {"lenet": lenet, "mlp": mlp}
    assert grids.schedules(config, {**CELL, "spc": "11"}) == {"mlp": {"steps": 9}}
    real = {**CELL, "method": "real", "epsilon": "inf", "spc": "all", "networks": "lenet+mlp"}
    assert grids.schedules(config, real) == {"lenet": {"steps": 9}, "mlp": {"steps": 9}}
    config["presets"]["quick"]["evaluation"]["real_data"] = {"default": {"seeds": 3}, "mlp": {"epochs": 2}}
    assert grids.schedules(config, real) == {"lenet": {"steps": 9, "seeds": 3}, "mlp": {"seeds": 3, "epochs": 2}}
    assert grids.schedules(config, {**CELL, "spc": "11"}) == {"mlp": {"steps": 9}}
    config["presets"]["quick"]["evaluation"]["labelled_sets"] = {"default": {"steps": 4, "augment": False}}
    labelled = {**CELL, "method": "taught", "spc": "11", "networks": "lenet+mlp"}
    config["presets"]["quick"]["methods"]["taught"] = {"spc": [11]}
    assert grids.schedules(config, labelled) == {name: {"steps": 4, "augment": False} for name in ("lenet", "mlp")}
    assert grids.schedules(config, {**CELL, "spc": "11"}) == {"mlp": {"steps": 9}}
    assert grids.snapshot_schedule(config, {**CELL, "network": "mlp", "spc": "1000"}) == mlp
    for wrong, line in [("mlp+mlp", "networks = mlp[+]mlp: name each once"), ("mlp+x", "network = x: choose from convnet, len")]:
        with pytest.raises(PrivsetError, match=line):
            grids.schedules(config, {**CELL, "networks": wrong})


@pytest.mark.parametrize(
    ("kind", "schedule", "line"),
    [
        ("small_sets", {"default": {"seeds": 3}}, "convnet on small sets: give exactly one of epochs and steps"),
        ("small_sets", {"default": {"steps": 3, "epochs": 3}}, "convnet on small sets: give exactly one of epochs and steps"),
        ("large_sets", {"default": {"steps": 3, "width": 32}}, "lenet on large sets: width = 32, and it has one width alone"),
        ("real_data", {"lenet": {"width": 8}}, "lenet on the real data: width = 8, and it has one width alone"),
        ("labelled_sets", {"lenet": {"width": 8}}, "lenet on labelled sets: width = 8, and it has one width alone"),
    ],
)
def test_a_schedule_that_cannot_run_is_refused_before_anything_is_computed(kind, schedule, line):
    whole = {"small_up_to_spc": 10, "small_sets": {"default": {"steps": 5}}, "large_sets": {"default": {"steps": 9}}}
    grids.check_schedules(edited(evaluation=whole))
    with pytest.raises(PrivsetError, match=re.escape(f"presets.quick.evaluation: {line}")):
        grids.check_schedules(edited(evaluation={**whole, kind: schedule}))


def test_which_networks_take_a_width_is_read_from_their_source():
    takes = {name: "width" in inspect.signature(make).parameters for name, make in classifiers.NETWORKS.items()}
    assert config_module.networks() == takes


def test_one_job_trains_the_first_network_and_one_all_others():
    runs = grids.table_runs(CONFIG, {**QUICK, "table": "table2"})
    assert {run["networks"] for run in runs} == {"convnet", "lenet+alexnet+vgg11+resnet18+mlp"}
    assert grids.together(["mlp"]) == ["mlp"]
    for network, job in [("convnet", "convnet"), ("mlp", "lenet+alexnet+vgg11+resnet18+mlp")]:
        file = grids.predictions_behind(CONFIG, {**CELL, "network": network})
        assert file == f"results/quick/metrics/mnist/psg/eps10/spc10/seed0/{job}.npz"
    with pytest.raises(PrivsetError, match="network = x: choose from convnet"):
        grids.predictions_behind(CONFIG, {**CELL, "network": "x"})


def test_the_continual_experiment_has_sets_and_one_classifier():
    assert len(grids.continual_cells(CONFIG, PAPER)) == 2 * 4 * 2 * 3
    folder = "results/quick/sets/mnist/psg_continual/eps10/spc10/seed0"
    sets = grids.learned(CONFIG, {**CELL, "method": "psg_continual"})
    assert sets == [f"{folder}/set.npz", f"{folder}/certificate.json"]
    weights = grids.learned(CONFIG, {**CELL, "method": "dpsgd"})
    assert weights[0] == "results/quick/releases/mnist/dpsgd/eps10/seed0/statistics.npz"
    assert grids.task_schedule(CONFIG, {**CELL, "method": "dpsgd"}) == {}


def test_snapshots_of_post_processing_alone_are_not_evaluated():
    for figure, methods in (("fig_convergence", {"psg", *GENERATORS}), ("fig_prior_convergence", {"psg", "psg_prior"})):
        runs = grids.snapshot_runs(CONFIG, {**QUICK, "figure": figure})
        assert {run["method"] for run in runs} == methods


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"epsilon": "-3"}, "epsilon = -3: must be > 0"),
        ({"epsilon": "0"}, "epsilon = 0: must be > 0"),
        ({"epsilon": "ten"}, "epsilon = 'ten': must be a number > 0, or inf for the non-private rows"),
        ({"epsilon": "10.0"}, "epsilon = 10.0: it is spelled 10 in paths"),
        ({"epsilon": "inf"}, "method psg with epsilon = inf: eps inf belongs to method real alone"),
        ({"method": "real"}, "method real with epsilon = 10: eps inf belongs to method real alone"),
        ({"method": "real", "epsilon": "inf"}, "spc = 10: the real data have spc = all"),
        ({"spc": "010"}, "spc = 010: must be a whole number > 0"),
        ({"spc": "0"}, "spc = 0: must be a whole number > 0"),
        ({"spc": "x"}, "spc = x: must be a whole number > 0"),
        ({"seed": "-1"}, "seed = -1: must be a whole number >= 0"),
        ({"seed": "x"}, "seed = x: must be a whole number >= 0"),
        ({"dataset": "minst"}, "dataset = minst: choose from mnist, fashion_mnist, cifar10, digits"),
        ({"preset": "quik"}, "preset = quik: choose from quick, paper, search, held_out, held_out_twice, calibration"),
    ],
)
def test_cells_that_cannot_be(change, line):
    with pytest.raises(PrivsetError) as error:
        grids.checked(CONFIG, {**CELL, **change})
    assert str(error.value) == line


def test_more_cores_than_there_are_is_one_warning(monkeypatch):
    monkeypatch.setattr(needs.os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    assert needs.crowded(2) == needs.crowded(None) == ""
    assert needs.crowded(8).startswith("warning: --cores 8, and this machine has 2") and needs.crowded(8).count("\n") == 1


def test_limits_grow_with_the_work_and_the_attempt():
    small, large = ({**CELL, "preset": "paper", "spc": spc} for spc in ("1", "20"))
    assert needs.synthesis_minutes(CONFIG, large, 1) > needs.synthesis_minutes(CONFIG, small, 1) > 15
    assert needs.synthesis_minutes(CONFIG, small, 3) == 3 * needs.synthesis_minutes(CONFIG, small, 1)
    few, many = ({**CELL, "preset": preset, "method": "gs_wgan", "spc": "1000"} for preset in ("quick", "paper"))
    assert needs.synthesis_minutes(CONFIG, few, 1) < 120 < needs.synthesis_minutes(CONFIG, many, 1)
    assert needs.gpus({**CONFIG, "gpu": True}) == 1 and needs.gpus({**CONFIG, "gpu": False}) == 0


@pytest.mark.parametrize(
    ("form", "train", "names"),
    [
        ("npz", "train.npz", ["train.npz"]),
        ("idx", "train", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"]),
        ("imagefolder", "folder", ["folder/cats/1.png", "folder/dogs/2.png"]),
    ],
)
def test_the_files_of_ones_own_dataset_are_watched(tmp_path, form, train, names):
    for name in (*names, "other.txt", "folder/.DS_Store", "folder/cats/Thumbs.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    config = {**CONFIG, "datasets": {"mine": {"format": form, "train": str(tmp_path / train), "test": str(tmp_path / "missing")}}}
    watched = grids.own_files(config, {**CELL, "dataset": "mine"})
    assert watched == [str(tmp_path / name) for name in names]
    assert grids.own_files(config, CELL) == []
