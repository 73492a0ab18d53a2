"""Rule report_page: Snakemake's report of what this run has finished, on one page."""

import subprocess
import sys

from privset import PrivsetError
from privset.jobs.frame import job


def main(smk):
    with job(smk) as log:
        command = [sys.executable, "-m", "snakemake", "all_results", "--nolock", "--report", str(smk.output[0])]
        made = subprocess.run([*command, *smk.params.options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(made.stdout, file=log)
        if made.returncode:
            last = (made.stdout.strip() or "no message").splitlines()[-1]
            raise PrivsetError(f"the report could not be made: {last}")


if "snakemake" in globals():
    main(snakemake)  # noqa: F821
