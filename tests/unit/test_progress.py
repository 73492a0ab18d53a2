"""Progress lines and the frame of a job."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import ROOT
from privset import PrivsetError
from privset.jobs import digest
from privset.jobs.frame import job
from privset.jobs.progress import Progress


def lines(first, last, *, total, seconds_per_step):
    log = io.StringIO()
    clock = iter(seconds_per_step * tick for tick in range(10**6))
    progress = Progress("psg mnist", log, clock=lambda: next(clock))
    progress.start(total)
    for step in range(first, last + 1):
        progress.update(step, loss=lambda: 3.14159, eps=lambda: 0.5)
    return log.getvalue().splitlines()


def test_a_line_every_thirty_seconds_and_at_the_end():
    written = lines(1, 100, total=100, seconds_per_step=1.0)
    assert written[0] == "psg mnist: 30/100 loss=3.142 eps=0.5 1/s ETA 1:10"
    assert [line.split()[2].split("/")[0] for line in written] == ["30", "60", "90", "100"]
    assert written[-1].endswith("ETA 0:00")


def test_a_resumed_job_counts_its_own_speed():
    (line,) = lines(901, 930, total=1000, seconds_per_step=1.0)
    assert "930/1000" in line and "1/s ETA 1:10" in line


def test_a_slow_beginning_does_not_count_for_long():
    log = io.StringIO()
    times = iter([0, 40, *(40 + tick / 10 for tick in range(1, 1000))])  # the first step takes 40 seconds, the others a tenth
    progress = Progress("psm", log, clock=lambda: next(times))
    progress.start(1000)
    for step in range(1, 1000):
        progress.update(step)
    first, second, *_ = log.getvalue().splitlines()
    assert first.startswith("psm: 1/1000") and "ETA 11:06:00" in first
    assert second.startswith("psm: 301/1000") and second.endswith("10/s ETA 1:10")


def frame(tmp_path):
    return SimpleNamespace(log=[str(tmp_path / "deep" / "rule.log")], threads=1, scriptdir=str(ROOT / "workflow_scripts"))


def test_a_users_mistake_is_one_line_in_log_and_terminal(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop, job(frame(tmp_path)):
        raise PrivsetError("set.npz: labels are not all of 0..9")
    assert stop.value.code == 1
    expected = "error: set.npz: labels are not all of 0..9\n"
    assert (tmp_path / "deep" / "rule.log").read_text() == capsys.readouterr().err == expected


def test_another_checkouts_library_is_refused(tmp_path, capsys):
    smk = frame(tmp_path)
    smk.scriptdir = str(tmp_path / "workflow_scripts")
    with pytest.raises(SystemExit), job(smk):
        raise AssertionError("it ran")
    mine, other = ROOT / "workflow_scripts", smk.scriptdir
    line = f"error: the library in {mine} runs here, and not the one in {other}; uninstall or move one\n"
    assert capsys.readouterr().err == line


def test_a_path_that_jobs_cannot_be_given_is_one_line(monkeypatch):
    monkeypatch.setattr(digest, "ROOT", Path("/home/me/a:b/workflow_scripts"))
    with pytest.raises(PrivsetError, match=r"^/home/me/a:b: a path with ':' cannot be given to jobs; move this folder$"):
        digest.run_this_library()


def test_anything_else_leaves_its_traceback_in_the_log(tmp_path):
    with pytest.raises(ZeroDivisionError), job(frame(tmp_path)):
        1 / 0  # noqa: B018
    assert "ZeroDivisionError" in (tmp_path / "deep" / "rule.log").read_text()
