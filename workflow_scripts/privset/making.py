"""A private set of somebody's own images without a workflow: what rules `release`, `condense`, `synthesize` do, in one folder."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from privset import PrivsetError, methods
from privset.data import given
from privset.data.datasets import DATASETS, DESCRIPTION, Dataset
from privset.jobs import cells, config, devices, digest, rows
from privset.jobs.blocks import parse
from privset.jobs.computation import Computation, provenance
from privset.privacy.ledger import check_delta
from privset.sets import files

PRIVATE = "private"
"""Below the folder of a set until it is finished: the checkpoint and, of images of one's own, a copy. As secret as they are."""


def blocks(row: str, settings: list[str]) -> dict[str, dict[str, Any]]:
    """The blocks `config` and `releases` of a method from words KEY=VALUE (releases.KEY=VALUE where both have the key)."""
    method, found = rows.described(row), {"config": {}, "releases": {}}
    models = {"config": methods.load(row).Config}
    if method.releases:
        models["releases"] = methods.load_releases(row).ReleaseConfig
    for word in settings:
        key, equals, text = word.partition("=")
        block, _, name = key.rpartition(".")
        block = block or next((each for each, model in models.items() if name in model.model_fields), "config")
        if not equals or block not in models:
            raise PrivsetError(f"--set {word}: expected KEY=VALUE" + (" or releases.KEY=VALUE" if method.releases else ""))
        found[block][name] = yaml.safe_load(text)
    for block, model in models.items():
        parse(model, found[block], f"--set for {row}")
    return found


def _same_question(certificate: Path, cell: Mapping[str, str], config: Mapping[str, Any], delta: float) -> None:
    """Raises PrivsetError unless statistics that are there already were released for what is asked now."""
    stated = files.read_json(certificate)
    there = (stated["cell"], stated["config"], stated["delta"])
    if there != (dict(cell), dict(config), delta):
        raise PrivsetError(f"{certificate.parent} holds what was released for something else; choose another --out")


def make(
    data: Path,
    *,
    method: str,
    epsilon: float,
    delta: float,
    spc: int,
    seed: int,
    settings: list[str],
    classes: int | None,
    gpu: bool,
    out: Path,
) -> Path:
    """A set with its certificate, trajectory and picture in the folder `out`; returns its path.

    Noise is the operating system's; `seed` is of what is public. An interrupted run goes on when it is started again. What a
    method of one-shot releases released is in `out`/statistics. Raises PrivsetError before anything is asked of the data if
    `out` has a set already or the request cannot be.
    """
    described = rows.methods().get(method)
    private = [name for name, each in rows.methods().items() if each.family in ("optimised set", "generator") and not each.tasks]
    if described is None or method not in private:
        raise PrivsetError(f"--method {method}: choose from {', '.join(private)}")
    text = config.epsilon_text(epsilon)
    if text == "inf" or spc < 1 or seed < 0:
        raise PrivsetError(f"--epsilon {epsilon:g} --spc {spc} --seed {seed}: must be finite, 1 or more, and 0 or more")
    given_blocks = blocks(method, settings)
    scratch = out / PRIVATE
    if (out / "certificate.json").exists():
        if scratch.exists():  # killed between the set and the end: the copy of the images must not stay
            shutil.rmtree(scratch)
        raise PrivsetError(f"{out} has a set already, and another one costs another epsilon; choose another --out")
    if not data.expanduser().exists() and str(data) in DATASETS:
        data = given.folder_of(str(data), Path("results/data"))
    known = given.description(data, classes)
    images, labels = given.read(data, known)
    check_delta(delta, len(labels))
    print(public(known, len(labels)), file=sys.stderr)

    folder = data.expanduser()
    if given.kind_of(data)[0] != "fetched":
        folder = scratch / "data"
        given.keep(images, labels, known, folder)
    output = {
        **{"images": out / "set.npz", "certificate": out / "certificate.json", "trajectory": out / "trajectory.csv"},
        **{"snapshots": out / "snapshots.npz", "grid": out / "grid.png"},
    }
    name = data.expanduser().resolve().stem
    files.write_json(out / DESCRIPTION, asdict(known))
    cell = {"preset": "own", "dataset": name, "method": method, "epsilon": text, "spc": str(spc), "seed": str(seed)}
    asked = {"delta": delta, "accountant": "rdp", "noise": "os"}
    with devices.device(gpu=gpu) as device:

        def job(block: str, module: str, **more: str) -> Computation:
            code = digest.question_digest(f"privset.methods.{module}")
            own = {**cell, **more}
            details = {"cell": own, "config": given_blocks[block], "code": code, **provenance(device)}
            params = {**asked, "config": given_blocks[block], "checkpoint": scratch / f"{module}.pt"}
            return Computation(cell=own, device=device, log=sys.stderr, params=params, details=details)

        if described.releases is None:
            cells.synthesize(job("config", method), methods.load(method), folder, output)
        else:
            released = {"statistics": out / "statistics/statistics.npz", "certificate": out / "statistics/certificate.json"}
            asking = job("releases", described.releases, spc="any")
            if released["certificate"].exists():
                _same_question(released["certificate"], asking.cell, given_blocks["releases"], delta)
            else:
                cells.release(asking, methods.load_releases(method), folder, released)
            cells.condense(job("config", method), methods.load(method), *released.values(), known, output)
    shutil.rmtree(scratch)
    return output["images"]


def public(known: Dataset, records: int) -> str:
    """What is used as public, in one line for the terminal."""
    names = ", ".join(known.class_names[:10]) + (", ..." if known.classes > 10 else "")
    colours = "grey" if known.channels == 1 else "colour"
    return (
        f"public: {records:,} {colours} images of {known.size}x{known.size}, {known.classes} classes ({names}), "
        f"mean {known.mean[0]:g} and deviation {known.std[0]:g}"
    )
