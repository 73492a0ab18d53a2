# The paths, and the blocks of the configuration that reach each job; the grids are in grids.smk.
# Parsed at every start and in every cluster job, so nothing here imports torch, reads data or uses the network.

import os
import shutil
import sys
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "workflow_scripts"))

from privset import PrivsetError
from privset.config import epsilon_text, validate
from privset.datasets import DATASETS, DESCRIPTION, FILES, base_name, dataset
from privset.digest import code_digest, run_this_library
from privset.rows import method_of

run_this_library()

try:
    validate(config, source=" + ".join(map(str, workflow.configfiles)) or "config.yaml")
except PrivsetError as error:
    raise WorkflowError(str(error)) from None

PRESETS = config["presets"]
OWN = config.get("datasets", {})  # the user's own, by name
STARTED = time.time()
CELL = "results/{preset}/sets/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}"
SET = f"{CELL}/set.npz"
CERTIFICATE = f"{CELL}/certificate.json"
RELEASES = "results/{preset}/releases/{dataset}/{method}/eps{epsilon}/seed{seed}"
CONDENSING = "psm(?:_[a-z0-9_]+)?"  # methods whose releases serve sets of every size
RELEASING = f"{CONDENSING}|dpsgd(?:_[a-z0-9_]+)?"  # and one that makes no set
RUN = "{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}/{network}"
METRICS = f"results/{{preset}}/metrics/{RUN}.json"
PREDICTIONS = f"results/{{preset}}/metrics/{RUN}.npz"
SNAPSHOT_METRICS = f"results/{{preset}}/convergence/{RUN}.json"
TASK_METRICS = (
    "results/{preset}/continual/{dataset}/{method}/eps{epsilon}/seed{seed}.json"
)
CONFUSION = f"results/{{preset}}/figures/confusion/{RUN}"
# "auto" looks for the driver's tool, not for torch: importing torch would cost seconds at every start.
GPU = (
    int(shutil.which("nvidia-smi") is not None)
    if config["gpu"] == "auto"
    else int(config["gpu"])
)


wildcard_constraints:
    preset="[^/]+",
    dataset="[^/]+",
    method="[^/]+",
    epsilon="[^/]+",
    spc="[^/]+",
    seed="[^/]+",
    network="[^/]+",
    table="table[123]|table_storage|ablation_psm|fig_psm_epsilon",


def preset_of(wildcards):
    """The preset block of a job; a name that is not configured ends in one line."""
    return _choice("preset", wildcards.preset, PRESETS)


def _choice(what, value, known):
    if value not in known:
        raise WorkflowError(f"{what} = {value}: choose from {', '.join(known)}")
    return known[value] if isinstance(known, dict) else value


def method_block(preset, row):
    """The configuration of a row: a method's, or that of a variant in the ablation, which says what differs from its method."""
    methods = {**preset["methods"], **preset.get("continual", {}).get("methods", {})}
    variants = preset.get("ablation", {}).get("variants", {})
    _choice("method", row, [*methods, *variants])
    if row in methods:
        return methods[row]
    base = methods[method_of(row)]
    return base | {key: base.get(key, {}) | own for key, own in variants[row].items()}


def _check_cell(wildcards):
    """One clear line for a cell that was asked for by its path and cannot exist."""
    preset = preset_of(wildcards)
    try:
        text = epsilon_text(wildcards.epsilon)
    except PrivsetError as error:
        raise WorkflowError(str(error)) from None
    if text != wildcards.epsilon:
        raise WorkflowError(
            f"epsilon = {wildcards.epsilon}: it is spelled {text} in paths"
        )
    checked_dataset(wildcards)
    method_block(preset, wildcards.method)
    if (wildcards.method == "real") != (text == "inf"):
        raise WorkflowError(
            f"method {wildcards.method} with epsilon = {text}: eps inf belongs to method real alone"
        )
    if wildcards.method == "real" and wildcards.spc != "all":
        raise WorkflowError(f"spc = {wildcards.spc}: the real data have spc = all")
    for name in {"spc", "seed"} & set(wildcards.keys()):  # releases have no spc
        value = wildcards[name]
        if not (
            value.isascii()
            and value.isdigit()
            and str(int(value)) == value
            and int(value) >= (name == "spc")
        ):
            if not (name == "spc" and wildcards.method == "real"):
                raise WorkflowError(
                    f"{name} = {value}: must be a whole number {'> 0' if name == 'spc' else '>= 0'}"
                )


# ------------------------------------------------------------------------------------------------------ inputs and params


def checked_dataset(wildcards):
    _choice("dataset", base_name(wildcards.dataset), [*DATASETS, *OWN])
    return wildcards.dataset


def own_dataset(wildcards):
    """The configuration's block of a user's own dataset; other datasets' blocks do not concern this one."""
    return {name: block for name, block in OWN.items() if name == wildcards.dataset}


def data_files(wildcards):
    return [
        f"results/data/{wildcards.dataset}/{name}" for name in [*FILES, DESCRIPTION]
    ]


def table_metrics(wildcards):
    return paths(METRICS, table_runs(wildcards.preset, wildcards.table))


def table1_metrics(wildcards):
    return paths(METRICS, table_runs(wildcards.preset, "table1"))


def table1_predictions(wildcards):
    return paths(PREDICTIONS, table_runs(wildcards.preset, "table1"))


def certificates(wildcards):
    return paths(CERTIFICATE, cells(wildcards.preset))


def optimisation_snapshots(wildcards):
    """Of PSM's sets behind the ablation, those of its first seed at the largest epsilon."""
    chosen = [
        cell for cell in ablation_cells(wildcards.preset) if cell["method"] == "psm"
    ]
    largest = max((cell["epsilon"] for cell in chosen), key=float)
    first = chosen[0]["seed"]
    return paths(
        f"{CELL}/snapshots.npz",
        [c for c in chosen if (c["epsilon"], c["seed"]) == (largest, first)],
    )


def snapshot_metrics(wildcards):
    """The private cells at the largest epsilon; or PSG with and without the prior."""
    preset = preset_of(wildcards)
    chosen = prior_cells(wildcards.preset)
    if wildcards.figure == "fig_convergence":
        largest = epsilon_text(max(map(float, preset["epsilon"])))
        left_out = ("psg_prior", "psm")  # its snapshots are of post-processing alone
        chosen = [
            cell
            for cell in cells(wildcards.preset)
            if cell["epsilon"] == largest and cell["method"] not in left_out
        ]
    network = preset["networks"][0]
    return paths(SNAPSHOT_METRICS, [{**cell, "network": network} for cell in chosen])


def sample_sets(wildcards):
    return paths(SET, sample_cells(wildcards.preset))


def sample_snapshots(wildcards):
    """With the prior's images of fresh codes."""
    chosen = [c for c in sample_cells(wildcards.preset) if c["method"] == "psg_prior"]
    return paths(f"{CELL}/snapshots.npz", chosen)


def method_config(wildcards):
    """The method's hyper-parameters, overlaid by those of the set's size and by those of the dataset."""
    _check_cell(wildcards)
    block = method_block(preset_of(wildcards), wildcards.method)
    by_spc = {str(spc): values for spc, values in block.get("by_spc", {}).items()}
    by_dataset = block.get("by_dataset", {})
    return {
        **block.get("config", {}),
        **by_spc.get(wildcards.spc, {}),
        **by_dataset.get(wildcards.dataset, {}),
    }


def release_config(wildcards):
    _check_cell(wildcards)
    return method_block(preset_of(wildcards), wildcards.method).get("releases", {})


def releases_behind(wildcards):
    """What a set is computed from: for a variant that asks the same of the data as its method, the method's own releases, so
    that such rows differ in nothing but their sets."""
    _check_cell(wildcards)
    row, method = wildcards.method, method_of(wildcards.method)
    methods = preset_of(wildcards)["methods"]
    if release_config(wildcards) == methods.get(method, {}).get("releases", {}):
        row = method if method in methods else row
    folder = RELEASES.format(**{**wildcards, "method": row})
    return {
        "statistics": f"{folder}/statistics.npz",
        "certificate": f"{folder}/certificate.json",
    }


def noise_source(wildcards):
    return preset_of(wildcards)["noise"]


def schedule(wildcards):
    """How a network is trained on this set: the default of its size class, overlaid by the network's own entries."""
    _check_cell(wildcards)
    return _schedule(preset_of(wildcards), wildcards.network, spc=wildcards.spc)


def continual_block(preset_name):
    """The configuration of the continual experiment of a preset; one line where there is none."""
    blocks = {
        name: block["continual"]
        for name, block in PRESETS.items()
        if "continual" in block
    }
    return _choice("continual learning in preset", preset_name, blocks)


def _set_size(wildcards):
    """Samples per class of a method's sets in the continual experiment; None for DP-SGD, which makes none."""
    methods = continual_block(wildcards.preset)["methods"]
    return _choice("method", wildcards.method, methods).get("spc")


def learned(wildcards):
    """What a method of the continual experiment made: its set or its releases, and the certificate."""
    spc = _set_size(wildcards)
    both = [f"{RELEASES}/statistics.npz", f"{RELEASES}/certificate.json"]
    return [
        pattern.format(**wildcards, spc=spc)
        for pattern in (both if spc is None else [SET, CERTIFICATE])
    ]


def task_schedule(wildcards):
    """As on the set; for a method without one there is nothing to train."""
    spc = _set_size(wildcards)
    network = first_network(wildcards)
    return {} if spc is None else _schedule(preset_of(wildcards), network, spc=spc)


def first_network(wildcards):
    return preset_of(wildcards)["networks"][0]


def task_metrics(wildcards):
    return paths(TASK_METRICS, continual_runs(wildcards.preset))


def snapshot_schedule(wildcards):
    """As on small sets: a generator's snapshots have at most 100 images per class."""
    _check_cell(wildcards)
    return _schedule(preset_of(wildcards), wildcards.network, spc=1)


def _schedule(preset, network, *, spc):
    _choice("network", network, dict.fromkeys(preset["networks"]))
    evaluation = preset["evaluation"]
    small = spc != "all" and int(spc) <= evaluation["small_up_to_spc"]
    kind = evaluation["small_sets" if small else "large_sets"]
    own = kind.get(network, {})
    # An entry that counts epochs replaces one that counts steps, and the other way round.
    replaced = {"epochs", "steps"} if {"epochs", "steps"} & set(own) else set()
    return {
        **{key: value for key, value in kind["default"].items() if key not in replaced},
        **own,
    }


def configuration(wildcards):
    """What the preset computes, with what it shares with the others."""
    preset = preset_of(wildcards)
    shared = {name: value for name, value in config.items() if name != "presets"}
    return {
        **shared,
        "preset": wildcards.preset,
        "presets": {wildcards.preset: preset},
    }


def report_inputs(wildcards):
    """The results of the configured preset: the second Snakemake has the same."""
    _choice("preset (of the report)", wildcards.preset, [config["preset"]])
    return rules.all_results.input


def report_options(wildcards):
    """The configuration of this run, for the Snakemake that writes the report."""
    given = workflow.config_settings
    files = [os.path.relpath(path) for path in given.configfiles]
    options = {"--configfile": files, "--config": given.config_args}
    return [word for name, words in options.items() if words for word in (name, *words)]


def private_step_sizes(wildcards):
    blocks = preset_of(wildcards).get("benchmarks", {})
    return _choice("benchmark", "private_step", blocks)


def evaluation_speed_sizes(wildcards):
    preset = preset_of(wildcards)
    block = _choice("benchmark", "evaluation", preset.get("benchmarks", {}))
    return {"networks": preset["networks"], **block}


def method_digest(script):
    """The code behind a rule that runs `script` with the method of its wildcards."""
    return lambda wildcards: code_digest(
        script, f"privset.methods.{method_of(wildcards.method)}"
    )


def table_datasets(wildcards):
    return list(preset_of(wildcards)["datasets"])
