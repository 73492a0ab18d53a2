"""Tables: reported and reproduced numbers stand side by side, never mixed, never averaged silently."""

import dataclasses
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from privset import PrivsetError, reporting
from privset.privacy import certificate
from privset.reporting import continual, convergence, costs, figures, formats, front, pairs, tables
from privset.sets import files
from privset.sets.mosaic import mosaic

REPORTED = pd.read_csv(Path(__file__).parents[2] / "resources" / "reported.csv", dtype={"epsilon": str, "spc": str})


def runs(method, spc, epsilon, accuracies, dataset="mnist", network="convnet"):
    """Rows of metrics: `accuracies` is a list of sets, each a list of its networks' accuracies."""
    return pd.DataFrame(
        [
            {
                **{"method": method, "spc": spc, "dataset": dataset, "epsilon": epsilon, "network": network},
                **{"set_seed": s, "network_seed": n, "test_accuracy": accuracy},
                **{"protocol": "psg", "images": 100},
            }
            for s, networks in enumerate(accuracies)
            for n, accuracy in enumerate(networks)
        ]
    )


def table1(*frames):
    return tables.comparison("table1", pd.concat(frames), REPORTED, datasets=["mnist", "fashion_mnist"])


def test_datasets_are_called_what_their_owner_calls_them(monkeypatch):
    monkeypatch.setattr(reporting, "DATASETS", dict(reporting.DATASETS))
    reporting.name_datasets({"mine": "Leaves & stems", "taken_validation": "taken_validation"})
    assert reporting.dataset_title("mine") == "Leaves & stems"
    assert reporting.dataset_title("mine_validation") == "Leaves & stems, held out"
    assert reporting.dataset_title("mnist_validation") == "MNIST, held out"
    assert reporting.dataset_title("taken_validation") == "taken_validation"
    own = runs("psg", "10", "10", [[90.0]], dataset="mine")
    shown = tables.comparison("table1", own, REPORTED, datasets=["mine"]).shown
    assert "Leaves & stems reproduced" in shown.columns


def test_a_network_of_ones_own_has_its_rows_and_its_protocol():
    frame = pd.concat([runs("psg", "10", "10", [[90.0]], network=name) for name in ("zebra", "mlp", "linear")])
    table = tables.comparison("table2", frame, REPORTED, datasets=["mnist"])
    assert set(table.shown.network) >= {"linear", "zebra", "MLP"}
    assert any("MLP, linear, zebra: psg for 100 images" in note for note in table.notes)


def test_the_reports_first_table_has_the_network_that_there_is_and_every_size():
    frame = pd.concat([runs("psg", "10", "10", [[91.0]], network="lenet"), runs("real", "all", "inf", [[99.0]], network="lenet")])
    lines = front.headline(tables.comparison("table1", frame, REPORTED, datasets=["mnist"]).frame)
    assert "of LeNet trained" in lines and "94.9" not in lines and '"PSG (spc=10)","\\-","91.0"' in lines
    frame = pd.concat([runs("dp_flow", spc, "10", [[80.0]]) for spc in ("10", "1000")])
    lines = front.headline(tables.comparison("table1", frame, REPORTED, datasets=["mnist"]).frame)
    assert "DP flow (10 per class)" in lines and "DP flow (1000 per class)" in lines


def test_a_table_shows_what_its_csv_file_has(tmp_path):
    """The mean of these is 63.550000000000004: rounded from that it would be 63.6, and from the file's 63.5500 it is 63.5."""
    table = tables.comparison("table1", runs("psg", "10", "10", [[63.51, 63.57, 63.57]]), REPORTED, datasets=["mnist"])
    formats.write(table, [tmp_path / "table1.csv"], preset="quick")
    line = next(line for line in front.headline(front.read(tmp_path / "table1.csv")).splitlines() if '"PSG (spc=10)"' in line)
    shown = table.shown[(table.shown.method == "PSG (spc=10)") & (table.shown.eps == "10")]["MNIST reproduced"].item()
    assert shown.split(" ±")[0] == line.split('"')[-2] == "63.5"


def number(frame, column, **keys):
    for key, value in keys.items():
        frame = frame[frame[key] == value]
    assert len(frame) == 1, frame
    return frame[column].item()


def test_reported_numbers_are_the_printed_ones():
    psg = REPORTED[(REPORTED.table == "table1") & (REPORTED.method == "psg")]
    assert psg.accuracy.tolist() == [80.9, 95.6, 70.2, 77.7]
    assert (REPORTED.table == "table2").sum() == 2 * 6 * 6
    assert (REPORTED.table == "table3").sum() == 12
    assert REPORTED.source.str.contains("Table [123]$").all()


def test_mean_deviation_and_difference():
    table = table1(runs("psg", "20", "10", [[90.0, 92.0, 94.0]]), runs("dp_merf", "1000", "1", [[70.0], [74.0]]))
    keys = {"method": "psg", "spc": "20", "dataset": "mnist", "epsilon": "10"}
    assert number(table.frame, "reproduced", **keys) == pytest.approx(92)
    assert number(table.frame, "std", **keys) == pytest.approx(2)  # one set: over its networks
    assert number(table.frame, "difference", **keys) == pytest.approx(92 - 95.6)
    merf = {"method": "dp_merf", "dataset": "mnist", "epsilon": "1"}
    assert number(table.frame, "std", **merf) == pytest.approx(8**0.5)  # two sets: over sets
    assert (number(table.frame, "sets", **merf), number(table.frame, "networks", **merf)) == (2, 1)
    assert number(table.frame, "reported", **merf) == 72.7


def test_every_row_of_the_paper_is_there_and_rows_without_a_reproduction_say_so():
    table = table1(runs("psg", "10", "10", [[90.0]]))
    assert list(dict.fromkeys(table.shown.method)) == [
        *("DP-CGAN", "G-PATE", "DataLens", "GS-WGAN", "DP-MERF", "DP-Sinkhorn"),
        *("PSG (spc=1)", "PSG (spc=10)", "PSG (spc=20)"),
    ]
    row = table.shown[(table.shown.method == "PSG (spc=10)") & (table.shown.eps == "10")].iloc[0]
    assert row["MNIST reported"] == "94.9" and row["MNIST reproduced"] == "90.0" and row["MNIST n"] == "1x1"
    assert row["FashionMNIST reproduced"] == "-"
    (note,) = (note for note in table.notes if note.startswith("Without a reproduced number"))
    assert "G-PATE" in note and "PSG (spc=20)" in note


def test_numbers_of_another_epsilon_or_network_have_lines_of_their_own():
    """The paper's Table 2 is of eps = 10 and its Table 1 of the ConvNet; a preset may have others."""
    other = tables.comparison("table2", runs("psg", "10", "5", [[91.0]], network="mlp"), REPORTED, datasets=["mnist"])
    lines = other.shown.set_index(["method", "network", "eps"])
    assert lines.loc[("PSG (spc=10)", "MLP", "5")].tolist() == ["-", "91.0", "1x1", "-"] and other.title.endswith("eps = 5")
    reported = lines.loc[("PSG (spc=10)", "MLP", "10")]
    assert reported["MNIST reported"] != "-" and reported["MNIST reproduced"] == "-"
    lenet = table1(runs("psg", "10", "10", [[91.0]], network="lenet"))
    assert "of LeNet trained" in lenet.title
    lines = lenet.shown.set_index(["method", "eps", "network"])
    assert lines.loc[("PSG (spc=10)", "10", "LeNet"), "MNIST reproduced"] == "91.0"
    assert lines.loc[("PSG (spc=10)", "10", "ConvNet"), ["MNIST reported", "MNIST reproduced"]].tolist() == ["94.9", "-"]


def test_two_sizes_of_a_generator_are_two_rows():
    table = table1(runs("dp_merf", "1000", "10", [[80.0]]), runs("dp_merf", "6000", "10", [[85.0]]))
    shown = table.shown[table.shown.eps == "10"].set_index("method")["MNIST reproduced"]
    assert shown["DP-MERF (1000 per class)"] == "80.0" and shown["DP-MERF (6000 per class)"] == "85.0"


def test_sets_with_unequal_numbers_of_runs_are_an_error():
    with pytest.raises(PrivsetError, match=r"psg 10 mnist 10 convnet: .*set 0: 2, set 1: 1"):
        table1(runs("psg", "10", "10", [[90.0, 91.0], [90.0]]))


def test_table2_has_six_networks_and_the_real_data_first():
    metrics = pd.concat([runs("real", "all", "inf", [[99.0]], network="lenet"), runs("psg", "10", "10", [[91.0]], network="mlp")])
    table = tables.comparison("table2", metrics, REPORTED, datasets=["mnist", "fashion_mnist"])
    assert table.shown.method.iloc[0] == "Real data (not private)"
    assert table.shown.network[:6].tolist() == ["ConvNet", "LeNet", "AlexNet", "VGG11", "ResNet18", "MLP"]
    assert number(table.frame, "difference", method="real", network="lenet", dataset="mnist") == pytest.approx(-0.2)
    assert any("identical for MNIST and FashionMNIST" in note for note in table.notes)


def test_four_forms_of_a_table(tmp_path):
    table = table1(runs("psg", "10", "10", [[90.0, 91.0]]))
    paths = [tmp_path / f"t{suffix}" for suffix in (".csv", ".md", ".tex", ".html")]
    formats.write(table, paths, preset="quick")
    assert pd.read_csv(paths[0]).preset.unique().tolist() == ["quick"]
    text = paths[1].read_text()
    assert "(quick preset)" in text and "90.5 ± 0.7" in text and "| PSG (spc=10)" in text
    latex = paths[2].read_text()
    assert "\\toprule" in latex and "$\\pm$" in latex and "\\caption" in latex
    named = dataclasses.replace(table, title="100 % of my_set & {co} #1 ~ ^ \\x", shown=table.shown.assign(method="a_b & c^2"))
    formats.write(named, [tmp_path / "named.tex"], preset="my_preset")
    latex = (tmp_path / "named.tex").read_text()
    assert r"100 \% of my\_set \& \{co\} \#1 \textasciitilde{} \textasciicircum{} \textbackslash{}x (my\_preset" in latex
    assert r"a\_b \& c\textasciicircum{}2 & 10 &" in latex
    page = paths[3].read_text()
    assert "<td>90.5 ± 0.7</td>" in page and page.count("<li>") == len(table.notes) and "(quick preset)</h1>" in page


def test_costs_are_told_by_rule_method_and_network(tmp_path):
    """Of this preset's jobs and of those for every preset; a job on a machine without counters has no processor time."""
    head = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    for name, clock, processor, memory in [
        ("fetch/mnist", 6, 3, 100),
        ("synthesize/p/mnist/psg/eps1/spc1/seed0", 60, 30, 900),
        ("synthesize/p/fashion_mnist/psg/eps1/spc1/seed0", 120, 90, 800),
        ("synthesize/other/mnist/psg/eps1/spc1/seed0", 6000, 6000, 900),
        ("evaluate/p/mnist/psg/eps1/spc1/seed0/lenet+mlp", 30, 27, "-"),
        ("privacy/p", 6, "-", 50),
    ]:
        path = tmp_path / f"benchmarks/{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{head}{clock}\t-\t{memory}\t-\t-\t-\t-\t-\t-\t{processor}\n")
    run = {"network_seed": 0, "train_seconds": 5.0, "test_seconds": 1.0}
    files.write_json(
        tmp_path / "m.json", {"runs": [{"network": "lenet", **run}, {"network": "mlp", **run}, {"network": "mlp", **run}]}
    )
    made = costs.table(tmp_path / "benchmarks", [tmp_path / "m.json"], preset="p")
    told = made.frame.set_index("what")
    assert told.loc["synthesize: PSG"].tolist() == [2, 180, 120, 900]
    assert told.index.tolist() == ["synthesize: PSG", "evaluate", "fetch", "privacy"] and told.processor.sum() == 150
    assert made.shown["share (%)"].tolist() == ["80.0", "18.0", "2.0", "0.0"]
    assert "LeNet 0.1, MLP 0.2; starting, data and files: 0.2." in made.notes[1]


def test_tidy_keeps_every_single_run(tmp_path):
    content = {
        "cell": {
            "preset": "p",
            "dataset": "mnist",
            "method": "psg",
            "epsilon": "1",
            "spc": "1",
            "seed": "0",
            "networks": "lenet+mlp",
        },
        **{
            "images": 10,
            "device": "cpu",
            "code": "abc",
            "certificate": {"epsilon": 1.0, "noise_source": "seed 1"},
        },
        "runs": [
            {"network": network, "network_seed": seed, "protocol": "psg", "test_accuracy": accuracy, "steps": 3}
            for network, seed, accuracy in [("lenet", 0, 50.0), ("mlp", 0, 51.0), ("mlp", 1, 52.0)]
        ],
    }
    files.write_json(tmp_path / "m.json", content)
    frame = tables.tidy([tmp_path / "m.json"])
    assert frame.test_accuracy.tolist() == [50, 51, 52]
    assert frame.network.tolist() == ["lenet", "mlp", "mlp"] and "networks" not in frame
    assert {"set_seed", "network_seed", "protocol", "epsilon_spent", "device", "code"} <= set(frame.columns)


def test_mosaics_have_one_row_per_class():
    images = np.zeros((6, 1, 4, 4), np.float32)
    labels = np.array([0, 0, 0, 1, 1, 1])
    images[labels == 1] = 2.0  # beyond white: shown white
    picture = mosaic(images, labels, columns=3)
    assert picture.shape == (2 * 5, 3 * 5)
    assert picture[1:5, 1:5].max() == 0 and picture[6:10, 1:5].min() == 1
    assert mosaic(np.zeros((2, 3, 4, 4), np.float32), np.array([0, 1]), columns=1).shape == (10, 5, 3)


def test_a_bootstrap_interval_covers_the_difference_as_often_as_it_says():
    """Binomial data with a known difference of 5 points, paired by shared difficulty: 95 % of intervals cover it."""
    covered = 0
    for repeat in range(100):
        random = np.random.default_rng(repeat)
        hard = random.random(400)
        a, b = (np.stack([hard + 0.1 * random.standard_normal(400) < rate for _ in range(2)]) for rate in (0.85, 0.80))
        mean, low, high = pairs.difference(a, b, np.random.default_rng(0))
        assert low <= mean <= high
        covered += low <= 5 <= high
    assert 86 <= covered <= 100  # binomial(100, 0.95): four standard deviations below the mean


def test_a_method_compared_with_itself_differs_by_nothing():
    right = np.random.default_rng(1).random((1, 500)) < 0.7
    assert pairs.difference(right, right, np.random.default_rng(0)) == (0, 0, 0)


def test_the_storage_table_shows_every_size_and_names_the_protocols():
    frames = [
        runs("psg", "1", "10", [[60.0, 62.0]]),
        runs("psg", "10", "10", [[80.0, 82.0]]).assign(images=100),
        runs("dp_merf", "10", "10", [[70.0]]).assign(images=100),
        runs("dp_merf", "6000", "10", [[85.0]]).assign(images=60_000, protocol="psg in 14335 steps"),
    ]
    table = tables.storage(pd.concat(frames), datasets=["mnist"])
    lines = table.shown.set_index("method")
    assert lines.loc["PSG"].tolist() == ["MNIST", "61.0 ± 1.4", "81.0 ± 1.4", "-"]
    assert lines.loc["DP-MERF"].tolist() == ["MNIST", "-", "70.0", "85.0"]
    assert "ConvNet: psg in 14335 steps for 60,000 images" in " ".join(table.notes)


def test_a_footnote_says_which_protocol_is_that_of_a_teachers_labels():
    frames = [runs("dp_merf", "10", "10", [[70.0]]), runs("taught", "10", "10", [[85.0]]).assign(protocol="9 steps of 5 at 0.1")]
    (note,) = [each for each in tables.storage(pd.concat(frames), datasets=["mnist"]).notes if "9 steps" in each]
    assert "ConvNet: psg for" in note and "9 steps of 5 at 0.1 for 100 images with a teacher's labels" in note


def test_the_confusion_matrix_is_drawn_for_any_number_of_classes(tmp_path):
    labels = np.repeat(np.arange(3), 10)
    predicted = np.stack([labels, (labels + 1) % 3])
    figures.confusion(predicted, labels, ("a", "b", "c"), [tmp_path / "c.png"], title="t")
    assert Image.open(tmp_path / "c.png").size[0] > 500


def test_the_ablation_compares_sets_of_the_same_seed():
    """Two seeds: differences -10 and -6, so -8 with a t interval of 12.706 standard errors."""
    metrics = pd.concat(
        [
            runs("psm", "10", "1", [[79.0, 81.0], [90.0, 90.0]]),
            runs("psm_features_alone", "10", "1", [[70.0, 70.0], [84.0, 84.0]]),
            runs("psm", "10", "10", [[50.0], [50.0]]),
        ]
    )
    table = tables.ablation(metrics, datasets=["mnist"])
    keys = {"method": "psm_features_alone", "epsilon": "1"}
    assert number(table.frame, "difference", **keys) == pytest.approx(-8)
    assert number(table.frame, "half_interval", **keys) == pytest.approx(12.7062 * 2, rel=1e-4)
    assert number(table.frame, "accuracy", **keys) == pytest.approx(77)
    assert table.shown["row"].tolist() == ["PSM (ours)", "PSM (ours), features alone", "PSM (ours)"]
    assert table.shown["minus PSM"].tolist() == ["", "-8.0 ± 25.4", ""]


def test_table3_puts_the_prior_beside_the_reported_numbers():
    table = tables.comparison(
        "table3",
        pd.concat([runs("psg", "1", "10", [[75.0]]), runs("psg_prior", "1", "10", [[85.0]])]),
        REPORTED,
        datasets=["mnist", "fashion_mnist"],
    )
    prior = {"method": "psg_prior", "spc": "1", "dataset": "mnist"}
    assert number(table.frame, "reported", **prior) == 88.2
    assert number(table.frame, "difference", **prior) == pytest.approx(-3.2)
    assert len(table.frame) == 12 and "PSG with prior (spc=20)" in table.shown.method.tolist()


def test_convergence_states_the_share_of_the_budget(tmp_path):
    content = {"cell": {"dataset": "mnist", "method": "psg", "epsilon": "10", "spc": "1", "seed": "0", "network": "convnet"}}
    steps = [{"step": step, "epsilon_spent": 2.5 * step, "network_seed": 0, "test_accuracy": 20.0 * step} for step in (1, 2, 4)]
    path = tmp_path / "convnet.json"
    files.write_json(path, {**content, "images": 10, "protocol": "psg", "runs": steps})
    frame = convergence.tidy([path])
    assert frame.share.tolist() == [0.25, 0.5, 1.0]
    convergence.write(frame, [tmp_path / f"fig.{suffix}" for suffix in ("csv", "pdf", "png")], preset="quick")
    assert pd.read_csv(tmp_path / "fig.csv").test_accuracy.tolist() == [20.0, 40.0, 80.0]
    assert Image.open(tmp_path / "fig.png").size[0] > 900


def test_the_continual_figure_has_a_line_per_method_and_epsilon(tmp_path):
    paths = []
    for method, seed in [(m, s) for m in ("psg_continual", "dpsgd", "dpsgd_tuned") for s in ("0", "1")]:
        cell = {"preset": "quick", "dataset": "mnist", "method": method, "epsilon": "10", "seed": seed}
        runs = [{"task": t, "classes": 2 * t, "network_seed": 0, "test_accuracy": 100.0 / t} for t in range(1, 6)]
        paths.append(tmp_path / f"{method}{seed}.json")
        files.write_json(paths[-1], {"cell": cell, "protocol": "psg", "runs": runs})
    frame = continual.tidy(paths)
    assert len(frame) == 3 * 2 * 5
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        original = continual.save
        patch.setattr(
            continual,
            "save",
            lambda figure, paths: (
                lines.extend(text.get_text() for text in figure.legends[0].get_texts()) or original(figure, paths)
            ),
        )
        continual.write(frame, [tmp_path / f"fig.{suffix}" for suffix in ("csv", "pdf", "png")], preset="quick")
    assert lines == ["PSG", "DP-SGD classifier", "DP-SGD classifier, tuned"]
    assert pd.read_csv(tmp_path / "fig.csv").groupby("classes").test_accuracy.mean().loc[10] == 20.0
    assert Image.open(tmp_path / "fig.png").size[0] > 900


def test_the_privacy_table_has_a_word_for_every_way_of_sampling():
    """A certificate of any kind of event has a line in it."""
    kinds = typing.get_args(certificate.Entry.model_fields["kind"].annotation)
    assert set(kinds) == set(tables.SAMPLING)
