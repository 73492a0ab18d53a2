"""Shared fixtures: a small private dataset, and copies of the repository in which the workflow can run and be edited."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
import torch

from privset.data.datasets import PublicFacts
from privset.jobs.allocator import keep_freed_memory
from privset.privacy.noise import key_of
from privset.privacy.vault import Vault

ROOT = Path(__file__).parents[1]
PARTS = ("Snakefile", "config.yaml", "rules", "workflow_scripts", "profiles", "slurm", "resources", "envs", "tests/config")

torch.set_num_threads(1)
keep_freed_memory()
hypothesis.settings.register_profile("fixed", derandomize=True)  # the same examples for everybody
hypothesis.settings.load_profile("fixed")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def make_vault(generator):
    """A vault over random 28x28 images with labels; every argument can be overridden."""

    def make(*, records=40, epsilon=10.0, delta=1e-5, noise_seed=1, images=None, labels=None, classes=10):
        images = torch.randn(records, 1, 28, 28, generator=generator) if images is None else images
        labels = torch.arange(records) % classes if labels is None else labels
        facts = PublicFacts(records=len(images), classes=classes, channels=1, size=28, mean=(0.5,), std=(0.5,))
        return Vault(
            images,
            labels,
            facts=facts,
            epsilon=epsilon,
            delta=delta,
            key=key_of(noise_seed),
        )

    return make


def killed_and_resumed(release, open_vault, run, *, stop):
    """What `release(vault, run)` gives if it is killed at its checkpoint `stop`, counted from 1, and goes on with a fresh vault
    and a fresh run from what that had; and the ledger in the end."""
    saved = []
    vault, first = open_vault(), run()

    def checkpoint(state):
        saved.append(copy.deepcopy((state, vault.state(), first.generator.get_state())))
        if len(saved) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        release(vault, dataclasses.replace(first, checkpoint=checkpoint))
    state, vault_state, generator_state = saved[-1]
    vault, second = open_vault(), run()

    def restore():
        vault.load_state(vault_state)
        second.generator.set_state(generator_state)
        return state

    return release(vault, dataclasses.replace(second, restore=restore)), vault.ledger


def copy_repository(target: Path) -> Path:
    target.mkdir(exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target / part)
    return target


def snakemake(repository: Path, *arguments: str, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a copy of the repository; output and errors together in `.stdout`."""
    # Snakemake waits for a span at its end; the shipped profile's is for longer runs than a test's.
    command = [sys.executable, "-m", "snakemake", *arguments, "--max-jobs-per-timespan", "100/1s"]
    return subprocess.run(command, cwd=repository, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)


@pytest.fixture(scope="session")
def repository(tmp_path_factory) -> Path:
    """An unused copy of the repository, for dry runs."""
    return copy_repository(tmp_path_factory.mktemp("repository"))


DIGITS = ("--cores", "2", "--configfile", "tests/config/digits.yaml")


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """A copy of the repository in which the whole digits preset was computed, and what the run printed."""
    path = copy_repository(tmp_path_factory.mktemp("finished"))
    result = snakemake(path, "all", *DIGITS)
    assert result.returncode == 0, result.stdout
    return path, result.stdout
