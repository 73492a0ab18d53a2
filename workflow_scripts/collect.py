"""Rule collect: every single run behind a table, one row each."""

from pathlib import Path

from privset.jobs.frame import job
from privset.reporting import formats, tables


def main(smk):
    with job(smk):
        formats.write_csv(tables.tidy(list(map(Path, smk.input))), Path(smk.output[0]))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
