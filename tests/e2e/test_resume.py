"""A synthesis killed with SIGKILL goes on where it was, and ends with the bits of one that was never killed."""

import os
import signal
import subprocess
import sys
import time

from conftest import copy_repository, snakemake
from privset.privacy import certificates
from privset.sets import files

CELL = "results/tiny/sets/digits/psg/eps10/spc2/seed0"
CHECKPOINT = "results/tiny/checkpoints/digits/psg/eps10/spc2/seed0.pt"
RUN = (f"{CELL}/set.npz", "--cores", "1", "--configfile", "tests/config/digits.yaml")


def prepared(path):
    """A copy of the repository with a longer PSG and a checkpoint after every iteration."""
    copy_repository(path)
    for name, old, new in (
        ("tests/config/digits.yaml", "iterations: 4,", "iterations: 60,"),
        ("tests/config/digits.yaml", "mlp: {seeds: 2, epochs: 20}", "mlp: {seeds: 2, epochs: 1000}"),
        ("workflow_scripts/privset/jobs/checkpoints.py", "INTERVAL = 30.0", "INTERVAL = 0.0"),
    ):
        text = (path / name).read_text()
        assert old in text
        (path / name).write_text(text.replace(old, new))
    return path


def kill_at_a_checkpoint(path, run, checkpoint, kill):
    """Start Snakemake, wait until a new checkpoint is there, and kill everything."""
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *run, "--nolock"],
        cwd=path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    before = (path / checkpoint).stat().st_mtime_ns if (path / checkpoint).exists() else 0
    deadline = time.monotonic() + 120
    while not ((path / checkpoint).exists() and (path / checkpoint).stat().st_mtime_ns > before):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(process.pid, kill)
    process.wait()


def test_killed_jobs_resume_to_the_same_bits(tmp_path):
    whole, killed = prepared(tmp_path / "whole"), prepared(tmp_path / "killed")
    result = snakemake(whole, *RUN)
    assert result.returncode == 0, result.stdout

    for kill in (signal.SIGKILL, signal.SIGTERM):
        kill_at_a_checkpoint(killed, RUN, CHECKPOINT, kill)
        assert not (killed / CELL / "certificate.json").exists()

    result = snakemake(killed, *RUN, "--nolock")
    assert result.returncode == 0, result.stdout
    log = (killed / "results/logs/synthesize/tiny/digits/psg/eps10/spc2/seed0.log").read_text()
    assert log.startswith("resuming from")
    assert not (killed / CHECKPOINT).exists()
    assert files.sha256(whole / CELL / "set.npz") == files.sha256(killed / CELL / "set.npz")
    stated = [certificates.verify(path / CELL / "set.npz") for path in (whole, killed)]
    assert stated[0]["ledger"] == stated[1]["ledger"] and stated[0]["ledger"][0]["count"] == 60 * 2 * 2

    # The same for an evaluation, on these two equal sets.
    metrics = "results/tiny/metrics/digits/psg/eps10/spc2/seed0/mlp.json"
    evaluate = (metrics, *RUN[1:])
    kill_at_a_checkpoint(killed, evaluate, "results/tiny/checkpoints/digits/psg/eps10/spc2/seed0/mlp.pt", signal.SIGKILL)
    for path in (whole, killed):
        result = snakemake(path, *evaluate, "--nolock")
        assert result.returncode == 0, result.stdout
    log = (killed / "results/logs/evaluate/tiny/digits/psg/eps10/spc2/seed0/mlp.log").read_text()
    assert log.startswith("resuming from")
    accuracies = [[run["test_accuracy"] for run in files.read_json(path / metrics)["runs"]] for path in (whole, killed)]
    assert accuracies[0] == accuracies[1] and len(accuracies[0]) == 2
