# The grids, the paths, and the blocks of the configuration that reach each job.
# Parsed at every start and in every cluster job, so nothing here imports torch, reads data or uses the network.

import shutil
import sys
import time
from itertools import product
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
RELEASING = "psm(?:_[a-z0-9_]+)?"  # methods whose releases serve sets of every size
RUN = "{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}/{network}"
METRICS = f"results/{{preset}}/metrics/{RUN}.json"
PREDICTIONS = f"results/{{preset}}/metrics/{RUN}.npz"
SNAPSHOT_METRICS = f"results/{{preset}}/convergence/{RUN}.json"
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
    methods = preset["methods"]
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


# ------------------------------------------------------------------------------------------------------------- the grids


def cells(preset_name):
    """Every (dataset, method, epsilon, spc, seed) of a preset, as dictionaries of path parts."""
    preset = PRESETS[preset_name]
    found = []
    for dataset, (method, block) in product(
        preset["datasets"], preset["methods"].items()
    ):
        epsilons = (
            ["inf"]
            if method == "real"
            else map(epsilon_text, block.get("epsilon", preset["epsilon"]))
        )
        spcs = ["all"] if method == "real" else block["spc"]
        for epsilon, spc, seed in product(epsilons, spcs, preset["set_seeds"]):
            found.append(_cell(preset_name, dataset, method, epsilon, spc, seed))
    return found


def _cell(preset, dataset, method, epsilon, spc, seed):
    return {
        **{"preset": preset, "dataset": dataset, "method": method},
        **{"epsilon": epsilon, "spc": str(spc), "seed": str(seed)},
    }


def paths(pattern, chosen):
    return [pattern.format(**cell) for cell in chosen]


def table_runs(preset_name, table):
    """The (cell, network) pairs behind a table: Table 1 has every private cell on the first network, Table 2 every network
    at the largest epsilon, with the sets of more than one image per class and the real data; the storage table every method
    at every size of set.
    """
    preset = PRESETS[preset_name]
    largest = epsilon_text(max(map(float, preset["epsilon"])))
    others = {
        "table3": prior_cells,
        "table_storage": storage_cells,
        "ablation_psm": ablation_cells,
        "fig_psm_epsilon": epsilon_cells,
    }
    if table in others:
        return [
            {**cell, "network": preset["networks"][0]}
            for cell in others[table](preset_name)
        ]
    known = [cell for cell in cells(preset_name) if cell["method"] != "psg_prior"]
    if table == "table1":
        chosen = [cell for cell in known if cell["method"] != "real"]
        return [{**cell, "network": preset["networks"][0]} for cell in chosen]
    chosen = [
        cell
        for cell in known
        if cell["epsilon"] in (largest, "inf") and cell["spc"] != "1"
    ]
    return [
        {**cell, "network": network}
        for cell, network in product(chosen, preset["networks"])
    ]


def prior_cells(preset_name):
    """PSG with the generator prior, and without it at the same epsilons and sizes."""
    found = [cell for cell in cells(preset_name) if cell["method"] == "psg_prior"]
    return [
        {**cell, "method": method} for method in ("psg", "psg_prior") for cell in found
    ]


def storage_cells(preset_name):
    """Every private method at the largest epsilon with each of the preset's storage sizes, and with its own largest."""
    preset = PRESETS[preset_name]
    largest = epsilon_text(max(map(float, preset["epsilon"])))
    found = {}
    for cell in cells(preset_name):
        if cell["epsilon"] == largest and cell["method"] != "psg_prior":
            for spc in [*preset.get("storage", []), int(cell["spc"])]:
                other = {**cell, "spc": str(spc)}
                found[tuple(other.values())] = other
    return list(found.values())


def _ablation(preset_name):
    blocks = {name: block.get("ablation") for name, block in PRESETS.items()}
    return _choice(
        "ablation in preset", preset_name, {k: v for k, v in blocks.items() if v}
    )


def ablation_cells(preset_name):
    """PSM and its variants at the ablation's size of set and seeds, for every dataset and epsilon of the preset."""
    preset, ablation = PRESETS[preset_name], _ablation(preset_name)
    grid = product(
        preset["datasets"],
        ["psm", *ablation["variants"]],
        map(epsilon_text, preset["epsilon"]),
        ablation["seeds"],
    )
    return [
        _cell(preset_name, dataset, method, epsilon, ablation["spc"], seed)
        for dataset, method, epsilon, seed in grid
    ]


def epsilon_cells(preset_name):
    """Every private method over the ablation's range of epsilon: small sets at its size, generators at their largest."""
    preset, ablation = PRESETS[preset_name], _ablation(preset_name)
    methods = [name for name in preset["methods"] if name != "real"]
    grid = product(
        preset["datasets"],
        methods,
        map(epsilon_text, ablation["epsilon"]),
        preset["set_seeds"],
    )
    return [
        _cell(preset_name, dataset, method, epsilon, spc, seed)
        for dataset, method, epsilon, seed in grid
        for spc in [
            (
                ablation["spc"]
                if ablation["spc"] in preset["methods"][method]["spc"]
                else max(preset["methods"][method]["spc"])
            )
        ]
    ]


def finished_tables(preset_name):
    """The tables that this run has made, for the terminal."""
    written = sorted(Path(f"results/{preset_name}/tables").glob("*.md"))
    return "".join(
        f"\n{path.read_text()}" for path in written if path.stat().st_mtime >= STARTED
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
    largest = epsilon_text(max(map(float, PRESETS[wildcards.preset]["epsilon"])))
    chosen = [cell for cell in cells(wildcards.preset) if cell["method"] != "psg_prior"]
    return paths(SET, [cell for cell in chosen if cell["epsilon"] == largest])


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


def noise_source(wildcards):
    return preset_of(wildcards)["noise"]


def schedule(wildcards):
    """How a network is trained on this set: the default of its size class, overlaid by the network's own entries."""
    _check_cell(wildcards)
    spc = wildcards.spc
    largest = preset_of(wildcards)["evaluation"]["small_up_to_spc"]
    return _schedule(wildcards, small=spc != "all" and int(spc) <= largest)


def snapshot_schedule(wildcards):
    """As on small sets: a generator's snapshots have at most 100 images per class."""
    _check_cell(wildcards)
    return _schedule(wildcards, small=True)


def _schedule(wildcards, *, small):
    preset = preset_of(wildcards)
    _choice("network", wildcards.network, dict.fromkeys(preset["networks"]))
    evaluation = preset["evaluation"]
    kind = evaluation["small_sets" if small else "large_sets"]
    own = kind.get(wildcards.network, {})
    # An entry that counts epochs replaces one that counts steps, and the other way round.
    replaced = {"epochs", "steps"} if {"epochs", "steps"} & set(own) else set()
    return {
        **{key: value for key, value in kind["default"].items() if key not in replaced},
        **own,
    }


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
