"""Rule samples: the synthetic images of every dataset and method, one row per class."""

from pathlib import Path

from privset import reporting
from privset.jobs.frame import job
from privset.reporting import figures


def main(smk):
    with job(smk):
        reporting.name_datasets(smk.params.titles)
        sets, snapshots = ([Path(path) for path in smk.input.get(name, [])] for name in ("sets", "snapshots"))
        figures.samples(sets, snapshots, list(map(Path, smk.output)), preset=smk.wildcards.preset)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
