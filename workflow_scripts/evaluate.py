"""Rule evaluate: networks trained on one set, tested on the real test images; one run per network seed."""

from pathlib import Path

from privset.data import datasets
from privset.evaluation import training
from privset.jobs.computation import computation
from privset.sets import arrays, files


def main(smk):
    with computation(smk) as job:
        data = Path(smk.input.data[0]).parent
        known, test = datasets.describe(data), datasets.load(data, train=False)
        made = arrays.read_set(Path(smk.input.images), classes=known.classes, shape=known.shape)
        if smk.params.per_class is not None:
            made = arrays.first_of_each_class(made, smk.params.per_class)
        stated = files.matching_certificate(Path(smk.input.images), Path(smk.input.certificate))
        schedules = {
            network: job.parse(training.Schedule, block, "evaluation") for network, block in smk.params.schedules.items()
        }
        file = job.checkpoint(set=stated["set_sha256"])
        runs, predictions = training.repeat(
            *training.tensors(made, test, known, job.device),
            schedules=schedules,
            classes=known.classes,
            augmentation=known.augmentation,
            generator=lambda network, seed: job.generator("network", network, seed),
            progress=lambda network, seed: job.progress(f"{network} on {job.title} run {seed + 1}/{schedules[network].seeds}"),
            checkpoint=file,
        )
        predictions = {network: said.numpy() for network, said in predictions.items()}
        arrays.write_predictions(Path(smk.output.predictions), predictions, test[1])
        how = {"images": len(made), "augmentation": known.augmentation}
        files.write_json(Path(smk.output.metrics), {**job.details, **how, "certificate": files.summary(stated), "runs": runs})
        file.delete()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
