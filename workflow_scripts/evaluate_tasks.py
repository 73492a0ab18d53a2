"""Rule evaluate_tasks: accuracy on all classes so far after each task, of networks trained on a set or of DP-SGD's own."""

from pathlib import Path

from privset import methods
from privset.data import datasets, tasks
from privset.evaluation import forgetting, training
from privset.jobs import checkpoints
from privset.jobs.computation import computation
from privset.sets import arrays, files


def main(smk):
    with computation(smk) as job:
        learned, certificate = map(Path, smk.input.learned)
        stated = files.matching_certificate(learned, certificate)
        data = Path(smk.input.data[0]).parent
        known, test = datasets.describe(data), datasets.load(data, train=False)
        protocol, seeds = "the released network", 1
        if not smk.params.schedule:  # a classifier, already trained
            networks = methods.load_releases(job.cell["method"]).networks(job.tensors(learned), stated["config"], known)
            accuracy = forgetting.of_networks(networks, test, known, device=job.device)
        else:
            schedule = job.parse(training.Schedule, smk.params.schedule, "evaluation")
            protocol, seeds = schedule.protocol, schedule.seeds
            made = arrays.read_set(learned, classes=known.classes, shape=known.shape)
            accuracy = forgetting.of_sets(made, test, known, job, network=smk.params.network, schedule=schedule)
        todo = [(task, seed) for task in range(len(tasks.sequence(known.classes))) for seed in range(seeds)]
        file = job.checkpoint(learned=stated["set_sha256"])
        runs = checkpoints.rows(file, todo, accuracy, job.device)
        result = {"protocol": protocol, "certificate": files.summary(stated), **job.details, "runs": runs}
        files.write_json(Path(smk.output[0]), result)
        file.delete()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
