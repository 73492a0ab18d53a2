# The grids: which cells each table and figure is made of. Functions only, like common.smk.

from itertools import product


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


def sample_cells(preset_name):
    """The first sets of every method at the largest epsilon: the smallest one, and the largest of at most ten per class."""
    preset = PRESETS[preset_name]
    largest = epsilon_text(max(map(float, preset["epsilon"])))
    chosen = []
    for cell in cells(preset_name):
        if (cell["epsilon"], cell["seed"]) == (largest, str(preset["set_seeds"][0])):
            sizes = preset["methods"][cell["method"]]["spc"]
            least = min(sizes)
            if int(cell["spc"]) in (
                least,
                max([n for n in sizes if n <= 10] or [least]),
            ):
                chosen.append(cell)
    return chosen


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
    """PSM and its variants at the ablation's size of set and seeds, for every dataset, at the largest epsilon."""
    preset, ablation = PRESETS[preset_name], _ablation(preset_name)
    epsilon = epsilon_text(max(map(float, preset["epsilon"])))
    grid = product(
        preset["datasets"], ["psm", *ablation["variants"]], ablation["seeds"]
    )
    return [
        _cell(preset_name, dataset, method, epsilon, ablation["spc"], seed)
        for dataset, method, seed in grid
    ]


def epsilon_cells(preset_name):
    """Every private method over the ablation's range of epsilon: small sets at its size, generators at their largest."""
    preset, ablation = PRESETS[preset_name], _ablation(preset_name)
    methods = [name for name in preset["methods"] if name not in ("psg_prior", "real")]
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


def continual_runs(preset_name):
    """Every (dataset, method, epsilon, set seed) of the continual experiment."""
    block = continual_block(preset_name)
    grid = product(
        PRESETS[preset_name]["datasets"],
        block["methods"],
        map(epsilon_text, block["epsilon"]),
        block["seeds"],
    )
    return [
        _cell(preset_name, dataset, method, epsilon, "any", seed)
        for dataset, method, epsilon, seed in grid
    ]


def finished_tables(preset_name):
    """The tables that this run has made, for the terminal."""
    written = sorted(Path(f"results/{preset_name}/tables").glob("*.md"))
    return "".join(
        f"\n{path.read_text()}" for path in written if path.stat().st_mtime >= STARTED
    )
