# Train networks on a set, test them on the real test images; then one tidy table of every single run. A job trains the first
# network, or all others: it reads the data and imports PyTorch once.


rule evaluate:
    input:
        unpack(of(grids.set_behind)),
        data=of(grids.data_files),
    output:
        metrics=METRICS,
        predictions=PREDICTIONS,
    log:
        "results/logs/evaluate/{preset}/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}/{networks}.log",
    benchmark:
        "results/benchmarks/evaluate/{preset}/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}/{networks}.tsv"
    # On a cluster both jobs of a set are one (slurm/config.yaml); elsewhere groups mean nothing.
    group:
        "evaluate_{preset}_{dataset}_{method}_{epsilon}_{spc}_{seed}"
    conda:
        "../envs/torch.yaml"
    threads: config["threads"]
    resources:
        gpu=GPU,
        mem_mb=need(needs.evaluation_memory),
        runtime=need(needs.evaluation_minutes),
    params:
        schedules=of(grids.schedules),
        per_class=of(grids.images_per_class),
        code=code_digest("evaluate"),
        checkpoint=f"results/{{preset}}/checkpoints/{grids.RUNS}.pt",
    message:
        "Evaluate {wildcards.dataset} {wildcards.method} eps={wildcards.epsilon} spc={wildcards.spc} on {wildcards.networks}"
        " ({resources.gpu} GPU, {resources.mem_mb} MB, at most {resources.runtime} min)"
    script:
        "../workflow_scripts/evaluate.py"


rule collect:
    input:
        files_of(METRICS, grids.table_runs),
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
