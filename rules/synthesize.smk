# One private synthetic set per (dataset, method, epsilon, spc, seed), with its certificate.
# A method of one-shot releases (psm) makes them once per (dataset, epsilon, seed); its sets of every size come from them.


rule synthesize:
    input:
        data=of(grids.data_files),
    output:
        # What came out of the vault once is not removed to be made again: the job looks, and refuses (jobs/cells.py).
        images=update(SET),
        certificate=update(CERTIFICATE),
        trajectory=update(f"{CELL}/trajectory.csv"),
        snapshots=update(grids.SNAPSHOTS),
        grid=update(f"{CELL}/grid.png"),
    log:
        "results/logs/synthesize/{preset}/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}.log",
    benchmark:
        "results/benchmarks/synthesize/{preset}/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}.tsv"
    wildcard_constraints:
        method=f"(?!({RELEASING})/)[^/]+",
    # The longest jobs first, so that none is left alone at the end.
    priority: 10
    conda:
        "../envs/torch.yaml"
    threads: config["threads"]
    resources:
        gpu=GPU,
        mem_mb=need(needs.synthesis_memory),
        runtime=need(needs.synthesis_minutes),
    params:
        config=of(grids.hyper_parameters),
        noise=of(grids.noise_source),
        accountant=of(grids.accountant),
        delta=config["delta"],
        code=set_code,
        # Not an output: Snakemake removes the outputs of a job that failed, and a checkpoint must outlive it.
        checkpoint="results/{preset}/checkpoints/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}.pt",
    message:
        "Synthesize {wildcards.dataset} by {wildcards.method}, eps={wildcards.epsilon}, spc={wildcards.spc}"
        " ({resources.gpu} GPU, {resources.mem_mb} MB, at most {resources.runtime} min)"
    script:
        "../workflow_scripts/synthesize.py"


rule release:
    input:
        data=of(grids.data_files),
    output:
        statistics=update(f"{RELEASES}/statistics.npz"),
        certificate=update(f"{RELEASES}/certificate.json"),
    log:
        "results/logs/release/{preset}/{dataset}/{method}/eps{epsilon}/seed{seed}.log",
    benchmark:
        "results/benchmarks/release/{preset}/{dataset}/{method}/eps{epsilon}/seed{seed}.tsv"
    wildcard_constraints:
        method=RELEASING,
    priority: 20
    conda:
        "../envs/torch.yaml"
    threads: config["threads"]
    resources:
        gpu=GPU,
        mem_mb=need(needs.synthesis_memory),
        runtime=need(needs.one_shot_minutes),
    params:
        config=of(grids.release_parameters),
        noise=of(grids.noise_source),
        accountant=of(grids.accountant),
        delta=config["delta"],
        code=release_code,
        checkpoint="results/{preset}/checkpoints/{dataset}/{method}/eps{epsilon}/seed{seed}.pt",
    message:
        "Release the statistics of {wildcards.dataset} for {wildcards.method}, eps={wildcards.epsilon}"
        " ({resources.gpu} GPU, {resources.mem_mb} MB, at most {resources.runtime} min)"
    script:
        "../workflow_scripts/release.py"


rule condense:
    input:
        unpack(of(grids.releases_behind)),
        description=f"results/data/{{dataset}}/{DESCRIPTION}",
    output:
        images=SET,
        certificate=CERTIFICATE,
        trajectory=f"{CELL}/trajectory.csv",
        snapshots=grids.SNAPSHOTS,
        grid=f"{CELL}/grid.png",
    log:
        "results/logs/condense/{preset}/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}.log",
    benchmark:
        "results/benchmarks/condense/{preset}/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}.tsv"
    wildcard_constraints:
        method=CONDENSING,
    priority: 10
    # On a cluster a set and its evaluations share a job: making it takes a minute.
    group:
        "evaluate_{preset}_{dataset}_{method}_{epsilon}_{spc}_{seed}"
    conda:
        "../envs/torch.yaml"
    threads: config["threads"]
    resources:
        gpu=GPU,
        mem_mb=need(needs.synthesis_memory),
        runtime=need(needs.one_shot_minutes),
    params:
        config=of(grids.hyper_parameters),
        code=condense_code,
        checkpoint="results/{preset}/checkpoints/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}.pt",
    message:
        "Condense {wildcards.dataset} by {wildcards.method}, eps={wildcards.epsilon}, spc={wildcards.spc}"
        " ({resources.gpu} GPU, {resources.mem_mb} MB, at most {resources.runtime} min)"
    script:
        "../workflow_scripts/condense.py"
