"""One job per card: on machines without any, the cards are made up; the locks are real."""

import multiprocessing
import os
from types import SimpleNamespace

import filelock
import pytest
import torch

from conftest import ROOT
from privset import PrivsetError
from privset.jobs import devices
from privset.jobs.computation import computation


@pytest.fixture
def two_cards(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "_cards", lambda: ["card-a", "card-b"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    precision = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(precision)


class Named(dict):
    """Parameters, as Snakemake has them."""

    __getattr__ = dict.__getitem__


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_job_with_a_gpu_that_pytorch_cannot_see_says_so(gpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    smk = SimpleNamespace(
        log=[str(tmp_path / "rule.log")],
        threads=1,
        scriptdir=str(ROOT / "workflow_scripts"),
        wildcards={"preset": "tiny"},
        params=Named(code="abc"),
        resources={"gpu": gpus},
        rule="synthesize",
    )
    with computation(smk) as made:
        assert made.device == "cpu"
    line = "warning: synthesize was given a GPU, but PyTorch sees none: this runs on the CPU\n"
    assert capsys.readouterr().err == (tmp_path / "rule.log").read_text() == line * gpus


def test_without_a_card_or_a_wish_for_one_it_is_the_cpu(two_cards, monkeypatch):
    with devices.device(gpu=False) as device:
        assert device == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with devices.device(gpu=True) as device:
        assert device == "cpu"


def test_two_jobs_get_two_cards_and_a_third_waits(two_cards):
    with devices.device(gpu=True) as first, devices.device(gpu=True) as second:
        assert (first, second) == ("cuda:0", "cuda:1")
        with pytest.raises(PrivsetError, match="none of 2 GPUs became free"), devices.device(gpu=True, wait=0.01, patience=0.05):
            pass
    with devices.device(gpu=True) as again:
        assert again == "cuda:0"


def _hold_and_die(directory):
    filelock.FileLock(directory / f"privset-{os.getuid()}-card-a.lock").acquire(blocking=False)
    os._exit(9)


def test_a_job_that_was_killed_frees_its_card(two_cards, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_hold_and_die, args=(tmp_path,))
    process.start()
    process.join()
    with devices.device(gpu=True, wait=0.01, patience=0.1) as device:
        assert device == "cuda:0"


def test_a_slurm_job_with_one_card_has_it_and_one_with_two_shares_them_out(two_cards, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with devices.device(gpu=True) as first, devices.device(gpu=True) as second:
        assert (first, second) == ("cuda:0", "cuda:1")  # salloc with two cards, and a workflow in it
    monkeypatch.setattr(devices, "_cards", lambda: ["card-a"])
    with devices.device(gpu=True) as first, devices.device(gpu=True) as second:
        assert first == second == "cuda:0"
