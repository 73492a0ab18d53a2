"""Rule privacy: what every set promises, one row per cell, from its certificate."""

from pathlib import Path

from privset import reporting
from privset.jobs.frame import job
from privset.reporting import formats, tables


def main(smk):
    with job(smk):
        reporting.name_datasets(smk.params.titles)
        table = tables.privacy(list(map(Path, smk.input.certificates)))
        formats.write(table, [Path(path) for path in smk.output], preset=smk.wildcards.preset)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
