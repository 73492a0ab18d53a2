"""Rule release: what a method of one-shot releases asks of the private data, once for the sets of every size."""

from pathlib import Path

from privset import methods
from privset.jobs import cells
from privset.jobs.computation import computation


def main(smk):
    with computation(smk, spc="any") as job:
        cells.release(job, methods.load_releases(job.cell["method"]), Path(smk.input.data[0]).parent, smk.output)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
