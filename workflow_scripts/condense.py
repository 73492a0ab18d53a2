"""Rule condense: one set from releases that were made before. It has no access to the private data."""

from pathlib import Path

from privset import methods
from privset.data import datasets
from privset.jobs import cells
from privset.jobs.computation import computation
from privset.privacy import certificates
from privset.sets import files


def main(smk):
    with computation(smk) as job:
        method = methods.load(job.cell["method"])
        config = job.parse(method.Config, smk.params.config, f"methods.{job.cell['method']}.config")
        path = Path(smk.input.statistics)
        stated = files.matching_certificate(path, Path(smk.input.certificate))
        known = datasets.describe(Path(smk.input.description).parent)
        facts = datasets.public_facts(known, records=stated["ledger"][0]["records"])
        statistics = method.Statistics.from_tensors(job.tensors(path), facts)
        belongs_to = {"statistics": stated["set_sha256"]}
        run, trajectory, file = cells.start(
            job, ledger=certificates.ledger(stated), vault=None, belongs_to=belongs_to, certificate=path
        )
        images, labels = method.synthesize(statistics, facts, config, run)
        soft_labels = method.soft_labels(statistics, images, labels, config)
        cells.write(smk.output, images, labels, trajectory, facts, tiles=config.tiles, soft_labels=soft_labels)
        made = certificates.post_processed(stated, Path(smk.output.images), run=job.details)
        files.write_json(Path(smk.output.certificate), made)
        file.delete()


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
