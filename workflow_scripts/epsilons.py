"""Rule epsilons: accuracy of every private method against epsilon."""

from pathlib import Path

import pandas as pd

from privset import reporting
from privset.jobs.frame import job
from privset.reporting import figures


def main(smk):
    with job(smk):
        reporting.name_datasets(smk.params.titles)
        figures.epsilons(pd.read_csv(smk.input[0], dtype={"spc": str}), list(map(Path, smk.output)), preset=smk.wildcards.preset)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
