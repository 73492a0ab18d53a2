# One page with every table, figure and the configuration, for people who have neither the repository nor Python.


def report_inputs(config, cell):
    """The results of the configured preset: the second Snakemake has the same."""
    grids.choose("preset (of the report)", cell["preset"], [config["preset"]])
    return rules.all_results.input


def report_options(given):
    """The configuration of this run, for the Snakemake that writes the report."""
    files = [os.path.relpath(path) for path in given.configfiles]
    options = {"--configfile": files, "--config": given.config_args}
    return [word for name, words in options.items() if words for word in (name, *words)]


rule configuration:
    output:
        report(
            "results/{preset}/configuration.html",
            caption="captions/configuration.rst",
            category="Configuration",
            labels={"preset": "{preset}"},
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
        of(report_inputs),
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
        code=code_digest("report_page"),
    message:
        "Write {output}"
    script:
        "../workflow_scripts/report_page.py"
