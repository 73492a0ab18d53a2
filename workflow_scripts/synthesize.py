"""Rule synthesize: one private set with its certificate, trajectory and picture."""

from pathlib import Path

from privset import methods
from privset.jobs import cells
from privset.jobs.computation import computation


def main(smk):
    with computation(smk) as job:
        cells.synthesize(job, methods.load(job.cell["method"]), Path(smk.input.data[0]).parent, smk.output)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
