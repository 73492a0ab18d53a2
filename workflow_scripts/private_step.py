"""Rule private_step: how long the private gradient and the matching step take, beside Opacus and plain PyTorch."""

from pathlib import Path

from privset.jobs.computation import computation
from privset.reporting import benchmarks, timings

COORDINATES = 317_706  # of the paper's ConvNet


def main(smk):
    with computation(smk) as job:
        sizes = smk.params.sizes
        shapes = [{"batch": batch, "width": sizes["width"]} for batch in sizes["batches"]]
        shapes += [{"batch": sizes["batch"], "width": width} for width in sizes["widths"] if width != sizes["width"]]
        sets = [{"images": images, "width": sizes["width"]} for images in sizes["images"]]
        timing = benchmarks.Timing(job, "private step", rounds=(len(shapes) + len(sets) + 1) * sizes["repeats"])
        for shape in shapes:
            programs = benchmarks.private_gradient(**shape, device=timing.device)
            timing.add({"step": "private gradient", **shape}, programs, repeats=sizes["repeats"])
        for shape in sets:
            programs = benchmarks.matching_step(**shape, device=timing.device)
            timing.add({"step": "matching step", **shape}, programs, repeats=sizes["repeats"])
        programs, shares = benchmarks.noise_draws(coordinates=COORDINATES, device=timing.device)
        timing.add({"step": "noise"}, programs, repeats=sizes["repeats"], factor=1 / COORDINATES, shares=shares)
        timings.private_step(timing.frame(), list(map(Path, smk.output)))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
