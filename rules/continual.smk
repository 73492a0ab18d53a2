# Class-incremental learning: the classes arrive two at a time, and each task has the whole budget on its own records.
# What the methods make comes from the rules synthesize (sets) and release (the weights of DP-SGD).


rule evaluate_tasks:
    input:
        learned=of(grids.learned),
        data=of(grids.data_files),
    output:
        grids.TASK_METRICS,
    log:
        "results/logs/evaluate_tasks/{preset}/{dataset}/{method}/eps{epsilon}/seed{seed}.log",
    benchmark:
        "results/benchmarks/evaluate_tasks/{preset}/{dataset}/{method}/eps{epsilon}/seed{seed}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: config["threads"]
    resources:
        gpu=GPU,
        mem_mb=need(needs.evaluation_memory),
        runtime=need(needs.task_minutes),
    params:
        schedule=of(grids.task_schedule),
        network=of(grids.first_network),
        code=code_digest("evaluate_tasks"),
        checkpoint="results/{preset}/checkpoints/continual/{dataset}/{method}/eps{epsilon}/seed{seed}.pt",
    message:
        "Evaluate the tasks of {wildcards.dataset} {wildcards.method} eps={wildcards.epsilon} seed={wildcards.seed}"
        " ({resources.gpu} GPU, {resources.mem_mb} MB, at most {resources.runtime} min)"
    script:
        "../workflow_scripts/evaluate_tasks.py"


rule continual:
    input:
        files_of(grids.TASK_METRICS, grids.continual_cells),
    output:
        multiext("results/{preset}/figures/fig_continual", ".csv", ".pdf"),
        report(
            "results/{preset}/figures/fig_continual.png",
            caption="captions/continual.rst",
            category="Figures",
            labels=titled("fig_continual"),
        ),
    log:
        "results/logs/continual/{preset}.log",
    benchmark:
        "results/benchmarks/continual/{preset}.tsv"
    localrule: True
    conda:
        "../envs/reporting.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        titles=of(grids.titles),
        code=code_digest("continual"),
    message:
        "Draw fig_continual of preset {wildcards.preset}"
    script:
        "../workflow_scripts/continual.py"
