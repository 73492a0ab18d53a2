"""Rule audit: lower bounds on the epsilon of one row, from attacks on the running code."""

from pathlib import Path

import torch

from privset.data import datasets
from privset.jobs.computation import computation
from privset.methods import auditing
from privset.sets import files


def main(smk):
    settings = smk.params.audit
    with computation(smk, dataset=Path(smk.input.data[0]).parent.name, seed="0", epsilon="any") as job:
        data = Path(smk.input.data[0]).parent
        pixels, labels = datasets.load(data, train=True)
        facts = datasets.public_facts(datasets.describe(data), records=len(pixels))
        row = auditing.Row.of(
            job.cell["method"],
            config=settings["config"],
            releases=settings["releases"],
            spc=settings["spc"],
            where=f"config.yaml: {job.cell['preset']}.methods.{job.cell['method']}",
        )
        shown = job.progress(f"audit of {job.cell['method']}")
        bounds = auditing.bounds_of(
            row, torch.from_numpy(pixels), torch.from_numpy(labels), facts, settings, start=shown.start, report=shown.update
        )
        result = {**job.details, "settings": settings, "bounds": bounds}
        files.write_json(Path(smk.output[0]), result)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
