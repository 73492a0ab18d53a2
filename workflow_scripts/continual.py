"""Rule continual: accuracy on all classes so far after each task."""

from pathlib import Path

from privset import reporting
from privset.jobs.frame import job
from privset.reporting import continual


def main(smk):
    with job(smk):
        reporting.name_datasets(smk.params.titles)
        frame = continual.tidy(list(map(Path, smk.input)))
        continual.write(frame, list(map(Path, smk.output)), preset=smk.wildcards.preset)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
