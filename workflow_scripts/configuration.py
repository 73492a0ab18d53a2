"""Rule configuration: what a preset computes, as a page of the report."""

import html
from pathlib import Path

import yaml

from privset.jobs.frame import job
from privset.sets.files import write_atomically


def main(smk):
    with job(smk):
        text = yaml.safe_dump(dict(smk.params.configuration), sort_keys=False, width=100)
        page = f'<!doctype html><meta charset="utf-8"><title>Configuration</title>\n<pre>{html.escape(text)}</pre>\n'
        write_atomically(Path(smk.output[0]), lambda stream: stream.write(page))


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
