"""Rule pairs: methods compared in pairs on the same test images, with bootstrap intervals."""

from pathlib import Path

from privset import reporting
from privset.jobs.frame import job
from privset.reporting import formats, pairs


def main(smk):
    with job(smk):
        reporting.name_datasets(smk.params.titles)
        table = pairs.table(list(map(Path, smk.input.metrics)), list(map(Path, smk.input.predictions)))
        formats.write(table, [Path(path) for path in smk.output], preset=smk.wildcards.preset)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
