"""Rule samples: the synthetic images of every dataset and method, one row per class."""

from pathlib import Path

from privset.progress import job
from privset.reporting import figures


def main(smk):
    with job(smk):
        figures.samples(list(map(Path, smk.input.sets)), list(map(Path, smk.output)), preset=smk.wildcards.preset)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
