# What one asks for by name. Every target means the configured preset: `--config preset=paper all_tables`.

PRESET = config["preset"]


rule all:
    default_target: True
    localrule: True
    input:
        expand("results/{preset}/tables/{table}.md", preset=PRESET, table=["table1", "table2", "table_privacy"]),
        expand("results/{preset}/figures/fig_samples.pdf", preset=PRESET),


rule all_tables:
    localrule: True
    input:
        expand("results/{preset}/tables/{table}.md", preset=PRESET, table=["table1", "table2", "table_privacy"]),


rule all_figures:
    localrule: True
    input:
        expand("results/{preset}/figures/fig_samples.pdf", preset=PRESET),


rule all_sets:
    localrule: True
    input:
        paths(CELL + "/set.npz", cells(PRESET)),


rule all_data:
    localrule: True
    input:
        expand("results/data/{dataset}/{file}", dataset=config["presets"][PRESET]["datasets"], file=IDX),


rule table1:
    localrule: True
    input:
        expand("results/{preset}/tables/table1.md", preset=PRESET),


rule table2:
    localrule: True
    input:
        expand("results/{preset}/tables/table2.md", preset=PRESET),


rule table_privacy:
    localrule: True
    input:
        expand("results/{preset}/tables/table_privacy.md", preset=PRESET),


rule fig_samples:
    localrule: True
    input:
        expand("results/{preset}/figures/fig_samples.pdf", preset=PRESET),
