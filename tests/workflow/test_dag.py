"""Dry runs: each target plans the jobs that the configuration asks for, and mistakes end in one line."""

import re
import shlex

import pytest
import yaml
from snakemake import cli

from conftest import ROOT, snakemake
from privset import __main__

# Two datasets, each at two eps: psg with three sizes, with the other accountant and psm with two, eleven generators with one; PSG
# with the prior at one eps; the real data. PSM's sets of every size come from one release (rule condense).
QUICK = {
    **{"fetch": 2, "synthesize": 12 + 8 + 11 * 4 + 4 + 2, "release": 4, "condense": 8},
    # Table 1; Table 2: sixteen rows, one job for the ConvNet, which fifteen have in Table 1, and one for the others; the prior's
    "evaluate": (12 + 8 + 8 + 11 * 4) + 2 * (16 + 1) + 4,
    **{"collect": 3, "compare": 3, "pairs": 1, "privacy": 1},
}
# Taught has two sizes at both eps, and with a longer teacher at one.
PAPER = {
    **{"fetch": 2, "synthesize": 18 + 12 + 6 + 9 * 4, "release": 4 + 4 + 2, "condense": 16 + 8 + 4},
    "evaluate": (12 + 12 + 16 + 8 + 4 + 10 * 4) + 2 * (18 + 4 + 1) + 6,
    **{"collect": 3, "compare": 3, "pairs": 1, "privacy": 1},
}
# Beside those: at the largest epsilon, PSG and PSM at the sizes they are not run at anyway; generators at four sizes, of one set.
QUICK_STORAGE = {
    "synthesize": QUICK["synthesize"] + 2,
    "condense": 8 + 2 * 2,
    "evaluate": QUICK["evaluate"] + 2 * (1 + 2 + 10 * 4),
    "collect": 4,
    "compare": 4,
}
PAPER_STORAGE = {
    "synthesize": PAPER["synthesize"] + 2,
    "condense": PAPER["condense"] + 2 * 4,
    "evaluate": PAPER["evaluate"] + 2 * (1 + 4 + 10 * 4),
    **{"collect": 4, "compare": 4},
}


def with_figures(jobs, *, snapshots, streams, audited):
    """The jobs of target `all`; half of the continual streams make sets, the other half release the weights of DP-SGD."""
    continual = {"synthesize": jobs["synthesize"] + streams // 2, "release": jobs["release"] + streams // 2}
    figures = {"samples": 1, "convergence": 2, "evaluate_snapshots": snapshots, "evaluate_tasks": streams, "continual": 1}
    audit = {"audit_row": audited, "audits": 1, "claims": 1}
    return {**jobs, **continual, **figures, **audit, "configuration": 1, "report_page": 1}


def planned(output):
    """The "Job stats" table of a dry run, without the total and the target itself."""
    table = output.split("Job stats:")[1].split("total")[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def plan(repository, *arguments):
    result = snakemake(repository, "-n", "--cores", "2", *arguments)
    assert result.returncode == 0, result.stdout
    return planned(result.stdout)


@pytest.mark.parametrize(
    ("preset", "target", "expected"),
    [
        ("quick", "all_tables", QUICK),
        ("paper", "all_tables", PAPER),
        ("quick", "all", with_figures({**QUICK, **QUICK_STORAGE}, snapshots=8 + 4 + 9 * 2, streams=4 * 2, audited=15 + 4)),
        ("paper", "all", with_figures({**PAPER, **PAPER_STORAGE}, snapshots=16 + 8 * 2, streams=4 * 2 * 2 * 3, audited=16 + 4)),
        # 5 rows x 2 datasets x 3 seeds of the table, 2 of the rows with releases of their own; 6 eps x 2 datasets x 12 methods of
        # the figure, 2 psm in both
        (
            "quick",
            "ablation_psm",
            {
                **{"fetch": 2, "release": 12 + 12 - 2, "condense": 30 + 12 - 2, "synthesize": 11 * 12},
                **{"evaluate": 30 + 12 * 12 - 2, "collect": 2, "compare": 1, "epsilons": 1, "optimisation": 1},
            },
        ),
        ("quick", "audit", {"fetch": 1, "audit_row": 19, "audits": 1, "claims": 1}),
        (
            "quick",
            "all_figures",
            {
                **{"fetch": 2, "synthesize": 6 + 2 + 4 + 4 + 9 * 2, "release": 2 + 4, "condense": 4},
                **{"samples": 1, "convergence": 2, "evaluate_snapshots": 30, "evaluate_tasks": 8, "continual": 1},
            },
        ),
        (
            "quick",
            "table1",
            {"fetch": 2, "synthesize": 64, "release": 4, "condense": 8, "evaluate": 72, "collect": 1, "compare": 1},
        ),
        # (real, eleven generators, psg with two sizes, by the other accountant and psm with spc=10) x 2 datasets x 2 jobs
        (
            "quick",
            "table2",
            {"fetch": 2, "synthesize": 30, "release": 2, "condense": 2, "evaluate": 2 * 16 * 2, "collect": 1, "compare": 1},
        ),
        ("quick", "table_costs", {**QUICK, "costs": 1}),
    ],
)
def test_targets_plan_the_configured_grid(repository, preset, target, expected):
    jobs = plan(repository, target, "--config", f"preset={preset}")
    assert jobs.pop(target) == 1
    assert jobs == expected


def test_the_other_targets_are_there(repository):
    """Each is a part of what is counted above; together they are one plan."""
    others = ["all_data", "all_sets", "table3", "table_privacy", "table_storage", "fig_samples", "fig_convergence"]
    jobs = plan(repository, *others, "fig_prior_convergence", "fig_continual", "benchmarks", "report")
    assert all(jobs.pop(name) == 1 for name in [*others, "fig_prior_convergence", "fig_continual", "benchmarks", "report"])
    everything = with_figures({**QUICK, **QUICK_STORAGE}, snapshots=8 + 4 + 9 * 2, streams=4 * 2, audited=15 + 4)
    assert jobs == everything | {"private_step": 1, "evaluation_speed": 1}


def test_all_is_the_default(repository):
    assert plan(repository)["all"] == 1


def test_one_cell_of_any_preset_by_its_path(repository):
    assert plan(repository, "results/paper/sets/mnist/psg/eps0.5/spc50/seed3/set.npz") == {"fetch": 1, "synthesize": 1}


def test_a_dataset_of_ones_own_may_be_called_like_a_held_out_part(repository, tmp_path):
    config = yaml.safe_load((repository / "config.yaml").read_text())
    block = {"format": "npz", "channels": 1, "size": 28, "mean": [0.5], "std": [0.5], "class_names": ["left", "right"]}
    for part in ("train", "test"):
        (tmp_path / part).touch()
        block[part] = str(tmp_path / part)
    config["datasets"] = {"x_validation": block, "x": block}
    config["presets"]["quick"]["datasets"] = ["x_validation"]
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(config))
    names = ("x_validation", "x_validation_validation", "mnist_validation")
    cells = [f"results/quick/sets/{name}/psm/eps3/spc1/seed2/set.npz" for name in names]
    # x_validation and mnist are fetched, and records of both held out
    expected = {"fetch": 2, "hold_out": 2, "release": 3, "condense": 3}
    assert plan(repository, *cells, "--configfile", str(path)) == expected


def test_psms_sets_of_every_size_and_variant_come_from_one_release(repository, tmp_path):
    cells = [f"results/quick/sets/fashion_mnist_validation/psm/eps3/spc{spc}/seed2/set.npz" for spc in (1, 7, 50)]
    assert plan(repository, *cells) == {"fetch": 1, "hold_out": 1, "release": 1, "condense": 3}
    config = yaml.safe_load((repository / "config.yaml").read_text())
    config["presets"]["quick"]["methods"]["psm_features"] = {"spc": [10], "releases": {"trained_networks": 0}}
    path = tmp_path / "variant.yaml"
    path.write_text(yaml.safe_dump(config))
    variant = "results/quick/sets/mnist/psm_features/eps1/spc10/seed0/set.npz"
    assert plan(repository, variant, "--configfile", str(path)) == {"fetch": 1, "release": 1, "condense": 1}


def test_rows_that_ask_the_same_of_the_data_share_their_releases(repository):
    """Of quick's variants, one asks something else than psm; the sets of the others come from its own statistics."""
    rows = ["psm", "psm_gradients_after_features", "psm_mosaics", "psm_soft_labels", "psm_features_alone"]
    cells = [f"results/quick/sets/mnist/{row}/eps1/spc10/seed0/set.npz" for row in rows]
    assert plan(repository, *cells) == {"fetch": 1, "release": 2, "condense": 5}


def test_another_seed_or_network_adds_only_its_own_jobs(repository, tmp_path):
    config = yaml.safe_load((repository / "config.yaml").read_text())
    config["presets"]["quick"]["set_seeds"] = [0, 1]
    path = tmp_path / "seeds.yaml"
    path.write_text(yaml.safe_dump(config))
    jobs = plan(repository, "all_sets", "--configfile", str(path))
    assert (jobs["synthesize"], jobs["release"], jobs["condense"]) == (140, 8, 16)
    config["presets"]["quick"]["set_seeds"] = [0]
    config["presets"]["quick"]["networks"] = ["convnet", "mlp"]
    path.write_text(yaml.safe_dump(config))
    # A list in a second configuration file replaces the first: Table 2 has 32 cells x 2 networks.
    assert plan(repository, "table2", "--configfile", str(path))["evaluate"] == 64


def test_one_method_at_one_size_is_enough(repository, tmp_path):
    """What a first user tries; the tables and figures that would be empty are left out, and named when asked for."""
    config = yaml.safe_load((repository / "config.yaml").read_text())
    small = {"methods": {"psg": {**config["presets"]["quick"]["methods"]["psg"], "spc": [2]}, "real": {}}, "epsilon": [10]}
    config["presets"]["mine"] = {**config["presets"]["quick"], **small, "datasets": ["mnist"], "networks": ["mlp"]}
    del config["presets"]["mine"]["storage"], config["presets"]["mine"]["continual"], config["presets"]["mine"]["audit"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    mine = ("--configfile", str(tmp_path / "mine.yaml"), "--config", "preset=mine")
    jobs = plan(repository, "all_tables", *mine)
    assert jobs == {"fetch": 1, "synthesize": 2, "evaluate": 2, "collect": 2, "compare": 2, "privacy": 1, "all_tables": 1}
    assert plan(repository, "all", *mine)["samples"] == 1
    result = snakemake(repository, "-n", "--cores", "1", "table3", *mine)
    assert result.returncode != 0
    assert "table3 of preset mine: none of its methods, sizes and epsilons belongs there" in result.stdout


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("quik/sets/mnist/psg/eps10/spc10/seed0/set.npz", "preset = quik: choose from quick, paper"),
        ("quick/sets/mnist/psg/eps-3/spc10/seed0/set.npz", "epsilon = -3: must be > 0"),
        ("quick/metrics/mnist/psg/eps10/spc10/seed0/resnet99.json", "network = resnet99: choose from convnet"),
    ],
)
def test_impossible_cells_are_named_in_one_line(repository, path, line):
    """Every other mistake: tests/unit/test_grids.py."""
    result = snakemake(repository, "-n", "--cores", "1", f"results/{path}")
    assert result.returncode != 0
    assert any(line in printed for printed in result.stdout.splitlines()), result.stdout


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("presets={quick: {methods: {psg: {config: {iteration: 3}}}}}", "unknown key 'iteration'"),
        ("colour=red", "unknown key 'colour'"),
    ],
)
def test_a_wrong_configuration_stops_everything_with_one_line(repository, override, line):
    result = snakemake(repository, "-n", "--cores", "1", "--config", override)
    assert result.returncode != 0
    assert any(line in printed for printed in result.stdout.splitlines()), result.stdout
    assert "Traceback" not in result.stdout


def test_lint_is_clean(repository):
    result = snakemake(repository, "--lint")
    assert result.returncode == 0, result.stdout


def test_the_slurm_profile_plans_the_papers_grid_with_its_needs(repository):
    """From the repository's root, by the name `slurm`, whatever a login node has: one GPU for each set and each evaluation."""
    result = snakemake(repository, "-n", "--profile", "slurm", "all_tables")
    assert result.returncode == 0, result.stdout
    assert {key: value for key, value in planned(result.stdout).items() if key != "all_tables"} == PAPER
    jobs = [line for line in result.stdout.splitlines() if re.search(r": (Synthesize|Release|Condense|Evaluate) ", line)]
    assert len(jobs) == sum(PAPER[name] for name in ("synthesize", "release", "condense", "evaluate"))
    needs = [re.search(r"\((\d) GPU, (\d+) MB, at most (\d+) min\)$", line).groups() for line in jobs]
    assert all((gpu, memory) in (("1", "8000"), ("1", "6000")) for gpu, memory, _ in needs)
    # 200,000 private steps may take longer than 10,000.
    minutes = {
        spc: {int(n[2]) for line, n in zip(jobs, needs, strict=True) if f"psg, eps=10, spc={spc} " in line} for spc in (1, 20)
    }
    assert min(minutes[20]) > max(minutes[1]) > 15
    # Of generators that ask in each step: 160,000 steps of DP-Sinkhorn, 20,000 of DP-CGAN, which are faster.
    stepped = {
        method: {int(n[2]) for line, n in zip(jobs, needs, strict=True) if f" {method}, eps=10, spc=6000 " in line}
        for method in ("dp_sinkhorn", "dp_swd", "dp_flow", "dp_cgan")
    }
    assert min(stepped["dp_sinkhorn"]) > max(*stepped["dp_swd"], *stepped["dp_flow"], *stepped["dp_cgan"]) > 15


def test_a_profile_of_the_site_lies_on_top(repository, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/config.yaml").write_text("jobs: 3\ndefault-resources: {slurm_partition: fast}\n")
    result = snakemake(repository, "-n", "--profile", "slurm", "--profile", str(tmp_path / "site"), "table_privacy")
    assert result.returncode == 0, result.stdout
    assert "Using profiles slurm and" in result.stdout


def test_containers_name_what_exists(repository):
    """They were never built here; at least the files that they copy are there, and the base images have a version."""
    docker = (ROOT / "containers/Dockerfile").read_text()
    assert re.search(r"^FROM python:3\.\d+-slim$", docker, re.MULTILINE)
    definition = (ROOT / "containers/privset.def").read_text()
    copied = re.findall(r"^    (\S+) /opt/privset/(\S+)$", definition, re.MULTILINE)
    assert {name for name, _ in copied} >= {"pyproject.toml", "README.md", "workflow_scripts"}
    assert all((ROOT / name).exists() and name == target for name, target in copied)
    for section in ("%files", "%post", "%environment", "%runscript"):
        assert definition.count(f"\n{section}\n") == 1


SETUP = r"(?:python3 -m pip install --target \.uv uv && \.uv/bin/uv run )?"
DOCUMENTED = [
    (file.name, line)
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for line in re.findall(rf"^{SETUP}(snakemake [^#\n]+)", file.read_text(), re.MULTILINE)
]


def test_the_two_commands_of_the_readme_are_among_them_and_the_gate_runs_the_tests():
    printed = (ROOT / "README.md").read_text()
    assert re.search(rf"^{SETUP[:-1]}snakemake --cores 2 all_tables$", printed, re.MULTILINE)
    assert re.search(rf"^{SETUP[:-1]}pytest$", printed, re.MULTILINE)
    assert ("README.md", "snakemake --cores 2 all_tables") in DOCUMENTED
    assert re.search(r"^uv run pytest$", (ROOT / ".ci/run").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("file", "line"), DOCUMENTED, ids=[line.strip() for _, line in DOCUMENTED])
def test_documented_commands_mean_what_they_say(file, line, repository, monkeypatch):
    """Options that take lists must not swallow the target: it is what remains after all options."""
    monkeypatch.chdir(repository)
    words = shlex.split(line)[1:]
    parser = cli.get_argument_parser()
    options = parser.parse_args(words)
    named = [word for word in words if word.startswith(("all", "table", "fig_", "ablation_", "audit", "benchmarks", "results/"))]
    assert list(options.targets) == named
    assert all("=" in entry for entry in options.config or [])


COMMANDS = sorted(
    {
        line.strip()
        for file in (ROOT / "README.md", ROOT / "results/README.md", *(ROOT / "docs").glob("*.md"))
        for line in re.findall(r"(?:^|`|uv run )(privset (?:[a-z]+)(?: [^#`\n]+))", file.read_text(), re.MULTILINE)
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_documented_commands_of_privset_are_understood(line):
    """Words in capitals stand for what the reader has."""
    words = [re.sub(r"^E$", "1", word) for word in shlex.split(line)[1:]]
    assert __main__.command_line().parse_args(words).command == words[0]


def test_the_workflow_runs_in_another_folder_than_its_own(tmp_path):
    """`snakemake -s .../Snakefile` there: results are made there, and what ships with the workflow is found."""
    made = snakemake(tmp_path, "-s", str(ROOT / "Snakefile"), "results/quick/tables/table_claims.md", "--cores", "1")
    assert made.returncode == 0, made.stdout
    assert (tmp_path / "results/quick/tables/table_claims.md").stat().st_size > 500
    plan = snakemake(tmp_path, "-s", str(ROOT / "Snakefile"), "-n", "all", "--configfile", str(ROOT / "tests/config/digits.yaml"))
    assert plan.returncode == 0 and planned(plan.stdout)["report_page"] == 1, plan.stdout
