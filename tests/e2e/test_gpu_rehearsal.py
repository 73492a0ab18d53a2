"""The script for the first minutes with a graphics card, rehearsed on the CPU: killed, run again, whole."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import psutil

from conftest import ROOT

EXPECTED = ["environment.json", "evaluation.json", "run.log", "spc1.tar", "spc10.tar", "steps.json", "tests.xml"]


def kill_all(process):
    """SIGKILL for it and everything it started, which is what a power cut looks like."""
    for each in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        each.send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_rehearsal_keeps_what_was_finished_and_goes_on(tmp_path):
    out = tmp_path / "out"
    command = ["bash", str(ROOT / "tests" / "gpu" / "run.sh"), str(out), "--rehearse"]
    environment = os.environ | {"PYTHON": sys.executable}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    first = subprocess.Popen(command, **quiet)
    end = time.monotonic() + 300
    while not (out / "evaluation.json").exists() and time.monotonic() < end and first.poll() is None:
        time.sleep(0.05)
    assert first.poll() is None, (out / "run.log").read_text(encoding="utf-8")
    kill_all(first)
    finished = (out / "spc1.tar").read_bytes()
    rows = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert 1 <= len(rows) < 6

    subprocess.run(command, **quiet, timeout=900)
    log = (out / "run.log").read_text(encoding="utf-8")
    assert "== done after" in log and log.count("exit status") - log.count("exit status 0") == 0, log
    assert sorted(path.name for path in out.iterdir()) == EXPECTED
    assert (out / "spc1.tar").read_bytes() == finished
    evaluated = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluated[: len(rows)] == rows and len({row["network"] for row in evaluated}) == len(evaluated) == 6
    steps = {row["step"] for row in json.loads((out / "steps.json").read_text(encoding="utf-8"))}
    assert steps == {"private", "matching, 10 images", "matching, 100 images", "training, 100 images"}
    with tarfile.open(out / "spc10.tar") as tar:
        names = {name.removeprefix("spc10/") for name in tar.getnames()}
    assert {"set.npz", "certificate.json"} <= names
