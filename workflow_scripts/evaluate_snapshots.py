"""Rule evaluate_snapshots: networks trained on a set as it was after 1, 3, 10, 32, ... steps of its making."""

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
        facts = datasets.public_facts(known, records=1)
        made = artifacts.read_snapshots(Path(smk.input.snapshots))
        images, labels, *test = (
            torch.from_numpy(array).to(device) for array in (made["images"], made["labels"], *datasets.load(data, train=False))
        )
        options = dict(smk.params.schedule)
        seeds = options.pop("seeds", 1)
        schedule = parse(evaluation.Schedule, options, f"config.yaml: {cell['preset']}.evaluation")
        identity = {"cell": cell, "schedule": smk.params.schedule, "code": smk.params.code, **artifacts.provenance(device)}
        file = checkpoints.File(
            Path(smk.params.checkpoint),
            belongs_to=checkpoints.fingerprint({**identity, "snapshots": artifacts.sha256(Path(smk.input.snapshots))}),
            log=lambda line: print(line, file=log, flush=True),
        )
        rows = (file.load(device) or {"rows": []})["rows"]  # an interrupted job repeats one training
        todo = [(index, seed) for index in range(len(images)) for seed in range(seeds)]
        for index, seed in todo[len(rows) :]:
            step = int(made["step"][index])
            title = f"{cell['dataset']} {cell['method']} spc={cell['spc']} after {step} steps, run {seed + 1}/{seeds}"
            shown = Progress(f"{title} ({len(rows) + 1} of {len(todo)})", log)
            row, _ = evaluation.evaluate(
                *(facts.normalise(images[index]), labels, facts.normalise(test[0]), test[1]),
                generator=torch.Generator(device).manual_seed(cell_seed("network", cell, cell["network"], seed)),
                start=shown.start,
                report=lambda step, loss, shown=shown: shown.update(step, loss=lambda: float(loss)),
                **{"network": cell["network"], "classes": known.classes},
                **{"schedule": schedule, "augmentation": known.augmentation},
            )
            place = {"step": step, "epsilon_spent": float(made["epsilon_spent"][index]), "network_seed": seed}
            rows.append({**place, "test_accuracy": row["test_accuracy"]})
            if file.due():
                file.save({"rows": rows})
        summary = {"images": len(labels), "protocol": schedule.protocol, **identity, "runs": rows}
        artifacts.write_json(Path(smk.output[0]), summary)
        file.delete()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
