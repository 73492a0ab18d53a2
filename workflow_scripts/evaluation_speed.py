"""Rule evaluation_speed: seconds per epoch and per test pass of the six networks, beside a plain loop."""

from pathlib import Path

from privset.jobs.computation import computation
from privset.reporting import benchmarks, timings


def main(smk):
    with computation(smk) as job:
        sizes = smk.params.sizes
        repeats, precision = sizes["repeats"], sizes["precision"]
        rounds = len(sizes["networks"]) * (len(sizes["images"]) + 1) * repeats
        timing = benchmarks.Timing(job, "evaluation", rounds=rounds)
        for network in sizes["networks"]:
            for images in sizes["images"]:
                epoch = benchmarks.evaluation_epoch(network=network, images=images, precision=precision, device=timing.device)
                shape = {"step": "epoch", "network": network, "images": images}
                timing.add(shape, epoch, repeats=repeats, factor=benchmarks.batches(images))
            images = sizes["test_images"]
            test = benchmarks.testing(network=network, images=images, precision=precision, device=timing.device)
            timing.add({"step": "test pass", "network": network, "images": images}, test, repeats=repeats)
        timings.evaluation_speed(timing.frame().assign(precision=precision), list(map(Path, smk.output)))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
