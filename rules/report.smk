# One page with every table, figure and the configuration, for people who have neither the repository nor Python.


rule configuration:
    output:
        report(
            "results/{preset}/configuration.html",
            caption="captions/configuration.rst",
            category="Configuration",
            labels=titled("configuration"),
        ),
    log:
        "results/logs/configuration/{preset}.log",
    benchmark:
        "results/benchmarks/configuration/{preset}.tsv"
    localrule: True
    conda:
        "../envs/reporting.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        configuration=of(grids.configuration),
        code=code_digest("configuration"),
    message:
        "Write down the configuration of preset {wildcards.preset}"
    script:
        "../workflow_scripts/configuration.py"


# Snakemake makes the page from what it recorded about the finished jobs, so a second one is started, which computes nothing.
rule report_page:
    input:
        results=of(report_inputs),
        certificates=files_of(CERTIFICATE, grids.cells),
        description=shipped("rules/captions/workflow.rst"),
    output:
        "results/{preset}/report.html",
    log:
        "results/logs/report_page/{preset}.log",
    benchmark:
        "results/benchmarks/report_page/{preset}.tsv"
    localrule: True
    conda:
        "../envs/reporting.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        options=lambda wildcards: report_options(workflow.config_settings),
        titles=of(grids.titles),
        code=code_digest("report_page"),
    message:
        "Write {output}"
    script:
        "../workflow_scripts/report_page.py"
