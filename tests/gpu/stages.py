"""The stages of `run.sh` that are Python. Each writes its result when it has one, and again when it has more."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = (
    "torch absl-py attrs dm-tree dp-accounting filelock hypothesis jsonschema numpy opacus opt-einsum pandas pillow "
    "pydantic pytest pyyaml randomgen scipy sortedcontainers tabulate tqdm"
).split()
"""Packages of what runs here: without Snakemake and without plots."""


def pins() -> dict[str, str]:
    """The versions that the project pins, by package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    lines += project["tool"]["uv"]["constraint-dependencies"]
    return dict(
        line.split("[")[0].split("==") if "[" not in line else (line.split("[")[0], line.split("==")[1]) for line in lines
    )


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
    (out / "environment.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))
    if missing:
        python = ".".join(platform.python_version_tuple()[:2])
        print(
            "missing packages; where there is a network: pip download --no-deps --only-binary :all: --platform "
            f"manylinux_2_28_{platform.machine()} --python-version {python} -d tests/gpu/wheels {' '.join(missing)}"
        )
        sys.exit(1)


def data(folder: Path, files: Path | None, *, rehearse: bool) -> None:
    """MNIST from somebody's files, checked; to rehearse, scikit-learn's digits."""
    from privset.data import sources

    name, where = ("digits", ["packages"]) if rehearse else ("mnist", ["directory"])
    sources.fetch(name, folder, sources=where, directory=files, timeout=5)


def settings(spc: int, *, rehearse: bool) -> None:
    """PSG's hyper-parameters of the `paper` preset, as words for `privset synthesize`; to rehearse, tiny ones."""
    import yaml

    block = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["presets"]["paper"]["methods"]["psg"]
    values = {**block["config"], **block["by_spc"][spc]}
    if rehearse:
        values |= {"iterations": 3, "outer": 2, "inner": 1, "batches": 2, "batch_size": 64, "width": 16, "compile": False}
    print(" ".join(f"--set {key}={value}".lower() for key, value in values.items()))


def steps(out: Path, *, rehearse: bool) -> None:
    """Seconds of a private, a matching and a training step beside their peers; medians of interleaved rounds."""
    import torch

    from privset.jobs import devices
    from privset.reporting import benchmarks

    sizes = [(8, 16)] if rehearse else [(256, 128), (256, 32)]
    rows = []
    with devices.device(gpu=True) as name:
        device, repeats = torch.device(name), 2 if rehearse else 20
        for batch, width in sizes:
            calls = {
                "private": benchmarks.private_gradient(batch=batch, width=width, device=device),
                "matching, 10 images": benchmarks.matching_step(images=10, width=width, device=device),
                "matching, 100 images": benchmarks.matching_step(images=100, width=width, device=device),
                "training, 100 images": benchmarks.inner_step(images=100, width=width, device=device),
            }
            if rehearse:  # compiling takes a minute here; on a card it is what is asked about
                calls = {step: {key: call for key, call in programs.items() if "not" in key} for step, programs in calls.items()}
                calls = {step: {benchmarks.OURS: next(iter(programs.values())), **programs} for step, programs in calls.items()}
            for step, programs in calls.items():
                for row in benchmarks.interleaved(programs, repeats=repeats, device=device):
                    rows.append({"step": step, "batch": batch, "width": width, **row})
                (out / "steps.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
                print(step, width, {row["program"]: round(row["seconds"], 5) for row in rows if row["step"] == step}, flush=True)


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
    begin, rows = time.monotonic(), []
    with devices.device(gpu=True) as device:
        tensors = training.tensors(arrays.read_set(made, classes=known.classes, shape=known.shape), test, known, device)
        for network in classifiers.NETWORKS:
            for seed in range(1 if rehearse else 3):
                row, _ = training.evaluate(
                    *tensors,
                    network=network,
                    classes=known.classes,
                    schedule=schedule,
                    augmentation=known.augmentation,
                    generator=torch.Generator(device).manual_seed(seed),
                )
                rows.append({"network": network, "network_seed": seed, "protocol": schedule.protocol, **row})
                told = {"set": made.parent.name, "device": device, "seconds": time.monotonic() - begin, "runs": rows}
                (out / "evaluation.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
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
