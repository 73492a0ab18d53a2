# The paper's tables: reported and reproduced numbers side by side.


rule compare:
    input:
        metrics="results/{preset}/metrics/{table}.csv",
        reported=shipped("resources/reported.csv"),
    output:
        multiext("results/{preset}/tables/{table}", ".csv", ".md", ".tex"),
        report(
            "results/{preset}/tables/{table}.html",
            caption="captions/comparison.rst",
            category="Tables",
            labels=titled(),
        ),
    log:
        "results/logs/compare/{preset}/{table}.log",
    benchmark:
        "results/benchmarks/compare/{preset}/{table}.tsv"
    localrule: True
    conda:
        "../envs/reporting.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        datasets=of(grids.datasets),
        titles=of(grids.titles),
        code=code_digest("compare"),
    message:
        "Write {wildcards.table} of preset {wildcards.preset}"
    script:
        "../workflow_scripts/compare.py"


rule privacy:
    input:
        certificates=files_of(CERTIFICATE, grids.cells),
    output:
        multiext("results/{preset}/tables/table_privacy", ".csv", ".md", ".tex"),
        report(
            "results/{preset}/tables/table_privacy.html",
            caption="captions/privacy.rst",
            category="Tables",
            labels=titled("table_privacy"),
        ),
    log:
        "results/logs/privacy/{preset}.log",
    benchmark:
        "results/benchmarks/privacy/{preset}.tsv"
    localrule: True
    conda:
        "../envs/reporting.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        titles=of(grids.titles),
        code=code_digest("privacy"),
    message:
        "Write the privacy table of preset {wildcards.preset}"
    script:
        "../workflow_scripts/privacy.py"


rule pairs:
    input:
        metrics=files_of(METRICS, grids.table1_runs),
        predictions=files_of(PREDICTIONS, grids.table1_runs),
    output:
        multiext("results/{preset}/tables/table1_pairs", ".csv", ".md", ".tex"),
        report(
            "results/{preset}/tables/table1_pairs.html",
            caption="captions/pairs.rst",
            category="Tables",
            labels=titled("table1_pairs"),
        ),
    log:
        "results/logs/pairs/{preset}.log",
    benchmark:
        "results/benchmarks/pairs/{preset}.tsv"
    localrule: True
    conda:
        "../envs/reporting.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        titles=of(grids.titles),
        code=code_digest("pairs"),
    message:
        "Compare the methods of preset {wildcards.preset} in pairs"
    script:
        "../workflow_scripts/pairs.py"


# On request: what a run of the tables has cost. It reads the benchmark files of every job that has left one.
rule costs:
    input:
        metrics=files_of(METRICS, grids.all_runs),
        tables=lambda wildcards: expand(
            "results/{preset}/tables/{table}.md",
            preset=wildcards.preset,
            table=grids.tables(config, wildcards.preset),
        ),
    output:
        multiext("results/{preset}/tables/table_costs", ".csv", ".md", ".tex", ".html"),
    log:
        "results/logs/costs/{preset}.log",
    benchmark:
        "results/benchmarks/costs/{preset}.tsv"
    localrule: True
    conda:
        "../envs/reporting.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        benchmarks="results/benchmarks",
        code=code_digest("costs"),
    message:
        "Write where the time of preset {wildcards.preset} went"
    script:
        "../workflow_scripts/costs.py"
