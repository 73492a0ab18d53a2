"""Rule evaluate_tasks: accuracy on all classes so far after each task, of networks trained on a set or of DP-SGD's own."""

from pathlib import Path

import torch

from privset import artifacts, checkpoints, continual, datasets, devices, evaluation, forgetting
from privset.config import parse
from privset.methods import dpsgd
from privset.progress import Progress, job
from privset.rows import method_of
from privset.seeds import cell_seed


def main(smk):
    with job(smk) as log, devices.device(gpu=smk.resources.get("gpu", 0) > 0) as device:
        cell = dict(smk.wildcards)
        path, certificate_path = map(Path, smk.input.learned)
        certificate = artifacts.matching_certificate(path, certificate_path)
        data = Path(smk.input.data[0]).parent
        known = datasets.describe(data)
        facts = datasets.public_facts(known, records=1)
        test = [torch.from_numpy(array).to(device) for array in datasets.load(data, train=False)]
        test[0] = facts.normalise(test[0])
        options = dict(smk.params.schedule)
        seeds = options.pop("seeds", 1)
        identity = {"cell": cell, "schedule": smk.params.schedule, "code": smk.params.code, **artifacts.provenance(device)}
        file = checkpoints.File(
            Path(smk.params.checkpoint),
            belongs_to=checkpoints.fingerprint({**identity, "learned": certificate["set_sha256"]}),
            log=lambda line: print(line, file=log, flush=True),
        )
        if method_of(cell["method"]) == "dpsgd":
            config = parse(dpsgd.ReleaseConfig, certificate["config"], str(certificate_path))
            weights = dpsgd.Weights({k: torch.from_numpy(v).to(device) for k, v in artifacts.read_statistics(path).items()})
            protocol = "the released network"

            def accuracy(task, seen, seed):
                return forgetting.of_network(weights.network(task, config, facts), *test, seen, precision="float32")

        else:
            stored = artifacts.read_set(path, classes=known.classes, shape=facts.shape)
            made = facts.normalise(torch.from_numpy(stored.images).to(device)), torch.from_numpy(stored.labels).to(device)
            schedule = parse(evaluation.Schedule, options, f"config.yaml: {cell['preset']}.evaluation")
            protocol = schedule.protocol

            def accuracy(task, seen, seed):
                shown = Progress(f"{cell['dataset']} {cell['method']} after task {task + 1}, run {seed + 1}/{seeds}", log)
                named = {**cell, "spc": "any"}
                return forgetting.of_set(
                    *(*made, *test, seen),
                    **{"network": smk.params.network, "schedule": schedule, "augmentation": known.augmentation},
                    generator=torch.Generator(device).manual_seed(cell_seed("network", named, smk.params.network, task, seed)),
                    start=shown.start,
                    report=lambda step, loss: shown.update(step, loss=lambda: float(loss)),
                )

        rows = (file.load(device) or {"rows": []})["rows"]  # an interrupted job repeats one training
        sequence = continual.tasks(known.classes)
        todo = [(task, seed) for task in range(len(sequence)) for seed in range(seeds)]
        for task, seed in todo[len(rows) :]:
            seen = forgetting.classes_so_far(sequence, task)
            row = {"task": task + 1, "classes": len(seen), "network_seed": seed}
            rows.append({**row, "test_accuracy": accuracy(task, seen, seed)})
            if file.due():
                file.save({"rows": rows})
        keys = ("epsilon", "delta", "private", "neighbouring_relation", "noise_source", "set_sha256")
        stated = {key: certificate[key] for key in keys}
        artifacts.write_json(Path(smk.output[0]), {"protocol": protocol, "certificate": stated, **identity, "runs": rows})
        file.delete()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
