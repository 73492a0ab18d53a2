# privset: private synthetic sets, their certificates, and the tables and figures of PSG (NeurIPS 2022).
# Start at config.yaml (what is computed) and README.md (how to run it); the rules are in rules/.

from snakemake.utils import min_version

min_version("9.19")


configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/targets.smk"
include: "rules/data.smk"
include: "rules/synthesize.smk"
include: "rules/evaluate.smk"
include: "rules/tables.smk"
include: "rules/figures.smk"


# A GPU is a thing of one machine: a cap on it (profiles/default) must not throttle a cluster.
resource_scopes:
    gpu="local",


onsuccess:
    print(finished_tables(config["preset"]), end="")
