"""Rule compare: a table of accuracies, with the reported numbers beside the reproduced ones, as CSV, Markdown and LaTeX."""

from pathlib import Path

import pandas as pd

from privset import reporting
from privset.jobs.frame import job
from privset.reporting import formats, tables


def main(smk):
    with job(smk):
        reporting.name_datasets(smk.params.titles)
        text = {"epsilon": str, "spc": str}
        metrics = pd.read_csv(smk.input.metrics, dtype=text)
        others = {"table_storage": tables.storage, "ablation_psm": tables.ablation}
        if smk.wildcards.table in others:
            table = others[smk.wildcards.table](metrics, datasets=smk.params.datasets)
        else:
            reported = pd.read_csv(smk.input.reported, dtype=text)
            table = tables.comparison(smk.wildcards.table, metrics, reported, datasets=smk.params.datasets)
        formats.write(table, [Path(path) for path in smk.output], preset=smk.wildcards.preset)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
