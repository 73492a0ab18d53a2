"""Rule evaluate: networks trained on one set, tested on the real test images; one run per network seed."""

from pathlib import Path

import torch

from privset import artifacts, checkpoints, datasets, devices, evaluation
from privset.config import parse
from privset.progress import Progress, job
from privset.seeds import cell_seed


def main(smk):
    with job(smk) as log, devices.device(gpu=smk.resources.get("gpu", 0) > 0) as device:
        cell = dict(smk.wildcards)
        data = Path(smk.input.data[0]).parent
        known = datasets.describe(data)
        shape = (known.channels, known.size, known.size)
        images, labels = artifacts.read_set(Path(smk.input.images), classes=known.classes, shape=shape)
        certificate = artifacts.matching_certificate(Path(smk.input.images), Path(smk.input.certificate))
        test = datasets.load(data, train=False)
        options = dict(smk.params.schedule)
        seeds = options.pop("seeds", 1)
        schedule = parse(evaluation.Schedule, options, f"config.yaml: {cell['preset']}.evaluation")
        tensors = [torch.from_numpy(array).to(device) for array in (images, labels, *test)]
        facts = datasets.public_facts(known, records=len(images))
        tensors[0], tensors[2] = facts.normalise(tensors[0]), facts.normalise(tensors[2])
        identity = {"cell": cell, "schedule": smk.params.schedule, "code": smk.params.code, **artifacts.provenance(device)}
        file = checkpoints.File(
            Path(smk.params.checkpoint),
            belongs_to=checkpoints.fingerprint({**identity, "set": certificate["set_sha256"]}),
            log=lambda line: print(line, file=log, flush=True),
        )
        saved = file.load(device) or {"runs": [], "predictions": [], "training": None}
        runs, predictions, training = saved["runs"], [part.cpu() for part in saved["predictions"]], saved["training"]
        if runs or training:
            print(f"resuming from {file.path}, run {len(runs) + 1}/{seeds}", file=log, flush=True)

        def checkpoint(make):
            if file.due():
                file.save({"runs": runs, "predictions": predictions, "training": make()})

        for seed in range(len(runs), seeds):
            title = f"{cell['network']} on {cell['dataset']} {cell['method']} eps={cell['epsilon']} spc={cell['spc']}"
            progress = Progress(f"{title} run {seed + 1}/{seeds}", log)
            run, predicted = evaluation.evaluate(
                *tensors,
                network=cell["network"],
                classes=known.classes,
                schedule=schedule,
                augmentation=known.augmentation,
                generator=torch.Generator(device).manual_seed(cell_seed("network", cell, cell["network"], seed)),
                start=progress.start,
                report=lambda step, loss, progress=progress: progress.update(step, loss=lambda: float(loss)),
                restore=lambda state=training: state,
                checkpoint=checkpoint,
            )
            training = None
            runs.append({"network_seed": seed, **run})
            predictions.append(predicted.cpu().to(torch.uint8))
            checkpoint(lambda: None)
            print(f"{progress.title}: test accuracy {run['test_accuracy']:.2f} %", file=log, flush=True)
        artifacts.write_predictions(Path(smk.output.predictions), torch.stack(predictions).numpy(), test[1])
        keys = ("epsilon", "delta", "private", "neighbouring_relation", "noise_source", "set_sha256")
        artifacts.write_json(
            Path(smk.output.metrics),
            {
                "cell": cell,
                "images": len(images),
                "schedule": smk.params.schedule,
                "protocol": schedule.protocol,
                "augmentation": known.augmentation,
                "certificate": {key: certificate[key] for key in keys},
                "code": smk.params.code,
                **artifacts.provenance(device),
                "runs": runs,
            },
        )
        file.delete()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
