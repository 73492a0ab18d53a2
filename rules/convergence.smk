# Accuracy over the course of a synthesis, from the snapshots that every cell keeps.


rule evaluate_snapshots:
    input:
        snapshots=grids.SNAPSHOTS,
        certificate=CERTIFICATE,
        data=of(grids.data_files),
    output:
        grids.SNAPSHOT_METRICS,
    log:
        "results/logs/evaluate_snapshots/{preset}/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}/{network}.log",
    benchmark:
        "results/benchmarks/evaluate_snapshots/{preset}/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}/{network}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: config["threads"]
    resources:
        gpu=GPU,
        mem_mb=need(needs.evaluation_memory),
        runtime=need(needs.snapshot_minutes),
    params:
        schedule=of(grids.snapshot_schedule),
        code=code_digest("evaluate_snapshots"),
        checkpoint=f"results/{{preset}}/checkpoints/snapshots/{grids.RUN}.pt",
    message:
        "Evaluate the snapshots of {wildcards.dataset} {wildcards.method} eps={wildcards.epsilon} spc={wildcards.spc}"
        " ({resources.gpu} GPU, {resources.mem_mb} MB, at most {resources.runtime} min)"
    script:
        "../workflow_scripts/evaluate_snapshots.py"


rule convergence:
    input:
        files_of(grids.SNAPSHOT_METRICS, grids.snapshot_runs),
    output:
        multiext("results/{preset}/figures/{figure}", ".csv", ".pdf"),
        report(
            "results/{preset}/figures/{figure}.png",
            caption="captions/convergence.rst",
            category="Figures",
            labels=titled(),
        ),
    log:
        "results/logs/convergence/{preset}/{figure}.log",
    benchmark:
        "results/benchmarks/convergence/{preset}/{figure}.tsv"
    wildcard_constraints:
        figure="fig_convergence|fig_prior_convergence",
    localrule: True
    conda:
        "../envs/reporting.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        titles=of(grids.titles),
        code=code_digest("convergence"),
    message:
        "Draw {wildcards.figure} of preset {wildcards.preset}"
    script:
        "../workflow_scripts/convergence.py"
