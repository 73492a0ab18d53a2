# Timings that back the claims of speed. They want a machine that does nothing else. Two threads, so that machines compare.


rule private_step:
    output:
        multiext("results/{preset}/benchmarks/private_step", ".csv", ".md", ".png"),
    log:
        "results/logs/private_step/{preset}.log",
    conda:
        "../envs/torch.yaml"
    threads: 2
    resources:
        gpu=GPU,
        mem_mb=16000,
        runtime=60,
    params:
        sizes=of(grids.benchmark, "private_step"),
        code=code_digest("private_step"),
    message:
        "Time the private step beside Opacus and plain PyTorch"
    script:
        "../workflow_scripts/private_step.py"


rule evaluation_speed:
    output:
        multiext("results/{preset}/benchmarks/evaluation", ".csv", ".md", ".png"),
    log:
        "results/logs/evaluation_speed/{preset}.log",
    conda:
        "../envs/torch.yaml"
    threads: 2
    resources:
        gpu=GPU,
        mem_mb=16000,
        runtime=60,
    params:
        sizes=of(grids.benchmark, "evaluation"),
        code=code_digest("evaluation_speed"),
    message:
        "Time the evaluation beside a plain loop"
    script:
        "../workflow_scripts/evaluation_speed.py"
