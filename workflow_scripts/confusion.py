"""Rule confusion: which classes a network confuses after training on one set, and its accuracy by class."""

from pathlib import Path

from privset import reporting
from privset.data import datasets
from privset.jobs.frame import job
from privset.reporting import figures
from privset.sets import arrays


def main(smk):
    with job(smk):
        reporting.name_datasets(smk.params.titles)
        predictions, labels = arrays.read_predictions(Path(smk.input.predictions))
        names = datasets.describe(Path(smk.input.description).parent).class_names
        cell = dict(smk.wildcards)
        network = reporting.NETWORKS.get(cell["network"], cell["network"])
        what = f"{network} on {reporting.dataset_title(cell['dataset'])}"
        title = f"{what}, {reporting.row_title(cell['method'])}, eps={cell['epsilon']}, spc={cell['spc']}"
        figures.confusion(predictions[cell["network"]], labels, names, list(map(Path, smk.output)), title=title)


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
