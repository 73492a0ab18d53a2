# The paper's figures.


rule samples:
    input:
        sets=files_of(SET, grids.sample_cells),
        snapshots=files_of(grids.SNAPSHOTS, grids.fresh_code_cells, none=True),
    output:
        multiext("results/{preset}/figures/fig_samples", ".pdf"),
        report(
            "results/{preset}/figures/fig_samples.png",
            caption="captions/samples.rst",
            category="Figures",
            labels=titled("fig_samples"),
        ),
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
        titles=of(grids.titles),
        code=code_digest("samples"),
    message:
        "Draw the samples of preset {wildcards.preset}"
    script:
        "../workflow_scripts/samples.py"


# On request, by path: which classes are confused after training on one set.
rule confusion:
    input:
        predictions=of(grids.predictions_behind),
        description=f"results/data/{{dataset}}/{DESCRIPTION}",
    output:
        multiext(grids.CONFUSION, ".pdf", ".png"),
    log:
        "results/logs/confusion/{preset}/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}/{network}.log",
    benchmark:
        "results/benchmarks/confusion/{preset}/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}/{network}.tsv"
    localrule: True
    conda:
        "../envs/reporting.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        titles=of(grids.titles),
        code=code_digest("confusion"),
    message:
        "Draw the confusion matrix of {wildcards.network} on {wildcards.dataset} {wildcards.method}"
    script:
        "../workflow_scripts/confusion.py"


# On request, by path: what the evaluation's augmentation does to a dataset's images.
rule augmentation:
    input:
        data=of(grids.data_files),
    output:
        multiext("results/data/{dataset}/augmentation", ".png", ".pdf"),
    log:
        "results/logs/augmentation/{dataset}.log",
    benchmark:
        "results/benchmarks/augmentation/{dataset}.tsv"
    localrule: True
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=code_digest("augmentation"),
    message:
        "Draw the augmentation of {wildcards.dataset}"
    script:
        "../workflow_scripts/augmentation.py"


rule epsilons:
    input:
        "results/{preset}/metrics/fig_psm_epsilon.csv",
    output:
        multiext("results/{preset}/figures/fig_psm_epsilon", ".pdf"),
        report(
            "results/{preset}/figures/fig_psm_epsilon.png",
            caption="captions/epsilons.rst",
            category="Figures",
            labels=titled("fig_psm_epsilon"),
        ),
    log:
        "results/logs/epsilons/{preset}.log",
    benchmark:
        "results/benchmarks/epsilons/{preset}.tsv"
    localrule: True
    conda:
        "../envs/reporting.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        titles=of(grids.titles),
        code=code_digest("epsilons"),
    message:
        "Draw accuracy against epsilon"
    script:
        "../workflow_scripts/epsilons.py"


rule optimisation:
    input:
        files_of(grids.SNAPSHOTS, grids.optimisation_cells),
    output:
        multiext("results/{preset}/figures/fig_psm_images", ".pdf"),
        report(
            "results/{preset}/figures/fig_psm_images.png",
            caption="captions/optimisation.rst",
            category="Figures",
            labels=titled("fig_psm_images"),
        ),
    log:
        "results/logs/optimisation/{preset}.log",
    benchmark:
        "results/benchmarks/optimisation/{preset}.tsv"
    localrule: True
    conda:
        "../envs/reporting.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        titles=of(grids.titles),
        code=code_digest("optimisation"),
    message:
        "Draw PSM's images over the optimisation"
    script:
        "../workflow_scripts/optimisation.py"
