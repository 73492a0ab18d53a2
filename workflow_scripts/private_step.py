"""Rule private_step: how long the private gradient and the matching step take, beside Opacus and plain PyTorch."""

from pathlib import Path

from privset.jobs.computation import computation
from privset.reporting import benchmarks, timings


def main(smk):
    with computation(smk) as job:
        sizes = smk.params.sizes
        shapes = [{"batch": batch, "width": sizes["width"]} for batch in sizes["batches"]]
        shapes += [{"batch": sizes["batch"], "width": width} for width in sizes["widths"] if width != sizes["width"]]
        sets = [{"images": images, "width": sizes["width"]} for images in sizes["images"]]
        timing = benchmarks.Timing(job, "private step", rounds=(len(shapes) + len(sets)) * sizes["repeats"])
        for shape in shapes:
            programs = benchmarks.private_gradient(**shape, device=timing.device)
            timing.add({"step": "private gradient", **shape}, programs, repeats=sizes["repeats"])
        for shape in sets:
            programs = benchmarks.matching_step(**shape, device=timing.device)
            timing.add({"step": "matching step", **shape}, programs, repeats=sizes["repeats"])
        timings.private_step(timing.frame(), list(map(Path, smk.output)))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
