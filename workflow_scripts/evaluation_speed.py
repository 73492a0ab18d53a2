"""Rule evaluation_speed: seconds per epoch and per test pass of the six networks, beside a plain loop."""

from pathlib import Path

import pandas as pd
import torch

from privset import artifacts, benchmarks, devices
from privset.progress import Progress, job
from privset.reporting import timings


def main(smk):
    with job(smk) as log, devices.device(gpu=smk.resources.get("gpu", 0) > 0) as name:
        device = torch.device(name)
        sizes = smk.params.sizes
        repeats, precision = sizes["repeats"], sizes["precision"]
        progress = Progress("evaluation", log)
        progress.start(len(sizes["networks"]) * (len(sizes["images"]) + 1) * repeats)
        done = iter(range(1, progress.total + 1))
        options = {"repeats": repeats, "device": device, "tick": lambda: progress.update(next(done))}
        rows = []
        for network in sizes["networks"]:
            for images in sizes["images"]:
                shape = {"network": network, "images": images}
                programs = benchmarks.evaluation_epoch(**shape, precision=precision, device=device)
                epoch = benchmarks.interleaved(programs, **options)
                factor = benchmarks.batches(images)
                scaled = [
                    {**row, **{key: row[key] * factor for key in ("seconds", "lower", "upper", "fastest")}} for row in epoch
                ]
                rows += [{"step": "epoch", **shape, **row} for row in scaled]
            shape = {"network": network, "images": sizes["test_images"]}
            programs = benchmarks.testing(**shape, precision=precision, device=device)
            rows += [{"step": "test pass", **shape, **row} for row in benchmarks.interleaved(programs, **options)]
        where = artifacts.provenance(name)
        frame = pd.DataFrame(rows).assign(precision=precision, device=where["device"], torch=where["versions"]["torch"])
        timings.evaluation_speed(frame, list(map(Path, smk.output)))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
