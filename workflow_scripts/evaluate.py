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
        made = artifacts.read_set(Path(smk.input.images), classes=known.classes, shape=shape)
        certificate = artifacts.matching_certificate(Path(smk.input.images), Path(smk.input.certificate))
        test = datasets.load(data, train=False)
        options = dict(smk.params.schedule)
        seeds = options.pop("seeds", 1)
        schedule = parse(evaluation.Schedule, options, f"config.yaml: {cell['preset']}.evaluation")
        tensors = evaluation.tensors(made, test, known, device)
        identity = {"cell": cell, "schedule": smk.params.schedule, "code": smk.params.code, **artifacts.provenance(device)}
        file = checkpoints.File(
            Path(smk.params.checkpoint),
            belongs_to=checkpoints.fingerprint({**identity, "set": certificate["set_sha256"]}),
            log=lambda line: print(line, file=log, flush=True),
        )
        title = f"{cell['network']} on {cell['dataset']} {cell['method']} eps={cell['epsilon']} spc={cell['spc']}"
        runs, predictions = evaluation.repeat(
            *tensors,
            seeds=seeds,
            generator=lambda seed: torch.Generator(device).manual_seed(cell_seed("network", cell, cell["network"], seed)),
            progress=lambda seed: Progress(f"{title} run {seed + 1}/{seeds}", log),
            checkpoint=file,
            **{"network": cell["network"], "classes": known.classes},
            **{"schedule": schedule, "augmentation": known.augmentation},
        )
        artifacts.write_predictions(Path(smk.output.predictions), predictions.numpy(), test[1])
        keys = ("epsilon", "delta", "private", "neighbouring_relation", "noise_source", "set_sha256")
        artifacts.write_json(
            Path(smk.output.metrics),
            {
                "cell": cell,
                "images": len(made),
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
