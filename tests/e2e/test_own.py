"""docs/extend.md as written: a network, a dataset and a method of one's own, through the whole workflow."""

import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import yaml

from conftest import ROOT, copy_repository, snakemake
from privset.data import datasets, sources
from privset.sets import files

SNIPPETS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs/extend.md").read_text(), re.DOTALL)
NETWORK, METHOD = (text for language, text in SNIPPETS if language == "python")


def test_a_network_and_a_dataset_of_ones_own(tmp_path):
    path = copy_repository(tmp_path / "clone")
    registry = path / "workflow_scripts/privset/networks/classifiers.py"
    function, entry = NETWORK.split("\n\n\n")
    text = registry.read_text()
    opening = entry.splitlines()[0]
    assert text.count(opening) == 1
    text = text.replace(opening, f"{function}\n\n\n{entry.replace('    ...', '').rstrip()}")
    registry.write_text(text)

    sources.fetch("digits", tmp_path, sources=[], directory=None, timeout=1, log=lambda line: None)
    own = yaml.safe_load(dict(SNIPPETS)["yaml"])
    for part in ("train", "test"):
        images, labels = datasets.load(tmp_path, train=part == "train")
        own["datasets"]["mine"][part] = str(tmp_path / f"{part}.npz")
        np.savez(tmp_path / f"{part}.npz", images=np.round(images[:, 0] * 255).astype(np.uint8), labels=labels)
    config = yaml.safe_load((path / "tests/config/digits.yaml").read_text()) | own
    tiny = config["presets"]["tiny"]
    tiny |= {"datasets": ["mine"], "networks": ["linear"], "epsilon": [10]}
    tiny["methods"] = {"real": {}, "psg": tiny["methods"]["psg"]}
    tiny["evaluation"] = {
        "small_up_to_spc": 10,
        "small_sets": {"default": {"steps": 2}},
        "large_sets": {"default": {"steps": 20}, "linear": {"steps": 300, "batch_size": 64, "learning_rate": 0.05}},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    result = snakemake(path, "table2", "--cores", "2", "--configfile", str(tmp_path / "own.yaml"))
    assert result.returncode == 0, result.stdout
    metrics = pd.read_csv(path / "results/tiny/metrics/table2.csv")
    assert set(metrics.network) == {"linear"} and set(metrics.dataset) == {"mine"}
    assert metrics[metrics.method == "real"].test_accuracy.item() > 60  # logistic regression, augmented digits
    shown = (path / "results/tiny/tables/table2.md").read_text()
    assert "linear" in shown and "mine reproduced" in shown
    before = dict(np.load(tmp_path / "train.npz"))
    np.savez(tmp_path / "train.npz", images=255 - before["images"], labels=before["labels"])
    again = snakemake(path, "-n", "table2", "--cores", "1", "--configfile", str(tmp_path / "own.yaml"))
    assert re.search(r"^fetch +1$", again.stdout, re.MULTILINE), again.stdout  # an edit of one's own files is seen
    (tmp_path / "test.npz").unlink()  # and so is one that went
    gone = snakemake(path, "results/data/mine/dataset.json", "--cores", "1", "--configfile", str(tmp_path / "own.yaml"))
    assert gone.returncode and f"{tmp_path / 'test.npz'}" in gone.stdout and "Traceback" not in gone.stdout, gone.stdout
    certificate = files.read_json(path / "results/tiny/sets/mine/psg/eps10/spc2/seed0/certificate.json")
    assert certificate["cell"]["dataset"] == "mine"


def test_a_method_of_ones_own_is_one_file_and_one_block(tmp_path):
    path = copy_repository(tmp_path / "clone")
    (path / "workflow_scripts/privset/methods/mean_image.py").write_text(METHOD)
    config = yaml.safe_load((path / "tests/config/digits.yaml").read_text())
    tiny = config["presets"]["tiny"]
    tiny |= {"networks": ["mlp"], "epsilon": [10]}
    tiny["methods"] = {
        "mean_image": {"spc": [1], "config": {"clip": 10}},
        "mean_image_small_clip": {"spc": [1], "config": {"clip": 1}},
    }
    tiny["evaluation"]["small_sets"]["mlp"] = {"epochs": 300, "learning_rate": 0.05}
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(config))
    planned = snakemake(path, "-n", "table1", "--cores", "1", "--configfile", str(own))
    assert planned.returncode == 0, planned.stdout
    assert re.search(r"^synthesize +2$", planned.stdout, re.MULTILINE)

    result = snakemake(path, "table1", "--cores", "2", "--configfile", str(own))
    assert result.returncode == 0, result.stdout
    shown = (path / "results/tiny/tables/table1.md").read_text()
    assert "| Mean image (spc=1)" in shown and "| Mean image, small clip (spc=1)" in shown
    metrics = pd.read_csv(path / "results/tiny/metrics/table1.csv")
    assert metrics[metrics.method == "mean_image"].test_accuracy.min() > 30  # ten classes

    # docs/extend.md: attacked by one command, without further work. Its sums move by all that it states, and its noise is exact.
    command = [sys.executable, "-m", "privset", "audit", "mean_image", "--epsilon", "1", "--config", str(own)]
    environment = {**os.environ, "PYTHONPATH": str(path / "workflow_scripts")}
    attacked = subprocess.run(command, cwd=path, env=environment, text=True, capture_output=True, timeout=300)
    assert attacked.returncode == 0, attacked.stderr
    assert float(re.search(r"release  epsilon >= ([\d.]+)", attacked.stdout).group(1)) > 0.5
    assert "mean_image, epsilon = 1: not refuted" in attacked.stdout
    # And one that asks for more than it announces is found out.
    method = path / "workflow_scripts/privset/methods/mean_image.py"
    method.write_text(METHOD.replace("sensitivity=config.clip, count=1", "sensitivity=config.clip / 2, count=1"))
    lying = subprocess.run(command, cwd=path, env=environment, text=True, capture_output=True, timeout=300)
    assert lying.returncode == 1 and re.search(r"^error: mean_image: its asks\(\) announces", lying.stderr, re.MULTILINE)
    method.write_text(METHOD)

    tiny["methods"]["mean_image"]["config"] = {"clip": 0}
    own.write_text(yaml.safe_dump(config))
    wrong = snakemake(path, "-n", "table1", "--cores", "1", "--configfile", str(own))
    assert "presets.tiny.methods.mean_image.config.clip = 0: must be > 0" in wrong.stdout


def test_a_name_that_is_nowhere_is_named_with_the_known_ones(repository, tmp_path):
    config = yaml.safe_load((repository / "tests/config/digits.yaml").read_text())
    config["presets"]["tiny"]["networks"] = ["transformer"]
    (tmp_path / "typo.yaml").write_text(yaml.safe_dump(config))
    result = snakemake(repository, "-n", "--cores", "1", "--configfile", str(tmp_path / "typo.yaml"))
    assert result.returncode == 1
    assert 'presets.tiny.networks[0] = "transformer": choose from convnet, lenet' in result.stdout
