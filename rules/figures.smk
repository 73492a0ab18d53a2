# The paper's figures.


rule samples:
    input:
        sets=sample_sets,
    output:
        multiext("results/{preset}/figures/fig_samples", ".pdf", ".png"),
    log:
        "results/logs/samples/{preset}.log",
    benchmark:
        "results/benchmarks/samples/{preset}.tsv"
    localrule: True
    conda:
        "../envs/reporting.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        code=code_digest("samples"),
    message:
        "Draw the samples of preset {wildcards.preset}"
    script:
        "../workflow_scripts/samples.py"
