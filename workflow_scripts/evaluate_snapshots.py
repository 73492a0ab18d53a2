"""Rule evaluate_snapshots: networks trained on a set as it was after 1, 3, 10, 32, ... steps of its making."""

from pathlib import Path

from privset.data import datasets
from privset.evaluation import snapshots, training
from privset.jobs import checkpoints
from privset.jobs.computation import computation
from privset.sets import arrays, files


def main(smk):
    with computation(smk) as job:
        data = Path(smk.input.data[0]).parent
        known = datasets.describe(data)
        made = arrays.read_snapshots(Path(smk.input.snapshots))
        schedule = job.parse(training.Schedule, smk.params.schedule, "evaluation")
        test = datasets.load(data, train=False)
        accuracy = snapshots.accuracy(made, test, known, job, network=job.cell["network"], schedule=schedule)
        file = job.checkpoint(snapshots=files.sha256(Path(smk.input.snapshots)))
        todo = [(index, seed) for index in range(len(made["step"])) for seed in range(schedule.seeds)]
        runs = checkpoints.rows(file, todo, accuracy, job.device)
        how = {"images": len(made["labels"]), "protocol": schedule.protocol}
        files.write_json(Path(smk.output[0]), {**how, **job.details, "runs": runs})
        file.delete()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
