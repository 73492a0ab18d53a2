"""Rule fetch: the four verified IDX files of one dataset."""

from pathlib import Path

from privset.data import sources
from privset.jobs.frame import job


def main(smk):
    with job(smk) as log:

        def say(line):
            print(line, flush=True)
            print(line, file=log, flush=True)

        # From the configuration, not from params: the bytes are verified, so another source is no reason to recompute a paper.
        data = smk.config["data"]
        sources.fetch(
            smk.params.dataset,
            Path(smk.output[0]).parent,
            sources=data["sources"],
            directory=Path(data["dir"]).expanduser() if data["dir"] else None,
            timeout=data["timeout"],
            own=smk.params.own,
            log=say,
        )


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
