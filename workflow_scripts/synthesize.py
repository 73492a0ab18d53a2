"""Rule synthesize: one private set with its certificate, trajectory and picture."""

from pathlib import Path

from privset import artifacts, cells, certificates, devices, methods
from privset.config import parse
from privset.progress import job


def main(smk):
    with job(smk) as log, devices.device(gpu=smk.resources.get("gpu", 0) > 0) as device:
        cell = dict(smk.wildcards)
        method = methods.load(cell["method"])
        config = parse(method.Config, smk.params.config, f"config.yaml: {cell['preset']}.methods.{cell['method']}.config")
        vault, noise_seed = cells.open_vault(
            cell, Path(smk.input.data[0]).parent, delta=smk.params.delta, noise=smk.params.noise, device=device
        )
        details = {"cell": cell, "config": smk.params.config, "code": smk.params.code, **artifacts.provenance(device)}
        run, trajectory, file = cells.start(
            cell,
            ledger=vault.ledger,
            vault=vault,
            generator=cells.method_generator(cell, device),
            checkpoint=Path(smk.params.checkpoint),
            belongs_to={**details, "noise": smk.params.noise, "delta": smk.params.delta},
            log=log,
        )
        images, labels = method.synthesize(vault, config, run)
        cells.write(smk.output, images, labels, trajectory, vault.facts)
        artifacts.write_json(
            Path(smk.output.certificate),
            certificates.certificate(vault.ledger, Path(smk.output.images), noise_seed=noise_seed, run=details),
        )
        file.delete()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
