# Fetch and verify a dataset. Everything after this works without a network.


rule fetch:
    output:
        expand("results/data/{{dataset}}/{file}", file=IDX),
    log:
        "results/logs/fetch/{dataset}.log",
    benchmark:
        "results/benchmarks/fetch/{dataset}.tsv"
    conda:
        "../envs/torch.yaml"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        sources=config["data"]["sources"],
        directory=config["data"]["dir"],
        timeout=config["data"]["timeout"],
    message:
        "Fetch and verify {wildcards.dataset}"
    script:
        "../workflow_scripts/fetch.py"
