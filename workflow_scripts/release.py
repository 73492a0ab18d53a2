"""Rule release: what a method of one-shot releases asks of the private data, once for the sets of every size."""

from pathlib import Path

from privset import methods
from privset.jobs import cells
from privset.jobs.computation import computation
from privset.privacy import certificates
from privset.sets import arrays, files


def main(smk):
    with computation(smk, spc="any") as job:
        method = methods.load_releases(job.cell["method"])
        config = job.parse(method.ReleaseConfig, smk.params.config, f"methods.{job.cell['method']}.releases")
        asked = {key: smk.params[key] for key in ("delta", "accountant", "noise")}
        vault, seed = cells.open_vault(job.cell, Path(smk.input.data[0]).parent, device=job.device, **asked)
        run, _, file = cells.start(job, ledger=vault.ledger, vault=vault, belongs_to=asked)
        tensors = method.release(vault, config, run).to_tensors()
        arrays.write_statistics(Path(smk.output.statistics), {name: tensor.cpu().numpy() for name, tensor in tensors.items()})
        details = {**job.details, "records": vault.facts.records}
        stated = certificates.certificate(vault.ledger, Path(smk.output.statistics), noise_seed=seed, run=details)
        files.write_json(Path(smk.output.certificate), stated)
        file.delete()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
