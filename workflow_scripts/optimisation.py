"""Rule optimisation: PSM's images from the first step to the last."""

from pathlib import Path

from privset import reporting
from privset.jobs.frame import job
from privset.reporting import figures


def main(smk):
    with job(smk):
        reporting.name_datasets(smk.params.titles)
        figures.optimisation(list(map(Path, smk.input)), list(map(Path, smk.output)), preset=smk.wildcards.preset)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
