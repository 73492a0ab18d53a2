"""Rule release: what a method of one-shot releases asks of the private data, once for the sets of every size."""

from pathlib import Path

from privset import artifacts, cells, certificates, devices, methods
from privset.config import parse
from privset.progress import job


def main(smk):
    with job(smk) as log, devices.device(gpu=smk.resources.get("gpu", 0) > 0) as device:
        cell = {**smk.wildcards, "spc": "any"}
        method = methods.load(cell["method"])
        where = f"config.yaml: {cell['preset']}.methods.{cell['method']}.releases"
        config = parse(method.ReleaseConfig, smk.params.config, where)
        vault, noise_seed = cells.open_vault(
            cell, Path(smk.input.data[0]).parent, delta=smk.params.delta, noise=smk.params.noise, device=device
        )
        details = {"cell": cell, "config": smk.params.config, "code": smk.params.code, **artifacts.provenance(device)}
        run, _, file = cells.start(
            cell,
            ledger=vault.ledger,
            vault=vault,
            generator=cells.method_generator(cell, device),
            checkpoint=Path(smk.params.checkpoint),
            belongs_to={**details, "noise": smk.params.noise, "delta": smk.params.delta},
            log=log,
        )
        tensors = method.release(vault, config, run).to_tensors()
        artifacts.write_statistics(Path(smk.output.statistics), {name: tensor.cpu().numpy() for name, tensor in tensors.items()})
        details["records"] = vault.facts.records
        artifacts.write_json(
            Path(smk.output.certificate),
            certificates.certificate(vault.ledger, Path(smk.output.statistics), noise_seed=noise_seed, run=details),
        )
        file.delete()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
