"""The grids: which cells, jobs and files a configuration asks for, and which of its blocks reach each of them.

Pure functions of the validated configuration. A cell is a dictionary of the parts of its path: preset, dataset, method, epsilon,
spc, seed, and for an evaluation network; the wildcards of a job are one. Whatever a path asks for that cannot exist ends in a
PrivsetError of one line. A list of short functions, one for each question that a rule asks, hence longer than other modules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from privset import PrivsetError
from privset.data.datasets import DATASETS, DESCRIPTION, FILES, base_name
from privset.data.own import listed
from privset.jobs import rows
from privset.jobs.config import epsilon_text, networks

Config = Mapping[str, Any]
Cell = Mapping[str, str]

CELL = "results/{preset}/sets/{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}"
SET = f"{CELL}/set.npz"
CERTIFICATE = f"{CELL}/certificate.json"
SNAPSHOTS = f"{CELL}/snapshots.npz"
RELEASES = "results/{preset}/releases/{dataset}/{method}/eps{epsilon}/seed{seed}"
RUN = "{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}/{network}"
RUNS = "{dataset}/{method}/eps{epsilon}/spc{spc}/seed{seed}/{networks}"
METRICS = f"results/{{preset}}/metrics/{RUNS}.json"
PREDICTIONS = f"results/{{preset}}/metrics/{RUNS}.npz"
SNAPSHOT_METRICS = f"results/{{preset}}/convergence/{RUN}.json"
TASK_METRICS = "results/{preset}/continual/{dataset}/{method}/eps{epsilon}/seed{seed}.json"
AUDIT = "results/{preset}/audit/{method}.json"
CONFUSION = f"results/{{preset}}/figures/confusion/{RUN}"


def paths(pattern: str, chosen: Iterable[Cell]) -> list[str]:
    return [pattern.format_map(cell) for cell in chosen]


def choose(what: str, value: str, known: Iterable[str]) -> Any:
    """The value itself, or what a dictionary has under it."""
    if value not in known:
        raise PrivsetError(f"{what} = {value}: choose from {', '.join(known)}")
    return known[value] if isinstance(known, Mapping) else value


# ------------------------------------------------------------------------------------------------------------- one cell


def preset_of(config: Config, cell: Cell) -> Config:
    return choose("preset", cell["preset"], config["presets"])


def datasets(config: Config, cell: Cell) -> list[str]:
    return list(preset_of(config, cell)["datasets"])


def noise_source(config: Config, cell: Cell) -> str:
    return preset_of(config, cell)["noise"]


def titles(config: Config, cell: Cell) -> dict[str, str]:
    """What the user's own datasets are called in tables and figures."""
    return {name: block.get("title") or name for name, block in own_datasets(config).items()}


def own_datasets(config: Config) -> Config:
    """The user's own, by name."""
    return config.get("datasets", {})


def checked_dataset(config: Config, cell: Cell) -> str:
    choose("dataset", base_name(cell["dataset"], own_datasets(config)), [*DATASETS, *own_datasets(config)])
    return cell["dataset"]


def own_validation(config: Config) -> list[str]:
    """Names of the user's own datasets that look like a held-out part (`holdout`) and are none."""
    return [name for name in own_datasets(config) if base_name(name, ()) != name]


def own_dataset(config: Config, cell: Cell) -> Config:
    """The block of a user's own dataset; other datasets' blocks do not concern this one."""
    return {name: block for name, block in own_datasets(config).items() if name == cell["dataset"]}


def own_files(config: Config, cell: Cell) -> list[str]:
    """The files of a user's own dataset that are there, so that an edit of one is noticed; what is missing, the job says."""
    found = []
    for block in own_dataset(config, cell).values():
        for path in (Path(block["train"]).expanduser(), Path(block["test"]).expanduser()):
            if block["format"] == "imagefolder":
                found += listed(path)[0]
            elif block["format"] == "idx":
                found += sorted(path.parent.glob(f"{path.name}-*-ubyte*"))
            else:
                found.append(path)
    return [str(path) for path in found if path.is_file()]


def data_files(config: Config, cell: Cell) -> list[str]:
    return [f"results/data/{cell['dataset']}/{name}" for name in [*FILES, DESCRIPTION]]


def method_block(preset: Config, row: str) -> Config:
    """The configuration of a row: a method's, or that of a variant in the ablation, which says what differs from its method."""
    methods = {**preset["methods"], **preset.get("continual", {}).get("methods", {})}
    variants = preset.get("ablation", {}).get("variants", {})
    choose("method", row, [*methods, *variants])
    if row in methods:
        return methods[row]
    base = methods[rows.method_of(row)]
    return base | {key: base.get(key, {}) | own for key, own in variants[row].items()}


def checked(config: Config, cell: Cell) -> Cell:
    """The cell, if there can be one; releases have no spc."""
    preset = preset_of(config, cell)
    text = epsilon_text(cell["epsilon"])
    if text != cell["epsilon"]:
        raise PrivsetError(f"epsilon = {cell['epsilon']}: it is spelled {text} in paths")
    checked_dataset(config, cell)
    method_block(preset, cell["method"])
    real = rows.described(cell["method"]).family == "real data"
    if real != (text == "inf"):
        raise PrivsetError(f"method {cell['method']} with epsilon = {text}: eps inf belongs to method real alone")
    if real and cell["spc"] != "all":
        raise PrivsetError(f"spc = {cell['spc']}: the real data have spc = all")
    for name, least in (("spc", 1), ("seed", 0)):
        value = cell.get(name, str(least))
        if not real or name == "seed":
            whole = value.isascii() and value.isdigit() and str(int(value)) == value and int(value) >= least
            if not whole:
                raise PrivsetError(f"{name} = {value}: must be a whole number {'> 0' if least else '>= 0'}")
    return cell


def hyper_parameters(config: Config, cell: Cell) -> dict[str, Any]:
    """The method's, overlaid by those of the set's size and by those of the dataset; a held-out part has those of its whole."""
    checked(config, cell)
    block = method_block(preset_of(config, cell), cell["method"])
    by_spc = {str(spc): values for spc, values in block.get("by_spc", {}).items()}
    values = {**block.get("config", {}), **by_spc.get(cell["spc"], {})}
    for name in dict.fromkeys([base_name(cell["dataset"], own_datasets(config)), cell["dataset"]]):
        values |= block.get("by_dataset", {}).get(name, {})
    return values


def accountant(config: Config, cell: Cell) -> str:
    """By which the row's noise is calibrated and its budget spent."""
    checked(config, cell)
    return method_block(preset_of(config, cell), cell["method"]).get("accountant", "rdp")


def release_parameters(config: Config, cell: Cell) -> Config:
    """Those of a method that asks once for the sets of every size."""
    checked(config, cell)
    return method_block(preset_of(config, cell), cell["method"]).get("releases", {})


def releases_behind(config: Config, cell: Cell) -> dict[str, str]:
    """What a set is computed from: for a variant that asks the same of the data as its method, the method's own releases, so
    that such rows differ in nothing but their sets."""
    row, method = cell["method"], rows.method_of(cell["method"])
    methods = preset_of(config, cell)["methods"]
    if release_parameters(config, cell) == methods.get(method, {}).get("releases", {}):
        row = method if method in methods else row
    folder = RELEASES.format_map({**cell, "method": row})
    return {"statistics": f"{folder}/statistics.npz", "certificate": f"{folder}/certificate.json"}


def images_per_class(config: Config, cell: Cell) -> int | None:
    """How many images of each class an evaluation takes from a generator's largest set, because the preset has no set of that
    size: a smaller set needs no training and no release of its own. None where it takes the cell's whole set."""
    sizes = method_block(preset_of(config, checked(config, cell)), cell["method"]).get("spc")
    if rows.described(cell["method"]).family != "generator" or not isinstance(sizes, list):
        return None
    return int(cell["spc"]) if int(cell["spc"]) not in sizes and int(cell["spc"]) < max(sizes) else None


def set_behind(config: Config, cell: Cell) -> dict[str, str]:
    """The set that an evaluation trains on, and its certificate."""
    if images_per_class(config, cell) is not None:
        cell = {**cell, "spc": max(method_block(preset_of(config, cell), cell["method"])["spc"])}
    return {"images": SET.format_map(cell), "certificate": CERTIFICATE.format_map(cell)}


def schedule_of(preset: Config, network: str, *, spc: str, labelled: bool = False) -> dict[str, Any]:
    """How a network is trained on sets of a size: the default of the size class, overlaid by the network's own entries; on the
    real data and on sets with a teacher's labels, overlaid again by what differs for them."""
    choose("network", network, list(preset["networks"]))
    evaluation = preset["evaluation"]
    small = spc != "all" and int(spc) <= evaluation["small_up_to_spc"]
    kinds = [evaluation["small_sets" if small else "large_sets"]]
    kinds += [evaluation.get(name, {}) for name, there in (("real_data", spc == "all"), ("labelled_sets", labelled)) if there]
    schedule: dict[str, Any] = {}
    for own in (kind[name] for kind in kinds for name in ("default", network) if name in kind):
        # An entry that counts epochs replaces one that counts steps, and the other way round.
        replaced = {"epochs", "steps"} if {"epochs", "steps"} & set(own) else set()
        schedule = {**{key: value for key, value in schedule.items() if key not in replaced}, **own}
    return schedule


def check_schedules(config: Config) -> None:
    """Raises PrivsetError for a network that would be trained for no length or for two, or at a width where it has one alone."""
    takes_width = networks()
    for name, preset in config["presets"].items():
        large = preset["evaluation"]["small_up_to_spc"] + 1
        kinds = [("1", False, "small sets"), (str(large), False, "large sets"), ("all", False, "the real data")]
        kinds += [(str(large), True, "labelled sets")]
        for network, (spc, labelled, sets) in product(preset["networks"], kinds):
            schedule = schedule_of(preset, network, spc=spc, labelled=labelled)
            where = f"presets.{name}.evaluation: {network} on {sets}"
            if ("epochs" in schedule) == ("steps" in schedule):
                raise PrivsetError(f"{where}: give exactly one of epochs and steps")
            if "width" in schedule and not takes_width[network]:
                others = ", ".join(other for other in preset["networks"] if takes_width[other])
                raise PrivsetError(
                    f"{where}: width = {schedule['width']}, and it has one width alone; give it to {others} by name"
                )


def schedules(config: Config, cell: Cell) -> dict[str, dict[str, Any]]:
    """By network, of a job that trains several (`lenet+mlp`)."""
    checked(config, cell)
    names = cell["networks"].split("+")
    if len(set(names)) < len(names):
        raise PrivsetError(f"networks = {cell['networks']}: name each once")
    labelled = rows.described(cell["method"]).labelled
    return {name: schedule_of(preset_of(config, cell), name, spc=cell["spc"], labelled=labelled) for name in names}


def together(networks: Sequence[str]) -> list[str]:
    """Which networks one job trains on a set: the first, with which most tables are content; and all others."""
    return [name for name in (networks[0], "+".join(networks[1:])) if name]


def predictions_behind(config: Config, cell: Cell) -> str:
    """The file with the predictions of one network."""
    networks = preset_of(config, cell)["networks"]
    choose("network", cell["network"], networks)
    (job,) = (names for names in together(networks) if cell["network"] in names.split("+"))
    return PREDICTIONS.format_map({**cell, "networks": job})


def snapshot_schedule(config: Config, cell: Cell) -> dict[str, Any]:
    """As on small sets: a generator's snapshots have at most 100 images per class."""
    checked(config, cell)
    return schedule_of(preset_of(config, cell), cell["network"], spc="1")


def first_network(config: Config, cell: Cell) -> str:
    return preset_of(config, cell)["networks"][0]


def block_of(config: Config, cell: Cell, what: str, key: str) -> Config:
    """A block that not every preset has; one line where there is none."""
    return choose(what, cell["preset"], {name: block[key] for name, block in config["presets"].items() if key in block})


def continual_of(config: Config, cell: Cell) -> Config:
    return block_of(config, cell, "continual learning in preset", "continual")


def _task_set_size(config: Config, cell: Cell) -> int | None:
    """Samples per class of a method's sets in the continual experiment; None for a classifier, which makes none."""
    return choose("method", cell["method"], continual_of(config, cell)["methods"]).get("spc")


def learned(config: Config, cell: Cell) -> list[str]:
    """What a method of the continual experiment made: its set or its releases, and the certificate."""
    spc = _task_set_size(config, cell)
    both = (f"{RELEASES}/statistics.npz", f"{RELEASES}/certificate.json") if spc is None else (SET, CERTIFICATE)
    return [pattern.format_map({**cell, "spc": spc}) for pattern in both]


def task_schedule(config: Config, cell: Cell) -> dict[str, Any]:
    """As on the set; for a method without one there is nothing to train."""
    spc = _task_set_size(config, cell)
    return {} if spc is None else schedule_of(preset_of(config, cell), first_network(config, cell), spc=str(spc))


def audit_of(config: Config, cell: Cell) -> Config:
    return block_of(config, cell, "audit in preset", "audit")


def audit_cells(config: Config, cell: Cell) -> list[dict[str, str]]:
    """Every private row of the preset, those of the continual experiment too."""
    preset = preset_of(config, cell)
    found = [*preset["methods"], *preset.get("continual", {}).get("methods", {})]
    return [{"preset": cell["preset"], "method": row} for row in found if rows.described(row).family != "real data"]


def audit_data(config: Config, cell: Cell) -> list[str]:
    """Of the preset's first dataset."""
    return data_files(config, {"dataset": preset_of(config, cell)["datasets"][0]})


def audited(config: Config, cell: Cell) -> dict[str, Any]:
    """A row's settings with its smallest set, on the preset's first dataset, and how it is audited."""
    preset, audit = preset_of(config, cell), audit_of(config, cell)
    if audit["image_epsilon"] not in audit["epsilon"]:
        raise PrivsetError(f"audit.image_epsilon = {audit['image_epsilon']}: must be one of audit.epsilon, {audit['epsilon']}")
    block = method_block(preset, cell["method"])
    sizes = block.get("spc")
    spc = min(sizes) if isinstance(sizes, list) else sizes
    grid = {**cell, "dataset": preset["datasets"][0], "epsilon": largest_epsilon(preset), "spc": str(spc or 1)}
    return {
        "config": hyper_parameters(config, grid),
        "releases": release_parameters(config, grid),
        "spc": spc,
        "accountant": accountant(config, grid),
        "delta": config["delta"],
        **audit,
    }


def benchmark(config: Config, cell: Cell, name: str) -> dict[str, Any]:
    """The sizes of a benchmark, with the preset's networks."""
    preset = preset_of(config, cell)
    return {"networks": preset["networks"], **choose("benchmark", name, preset.get("benchmarks", {}))}


def configuration(config: Config, cell: Cell) -> dict[str, Any]:
    """What the preset computes, with what it shares with the others."""
    preset = preset_of(config, cell)
    shared = {name: value for name, value in config.items() if name != "presets"}
    return {**shared, "preset": cell["preset"], "presets": {cell["preset"]: preset}}


# ------------------------------------------------------------------------------------------------------------- the grids


def _cell(cell: Cell, dataset: str, method: str, epsilon: Any, spc: Any, seed: Any) -> dict[str, str]:
    return {
        "preset": cell["preset"],
        "dataset": dataset,
        "method": method,
        "epsilon": epsilon_text(epsilon),
        "spc": str(spc),
        "seed": str(seed),
    }


def largest_epsilon(preset: Config) -> str:
    return epsilon_text(max(map(float, preset["epsilon"])))


def cells(config: Config, cell: Cell) -> list[dict[str, str]]:
    """Every cell of a preset's tables."""
    preset = preset_of(config, cell)
    found = []
    for dataset, (method, block) in product(preset["datasets"], preset["methods"].items()):
        real = rows.described(method).family == "real data"
        epsilons = ["inf"] if real else block.get("epsilon", preset["epsilon"])
        for epsilon, spc, seed in product(epsilons, ["all"] if real else block["spc"], preset["set_seeds"]):
            found.append(_cell(cell, dataset, method, epsilon, spc, seed))
    return found


def own_cells(config: Config, cell: Cell) -> list[dict[str, str]]:
    """Without variants of methods, which are rows of Tables 1 and 2 alone."""
    return [made for made in cells(config, cell) if not rows.is_variant(made["method"])]


def prior_cells(config: Config, cell: Cell) -> list[dict[str, str]]:
    """PSG with the generator prior, and, if the preset has it, without it at the same epsilons and sizes."""
    found = [made for made in cells(config, cell) if made["method"] == "psg_prior"]
    methods = [method for method in ("psg", "psg_prior") if method in preset_of(config, cell)["methods"]]
    return [{**made, "method": method} for method in methods for made in found]


def sample_cells(config: Config, cell: Cell) -> list[dict[str, str]]:
    """The first sets of every method at the largest epsilon: the smallest one, and the largest of at most ten per class."""
    preset = preset_of(config, cell)
    chosen = []
    for made in own_cells(config, cell):
        if (made["epsilon"], made["seed"]) == (largest_epsilon(preset), str(preset["set_seeds"][0])):
            sizes = preset["methods"][made["method"]]["spc"]
            if int(made["spc"]) in (min(sizes), max([size for size in sizes if size <= 10] or [min(sizes)])):
                chosen.append(made)
    return chosen


def fresh_code_cells(config: Config, cell: Cell) -> list[dict[str, str]]:
    """Of those, the ones with the prior's images of fresh codes."""
    return [made for made in sample_cells(config, cell) if made["method"] == "psg_prior"]


def storage_cells(config: Config, cell: Cell) -> list[dict[str, str]]:
    """Every private method at the largest epsilon with each of the preset's storage sizes, and with its own largest."""
    preset = preset_of(config, cell)
    found = {}
    for made in own_cells(config, cell):
        if made["epsilon"] == largest_epsilon(preset) and made["method"] != "psg_prior":
            for spc in [*preset.get("storage", []), int(made["spc"])]:
                other = {**made, "spc": str(spc)}
                found[tuple(other.values())] = other
    return list(found.values())


def ablation_cells(config: Config, cell: Cell) -> list[dict[str, str]]:
    """PSM and its variants at the ablation's size of set and seeds, for every dataset, at the largest epsilon."""
    preset, ablation = preset_of(config, cell), block_of(config, cell, "ablation in preset", "ablation")
    grid = product(preset["datasets"], ["psm", *ablation["variants"]], ablation["seeds"])
    return [_cell(cell, dataset, row, largest_epsilon(preset), ablation["spc"], seed) for dataset, row, seed in grid]


def optimisation_cells(config: Config, cell: Cell) -> list[dict[str, str]]:
    """Of PSM's sets behind the ablation, those of its first seed."""
    chosen = [made for made in ablation_cells(config, cell) if made["method"] == "psm"]
    return [made for made in chosen if made["seed"] == chosen[0]["seed"]]


def epsilon_cells(config: Config, cell: Cell) -> list[dict[str, str]]:
    """Every private method over the ablation's range of epsilon: small sets at its size, generators at their largest."""
    preset, ablation = preset_of(config, cell), block_of(config, cell, "ablation in preset", "ablation")
    methods = [
        row
        for row in preset["methods"]
        if row != "psg_prior" and not rows.is_variant(row) and rows.described(row).family != "real data"
    ]
    found = []
    for dataset, row, epsilon, seed in product(preset["datasets"], methods, ablation["epsilon"], preset["set_seeds"]):
        sizes = preset["methods"][row]["spc"]
        spc = ablation["spc"] if ablation["spc"] in sizes else max(sizes)
        found.append(_cell(cell, dataset, row, epsilon, spc, seed))
    return found


def continual_cells(config: Config, cell: Cell) -> list[dict[str, str]]:
    """Every stream of the continual experiment."""
    block = continual_of(config, cell)
    grid = product(preset_of(config, cell)["datasets"], block["methods"], block["epsilon"], block["seeds"])
    return [_cell(cell, dataset, row, epsilon, "any", seed) for dataset, row, epsilon, seed in grid]


def table_runs(config: Config, cell: Cell) -> list[dict[str, str]]:
    """The jobs (cell, networks) behind a table: Table 1 has every private cell on the first network, Table 2 every network
    at the largest epsilon, with the sets of more than one image per class and the real data; the storage table every method
    at every size of set."""
    preset, table = preset_of(config, cell), cell["table"]
    others = {
        "table3": prior_cells,
        "table_storage": storage_cells,
        "ablation_psm": ablation_cells,
        "fig_psm_epsilon": epsilon_cells,
    }
    networks = preset["networks"] if table == "table2" else preset["networks"][:1]
    if table in others:
        chosen = others[table](config, cell)
    else:
        known = [made for made in cells(config, cell) if made["method"] != "psg_prior"]
        if table == "table1":
            chosen = [made for made in known if made["epsilon"] != "inf"]
        else:
            chosen = [made for made in known if made["epsilon"] in (largest_epsilon(preset), "inf") and made["spc"] != "1"]
    return [{**made, "networks": names} for made, names in product(chosen, together(networks))]


def table1_runs(config: Config, cell: Cell) -> list[dict[str, str]]:
    return table_runs(config, {**cell, "table": "table1"})


def all_runs(config: Config, cell: Cell) -> list[dict[str, str]]:
    """The jobs (cell, networks) behind the preset's tables, each once."""
    names = [name for name in ("table1", "table2", "table3") if name in tables(config, cell["preset"])]
    runs = [run for name in names for run in table_runs(config, {**cell, "table": name})]
    return [run for place, run in enumerate(runs) if run not in runs[:place]]


def snapshot_runs(config: Config, cell: Cell) -> list[dict[str, str]]:
    """The private cells at the largest epsilon; or PSG with and without the prior.

    Not those of releases made once for every size: their snapshots are of post-processing alone.
    """
    preset = preset_of(config, cell)
    chosen = prior_cells(config, cell)
    if cell["figure"] == "fig_convergence":
        chosen = [
            made
            for made in own_cells(config, cell)
            if made["epsilon"] == largest_epsilon(preset)
            and made["method"] != "psg_prior"
            and rows.described(made["method"]).releases is None
        ]
    return [{**made, "network": preset["networks"][0]} for made in chosen]


def tables(config: Config, preset: str) -> list[str]:
    """The names of the preset's tables, without those that would have no row of it."""
    cell = {"preset": preset}
    runs = {name: table_runs(config, {**cell, "table": name}) for name in ("table1", "table2", "table3")}
    together = Counter((made["dataset"], made["epsilon"]) for made in runs["table1"] if made["seed"] == runs["table1"][0]["seed"])
    there = {name: bool(found) for name, found in runs.items()}
    there |= {"table1_pairs": max(together.values(), default=0) > 1, "table_privacy": True}
    return [name for name in ("table1", "table1_pairs", "table2", "table_privacy", "table3") if there[name]]


def storage_tables(config: Config, preset: str) -> list[str]:
    """The name of the table by size of set, if there is a private set of any size."""
    return ["table_storage"] if storage_cells(config, {"preset": preset}) else []


def figures(config: Config, preset: str) -> list[str]:
    """The names of the preset's figures, without those that would be empty."""
    cell = {"preset": preset}
    found = ["fig_samples"] if sample_cells(config, cell) else []
    for name in ("fig_convergence", "fig_prior_convergence"):
        found += [name] if snapshot_runs(config, {**cell, "figure": name}) else []
    return [*found, *(["fig_continual"] if "continual" in config["presets"][preset] else [])]


def some(chosen: Sequence[Cell], cell: Cell) -> Sequence[Cell]:
    """What was chosen for a table or a figure; a PrivsetError if that is nothing."""
    if not chosen:
        name = cell.get("table") or cell.get("figure") or "this"
        raise PrivsetError(f"{name} of preset {cell['preset']}: none of its methods, sizes and epsilons belongs there")
    return chosen
