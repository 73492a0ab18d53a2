"""Rule condense: one set from releases that were made before. It has no access to the private data."""

from pathlib import Path

import torch

from privset import artifacts, cells, certificates, datasets, devices, methods
from privset.config import parse
from privset.progress import job


def main(smk):
    with job(smk) as log, devices.device(gpu=smk.resources.get("gpu", 0) > 0) as device:
        cell = dict(smk.wildcards)
        method = methods.load(cell["method"])
        config = parse(method.Config, smk.params.config, f"config.yaml: {cell['preset']}.methods.{cell['method']}.config")
        path = Path(smk.input.statistics)
        stated = artifacts.matching_certificate(path, Path(smk.input.certificate))
        facts = datasets.public_facts(datasets.describe(Path(smk.input.description).parent), records=stated["records"])
        generator = cells.method_generator(cell, device)
        tensors = {name: torch.from_numpy(array).to(device) for name, array in artifacts.read_statistics(path).items()}
        statistics = method.Statistics.from_tensors(tensors, facts)
        details = {"cell": cell, "config": smk.params.config, "code": smk.params.code, **artifacts.provenance(device)}
        run, trajectory, file = cells.start(
            cell,
            ledger=certificates.ledger(stated),
            vault=None,
            generator=generator,
            checkpoint=Path(smk.params.checkpoint),
            belongs_to={**details, "statistics": stated["set_sha256"]},
            log=log,
        )
        images, labels = method.synthesize(statistics, facts, config, run)
        soft_labels = method.soft_labels(statistics, images, labels, config)
        cells.write(smk.output, images, labels, trajectory, facts, tiles=config.tiles, soft_labels=soft_labels)
        artifacts.write_json(
            Path(smk.output.certificate), certificates.post_processed(stated, Path(smk.output.images), run=details)
        )
        file.delete()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
