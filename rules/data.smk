# Fetch and verify a dataset. Everything after this works without a network.

# A dataset of one's own may have a name that ends like this, and is fetched then: (?!) matches nothing.
OWN_VALIDATION = "|".join(grids.own_validation(config)) or "(?!)"


rule fetch:
    input:
        of(grids.own_files),
    output:
        expand("results/data/{{dataset}}/{file}", file=[*FILES, DESCRIPTION]),
    log:
        "results/logs/fetch/{dataset}.log",
    benchmark:
        "results/benchmarks/fetch/{dataset}.tsv"
    wildcard_constraints:
        dataset=f"{OWN_VALIDATION}|(?![^/]*_validation/)[^/]+",
    localrule: True
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        dataset=of(grids.checked_dataset),
        own=of(grids.own_dataset),
    message:
        "Fetch and verify {wildcards.dataset}"
    script:
        "../workflow_scripts/fetch.py"


# NAME_validation: training records of NAME as a test half, to choose hyper-parameters by.
rule hold_out:
    input:
        expand("results/data/{{dataset}}/{file}", file=[*FILES, DESCRIPTION]),
    output:
        expand("results/data/{{dataset}}_validation/{file}", file=[*FILES, DESCRIPTION]),
    log:
        "results/logs/hold_out/{dataset}.log",
    benchmark:
        "results/benchmarks/hold_out/{dataset}.tsv"
    wildcard_constraints:
        dataset=f"(?!(?:{OWN_VALIDATION})/)[^/]+",
    localrule: True
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=code_digest("hold_out"),
    message:
        "Hold out training records of {wildcards.dataset}"
    script:
        "../workflow_scripts/hold_out.py"
