"""The whole pipeline and its report on scikit-learn's digits: every rule runs, nothing reruns without a reason."""

import html
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import DIGITS, copy_repository, snakemake
from privset.privacy import certificates
from privset.sets import arrays, files
from workflow.test_dag import planned

CELLS = "results/tiny/sets/digits"


def plan(path, *arguments):
    result = snakemake(path, "-n", "all", *DIGITS, *arguments)
    assert result.returncode == 0, result.stdout
    return planned(result.stdout) if "Job stats" in result.stdout else {}


@pytest.fixture
def edited(finished):
    """Edits a file of the finished run for one test: `edited(name, old, new)`."""
    path, _ = finished
    before = {}

    def edit(name, old, new):
        text = (path / name).read_text()
        assert old in text
        before.setdefault(name, text)
        (path / name).write_text(text.replace(old, new))

    yield edit
    for name, text in before.items():
        (path / name).write_text(text)


def test_every_set_is_whole_certified_and_balanced(finished):
    path, _ = finished
    sets = sorted((path / CELLS).rglob("set.npz"))
    assert len(sets) == 12
    assert (
        len({certificates.verify(path)["set_sha256"] for path in (path / "results/tiny/releases").rglob("statistics.npz")}) == 3
    )
    for file in sets:
        stated = certificates.verify(file)
        made = arrays.read_set(file, classes=10)
        cell = stated["cell"]
        if cell["method"] == "real":
            assert stated["epsilon"] == "inf" and len(made) == 1437
            continue
        assert np.bincount(made.labels).tolist() == [int(cell["spc"])] * 10
        assert 0.99 * float(cell["epsilon"]) < stated["epsilon"] <= float(cell["epsilon"])
        assert Image.open(file.with_name("grid.png")).size[0] > 28
        trajectory = pd.read_csv(file.with_name("trajectory.csv"))
        assert trajectory.epsilon_spent.iloc[-1] == pytest.approx(stated["epsilon"], rel=1e-4)
        assert trajectory.epsilon_spent.is_monotonic_increasing
        with np.load(file.with_name("snapshots.npz")) as snapshots:
            if cell["method"].endswith("_continual"):
                assert len(snapshots["step"]) == 0  # a half-finished stream is not a set
                continue
            assert snapshots["step"][-1] == trajectory.step.iloc[-1]
            assert snapshots["images"].shape == (len(snapshots["step"]), len(snapshots["labels"]), *made.images.shape[1:])
            if cell["method"] != "dp_merf":
                assert np.allclose(snapshots["images"][-1], made.images)


def test_a_smaller_size_of_a_generator_is_of_its_one_set(finished):
    path, _ = finished
    result = files.read_json(path / "results/tiny/metrics/digits/dp_merf/eps10/spc2/seed0/convnet.json")
    whole = files.read_json(path / CELLS / "dp_merf/eps10/spc20/seed0/certificate.json")
    assert result["images"] == 20 and result["certificate"]["set_sha256"] == whole["set_sha256"]
    assert not (path / CELLS / "dp_merf/eps10/spc2").exists()


def test_sets_of_one_release_share_its_expenditure(finished):
    path, _ = finished
    stated = [files.read_json(path / CELLS / f"psm/eps10/spc{spc}/seed0/certificate.json") for spc in (2, 10)]
    released = files.read_json(path / "results/tiny/releases/digits/psm/eps10/seed0/certificate.json")
    assert {each["statistics_sha256"] for each in stated} == {released["set_sha256"]}
    assert all(each["ledger"] == released["ledger"] and len(each["ledger"]) == 2 for each in stated)


def test_releases_made_are_releases_configured(finished):
    path, _ = finished
    (entry,) = files.read_json(path / CELLS / "psg/eps10/spc2/seed0/certificate.json")["ledger"]
    assert entry["count"] == 4 * 2 * 2  # iterations x outer x batches


def test_tables_in_three_forms_and_in_the_terminal(finished):
    path, output = finished
    for table in ("table1", "table2", "table_privacy"):
        text = (path / f"results/tiny/tables/{table}.md").read_text()
        assert "(tiny preset)" in text
        assert text.strip() in output
        assert (path / f"results/tiny/tables/{table}.tex").read_text().count("\\\\") > 3
        assert len(pd.read_csv(path / f"results/tiny/tables/{table}.csv")) >= 4
    assert (path / "results/tiny/figures/fig_samples.pdf").read_bytes().startswith(b"%PDF")


def test_an_mlp_on_the_real_digits_is_good_and_metrics_keep_every_run(finished):
    path, _ = finished
    metrics = pd.read_csv(path / "results/tiny/metrics/table2.csv")
    assert len(metrics) == 5 * (1 + 2)  # five cells, one ConvNet and two MLPs each
    real = metrics[(metrics.method == "real") & (metrics.network == "mlp")]
    assert real.test_accuracy.min() > 90


def test_every_job_left_a_log_and_a_benchmark(finished):
    path, _ = finished
    counts = {"fetch": 1, "synthesize": 8, "release": 3, "condense": 4, "evaluate": 16, "evaluate_tasks": 3, "compare": 4}
    counts |= {
        "audit_row": 7,
        "audits": 1,
        "claims": 1,
        "pairs": 1,
        "convergence": 2,
        "continual": 1,
        "configuration": 1,
        "report_page": 1,
    }
    for rule, count in counts.items():
        assert len(list((path / "results/logs" / rule).rglob("*.log"))) == count
        assert len(list((path / "results/benchmarks" / rule).rglob("*.tsv"))) == count
    log = (path / "results/logs/synthesize/tiny/digits/psg/eps10/spc2/seed0.log").read_text()
    assert re.search(r"4/4 loss=\S+ eps=10 \S+/s ETA 0:00", log), log


def test_a_second_run_does_nothing(finished):
    path, _ = finished
    result = snakemake(path, "all", *DIGITS)
    assert result.returncode == 0 and "Nothing to be done" in result.stdout
    assert "Table 1" not in result.stdout


def test_a_changed_hyper_parameter_reruns_its_cells_only(finished, edited):
    path, _ = finished
    edited("tests/config/digits.yaml", "steps: 100}", "steps: 101}")
    jobs = plan(path)
    assert jobs["synthesize"] == 2  # dp_merf at two epsilons
    assert jobs["evaluate"] == 4  # ConvNet at both, MLP at the larger, ConvNet on the storage table's smaller size
    assert "fetch" not in jobs


def test_a_changed_module_reruns_what_uses_it(finished, edited):
    path, _ = finished
    edited(
        "workflow_scripts/privset/methods/dp_merf.py",
        "facts, device =",
        "device, facts = vault.device, vault.facts\n    facts, device =",
    )
    assert plan(path)["synthesize"] == 3  # with the one that learns task by task
    edited("workflow_scripts/privset/evaluation/augment.py", "0.8 + 0.4 *", "0.80 + 0.4 *")
    jobs = plan(path)
    assert (jobs["synthesize"], jobs["evaluate"], jobs["evaluate_tasks"]) == (3, 16, 3)


def test_a_plotting_edit_retrains_nothing(finished, edited):
    path, _ = finished
    edited("workflow_scripts/privset/reporting/tables.py", '"Without a reproduced', '"Not reproduced')
    jobs = {"all", "collect", "compare", "pairs", "privacy", "convergence", "continual", "audits", "claims", "report_page"}
    assert set(plan(path)) <= jobs


def test_the_same_cell_again_is_the_same_to_the_bit(finished):
    path, _ = finished
    cell = f"{CELLS}/psg/eps10/spc2/seed0"
    before = files.sha256(path / cell / "set.npz")
    result = snakemake(path, f"{cell}/set.npz", *DIGITS, "--forcerun", "synthesize")
    assert result.returncode == 0, result.stdout
    assert files.sha256(path / cell / "set.npz") == before
    assert snakemake(path, "all", *DIGITS, "--touch").returncode == 0


def test_a_tampered_set_is_not_evaluated(finished):
    path, _ = finished
    cell = path / CELLS / "dp_merf/eps10/spc20/seed0"
    whole = (cell / "set.npz").read_bytes()
    damaged = bytearray(whole)
    damaged[-5000] ^= 1
    (cell / "set.npz").write_bytes(damaged)
    metrics = "results/tiny/metrics/digits/dp_merf/eps10/spc20/seed0/mlp.json"
    result = snakemake(path, metrics, *DIGITS, "--allowed-rules", "evaluate", "--forcerun", "evaluate")
    (cell / "set.npz").write_bytes(whole)
    assert result.returncode != 0
    assert re.search(r"^error: .*set\.npz", result.stdout, re.MULTILINE), result.stdout
    assert "Traceback" not in result.stdout


def test_results_brought_from_elsewhere_are_accepted(finished, tmp_path):
    """docs/cluster.md's recipe: a fresh clone with the finished files, `--touch`, and then nothing is to be done."""
    path, _ = finished
    home = copy_repository(tmp_path / "home")
    shutil.copytree(path / "results", home / "results")
    assert plan(home)  # it would recompute
    result = snakemake(home, "all", "--touch", *DIGITS)
    assert result.returncode == 0, result.stdout
    assert plan(home) == {}


def test_evaluating_again_gives_identical_numbers_and_a_lost_one_comes_back_alone(finished):
    path, _ = finished
    file = path / "results/tiny/metrics/digits/psg/eps10/spc2/seed0/mlp.json"
    before = [run["test_accuracy"] for run in files.read_json(file)["runs"]]
    predicted = arrays.read_predictions(file.with_suffix(".npz"))[0]["mlp"]
    file.unlink()
    result = snakemake(path, str(file.relative_to(path)), *DIGITS)
    assert result.returncode == 0, result.stdout
    assert planned(result.stdout) == {"evaluate": 1}
    assert [run["test_accuracy"] for run in files.read_json(file)["runs"]] == before
    assert np.array_equal(arrays.read_predictions(file.with_suffix(".npz"))[0]["mlp"], predicted)


def test_what_the_readme_offers_on_request(finished):
    """Timings beside the peers, what the run has cost, and the picture of the augmentation: rules of their own, outside `all`."""
    path, _ = finished
    picture = "results/data/digits/augmentation.png"
    result = snakemake(path, "benchmarks", "table_costs", picture, *DIGITS)
    assert result.returncode == 0, result.stdout
    told = pd.read_csv(path / "results/tiny/tables/table_costs.csv").set_index("what")
    assert told.loc["synthesize: PSG", "jobs"] == 3 and told.loc["evaluate", "jobs"] == 16 and (told.clock > 0).all()
    for name, programs in (("private_step", 7), ("evaluation", 3)):
        frame = pd.read_csv(path / f"results/tiny/benchmarks/{name}.csv")
        assert frame.program.nunique() >= programs and (frame.seconds > 0).all() and frame.n.eq(2).all()
        assert "| privset" in (path / f"results/tiny/benchmarks/{name}.md").read_text()
        assert Image.open(path / f"results/tiny/benchmarks/{name}.png").size[0] > 500
    assert Image.open(path / picture).size[0] > 500


def test_the_audit_has_every_row_and_refutes_none(finished):
    path, _ = finished
    frame = pd.read_csv(path / "results/tiny/tables/table_audit.csv")
    rows = {"psg", "psg_prior", "psm", "dp_merf", "psg_continual", "dp_merf_continual", "dpsgd"}
    levels = frame.groupby("method")["level"].apply(set)
    assert set(levels.index) == rows and set(frame.claimed) == {1, 10}
    for row in rows:
        assert levels[row] == {"release", "bits", "noise", "one run", *({"images"} if row != "dpsgd" else ())}
    assert not frame.refuted.any()
    exact = frame[(frame.level == "release") & (frame.claimed == 10) & frame.method.isin(["psm", "dp_merf"])]
    assert (exact.bound > 7).all() and np.allclose(exact.upper, 10, atol=0.01)
    claims = pd.read_csv(path / "results/tiny/tables/table_claims.csv")
    assert claims.program.nunique() >= 10 and claims.source.str.contains("@").all()


def test_a_row_is_attacked_by_one_command(finished):
    path, _ = finished
    options = ["--config", "tests/config/digits.yaml", "--preset", "tiny", "--data", "results/data/digits"]
    command = [sys.executable, "-m", "privset", "audit", "dp_merf", "--epsilon", "3", *options]
    environment = {**os.environ, "PYTHONPATH": str(path / "workflow_scripts")}
    result = subprocess.run(command, cwd=path, env=environment, text=True, capture_output=True, timeout=300)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["release", "bits", "noise", "one", "images", "replay", "dp_merf,"]
    assert "claimed 3, 95 %" in lines[0] and lines[-1].startswith("dp_merf, epsilon = 3: not refuted")
    assert 0 < float(re.search(r"at most ([\d.]+) of the stated", lines[-2]).group(1)) <= 1
    for wrong, line in (
        (["audit", "dp_merf", "--epsilon", "-3", *options], "epsilon = -3.0: must be > 0"),
        (["audit", "nothing", "--epsilon", "3", *options], "method = nothing: choose from"),
        (["audit", "dp_merf", "--epsilon", "3", *options[:-1], "nowhere"], "nowhere: no dataset there"),
        (["audit", "dp_merf", "--epsilon", "3", "--config", "no.yaml"], "--config no.yaml: "),
    ):
        result = subprocess.run([*command[:3], *wrong], cwd=path, env=environment, text=True, capture_output=True, timeout=300)
        assert result.returncode == 1 and result.stderr.startswith("error: ") and line in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_confusion_matrix_by_its_path(finished):
    path, _ = finished
    target = "results/tiny/figures/confusion/digits/real/epsinf/spcall/seed0/mlp.png"
    result = snakemake(path, target, *DIGITS)
    assert result.returncode == 0, result.stdout
    assert Image.open(path / target).size[0] > 500


def test_a_bad_set_is_refused_in_one_line_and_not_evaluated(finished, tmp_path):
    """Other bytes than the certificate is of; what else a set can be: tests/unit/test_sets.py."""
    path, _ = finished
    home = copy_repository(tmp_path / "home")
    shutil.copytree(path / "results", home / "results")
    file = home / CELLS / "psg/eps10/spc2/seed0/set.npz"
    made = arrays.read_set(file)
    np.savez(file, images=made.images * np.float32(0.5), labels=made.labels)
    metrics = "results/tiny/metrics/digits/psg/eps10/spc2/seed0/mlp.json"
    result = snakemake(home, metrics, "--touch", *DIGITS)  # as if the set had been brought from elsewhere
    (home / metrics).unlink()
    result = snakemake(home, metrics, *DIGITS)
    assert result.returncode == 1
    (line,) = {line for line in result.stdout.splitlines() if line.startswith("error: ")}
    assert "its SHA-256 is not the one in certificate.json" in line
    assert not (home / metrics).exists()


def test_tiled_sets_and_soft_labels_are_trained_on_as_their_unpacked_images(finished, tmp_path):
    """Four whole images in each stored one, with labels as probabilities, say the same as their hard labels do."""
    path, _ = finished
    home = copy_repository(tmp_path / "home")
    shutil.copytree(path / "results", home / "results")
    cell = home / CELLS / "psg/eps10/spc2/seed0"
    made = arrays.read_set(cell / "set.npz")
    halves = np.repeat(made.images[:, :, ::2, ::2], 4, axis=0).reshape(20, 2, 2, 14, 14)
    stored = halves.transpose(0, 1, 3, 2, 4).reshape(20, 1, 28, 28)
    metrics = home / "results/tiny/metrics/digits/psg/eps10/spc2/seed0/mlp.json"
    runs = []
    for soft in (None, np.repeat(np.eye(10, dtype=np.float32)[made.labels], 4, axis=0)):
        arrays.write_set(cell / "set.npz", arrays.Set(stored, made.labels, 2, soft))
        certificate = files.read_json(cell / "certificate.json")
        files.write_json(cell / "certificate.json", {**certificate, "set_sha256": files.sha256(cell / "set.npz")})
        target = str(metrics.relative_to(home))
        assert snakemake(home, target, "--touch", *DIGITS).returncode == 0  # as if the set had been brought from elsewhere
        metrics.unlink()
        result = snakemake(home, target, *DIGITS)
        assert result.returncode == 0, result.stdout
        content = json.loads(metrics.read_text())
        assert content["images"] == 20
        runs.append([(run["steps"], run["test_accuracy"]) for run in content["runs"]])
    assert runs[0][0][0] == 21  # epochs of all 80 images in one batch
    for hard, soft in zip(*runs, strict=True):
        assert soft[0] == hard[0] and soft[1] == pytest.approx(hard[1], abs=0.6)  # two of 360 test images, for rounding


# The report, in a browser. In this file because its tests share one process, and so one computation of the pipeline.

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

SHOWN = """async path => {
    new ButtonViewManager(app).handleSelectedResult(path).props.onClick();
    const until = async check => {
        for (let tries = 0; tries < 200; tries++) {
            const found = check();
            if (found) return found;
            await new Promise(done => setTimeout(done, 50));
        }
        return null;
    };
    const wanted = new URL(results[path].data_uri).href;
    return until(() => {
        const shown = [...document.querySelectorAll("#app img, #app iframe")].find(part => part.src === wanted);
        if (!shown) return null;
        if (shown.tagName === "IFRAME") return {frame: true};
        return shown.complete ? {width: shown.naturalWidth} : null;
    });
}"""


@pytest.fixture
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_the_report_is_one_page_that_shows_everything(finished, browser, tmp_path):
    path, _ = finished
    report = tmp_path / "report.html"
    shutil.copy(path / "results/tiny/report.html", report)  # away from everything that it could still read
    page = browser.new_page()
    complaints, fetched = [], []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_selector("#app nav, #app ul")
    found = page.evaluate("Object.entries(categories).flatMap(([name, parts]) => Object.keys(parts).map(part => name))")
    assert sorted(set(found)) == ["Configuration", "Figures", "Tables"]
    names = {re.sub(r".*/", "", name): name for name in page.evaluate("Object.keys(results)")}
    assert set(names) == {
        *(f"{table}.html" for table in ("table1", "table1_pairs", "table2", "table3", "table_privacy", "table_storage")),
        *("table_audit.html", "table_claims.html"),
        *(f"fig_{figure}.png" for figure in ("samples", "convergence", "prior_convergence", "continual", "audit")),
        "configuration.html",
    }
    for short, name in names.items():
        shown = page.evaluate(SHOWN, name)
        assert shown is not None, f"{short} does not load"
        if short.endswith(".png"):
            assert shown["width"] > 500
            continue
        frame = page.frames[-1]
        frame.wait_for_load_state()
        if short == "configuration.html":
            assert "image_learning_rate: 5" in frame.inner_text("pre")
        else:
            assert frame.locator("table tr").count() >= 2
            assert "tiny preset" in frame.inner_text("h1")
        assert page.evaluate("path => results[path].caption", name).strip()
    assert complaints == []
    assert [url for url in fetched if not url.startswith(("data:", "file:", "about:"))] == []
    assert [url for url in fetched if url.startswith("file:")] == [report.as_uri()]


def test_the_reports_first_page_has_the_main_table_and_where_its_numbers_are_from(finished):
    path, _ = finished
    text = (path / "results/tiny/report.html").read_text()
    first = json.loads(re.search(r"var workflow_desc = (.*);", text).group(1))
    assert "preset <strong>tiny</strong>" in first
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr.*?</tr>", first, re.DOTALL)]
    measured = pd.read_csv(path / "results/tiny/tables/table1.csv", dtype={"epsilon": str, "spc": str})
    psg = measured[(measured.method == "psg") & (measured.epsilon == "10")].reproduced.item()
    assert ["PSG", "(spc=2)", "-", f"{psg:.1f}"] in rows
    assert "10 at delta = 1e-05" in first and "Commit" in first
    block = html.unescape(re.search(r"<pre[^>]*>(.*?)</pre>", first, re.DOTALL).group(1))
    checked = subprocess.run(["sha256sum", "-c"], input=block, cwd=path, text=True, capture_output=True)
    assert checked.returncode == 0 and checked.stdout.count(": OK") == block.strip().count("\n") + 1 == 10, checked
    assert '"Table 1: accuracy by method"' in text


def test_the_report_names_the_configuration_it_was_made_with(finished):
    path, _ = finished
    text = (path / "results/tiny/report.html").read_text()
    assert "preset <strong>tiny</strong>" in json.loads(re.search(r"var workflow_desc = (.*);", text).group(1))
