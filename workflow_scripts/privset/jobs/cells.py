"""One cell of the grid: its vault, its checkpoint, and how its set or its releases come about."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from privset import PrivsetError
from privset.data import datasets
from privset.data.datasets import PublicFacts
from privset.jobs import checkpoints
from privset.jobs.computation import Computation
from privset.jobs.run import Run
from privset.jobs.seeds import cell_seed
from privset.jobs.trajectory import Trajectory
from privset.privacy import certificates
from privset.privacy.certificate import OS_ENTROPY, STATISTICS
from privset.privacy.ledger import LARGEST_BUDGET, Ledger
from privset.privacy.noise import fresh_key, key_of
from privset.privacy.vault import Vault
from privset.sets import arrays, files, mosaic

SET_FILES = ("images", "certificate", "trajectory", "snapshots", "grid")
"""Files of a set."""


def refuse_second_release(certificate: Path, *, noise: str, resumes: Callable[[], bool]) -> None:
    """Raises PrivsetError for a cell that was released with noise from the operating system, whatever is asked now; and for one
    whose files are there without a certificate, because its job died at its end, unless its checkpoint gives the same answers."""
    again = "another release costs another epsilon: delete it yourself, or choose another seed"
    if certificate.exists():
        stated = files.read_json(certificate)
        if stated.get("private") and stated.get("noise_source") == OS_ENTROPY:
            kept = "to keep it beside changed code or settings: the same command with --touch"
            raise PrivsetError(f"{certificate}: already released; {again} ({kept})")
    elif noise == "os":
        for name in ("set.npz", STATISTICS):
            if (path := certificate.with_name(name)).exists() and not resumes():
                raise PrivsetError(f"{path}: released, but its job died before the certificate was written; {again}")


def open_vault(job: Computation, data: Path, certificate: Path) -> tuple[Vault, int | None, dict[str, Any]]:
    """The vault over a cell's training data in the folder `data`, the seed of its noise (None: the operating system's entropy),
    and what a checkpoint of its answers belongs to.

    The rule's params say delta, accountant and noise: "os", or "seeded", when batches and noise follow from the cell's name.
    Raises PrivsetError if the cell was released before, which its `certificate` shows, and for a budget that promises nothing.
    """
    epsilon = math.inf if job.cell["epsilon"] == "inf" else float(job.cell["epsilon"])
    if LARGEST_BUDGET < epsilon < math.inf:
        raise PrivsetError(f"epsilon = {epsilon:g}: must be at most {LARGEST_BUDGET}, for more promises nothing")
    asked = {key: job.params[key] for key in ("delta", "accountant", "noise")}
    refuse_second_release(certificate, noise=asked["noise"], resumes=lambda: True)
    pixels, labels = datasets.load(data, train=True)
    facts = datasets.public_facts(datasets.describe(data), records=len(pixels))
    seed = None if asked["noise"] == "os" else cell_seed("noise", job.cell)
    vault = Vault(
        facts.normalise(torch.from_numpy(pixels).to(job.device)),
        torch.from_numpy(labels).to(job.device),
        facts=facts,
        epsilon=epsilon,
        delta=asked["delta"],
        accountant=asked["accountant"],
        key=fresh_key() if seed is None else key_of(seed),
    )
    return vault, seed, {**asked, "data": [files.sha256(data / name) for name in datasets.FILES[:2]]}


def protect(output: Mapping[str, Any], names: Iterable[str], seed: int | None) -> None:
    """What the operating system's noise was spent on cannot be made again: read-only."""
    for name in names if seed is None else ():
        Path(output[name]).chmod(0o444)


class Checkpoint:
    """The checkpoint of one synthesis; `vault` is None for one that only post-processes earlier releases.

    It holds the method's state, the vault's ledger and key, and the state of the method's generator, so a resumed run repeats
    the lost steps with the *same* batches and the same noise: no question to the data is ever answered twice with different
    noise, and the result is, on a CPU, the uninterrupted run's to the bit. Nothing leaves a job before it is finished, so what a
    crash destroyed was never published either.

    Whoever has the key can subtract the noise. A checkpoint is therefore as secret as the data: it is
    readable by its owner alone, lies outside every declared output, and is deleted when the set is in place.
    """

    def __init__(self, file: checkpoints.File, *, vault: Vault | None, generator: torch.Generator, trajectory: Trajectory):
        self.file, self.vault, self.generator, self.trajectory = file, vault, generator, trajectory

    def load(self) -> dict[str, Any] | None:
        """The method's state at the checkpoint, everything else being restored; None to start from the beginning."""
        content = self.file.load(self.generator.device)
        if content is None:
            return None
        if self.vault:
            self.vault.load_state(content["vault"])
        self.generator.set_state(content["generator"].cpu())
        self.trajectory.rows = [tuple(row) for row in content["rows"]]
        self.trajectory.snapshots = [(step, eps, *(t.cpu() for t in tensors)) for step, eps, *tensors in content["snapshots"]]
        self.file.log(f"resuming from {self.file.path}, epsilon spent {self.trajectory.ledger.spent():.4g}")
        return content["method"]

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint if the last one is old enough; `state` is the method's, tensors and numbers."""
        if self.file.due():
            content = {
                "method": state,
                "vault": self.vault.state() if self.vault else None,
                "generator": self.generator.get_state(),
                "rows": self.trajectory.rows,
                "snapshots": self.trajectory.snapshots,
            }
            self.file.save(content)


def start(
    job: Computation, *, ledger: Ledger, vault: Vault | None, belongs_to: Mapping[str, Any], certificate: Path
) -> tuple[Run, Trajectory, checkpoints.File]:
    """What a method gets beside its data: the run with its hooks, the trajectory that they fill, and the checkpoint's file,
    to be deleted once the results are in place."""
    generator = job.generator("method")  # the method's own, public randomness
    trajectory = Trajectory(job.progress(job.title), ledger)
    file = job.checkpoint(**belongs_to)
    if vault is not None:
        file.claim()  # only now can no other process finish the cell: look again
        refuse_second_release(certificate, noise=job.params["noise"], resumes=lambda: file.load("cpu") is not None)
    hooks = Checkpoint(file, vault=vault, generator=generator, trajectory=trajectory)
    run = Run(
        spc=int(job.cell["spc"]) if job.cell["spc"].isdigit() else None,
        generator=generator,
        start=trajectory.start,
        report=trajectory.report,
        snapshot=trajectory.snapshot,
        keep=trajectory.keep,
        restore=hooks.load,
        checkpoint=hooks.save,
    )
    return run, trajectory, file


def write(
    output: Mapping[str, Any],
    images: torch.Tensor,
    labels: torch.Tensor,
    trajectory: Trajectory,
    facts: PublicFacts,
    *,
    tiles: int = 1,
    soft_labels: torch.Tensor | None = None,
) -> None:
    """A finished set (normalised images), its trajectory, its snapshots and its picture, at the paths of `output`."""
    pixels, soft = facts.to_pixels(images).cpu().numpy(), None if soft_labels is None else soft_labels.cpu().numpy()
    arrays.write_set(Path(output["images"]), arrays.Set(pixels, labels.cpu().numpy(), tiles, soft))
    trajectory.write(Path(output["trajectory"]))
    trajectory.write_snapshots(Path(output["snapshots"]), facts)
    mosaic.write_grid(Path(output["grid"]), Path(output["images"]))


def synthesize(job: Computation, method: ModuleType, data: Path, output: Mapping[str, Any]) -> None:
    """One private set with its certificate, trajectory and picture, by a method that asks for each set; `data` is the folder of
    the private data, `output` has paths by the names in SET_FILES."""
    config = job.parse(method.Config, job.params["config"], f"methods.{job.cell['method']}.config")
    certificate = Path(output["certificate"])
    vault, seed, belongs_to = open_vault(job, data, certificate)
    run, trajectory, file = start(job, ledger=vault.ledger, vault=vault, belongs_to=belongs_to, certificate=certificate)
    images, labels = method.synthesize(vault, config, run)
    write(output, images, labels, trajectory, vault.facts)
    stated = certificates.certificate(vault.ledger, Path(output["images"]), noise_seed=seed, run=job.details)
    files.write_json(certificate, stated)
    protect(output, SET_FILES, seed)
    file.delete()


def release(job: Computation, method: ModuleType, data: Path, output: Mapping[str, Any]) -> None:
    """What a method of one-shot releases asks of the private data, once for the sets of every size: `statistics` and
    `certificate` in `output`."""
    config = job.parse(method.ReleaseConfig, job.params["config"], f"methods.{job.cell['method']}.releases")
    statistics, certificate = Path(output["statistics"]), Path(output["certificate"])
    vault, seed, belongs_to = open_vault(job, data, certificate)
    run, _, file = start(job, ledger=vault.ledger, vault=vault, belongs_to=belongs_to, certificate=certificate)
    tensors = method.release(vault, config, run).to_tensors()
    arrays.write_statistics(statistics, {name: tensor.cpu().numpy() for name, tensor in tensors.items()})
    stated = certificates.certificate(vault.ledger, statistics, noise_seed=seed, run=job.details)
    files.write_json(certificate, stated)
    protect(output, ("statistics", "certificate"), seed)
    file.delete()


def condense(
    job: Computation, method: ModuleType, statistics: Path, certificate: Path, known: datasets.Dataset, output: Mapping[str, Any]
) -> None:
    """One set from statistics that were released before, with their certificate. It has no access to the private data."""
    config = job.parse(method.Config, job.params["config"], f"methods.{job.cell['method']}.config")
    stated = files.matching_certificate(statistics, certificate)
    facts = datasets.public_facts(known, records=stated["ledger"][0]["records"])
    released = method.Statistics.from_tensors(job.tensors(statistics), facts)
    belongs_to = {"statistics": stated["set_sha256"]}
    run, trajectory, file = start(
        job, ledger=certificates.ledger(stated), vault=None, belongs_to=belongs_to, certificate=statistics
    )
    images, labels = method.synthesize(released, facts, config, run)
    soft_labels = method.soft_labels(released, images, labels, config, facts)
    write(output, images, labels, trajectory, facts, tiles=getattr(config, "tiles", 1), soft_labels=soft_labels)
    made = certificates.post_processed(stated, Path(output["images"]), run=job.details)
    files.write_json(Path(output["certificate"]), made)
    file.delete()
