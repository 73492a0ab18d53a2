"""Rule private_step: how long the private gradient and the matching step take, beside Opacus and plain PyTorch."""

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
        shapes = [{"batch": batch, "width": sizes["width"]} for batch in sizes["batches"]]
        shapes += [{"batch": sizes["batch"], "width": width} for width in sizes["widths"] if width != sizes["width"]]
        sets = [{"images": images, "width": sizes["width"]} for images in sizes["images"]]
        rows = []
        progress = Progress("private step", log)
        progress.start((len(shapes) + len(sets)) * sizes["repeats"])
        done = iter(range(1, progress.total + 1))
        for step, programs, grid in (
            ("private gradient", benchmarks.private_gradient, shapes),
            ("matching step", benchmarks.matching_step, sets),
        ):
            for shape in grid:
                measured = benchmarks.interleaved(
                    programs(**shape, device=device),
                    **{"repeats": sizes["repeats"], "device": device, "tick": lambda: progress.update(next(done))},
                )
                rows += [{"step": step, **shape, **row} for row in measured]
        where = artifacts.provenance(name)
        frame = pd.DataFrame(rows).assign(
            device=where["device"], torch=where["versions"]["torch"], opacus=where["versions"]["opacus"]
        )
        timings.private_step(frame, list(map(Path, smk.output)))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
