"""Rule hold_out: training records of a dataset as a test half, to choose hyper-parameters by."""

from pathlib import Path

from privset.data import holdout
from privset.jobs.frame import job


def main(smk):
    with job(smk):
        holdout.hold_out(Path(smk.input[0]).parent, Path(smk.output[0]).parent)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
