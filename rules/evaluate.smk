# Train networks on a set, test them on the real test images; then one tidy table of every single run.


rule evaluate:
    input:
        images=SET,
        certificate=CERTIFICATE,
        data=data_files,
    output:
        METRICS,
    log:
        "results/logs/evaluate/{preset}/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}/{network}.log",
    benchmark:
        "results/benchmarks/evaluate/{preset}/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}/{network}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: config["threads"]
    resources:
        gpu=GPU,
        mem_mb=6000,
        runtime=8 * 60,
    params:
        schedule=schedule,
        code=code_digest("evaluate"),
    message:
        "Evaluate {wildcards.dataset} {wildcards.method} eps={wildcards.epsilon} spc={wildcards.spc} on {wildcards.network}"
    script:
        "../workflow_scripts/evaluate.py"


rule collect:
    input:
        table_metrics,
    output:
        "results/{preset}/metrics/{table}.csv",
    log:
        "results/logs/collect/{preset}/{table}.log",
    benchmark:
        "results/benchmarks/collect/{preset}/{table}.tsv"
    localrule: True
    conda:
        "../envs/reporting.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code_digest("collect"),
    message:
        "Collect the runs behind {wildcards.table}"
    script:
        "../workflow_scripts/collect.py"
