"""`snakemake --profile slurm` on a real Slurm of one node with two pretended GPUs (cluster.sh), to the end, with accidents."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from conftest import DIGITS, copy_repository, snakemake
from privset.privacy import certificates
from privset.sets import files

CLUSTER = Path(__file__).with_name("cluster.sh")
pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="a test cluster needs root (munge, slurmd and device files)"),
    pytest.mark.skipif(
        any(shutil.which(tool) is None for tool in ("slurmctld", "slurmd", "munged")),
        reason="no Slurm here; tests/slurm/cluster.sh install gets it from Debian's packages, .ci/run does so",
    ),
]
CELL = "results/tiny/sets/digits/psg/eps{}/spc2/seed0"
SETTINGS = ("--configfile", "tests/config/digits.yaml", "--config", "preset=tiny", "gpu=True")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    folder.parent.chmod(0o755)
    subprocess.run([CLUSTER, "up", str(folder)], check=True, timeout=120)
    yield folder
    subprocess.run([CLUSTER, "down", str(folder)], check=True)


def prepared(path, *, seconds):
    """A copy of the repository with 40 iterations of PSG, each followed by a pause, and a checkpoint after each."""
    copy_repository(path)
    config = yaml.safe_load((path / "tests/config/digits.yaml").read_text())
    methods = config["presets"]["tiny"]["methods"]
    config["presets"]["tiny"]["methods"] = {name: methods[name] for name in ("psg", "dp_merf", "real")}  # enough, and quicker
    config["presets"]["tiny"]["methods"]["psg"]["config"]["iterations"] = 40
    (path / "tests/config/digits.yaml").write_text(yaml.safe_dump(config))
    for name, old, new in (
        ("workflow_scripts/privset/jobs/checkpoints.py", "INTERVAL = 30.0", "INTERVAL = 0.0"),
        ("workflow_scripts/privset/jobs/progress.py", "INTERVAL = 30.0", "INTERVAL = 1.0"),
        (
            "workflow_scripts/privset/methods/psg.py",
            "        run.report(",
            f"        __import__('time').sleep({seconds})\n        run.report(",
        ),
    ):
        text = (path / name).read_text()
        assert old in text
        (path / name).write_text(text.replace(old, new, 1))
    return path


def jobs():
    """Slurm's own records: one dictionary per job, by job id."""
    text = subprocess.run(["scontrol", "--details", "show", "job"], text=True, capture_output=True, check=True).stdout
    found = {}
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"(\w[\w/:]*)=(\S*)", block))
        if "JobId" in fields:
            found[fields["JobId"]] = fields
    return found


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.5)
    return found


def test_the_whole_pipeline_with_a_cancelled_job_and_one_out_of_time(cluster, tmp_path):
    """Two PSG jobs side by side on different cards; one is cancelled, both run into Slurm's shortest limit, a minute; every
    attempt resumes; what comes out is what a local run makes."""
    local, path = prepared(tmp_path / "local", seconds=0), prepared(tmp_path / "cluster", seconds=1.6)
    options = ["--profile", "slurm", "--slurm-init-seconds-before-status-checks", "5", "--latency-wait", "10", *SETTINGS]
    # The two PSG sets first, so that nothing else takes a card; then the rest.
    command = [
        "snakemake",
        *(f"{CELL.format(epsilon)}/set.npz" for epsilon in (1, 10)),
        "--set-resources",
        "synthesize:runtime=1",
    ]
    with open(path / "snakemake.log", "w") as log:
        run = subprocess.Popen([sys.executable, "-m", *command, *options], cwd=path, stdout=log, stderr=subprocess.STDOUT)

    def psg_jobs():
        assert run.poll() is None, (path / "snakemake.log").read_text()
        return {n: f for n, f in jobs().items() if "psg" in f.get("Comment", "") and f["JobState"] == "RUNNING"}

    def both():
        running = psg_jobs()
        begun = [(path / "results/tiny/checkpoints/digits/psg" / f"eps{eps}/spc2/seed0.pt").exists() for eps in (1, 10)]
        return running if len(running) == 2 and all(begun) else None

    first = wait_for(both, 180, "two PSG jobs never ran side by side")
    cards = {re.search(r"IDX:(\d)", fields["GRES"]).group(1) for fields in first.values()}
    assert cards == {"0", "1"}
    cancelled = min(first, key=int)
    subprocess.run(["scancel", cancelled], check=True)
    run.wait(timeout=600)
    output = (path / "snakemake.log").read_text()
    assert run.returncode == 0, output
    rest = snakemake(path, "all_tables", *options)
    assert rest.returncode == 0, rest.stdout

    records = jobs()
    states = [fields["JobState"] for fields in records.values()]
    assert records[cancelled]["JobState"] == "CANCELLED" and "TIMEOUT" in states
    synthesis = [fields for fields in records.values() if "synthesize" in fields.get("Comment", "")]
    assert len(synthesis) >= 5 + 2  # five sets, at least two of them in two attempts
    assert all(re.search(r"gres[:/]gpu[:=]1$", fields["TresPerJob"]) for fields in synthesis)
    evaluations = [fields for fields in records.values() if fields not in synthesis and "privset" in fields["JobName"]]
    assert len(evaluations) == 5  # one job per set, both networks in it
    for epsilon in (1, 10):
        text = (path / f"results/logs/synthesize/tiny/digits/psg/eps{epsilon}/spc2/seed0.log").read_text()
        assert "resuming from" in text  # after a line that says that this cluster's GPUs are made up

    assert snakemake(local, "all_tables", *DIGITS).returncode == 0
    for epsilon in (1, 10):
        sets = [place / CELL.format(epsilon) / "set.npz" for place in (local, path)]
        assert files.sha256(sets[0]) == files.sha256(sets[1])
        ledgers = [certificates.verify(file)["ledger"] for file in sets]
        assert ledgers[0] == ledgers[1] and ledgers[0][0]["count"] == 40 * 2 * 2
    for table in ("table1", "table2"):
        ours, theirs = (pd.read_csv(place / f"results/tiny/tables/{table}.csv") for place in (path, local))
        pd.testing.assert_frame_equal(ours, theirs)
