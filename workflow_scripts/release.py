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
        data, certificate = Path(smk.input.data[0]).parent, Path(smk.output.certificate)
        vault, seed, belongs_to = cells.open_vault(job, data, certificate)
        run, _, file = cells.start(job, ledger=vault.ledger, vault=vault, belongs_to=belongs_to, certificate=certificate)
        tensors = method.release(vault, config, run).to_tensors()
        arrays.write_statistics(Path(smk.output.statistics), {name: tensor.cpu().numpy() for name, tensor in tensors.items()})
        stated = certificates.certificate(vault.ledger, Path(smk.output.statistics), noise_seed=seed, run=job.details)
        files.write_json(certificate, stated)
        cells.protect(smk.output, seed)
        file.delete()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
