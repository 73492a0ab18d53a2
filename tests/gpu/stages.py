"""The stages of `run.sh` that are Python. Each writes its result whenever it has more of it, and goes on from what is there."""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import platform
import re
import sys
import time
import tomllib
from pathlib import Path

from privset.sets import files  # the standard library alone; what else is there is looked at first

ROOT = Path(__file__).parents[2]
NEEDED = (Path(__file__).parent / "packages.txt").read_text(encoding="utf-8").split()
"""Packages of what runs here: without Snakemake and without plots."""


def pins() -> dict[str, str]:
    """The versions that the project pins, by package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    lines += project["tool"]["uv"]["constraint-dependencies"]
    return dict(re.fullmatch(r"([\w-]+)(?:\[.*\])?==(\S+)", line).groups() for line in lines)


def kept(path: Path) -> list:
    """What an earlier run of the script left there."""
    return files.read_json(path) if path.exists() else []


def environment(out: Path) -> None:
    """What is here; exit status 1 with a command for what is not."""
    pinned, there, missing = pins(), {}, []
    for name in NEEDED:
        try:
            there[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{name}=={pinned[name]}" if name in pinned else name)
    found = {"python": platform.python_version(), "machine": platform.machine(), "versions": there, "missing": missing}
    if "torch" in there:
        import torch

        found["cuda"] = torch.version.cuda
        found["cards"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    files.write_json(out / "environment.json", found)
    print(json.dumps(found))
    if missing:
        python = ".".join(platform.python_version_tuple()[:2])
        print(
            "missing packages; where there is a network: pip download --no-deps --only-binary :all: --platform "
            f"manylinux_2_28_{platform.machine()} --python-version {python} -d tests/gpu/wheels {' '.join(missing)}"
        )
        sys.exit(1)


def data(folder: Path, given: Path | None, *, rehearse: bool) -> None:
    """MNIST from somebody's files, checked; to rehearse, scikit-learn's digits."""
    from privset.data import sources

    name, where = ("digits", ["packages"]) if rehearse else ("mnist", ["directory"])
    sources.fetch(name, folder, sources=where, directory=given, timeout=5)


def settings(spc: int, *, rehearse: bool) -> None:
    """PSG's hyper-parameters of the `paper` preset, as words for `privset synthesize`; to rehearse, tiny ones."""
    import yaml

    block = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["presets"]["paper"]["methods"]["psg"]
    values = {**block["config"], **block["by_spc"][spc]}
    if rehearse:
        values |= {"iterations": 3, "outer": 2, "inner": 1, "batches": 2, "batch_size": 64, "width": 16}
    print(" ".join(f"--set {key}={value}".lower() for key, value in values.items()))


def steps(out: Path, *, rehearse: bool) -> None:
    """Seconds of a private, a matching and a training step beside their peers; medians of interleaved rounds."""
    import torch

    from privset.jobs import devices
    from privset.reporting import benchmarks

    sizes = [(8, 16)] if rehearse else [(256, 128), (256, 32)]
    rows = kept(out / "steps.json")
    with devices.device(gpu=True) as name:
        device, repeats = torch.device(name), 2 if rehearse else 20
        for batch, width in sizes:
            calls = {
                "private": benchmarks.private_gradient(batch=batch, width=width, device=device),
                "matching, 10 images": benchmarks.matching_step(images=10, width=width, device=device),
                "matching, 100 images": benchmarks.matching_step(images=100, width=width, device=device),
                "training, 100 images": benchmarks.inner_step(images=100, width=width, device=device),
            }
            done = {(row["step"], row["width"]) for row in rows}
            for step in [step for step in calls if (step, width) not in done]:
                measured = benchmarks.interleaved(calls[step], repeats=repeats, device=device)
                rows += [{"step": step, "batch": batch, "width": width, **row} for row in measured]
                files.write_json(out / "steps.json", rows)
                print(step, width, {row["program"]: round(row["seconds"], 5) for row in measured}, flush=True)


def evaluation(out: Path, made: Path, folder: Path, *, rehearse: bool) -> None:
    """The paper's evaluation of a set: six networks, three seeds each, by the reference program's protocol."""
    import torch

    from privset.data import datasets
    from privset.evaluation import training
    from privset.jobs import devices
    from privset.networks import classifiers
    from privset.sets import arrays

    known, test = datasets.describe(folder), datasets.load(folder, train=False)
    schedule = training.Schedule(steps=2, batch_size=20) if rehearse else training.Schedule(epochs=1000)
    rows = kept(out / "evaluation.json")
    done = {(row["network"], row["network_seed"]) for row in rows}
    with devices.device(gpu=True) as device:
        tensors = training.tensors(arrays.read_set(made, classes=known.classes, shape=known.shape), test, known, device)
        for network, seed in itertools.product(classifiers.NETWORKS, range(1 if rehearse else 3)):
            if (network, seed) in done:
                continue
            begin = time.monotonic()
            row, _ = training.evaluate(
                *tensors,
                network=network,
                classes=known.classes,
                schedule=schedule,
                augmentation=known.augmentation,
                generator=torch.Generator(device).manual_seed(seed),
            )
            told = {"network": network, "network_seed": seed, "device": device, "protocol": schedule.protocol}
            rows.append({**told, "seconds": time.monotonic() - begin, **row})
            files.write_json(out / "evaluation.json", rows)
            print(f"{network} {seed}: {row['test_accuracy']:.2f} %", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["environment", "data", "settings", "steps", "evaluation"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--files", type=Path)
    parser.add_argument("--set", type=Path)
    parser.add_argument("--spc", type=int)
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args()
    match given.stage:
        case "environment":
            environment(given.out)
        case "data":
            data(given.data, given.files, rehearse=given.rehearse)
        case "settings":
            settings(given.spc, rehearse=given.rehearse)
        case "steps":
            steps(given.out, rehearse=given.rehearse)
        case "evaluation":
            evaluation(given.out, given.set, given.data, rehearse=given.rehearse)


if __name__ == "__main__":
    main()
