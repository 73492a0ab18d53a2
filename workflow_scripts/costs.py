"""Rule costs: where the time of a run went, by rule, method and network."""

from pathlib import Path

from privset.jobs.frame import job
from privset.reporting import costs, formats


def main(smk):
    with job(smk):
        preset = smk.wildcards.preset
        table = costs.table(Path(smk.params.benchmarks), list(map(Path, smk.input.metrics)), preset=preset)
        formats.write(table, [Path(path) for path in smk.output], preset=preset)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
