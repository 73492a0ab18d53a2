"""The configuration: every mistake ends in one line that names the key, the value and the remedy."""

import copy
import math
from itertools import product
from pathlib import Path

import pytest
import yaml

from privset import PrivsetError
from privset.evaluation.training import Schedule
from privset.jobs import grids
from privset.jobs.blocks import parse
from privset.jobs.config import epsilon_text
from privset.jobs.config import validate as validate_by
from privset.jobs.keys import refuse_duplicate_keys
from privset.jobs.rows import method_of, methods
from privset.methods import load, load_releases, schema

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


def validate(config):
    validate_by(config, schema=schema.current())


def changed(path, value):
    config = copy.deepcopy(CONFIG)
    *parents, last = path
    block = config
    for key in parents:
        block = block[key]
    block[last] = value
    return config


@pytest.mark.parametrize("file", ["config.yaml", "tests/config/digits.yaml"])
def test_the_shipped_configurations_are_valid(file):
    validate(yaml.safe_load((ROOT / file).read_text()))


@pytest.mark.parametrize("preset", CONFIG["presets"])
def test_every_method_block_fits_its_model(preset):
    block = CONFIG["presets"][preset]
    for name, method in block["methods"].items():
        for dataset in block["datasets"]:
            for spc in method.get("spc", [None]):
                base = dataset.removesuffix("_validation")  # which has what its whole has
                overlays = (method.get("by_spc", {}).get(spc, {}), method.get("by_dataset", {}).get(base, {}))
                parse(load(name).Config, {**method.get("config", {}), **overlays[0], **overlays[1]}, name)
        if "releases" in method:
            parse(load_releases(name).ReleaseConfig, method["releases"], name)
    continual = block.get("continual", {}).get("methods", {})
    for name, method in continual.items():
        for dataset in block["datasets"]:
            overlay = method.get("by_dataset", {}).get(dataset, {})
            kind = load_releases(name).ReleaseConfig if "releases" in method else load(name).Config
            parse(kind, {**method.get("config", method.get("releases", {})), **overlay}, name)
    if preset == "paper":
        assert {*map(method_of, block["methods"]), *map(method_of, continual)} == set(methods())
    for network, spc in product(block["networks"], ("1", "1000", "all")):
        parse(Schedule, grids.schedule_of(block, network, spc=spc), f"{network} on {spc}")


def test_the_paper_preset_is_the_papers():
    """The defaults of the code, the values of the preset and the paper are three times the same."""
    psg = load("psg")
    block = CONFIG["presets"]["paper"]["methods"]["psg"]
    assert psg.Config(**{**block["config"], "compile": False}, outer=1, inner=1) == psg.Config(outer=1, inner=1)
    assert [psg.Config.model_fields[name].default for name in ("iterations", "batches", "batch_size", "clip")] == [
        1000,
        10,
        256,
        0.1,
    ]
    psm = load("psm")
    block_psm = CONFIG["presets"]["paper"]["methods"]["psm"]
    assert psm.Config(**block_psm["config"]) == psm.Config()
    assert load_releases("psm").ReleaseConfig(**block_psm["releases"]) == load_releases("psm").ReleaseConfig()
    continual = CONFIG["presets"]["paper"]["continual"]["methods"]
    assert load("dpsgd").ReleaseConfig(**{**continual["dpsgd"]["releases"], "compile": False}) == load("dpsgd").ReleaseConfig()
    tasks = load("psg_continual")
    assert tasks.Config(**{**continual["psg_continual"]["config"], "compile": False}) == tasks.Config()
    assert (tasks.Config().iterations, tasks.Config().outer, tasks.Config().inner) == (200, 10, 50)
    loops = {spc: (values["outer"], values["inner"]) for spc, values in block["by_spc"].items()}
    assert loops == {1: (1, 1), 10: (10, 50), 20: (20, 25), 50: (50, 10)}


P = ("presets", "quick")


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ((*P, "epsilon"), [1, -3], "config.yaml: presets.quick.epsilon[1] = -3: must be > 0"),
        ((*P, "epsilon"), [0], "config.yaml: presets.quick.epsilon[0] = 0: must be > 0"),
        ((*P, "epsilon"), ["ten"], 'config.yaml: presets.quick.epsilon[0] = "ten": must be of type number'),
        (("delta",), 1.0, "config.yaml: delta = 1.0: must be < 1"),
        (("delta",), 0, "config.yaml: delta = 0: must be > 0"),
        (("threads",), 0, "config.yaml: threads = 0: must be >= 1"),
        (
            ("preset",),
            "quik",
            'config.yaml: preset = "quik": choose from quick, paper, search, held_out, held_out_twice, calibration',
        ),
        ((*P, "noise"), "none", 'config.yaml: presets.quick.noise = "none": choose from os, seeded'),
        (
            (*P, "datasets"),
            ["minst"],
            'config.yaml: presets.quick.datasets[0] = "minst": choose from mnist, fashion_mnist, cifar10, digits',
        ),
        ((*P, "methods", "psg", "config", "clip"), 0, "config.yaml: presets.quick.methods.psg.config.clip = 0: must be > 0"),
    ],
)
def test_bad_values_in_one_line(path, value, line):
    with pytest.raises(PrivsetError) as error:
        validate(changed(path, value))
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("delta",), math.nan, "delta = nan: must be a finite number"),
        ((*P, "epsilon"), [1, math.inf], "presets.quick.epsilon[1] = inf: must be a finite number"),
        ((*P, "evaluation", "small_sets", "default", "momentum"), math.nan, "momentum = nan: must be a finite number"),
        (("delta",), "1e-5", 'delta = "1e-5": must be of type number; YAML takes it for text: write 1.0e-5'),
        (("delta",), "small", 'delta = "small": must be of type number'),
        (
            (*P, "methods", "dp_merf", "by_dataset", "minst"),
            {"length_scale": 3},
            'presets.quick.methods.dp_merf.by_dataset = "minst": choose from mnist, fashion_mnist, cifar10, digits',
        ),
    ],
)
def test_values_that_are_easily_mistaken_in_one_line(path, value, line):
    with pytest.raises(PrivsetError) as error:
        validate(changed(path, value))
    assert str(error.value).startswith("config.yaml: ") and str(error.value).endswith(line)


def test_a_held_out_dataset_has_values_of_its_own():
    validate(changed((*P, "methods", "dp_merf", "by_dataset", "mnist_validation"), {"length_scale": 3}))


def test_a_key_that_stands_twice_is_named_with_both_lines(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("a: &a {x: 1}\nb:\n  - {<<: *a, c: 1}\n  - c: 1\n    d: 2\n    c: 3\n")
    with pytest.raises(PrivsetError, match=r"config.yaml: line 6: key 'c' is in line 4 already; remove one$"):
        refuse_duplicate_keys(file)
    refuse_duplicate_keys(ROOT / "config.yaml")


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        ((*P, "epsilons"), [1], ["presets.quick", "unknown key 'epsilons'", "known keys", "epsilon"]),
        ((*P, "methods", "psg", "config", "iteration"), 3, ["methods.psg.config", "unknown key 'iteration'", "iterations"]),
        (
            (*P, "methods", "psgg"),
            {},
            ["methods", "unknown key 'psgg'", "g_pate, gs_wgan, pate_gan, pearl, psg, psg_prior"],
        ),
        (("presets", "quick"), {"datasets": ["mnist"]}, ["missing key", "'epsilon'"]),
        ((*P, "evaluation", "large_sets", "default", "learning_rat"), 1, ["unknown key 'learning_rat'", "learning_rate"]),
    ],
)
def test_unknown_and_missing_keys_in_one_line(path, value, parts):
    with pytest.raises(PrivsetError) as error:
        validate(changed(path, value))
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_yaml_keys_that_are_numbers_are_fine():
    validate(changed((*P, "methods", "psg", "by_spc"), {1: {"outer": 2}, 10: {"inner": 3}}))
    with pytest.raises(PrivsetError, match=r"by_spc = \"ten\": .*does not match"):
        validate(changed((*P, "methods", "psg", "by_spc"), {"ten": {"outer": 2}}))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10, "10"),
        (10.0, "10"),
        ("1", "1"),
        (0.2, "0.2"),
        (float("inf"), "inf"),
        (0.12345678, "0.12345678"),
        (1.0000001, "1.0000001"),
        (1e-5, "1e-05"),
    ],
)
def test_one_spelling_of_epsilon(value, text):
    assert epsilon_text(value) == text


@pytest.mark.parametrize("title", ["MNIST", "mine", None])
def test_two_datasets_have_two_titles(title):
    block = {"channels": 1, "size": 28, "mean": [0.5], "std": [0.5], "class_names": ["a", "b"]}
    block |= {"format": "npz", "train": "train.npz", "test": "test.npz"}
    config = changed(("datasets",), {"mine": block, "other": {**block, **({"title": title} if title else {})}})
    if title is None:
        validate(config)
        return
    with pytest.raises(PrivsetError, match=f"datasets.other.title = {title}: {title.lower()} is called so; give it another"):
        validate(config)


@pytest.mark.parametrize("value", [0, -3, "abc", None, float("nan"), -float("inf")])
def test_impossible_epsilons(value):
    with pytest.raises(PrivsetError, match=r"must be .*> 0"):
        epsilon_text(value)
