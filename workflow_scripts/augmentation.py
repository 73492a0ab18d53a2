"""Rule augmentation: the evaluation's augmentation beside the image-by-image one that it stands for, drawn on test images."""

from pathlib import Path

from privset.data import datasets
from privset.jobs.frame import job
from privset.reporting import augmentation


def main(smk):
    with job(smk):
        folder = Path(smk.input.data[0]).parent
        images, _ = datasets.load(folder, train=False)
        known = datasets.describe(folder)
        augmentation.draw(images[:4], datasets.public_facts(known, records=4), list(map(Path, smk.output)))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
