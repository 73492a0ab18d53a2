"""Rule condense: one set from releases that were made before. It has no access to the private data."""

from pathlib import Path

from privset import methods
from privset.data import datasets
from privset.jobs import cells
from privset.jobs.computation import computation


def main(smk):
    with computation(smk) as job:
        known = datasets.describe(Path(smk.input.description).parent)
        method, given = methods.load(job.cell["method"]), smk.input
        cells.condense(job, method, Path(given.statistics), Path(given.certificate), known, smk.output)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
