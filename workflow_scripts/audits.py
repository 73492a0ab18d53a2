"""Rule audits: claimed epsilons beside audited bounds, of every row, as a table and as a figure."""

from pathlib import Path

from privset.jobs.frame import job
from privset.reporting import audits, formats


def main(smk):
    with job(smk):
        frame = audits.tidy(list(map(Path, smk.input)))
        formats.write(audits.table(frame), list(map(Path, smk.output.table)), preset=smk.wildcards.preset)
        audits.draw(frame, list(map(Path, smk.output.figure)), preset=smk.wildcards.preset)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
