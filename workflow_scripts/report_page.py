"""Rule report_page: Snakemake's report of what this run has finished, on one page."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from privset import PrivsetError, reporting
from privset.jobs.frame import job
from privset.reporting import front


def main(smk):
    with job(smk) as log, tempfile.TemporaryDirectory() as scratch:
        reporting.name_datasets(smk.params.titles)
        text = front.page(
            Path(smk.input.description).read_text(encoding="utf-8"),
            table=front.read(Path("results", smk.wildcards.preset, "tables/table1.csv")),
            certificates=list(map(Path, smk.input.certificates)),
        )
        first = Path(scratch, "front.rst")
        first.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "snakemake", "-s", str(Path(smk.scriptdir).parent / "Snakefile"), "all_results"]
        command += ["--nolock", "--report", str(smk.output[0]), *smk.params.options]
        environment = os.environ | {"PRIVSET_REPORT": str(first)}  # the Snakefile's
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        made = subprocess.run(command, env=environment, **output)
        print(made.stdout, file=log)
        if made.returncode:
            last = (made.stdout.strip() or "no message").splitlines()[-1]
            raise PrivsetError(f"the report could not be made: {last}")


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
