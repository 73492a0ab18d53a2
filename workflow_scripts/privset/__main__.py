"""`privset synthesize | verify | show | export | evaluate | audit`: make, check, read, pass on, score sets, and attack methods,
with no workflow."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from privset import PrivsetError
from privset.data import exports
from privset.privacy import certificates
from privset.privacy.certificate import FLOAT32
from privset.sets import arrays, mosaic

NAMES = ("set.npz", certificates.STATISTICS)


def _sets(paths: list[Path]) -> list[Path]:
    """The files of sets and of released statistics among and below the given paths, behind links too; of a certificate, what lies
    beside it."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            folders = sorted(Path(folder) for folder, _, _ in os.walk(path, followlinks=True))
            sets = [folder / name for folder in folders for name in NAMES if (folder / name).exists()]
        elif path.name == "certificate.json":
            sets = [path.with_name(name) for name in NAMES if path.with_name(name).exists()]
        else:
            sets = [path]
        if not sets or not sets[0].is_file():
            raise PrivsetError(f"{path}: no set.npz there")
        found += sets
    return found


def _one_set(path: Path) -> Path:
    """The one set there; a PrivsetError that lists them if there are several."""
    found = [file for file in _sets([path]) if file.name != certificates.STATISTICS]
    if len(found) != 1:
        listed = ", ".join(map(str, found[:10])) + (f" and {len(found) - 10} more" if len(found) > 10 else "")
        raise PrivsetError(f"{path}: {len(found)} sets are there; name one of them" + (f": {listed}" if found else ""))
    return found[0]


def _verified(path: Path) -> dict[str, Any]:
    """The certificate of a file, if nothing in it contradicts the file, itself, or its method."""
    from privset import methods

    stated = certificates.verify(path)
    methods.check(stated, path)
    return stated


def verify(paths: list[Path]) -> int:
    """One line per set; the exit status is 1 if any of them fails."""
    failures = 0
    for path in _sets(paths):
        try:
            stated = _verified(path)
        except PrivsetError as error:
            failures += 1
            print(f"FAILED {error}")
            continue
        what = "statistics" if path.name == certificates.STATISTICS else f"{len(arrays.read_set(path))} images"
        privacy = (
            f"({float(stated['epsilon']):.4g}, {stated['delta']:g})-DP, {stated['neighbouring_relation']}, PLD epsilon "
            f"{float(stated['epsilon_pld']):.4g}, noise from {stated['noise_source'].split()[0]}"
            + (", FLOAT32" if stated["noise_stream"] == FLOAT32 else "")
            if stated["private"]
            else "NOT PRIVATE"
        )
        shared = f", from statistics {stated['statistics_sha256'][:12]}" if "statistics_sha256" in stated else ""
        print(f"ok {path}: {what}, {privacy}{shared}")
    return int(failures > 0)


def show(path: Path, png: Path | None) -> int:
    """The certificate for people, and the picture of the set on request."""
    stated = _verified(path)
    made = arrays.read_set(path)
    images = made.images
    print(f"{path}\n{stated['statement']}\n")
    spent = f"{stated['epsilon']} of {stated['epsilon_budget']}"
    rows = {
        "images": f"{images.shape[0]} of {'x'.join(map(str, images.shape[1:]))}, {len(np.unique(made.labels))} classes",
        "each image holds": f"{made.tiles**2} training images" if made.tiles > 1 else "one training image",
        "train towards": "labels" if made.soft_labels is None else "soft_labels, probabilities of the classes",
        "pixels": f"{images.min():.3g} to {images.max():.3g} (0 black, 1 white)",
        "epsilon spent": f"{spent} (RDP {stated['epsilon_rdp']}, PLD {stated['epsilon_pld']})",
        "delta": stated["delta"],
        "neighbours": stated["neighbouring_relation"] or "-",
        "labels protected": "yes" if stated["protects_labels"] else "no",
        "noise from": f"{stated['noise_source']}, {stated['noise_stream']}",
        "replacing one": f"epsilon {stated['epsilon_replacing']} at the same delta",
        "public": stated["public_facts"],
        "made by": f"{stated.get('cell', {}).get('method', '?')} {stated.get('config', '')}, code {stated.get('code', '?')}",
        "on": stated.get("device", "?"),
    }
    for name, value in rows.items():
        print(f"{name:>17}  {value}")
    print("\n           ledger")
    for entry in stated["ledger"]:
        noise = f"noise multiplier {entry['noise_multiplier']:.6g}" if "noise_multiplier" in entry else "no noise"
        rate = f", sampling rate {entry['sampling_rate']:.6g}" if "sampling_rate" in entry else ""
        part = f", of classes {', '.join(map(str, entry['part']))}" if "part" in entry else ""
        print(
            f"{entry['count']:>17}  x {entry['mechanism']} ({entry['kind']}): {noise}, sensitivity "
            f"{entry['sensitivity']}{rate}{part}"
        )
    if png:
        mosaic.write_grid(png, path)
        print(f"\npicture: {png}")
    return 0


def evaluate(path: Path, data: Path, network: str, steps: int | None, precision: str, seeds: int, *, force: bool) -> int:
    """The test accuracy of fresh networks trained on a set: by the protocol `psg`, or with `steps` steps, else the same."""
    import torch  # seconds that no other command needs to spend

    from privset.data import datasets, given
    from privset.evaluation import training
    from privset.jobs import devices, rows
    from privset.jobs.allocator import keep_freed_memory
    from privset.jobs.progress import Progress
    from privset.networks import classifiers

    cell = _verified(path)["cell"]
    fetched = given.kind_of(data, given.TEST)[0] == "fetched"
    own = path.with_name(datasets.DESCRIPTION).exists() and not fetched  # of one's own images, held-out ones have another name
    if not own and cell["dataset"] != data.resolve().name and not force:
        raise PrivsetError(f"--data {data}: the set was made from {cell['dataset']}; name the folder of that, or --force")
    if network not in classifiers.NETWORKS:
        raise PrivsetError(f"--network {network}: choose from {', '.join(classifiers.NETWORKS)}")
    if seeds < 1 or (steps is not None and steps < 1):
        raise PrivsetError(f"--seeds {seeds}, --steps {steps}: must be 1 or more")
    keep_freed_memory()
    known = datasets.describe(path.parent) if own else given.description(data, None)
    test = datasets.scaled(*given.read(data, known, given.TEST))
    made = arrays.read_set(path, classes=known.classes, shape=known.shape)
    augment = not rows.described(cell["method"]).labelled
    schedule = training.Schedule(epochs=1000 if steps is None else None, steps=steps, precision=precision, augment=augment)
    accuracies = []
    with devices.device(gpu=True) as device:
        tensors = training.tensors(made, test, known, device)
        for seed in range(seeds):
            shown = Progress(f"{network} {seed + 1}/{seeds}", sys.stderr)
            row, _ = training.evaluate(
                *tensors,
                network=network,
                classes=known.classes,
                schedule=schedule,
                augmentation=known.augmentation,
                generator=torch.Generator(device).manual_seed(seed),
                start=shown.start,
                report=shown.report,
            )
            accuracies.append(row["test_accuracy"])
    spread = f" ± {np.std(accuracies, ddof=1):.2f}" if seeds > 1 else ""
    each = ", ".join(f"{accuracy:.2f}" for accuracy in accuracies)
    print(f"{np.mean(accuracies):.2f}{spread} % of {known.title}'s test images, {network}, n = {seeds} ({each})")
    return 0


def synthesize(options: argparse.Namespace) -> int:
    """A private set from images at hand."""
    import torch  # seconds that no other command needs to spend

    from privset import making
    from privset.jobs.allocator import keep_freed_memory

    keep_freed_memory()
    if options.device == "gpu" and not torch.cuda.is_available():
        raise PrivsetError("--device gpu: PyTorch sees none; choose cpu")
    try:
        made = making.make(
            options.data,
            method=options.method,
            epsilon=options.epsilon,
            delta=options.delta,
            spc=options.spc,
            seed=options.seed,
            settings=options.set,
            classes=options.classes,
            gpu=options.device != "cpu",
            out=options.out,
        )
    except KeyboardInterrupt:
        raise PrivsetError(f"interrupted; the same command goes on from the last checkpoint in {options.out}") from None
    stated = _verified(made)
    promise = f"epsilon {stated['epsilon']:.6g} at delta {stated['delta']:g}"
    print(f"{made}: {options.spc} images for each class, {promise}; grid.png shows them")
    print(f"check it: privset verify {options.out}; score it: privset evaluate {options.out} --data HELD_OUT_IMAGES")
    return 0


def audit(method: str, epsilon: float, configuration: Path, preset: str | None, data: Path | None) -> int:
    """The bounds of a method of config.yaml, and how far its sums move between neighbours; 1 if a claim is refuted."""
    import torch  # seconds that no other command needs to spend
    import yaml

    from privset.data import datasets
    from privset.jobs import config, grids
    from privset.jobs.allocator import keep_freed_memory
    from privset.jobs.progress import Progress
    from privset.methods import auditing
    from privset.methods import schema as current

    try:
        content = yaml.safe_load(configuration.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise PrivsetError(f"--config {configuration}: {str(error).splitlines()[0]}") from None
    config.validate(content, schema=current.current(), source=str(configuration))
    cell = {"preset": preset or content["preset"], "method": method}
    if grids.epsilon_text(epsilon) == "inf":
        raise PrivsetError(f"--epsilon {epsilon}: there is nothing to refute; give a finite one")
    settings = grids.audited(content, cell) | {"epsilon": [epsilon], "image_epsilon": epsilon}
    data = data or Path(grids.audit_data(content, cell)[0]).parent
    if not (data / datasets.DESCRIPTION).exists():
        raise PrivsetError(
            f"{data}: no dataset there; make it by snakemake --cores 1 {data / datasets.DESCRIPTION}, or name --data"
        )
    pixels, labels = map(torch.from_numpy, datasets.load(data, train=True))
    facts = datasets.public_facts(datasets.describe(data), records=len(pixels))
    where = f"{configuration}: {cell['preset']}.methods.{method}"
    row = auditing.Row.of(method, config=settings["config"], releases=settings["releases"], spc=settings["spc"], where=where)
    keep_freed_memory()
    torch.set_num_threads(1)  # many small questions
    shown = Progress(f"audit of {method}", sys.stderr)
    bounds = auditing.bounds_of(row, pixels, labels, facts, settings, start=shown.start, report=shown.update)
    for bound in bounds:
        if bound["level"] == "noise":
            print(f"   noise  {'NOT as stated' if bound['refuted'] else 'as stated: grid, variance, no correlations'}")
            continue
        print(
            f"{bound['level']:>8}  epsilon >= {bound['epsilon']:.2f}, without an assumption {bound['assumption_free']:.2f} "
            f"(claimed {epsilon:g}, 95 %, {bound['draws']:,} draws)"
        )
    moved = auditing.replayed(row, pixels, labels, facts, settings)
    worst = max(part.moved / part.stated for part in moved)
    print(f"  replay  {len(moved)} questions to neighbours: sums move by at most {worst:.4f} of the stated sensitivity")
    refuted = worst > 1 or any(bound["refuted"] for bound in bounds)
    print(f"{method}, epsilon = {epsilon:g}: " + ("REFUTED" if refuted else "not refuted (docs/audit.md says what that means)"))
    return int(refuted)


def schema(*, write: bool) -> int:
    """The schema of config.yaml, to the terminal or to its file."""
    from privset.methods import schema as configuration

    print(configuration.write() if write else json.dumps(configuration.generate(), indent=2))
    return 0


def command_line() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(prog="privset", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("synthesize", help="make a private set of labelled images, with its certificate")
    making.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="an npz (images, labels), a folder with a folder for each class, the beginning of IDX files' names, or mnist, ...",
    )
    making.add_argument("--epsilon", type=float, required=True, metavar="E")
    making.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    making.add_argument("--method", default="psm")
    making.add_argument("--spc", type=int, default=10, metavar="N", help="images for each class (default: 10)")
    making.add_argument("--delta", type=float, default=1e-5, help="default: 1e-5")
    making.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a hyper-parameter; may be repeated")
    making.add_argument("--classes", type=int, metavar="N", help="of an npz or IDX files, if not all are in it")
    making.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    making.add_argument("--seed", type=int, default=0, help="of what is public; the noise is the operating system's")
    checking = commands.add_parser("verify", help="recompute epsilon and check the set, for files or whole folders")
    checking.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    showing = commands.add_parser("show", help="print the certificate of a set for people")
    showing.add_argument("path", type=Path, metavar="SET")
    showing.add_argument("--png", type=Path, help="also draw the set, one row per class")
    exporting = commands.add_parser("export", help="write the set for other tools, its certificate beside it")
    exporting.add_argument("path", type=Path, metavar="SET")
    exporting.add_argument("--format", choices=tuple(exports.FORMATS), required=True)
    exporting.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="new, or empty")
    exporting.add_argument("--force", action="store_true", help="remove what is in the folder before")
    scoring = commands.add_parser("evaluate", help="train networks on the set and test them on the real test images")
    scoring.add_argument("path", type=Path, metavar="SET")
    scoring.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="held-out images: results/data/DATASET, or as for synthesize"
    )
    scoring.add_argument("--network", default="convnet")
    scoring.add_argument("--steps", type=int, help="SGD steps instead of the paper's 1,001 epochs")
    scoring.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    scoring.add_argument("--seeds", type=int, default=3, metavar="N", help="networks")
    scoring.add_argument("--force", action="store_true", help="on other data than the set was made from")
    attacking = commands.add_parser("audit", help="lower bounds on a method's epsilon, by attacks on the running code")
    attacking.add_argument("method", help="a row of config.yaml")
    attacking.add_argument("--epsilon", type=float, required=True, metavar="E", help="what is claimed")
    attacking.add_argument("--config", type=Path, default=Path("config.yaml"), metavar="FILE")
    attacking.add_argument("--preset", help="whose settings (default: the configured one)")
    attacking.add_argument("--data", type=Path, metavar="FOLDER", help="default: the preset's first dataset in results/data")
    describing = commands.add_parser("schema", help="print the JSON schema of config.yaml, as the code is now")
    describing.add_argument("--write", action="store_true", help="into rules/schemas/config.schema.yaml, for editors")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    given = command_line().parse_args(arguments)
    try:
        if given.command == "schema":
            return schema(write=given.write)
        if given.command == "synthesize":
            return synthesize(given)
        if given.command == "audit":
            return audit(given.method, given.epsilon, given.config, given.preset, given.data)
        if given.command == "verify":
            return verify(given.paths)
        path = _one_set(given.path)
        if given.command == "evaluate":
            return evaluate(path, given.data, given.network, given.steps, given.precision, given.seeds, force=given.force)
        if given.command == "show":
            return show(path, given.png)
        _verified(path)
        print(exports.export(path, given.format, given.to, force=given.force))
        return 0
    except PrivsetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
