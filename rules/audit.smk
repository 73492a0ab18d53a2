# What is claimed against what an attacker finds: lower bounds on epsilon from the running code, and published claims recomputed.


rule audit_row:
    input:
        data=of(grids.audit_data),
    output:
        grids.AUDIT,
    log:
        "results/logs/audit_row/{preset}/{method}.log",
    benchmark:
        "results/benchmarks/audit_row/{preset}/{method}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=need(needs.audit_minutes),
    params:
        audit=of(grids.audited),
        code=audit_code,
    message:
        "Audit {wildcards.method} of preset {wildcards.preset}"
    script:
        "../workflow_scripts/audit.py"


rule audits:
    input:
        files_of(grids.AUDIT, grids.audit_cells),
    output:
        table=[
            *multiext("results/{preset}/tables/table_audit", ".csv", ".md", ".tex"),
            report(
                "results/{preset}/tables/table_audit.html",
                caption="captions/audit.rst",
                category="Tables",
                labels=titled("table_audit"),
            ),
        ],
        figure=[
            *multiext("results/{preset}/figures/fig_audit", ".pdf"),
            report(
                "results/{preset}/figures/fig_audit.png",
                caption="captions/audit.rst",
                category="Figures",
                labels=titled("fig_audit"),
            ),
        ],
    log:
        "results/logs/audits/{preset}.log",
    benchmark:
        "results/benchmarks/audits/{preset}.tsv"
    localrule: True
    conda:
        "../envs/reporting.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=code_digest("audits"),
    message:
        "Write the audit of preset {wildcards.preset}"
    script:
        "../workflow_scripts/audits.py"


rule claims:
    input:
        shipped("resources/claims.yaml"),
    output:
        multiext("results/{preset}/tables/table_claims", ".csv", ".md", ".tex"),
        report(
            "results/{preset}/tables/table_claims.html",
            caption="captions/claims.rst",
            category="Tables",
            labels=titled("table_claims"),
        ),
    log:
        "results/logs/claims/{preset}.log",
    benchmark:
        "results/benchmarks/claims/{preset}.tsv"
    localrule: True
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=code_digest("claims"),
    message:
        "Compute what published epsilons are worth"
    script:
        "../workflow_scripts/claims.py"
