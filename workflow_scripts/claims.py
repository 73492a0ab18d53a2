"""Rule claims: what the epsilons of published programs are worth, computed from their settings."""

from pathlib import Path

from privset.jobs.frame import job
from privset.reporting import claims, formats


def main(smk):
    with job(smk):
        table = claims.table(claims.read(Path(smk.input[0])))
        formats.write(table, list(map(Path, smk.output)), preset=smk.wildcards.preset)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
