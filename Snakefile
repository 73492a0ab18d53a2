# privset: private synthetic sets, their certificates, and the tables and figures of PSG (NeurIPS 2022).
# Start at config.yaml (what is computed) and docs/running.md (how to run it); the rules are in rules/.

import os

from snakemake.utils import min_version

min_version("9.19")


# Run in another folder (`-s`, `--directory`), the configuration there, if there is one.
SHIPPED_CONFIG = os.path.join(workflow.basedir, "config.yaml")


configfile: "config.yaml" if os.path.exists("config.yaml") else SHIPPED_CONFIG


# Rule report_page puts the main table and the provenance on the first page.
report: os.environ.get("PRIVSET_REPORT", "rules/captions/workflow.rst")


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/synthesize.smk"
include: "rules/evaluate.smk"
include: "rules/convergence.smk"
include: "rules/continual.smk"
include: "rules/tables.smk"
include: "rules/figures.smk"
include: "rules/audit.smk"
include: "rules/benchmarks.smk"
include: "rules/report.smk"


# A GPU is a thing of one machine: a cap on it (profiles/default) must not throttle a cluster.
resource_scopes:
    gpu="local",


onstart:
    # On a cluster the cores of this machine do not matter.
    if workflow.local_exec:
        print(needs.crowded(workflow.cores), end="")


onsuccess:
    print(finished_tables(PRESET, since=STARTED), end="")


# The targets: what one asks for by name, for the configured preset (`snakemake all_tables --config preset=paper`; after `--config` a target would be read as a setting).

TABLES, FIGURES = grids.tables(config, PRESET), grids.figures(config, PRESET)
BENCHMARKS = ["private_step", "evaluation"]
AUDIT = [
    "results/{preset}/tables/table_audit.md",
    "results/{preset}/figures/fig_audit.pdf",
    "results/{preset}/tables/table_claims.md",
]


rule all_results:
    input:
        expand(
            "results/{preset}/tables/{table}.md",
            preset=PRESET,
            table=[*TABLES, *grids.storage_tables(config, PRESET)],
        ),
        expand("results/{preset}/figures/{figure}.pdf", preset=PRESET, figure=FIGURES),
        expand(
            AUDIT if "audit" in config["presets"][PRESET] else AUDIT[2], preset=PRESET
        ),
        expand("results/{preset}/configuration.html", preset=PRESET),
    localrule: True


rule all:
    default_target: True
    input:
        rules.all_results.input,
        expand("results/{preset}/report.html", preset=PRESET),
    localrule: True


rule report:
    input:
        expand("results/{preset}/report.html", preset=PRESET),
    localrule: True


rule all_tables:
    input:
        expand("results/{preset}/tables/{table}.md", preset=PRESET, table=TABLES),
    localrule: True


rule all_figures:
    input:
        expand("results/{preset}/figures/{figure}.pdf", preset=PRESET, figure=FIGURES),
    localrule: True


rule all_sets:
    input:
        grids.paths(SET, grids.cells(config, {"preset": PRESET})),
    localrule: True


rule all_data:
    input:
        expand(
            "results/data/{dataset}/{file}",
            dataset=config["presets"][PRESET]["datasets"],
            file=FILES,
        ),
    localrule: True


rule table1:
    input:
        expand("results/{preset}/tables/table1.md", preset=PRESET),
    localrule: True


rule table2:
    input:
        expand("results/{preset}/tables/table2.md", preset=PRESET),
    localrule: True


rule table3:
    input:
        expand("results/{preset}/tables/table3.md", preset=PRESET),
    localrule: True


rule table_privacy:
    input:
        expand("results/{preset}/tables/table_privacy.md", preset=PRESET),
    localrule: True


rule table_storage:
    input:
        expand("results/{preset}/tables/table_storage.md", preset=PRESET),
    localrule: True


# Where the time went, after the tables: by rule, method and network.
rule table_costs:
    input:
        expand("results/{preset}/tables/table_costs.md", preset=PRESET),
    localrule: True


# What each part of PSM brings: a table, accuracy against epsilon, and the images over the optimisation.
rule ablation_psm:
    input:
        expand("results/{preset}/tables/ablation_psm.md", preset=PRESET),
        expand(
            "results/{preset}/figures/{figure}.pdf",
            preset=PRESET,
            figure=["fig_psm_epsilon", "fig_psm_images"],
        ),
    localrule: True


rule fig_samples:
    input:
        expand("results/{preset}/figures/fig_samples.pdf", preset=PRESET),
    localrule: True


rule fig_convergence:
    input:
        expand("results/{preset}/figures/fig_convergence.pdf", preset=PRESET),
    localrule: True


rule fig_prior_convergence:
    input:
        expand("results/{preset}/figures/fig_prior_convergence.pdf", preset=PRESET),
    localrule: True


rule fig_continual:
    input:
        expand("results/{preset}/figures/fig_continual.pdf", preset=PRESET),
    localrule: True


# Lower bounds on every row's epsilon from the running code, and what published epsilons are worth.
rule audit:
    input:
        expand(AUDIT, preset=PRESET),
    localrule: True


rule benchmarks:
    input:
        expand("results/{preset}/benchmarks/{name}.md", preset=PRESET, name=BENCHMARKS),
    localrule: True
