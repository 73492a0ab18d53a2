# The configuration, checked, and adapters from a job's wildcards to the functions of privset.jobs.
# Parsed at every start and in every cluster job, so nothing here imports torch, reads data or uses the network.

import os
import sys
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "workflow_scripts"))

from privset import PrivsetError
from privset.data.datasets import DESCRIPTION, FILES
from privset.jobs import grids, needs, rows
from privset.jobs.config import validate
from privset.jobs.keys import refuse_duplicate_keys
from privset.jobs.digest import code_digest, question_digest, run_this_library
from privset.jobs.progress import finished_tables
from privset.jobs.grids import CELL, CERTIFICATE, METRICS, PREDICTIONS, RELEASES, SET
from privset.methods import schema

try:
    run_this_library()
    for path in workflow.configfiles:
        refuse_duplicate_keys(Path(path))
    validate(
        config,
        schema=schema.current(),
        source=" + ".join(map(str, workflow.configfiles)) or "config.yaml",
    )
    grids.check_schedules(config)
except PrivsetError as error:
    raise WorkflowError(str(error)) from None

STARTED = time.time()
PRESET = config["preset"]
GPU = needs.gpus(config)


def of(function, *more):
    """A function of the configuration and a cell as one of a job's wildcards; its PrivsetError ends in one line."""

    def adapted(wildcards):
        try:
            return function(config, dict(wildcards), *more)
        except PrivsetError as error:
            raise WorkflowError(str(error)) from None

    return adapted


def need(function):
    """The same for what a job needs, which grows with the attempt."""

    def adapted(wildcards, attempt):
        return of(function, attempt)(wildcards)

    return adapted


def files_of(pattern, function, *, none=False):
    """The files of the cells that a function chooses; no cell is an error, unless there may be `none`."""

    def chosen(config, cell):
        found = function(config, cell)
        return grids.paths(pattern, found if none else grids.some(found, cell))

    return of(chosen)


def set_code(wildcards):
    """What a method's row asks of the private data and makes of the answers."""
    return question_digest(f"privset.methods.{rows.method_of(wildcards.method)}")


def release_code(wildcards):
    return question_digest(
        f"privset.methods.{rows.described(wildcards.method).releases}"
    )


def condense_code(wildcards):
    """No private data here: any code counts."""
    return code_digest(
        "condense", f"privset.methods.{rows.method_of(wildcards.method)}"
    )


def audit_code(wildcards):
    """The attacks, and the row's method with its releases."""
    method = rows.method_of(wildcards.method)
    names = [method, rows.described(method).releases]
    return code_digest("audit", *(f"privset.methods.{name}" for name in names if name))


def rows_of(*families, once):
    """A pattern for the rows of these families that ask of the private data once, or for every size of set."""
    names = (
        name
        for name, method in rows.methods().items()
        if method.family in families and (method.releases is not None) == once
    )
    return "(?:" + "|".join(f"{name}(?:_[a-z0-9_]+)?" for name in names) + ")"


def shipped(name):
    """A file of the checkout, wherever the workflow is run (`--directory`)."""
    return os.path.relpath(Path(workflow.basedir) / name)


TITLES = {
    "table1": "Table 1: accuracy by method",
    "table1_pairs": "Table 1: methods compared in pairs",
    "table2": "Table 2: accuracy by network",
    "table3": "Table 3: with and without a generator as prior",
    "table_storage": "Accuracy by number of images",
    "table_privacy": "Privacy of every set",
    "table_audit": "Privacy audit: claimed and attacked",
    "fig_audit": "Privacy audit",
    "table_claims": "What published epsilons are worth",
    "ablation_psm": "PSM without its parts",
    "fig_samples": "Synthetic images by method",
    "fig_convergence": "Accuracy against budget and steps",
    "fig_prior_convergence": "The same with a generator as prior",
    "fig_continual": "Continual learning",
    "fig_psm_epsilon": "Accuracy against epsilon",
    "fig_psm_images": "PSM's images while they are optimised",
    "configuration": "Configuration",
}


def titled(name=None):
    """The report's labels of a result: what it is, in words. Without a name it is the wildcard `table` or `figure`."""

    def labels(wildcards):
        shown = name or wildcards.get("table") or wildcards.get("figure")
        return {"result": TITLES[shown], "preset": wildcards.preset}

    return labels


def report_inputs(config, cell):
    """The results of the configured preset: the second Snakemake has the same."""
    grids.choose("preset (of the report)", cell["preset"], [config["preset"]])
    return rules.all_results.input


def report_options(given):
    """The configuration of this run, for the Snakemake that writes the report."""
    files = [os.path.relpath(path) for path in given.configfiles]
    options = {"--configfile": files, "--config": given.config_args}
    return [word for name, words in options.items() if words for word in (name, *words)]


CONDENSING = rows_of("optimised set", "generator", once=True)
RELEASING = rows_of("optimised set", "generator", "classifier", once=True)


wildcard_constraints:
    preset="[^/]+",
    dataset="[^/]+",
    method="[^/]+",
    epsilon="[^/]+",
    spc="[^/]+",
    seed="[^/]+",
    network="[^/]+",
    networks="[^/]+",
    table="table[123]|table_storage|ablation_psm|fig_psm_epsilon",
