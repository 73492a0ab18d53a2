"""Rule fetch: the four verified IDX files of one dataset."""

from pathlib import Path

from privset import datasets
from privset.progress import job


def main(smk):
    with job(smk) as log:

        def say(line):
            print(line, flush=True)
            print(line, file=log, flush=True)

        directory = smk.params.directory
        datasets.fetch(
            smk.wildcards.dataset,
            Path(smk.output[0]).parent,
            sources=smk.params.sources,
            directory=Path(directory).expanduser() if directory else None,
            timeout=smk.params.timeout,
            log=say,
        )


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
