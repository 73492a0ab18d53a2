"""Rule convergence: accuracy against the share of the budget spent, and against steps."""

from pathlib import Path

from privset import reporting
from privset.jobs.frame import job
from privset.reporting import convergence


def main(smk):
    with job(smk):
        reporting.name_datasets(smk.params.titles)
        frame = convergence.tidy(list(map(Path, smk.input)))
        convergence.write(frame, list(map(Path, smk.output)), preset=smk.wildcards.preset)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
