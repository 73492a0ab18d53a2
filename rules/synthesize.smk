# One private synthetic set per (dataset, method, epsilon, spc, seed), with its certificate.


rule synthesize:
    input:
        data=data_files,
    output:
        images=SET,
        certificate=CERTIFICATE,
        trajectory=f"{CELL}/trajectory.csv",
        snapshots=f"{CELL}/snapshots.npz",
        grid=f"{CELL}/grid.png",
    log:
        "results/logs/synthesize/{preset}/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}.log",
    benchmark:
        "results/benchmarks/synthesize/{preset}/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}.tsv"
    # The longest jobs first, so that none is left alone at the end.
    priority: 10
    conda:
        "../envs/torch.yaml"
    threads: config["threads"]
    resources:
        gpu=GPU,
        mem_mb=synthesis_memory,
        runtime=synthesis_minutes,
    params:
        config=method_config,
        noise=noise_source,
        delta=config["delta"],
        code=method_digest,
        # Not an output: Snakemake removes the outputs of a job that failed, and a checkpoint must outlive it.
        checkpoint="results/{preset}/checkpoints/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}.pt",
    message:
        "Synthesize {wildcards.dataset} by {wildcards.method}, eps={wildcards.epsilon}, spc={wildcards.spc}"
        " ({resources.gpu} GPU, {resources.mem_mb} MB, at most {resources.runtime} min)"
    script:
        "../workflow_scripts/synthesize.py"
