# Fetch and verify a dataset. Everything after this works without a network.


rule fetch:
    output:
        expand("results/data/{{dataset}}/{file}", file=[*FILES, DESCRIPTION]),
    log:
        "results/logs/fetch/{dataset}.log",
    benchmark:
        "results/benchmarks/fetch/{dataset}.tsv"
    localrule: True
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        dataset=checked_dataset,
        own=own_dataset,
    message:
        "Fetch and verify {wildcards.dataset}"
    script:
        "../workflow_scripts/fetch.py"
