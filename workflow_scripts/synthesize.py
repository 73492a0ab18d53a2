"""Rule synthesize: one private set with its certificate, trajectory and picture."""

from pathlib import Path

from privset import methods
from privset.jobs import cells
from privset.jobs.computation import computation
from privset.privacy import certificates
from privset.sets import files


def main(smk):
    with computation(smk) as job:
        method = methods.load(job.cell["method"])
        config = job.parse(method.Config, smk.params.config, f"methods.{job.cell['method']}.config")
        data, certificate = Path(smk.input.data[0]).parent, Path(smk.output.certificate)
        vault, seed, belongs_to = cells.open_vault(job, data, certificate)
        run, trajectory, file = cells.start(job, ledger=vault.ledger, vault=vault, belongs_to=belongs_to, certificate=certificate)
        images, labels = method.synthesize(vault, config, run)
        cells.write(smk.output, images, labels, trajectory, vault.facts)
        stated = certificates.certificate(vault.ledger, Path(smk.output.images), noise_seed=seed, run=job.details)
        files.write_json(certificate, stated)
        cells.protect(smk.output, seed)
        file.delete()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
