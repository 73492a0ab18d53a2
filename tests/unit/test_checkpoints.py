"""Interrupted and resumed is the same as uninterrupted: the images, the ledger and the trajectory, to the bit."""

import errno
import fcntl
import io
import multiprocessing
import resource
import stat
import threading
import time
from types import SimpleNamespace

import filelock
import pytest
import torch

from privset import PrivsetError
from privset.data import sources
from privset.data.datasets import FILES
from privset.jobs import cells, checkpoints
from privset.jobs.progress import Progress
from privset.jobs.run import Run
from privset.jobs.trajectory import Trajectory
from privset.methods import psg, psg_prior
from privset.sets import files

CONFIG = psg.Config(iterations=6, outer=2, inner=1, batches=2, batch_size=20, width=4)
PRIOR = psg_prior.Config(iterations=6, outer=2, inner=1, batches=2, batch_size=20, width=4)
DATA = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(8))


class Killed(Exception):
    pass


def start(make_vault, path, *, kill_after=None, belongs_to="a", noise_seed=1, method=psg):
    """Run PSG, perhaps killed after a step, with a checkpoint after every step; (images, vault, trajectory, log lines)."""
    vault = make_vault(images=DATA, epsilon=5.0, noise_seed=noise_seed)
    trajectory = Trajectory(Progress("test", io.StringIO()), vault.ledger)
    generator = torch.Generator().manual_seed(4)
    lines = []
    ticks = iter(range(0, 10**6, 1000))
    file = checkpoints.File(path, belongs_to=belongs_to, log=lines.append, clock=lambda: next(ticks))
    checkpoint = cells.Checkpoint(file, vault=vault, generator=generator, trajectory=trajectory)

    def report(step, loss):
        if step == kill_after:  # the step's releases happened, and its checkpoint is not written
            raise Killed
        trajectory.report(step, loss)

    run = Run(
        spc=1,
        generator=generator,
        start=trajectory.start,
        report=report,
        snapshot=trajectory.snapshot,
        restore=checkpoint.load,
        checkpoint=checkpoint.save,
    )
    images, _ = method.synthesize(vault, {psg: CONFIG, psg_prior: PRIOR}[method], run)
    return images, vault, trajectory, lines


@pytest.mark.parametrize(("method", "kill_after"), [(psg, 1), (psg, 2), (psg, 4), (psg, 6), (psg_prior, 3)])
def test_resumed_is_uninterrupted_to_the_bit(make_vault, tmp_path, method, kill_after):
    whole, vault, trajectory, _ = start(make_vault, tmp_path / "whole.pt", method=method)
    with pytest.raises(Killed):
        start(make_vault, tmp_path / "c.pt", kill_after=kill_after, method=method)
    # The vault of the second process has other generators: all that counts must come from the checkpoint.
    seed = 1 if kill_after == 1 else 77  # nothing was saved before the first step ended
    resumed, vault_again, trajectory_again, lines = start(make_vault, tmp_path / "c.pt", noise_seed=seed, method=method)
    assert torch.equal(whole, resumed)
    assert vault.ledger.releases == vault_again.ledger.releases
    assert [row[:3] for row in trajectory.rows] == [row[:3] for row in trajectory_again.rows]
    assert [step for step, *_ in trajectory_again.snapshots] == [1, 3, 6]
    for before, after in zip(trajectory.snapshots, trajectory_again.snapshots, strict=True):
        assert before[:2] == after[:2] and torch.equal(before[2], after[2])
    assert torch.equal(trajectory_again.snapshots[-1][2], resumed)
    assert (lines[0].startswith("resuming")) if kill_after > 1 else not lines


def test_killed_again_and_again(make_vault, tmp_path):
    whole, *_ = start(make_vault, tmp_path / "whole.pt")
    for step in (2, 3, 5):
        with pytest.raises(Killed):
            start(make_vault, tmp_path / "c.pt", kill_after=step)
    assert torch.equal(start(make_vault, tmp_path / "c.pt")[0], whole)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "rubbish", "empty"])
def test_a_damaged_or_foreign_checkpoint_is_refused_in_one_line_and_the_cell_starts_over(make_vault, tmp_path, damage):
    whole, *_ = start(make_vault, tmp_path / "whole.pt")
    path = tmp_path / "c.pt"
    with pytest.raises(Killed):
        start(make_vault, path, kill_after=4, belongs_to="b" if damage == "foreign" else "a")
    content = path.read_bytes()
    if damage != "foreign":
        path.write_bytes({"truncated": content[: len(content) // 2], "rubbish": b"x" * 5000, "empty": b""}[damage])
    images, _, _, lines = start(make_vault, path)
    assert torch.equal(images, whole)
    (line,) = lines
    assert "is not used" in line and "starting from the beginning" in line and "\n" not in line


def test_only_the_owner_can_read_a_checkpoint(make_vault, tmp_path):
    with pytest.raises(Killed):
        start(make_vault, tmp_path / "c.pt", kill_after=3)
    assert stat.S_IMODE((tmp_path / "c.pt").stat().st_mode) == 0o600


def test_checkpoints_are_written_no_more_often_than_the_interval(make_vault, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "INTERVAL", 1e9)
    start(make_vault, tmp_path / "c.pt")
    assert not (tmp_path / "c.pt").exists()


def test_the_fingerprint_changes_with_every_part():
    base = {"cell": {"epsilon": "1"}, "config": {"width": 8}, "code": "abc"}
    changed = [{**base, "code": "abd"}, {**base, "config": {"width": 9}}, {**base, "cell": {"epsilon": "10"}}]
    assert len({checkpoints.fingerprint(content) for content in (base, *changed)}) == 4


def test_no_two_processes_answer_the_same_questions(tmp_path):
    """Each has a descriptor of its own, as two processes would."""

    def file():
        return checkpoints.File(tmp_path / "cell" / "c.pt", belongs_to="a", log=lambda line: None)

    first, second = file(), file()
    first.claim()
    with pytest.raises(PrivsetError, match=r"c\.lock: another process is computing this cell; wait for it"):
        second.claim(patience=0)
    first.delete()
    assert [file.name for file in (tmp_path / "cell").iterdir()] == ["c.lock"]
    second.claim()
    second.delete()


def test_a_process_waits_for_one_that_dies_and_not_for_one_that_finishes(tmp_path):
    def file():
        return checkpoints.File(tmp_path / "cell" / "c.pt", belongs_to="a", log=lambda line: None)

    def hold():
        file().claim()
        ready.set()
        time.sleep(60)

    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    dying = fork.Process(target=hold)
    dying.start()
    assert ready.wait(30)
    killer = threading.Timer(0.3, dying.kill)
    killer.start()
    waiting = file()
    waiting.claim()
    assert not dying.is_alive() or dying.join(5) is None

    late = file()
    threading.Timer(0.3, waiting.delete).start()
    with pytest.raises(PrivsetError, match="has just finished this cell; run again"):
        late.claim()


def test_without_locks_in_the_file_system_a_line_says_so(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    lines = []
    checkpoints.File(tmp_path / "c.pt", belongs_to="a", log=lines.append).claim()
    (line,) = lines
    assert "no lock" in line and "No locks available" in line and "make sure that no other process" in line


def test_a_lock_that_cannot_be_opened_stops_the_job(tmp_path, monkeypatch):
    """Another reason than a file system without locks says nothing about who else is there."""

    def denied(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(filelock.FileLock, "acquire", lambda self, **_: denied())
    with pytest.raises(PrivsetError, match=r"c\.lock could not be locked \(Permission denied\)"):
        checkpoints.File(tmp_path / "c.pt", belongs_to="a", log=print).claim()


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_full_disk_ends_in_one_line_and_keeps_the_last_checkpoint(make_vault, tmp_path, share):
    """Files may grow to a share of a checkpoint, as on a disk that fills up; the one before stays whole and is resumed from."""
    path = tmp_path / "c.pt"
    with pytest.raises(Killed):
        start(make_vault, path, kill_after=3)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * len(before)), limits[1]))
    try:
        with pytest.raises(PrivsetError, match="could not be written: File too large; nothing was replaced"):
            start(make_vault, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]
    whole, *_ = start(make_vault, tmp_path / "whole.pt")
    resumed, *_ = start(make_vault, path, noise_seed=77)
    assert torch.equal(whole, resumed)


def test_a_checkpoint_belongs_to_the_data_that_were_asked(tmp_path):
    """Other records under the same name: what was answered about the first is not continued on the second."""
    belonging = []
    for changed in (0, 1):
        folder = tmp_path / str(changed)
        sources.fetch("digits", folder, sources=[], directory=None, timeout=1, log=lambda line: None)
        images = bytearray((folder / FILES[0]).read_bytes())
        images[-1] ^= changed
        (folder / FILES[0]).write_bytes(images)
        cell = {"dataset": "digits", "method": "psg", "epsilon": "1", "spc": "1", "seed": "0"}
        params = {"delta": 1e-5, "accountant": "rdp", "noise": "seeded"}
        job = SimpleNamespace(cell=cell, params=params, device="cpu")
        vault, seed, belongs_to = cells.open_vault(job, folder, folder / "certificate.json")
        assert seed is not None and vault.facts.records == 1437
        belonging.append(checkpoints.fingerprint(belongs_to))
    assert belonging[0] != belonging[1]
    for cell["epsilon"], params["delta"], line in (
        ("1001", 1e-5, "epsilon = 1001: must be at most 1000"),
        ("1", 0.5, "delta = 0.5:"),
    ):
        with pytest.raises(PrivsetError, match=line):
            cells.open_vault(job, folder, folder / "certificate.json")


def test_a_cell_is_released_once_whatever_is_asked_later_and_however_its_job_ended(tmp_path):
    certificate = tmp_path / "certificate.json"

    def look(noise, resumes):
        cells.refuse_second_release(certificate, noise=noise, resumes=lambda: resumes)

    look("os", False)
    (tmp_path / "set.npz").write_bytes(b"whole")  # the job died before the certificate: without a checkpoint there is no way back
    look("os", True)
    look("seeded", False)
    with pytest.raises(PrivsetError, match=r"set\.npz: released, but its job died before the certificate was written; another"):
        look("os", False)
    files.write_json(certificate, {"private": True, "noise_source": "operating system"})
    for noise in ("os", "seeded"):  # another setting of `noise` is another release of the same records
        with pytest.raises(PrivsetError, match="already released; another release costs another epsilon"):
            look(noise, True)
    files.write_json(certificate, {"private": True, "noise_source": "seed 3"})
    look("os", False)
    files.write_json(certificate, {"private": False, "noise_source": "operating system"})
    look("os", False)
