"""The tables: tidy metrics in, reported and reproduced numbers side by side out."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from scipy.stats import t

from privset import PrivsetError
from privset.jobs.rows import described, method_of
from privset.reporting import DATASETS, METHODS, NETWORKS, dataset_title, is_small_set, method_title, row_title, sized_title
from privset.reporting.formats import DIGITS, Table
from privset.sets.files import read_json


def tidy(metrics: list[Path]) -> pd.DataFrame:
    """One row per (cell, network, network seed) from the metrics files."""
    rows = []
    for path in metrics:
        content = read_json(path)
        for run in content["runs"]:
            rows.append(
                {
                    **content["cell"],
                    **run,
                    "images": content["images"],
                    "epsilon_spent": content["certificate"]["epsilon"],
                    "noise_source": content["certificate"]["noise_source"],
                    "device": content["device"],
                    "code": content["code"],
                }
            )
    return pd.DataFrame(rows).rename(columns={"seed": "set_seed"}).drop(columns="networks")


KEYS = ["method", "spc", "dataset", "epsilon", "network"]
"""What makes a number, apart from seeds."""


def _reproduced(metrics: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and counts per cell and network.

    The mean over the networks of each set, then mean and sample standard deviation over sets; with a single set the
    deviation is over its networks. Raises PrivsetError if the sets of a cell have unequal numbers of runs.
    """

    def summarise(group: pd.DataFrame) -> pd.Series:
        by_set = group.groupby("set_seed")["test_accuracy"]
        per_set = by_set.mean()
        if by_set.count().nunique() > 1:
            counts = ", ".join(f"set {seed}: {count}" for seed, count in by_set.count().items())
            raise PrivsetError(f"{' '.join(map(str, group.name))}: sets with unequal numbers of runs ({counts})")
        spread = per_set if len(per_set) > 1 else group["test_accuracy"]
        return pd.Series(
            {
                "reproduced": per_set.mean(),
                "std": spread.std(),
                "sets": len(per_set),
                "networks": len(group) // len(per_set),
            }
        )

    return metrics.groupby(KEYS).apply(summarise, include_groups=False).reset_index()


def _row_order(row: str) -> tuple[int, str]:
    """In the order of the paper's tables, a variant after its method."""
    return list(METHODS).index(row if row in METHODS else method_of(row)), row


def _reported(table: str, reported: pd.DataFrame) -> pd.DataFrame:
    """The table's printed numbers; Table 1 prints PSG for 20 samples per class only, Table 3 has it for 1 and 10."""
    chosen = reported[reported.table == table]
    if table == "table1":
        rest = reported[(reported.table == "table3") & (reported.method == "psg") & (reported.spc != "20")]
        chosen = pd.concat([chosen, rest])
    return chosen.drop(columns="table").rename(columns={"accuracy": "reported"})


TITLES = {
    "table1": "Table 1. Test accuracy (%) of {networks} trained on the synthetic set alone",
    "table3": "Table 3. Test accuracy (%) of {networks} trained on the set, without and with a generator prior",
    "table2": "Table 2. Test accuracy (%) of {networks} trained on the synthetic set alone, eps = {epsilon}",
}

NOTES = {
    "table1": (
        "The reported rows mix protocols: G-PATE and DataLens are the best test accuracy over 600 epochs of another network, "
        "DP-Sinkhorn stops early on synthetic hold-out data; PSG is the last epoch of an augmented ConvNet. Reproduced "
        "numbers are the last step of that protocol with the preset's own schedules in config.yaml (steps, batch and learning "
        "rate differ between small and large sets, and for some networks).",
        "The reported DP-CGAN entry for MNIST, eps = 10, is 52.5 here and 50.2 in Table 2; GS-WGAN's for FashionMNIST is 63.1 "
        "here and 54.7 in Table 2.",
        "PSG's reported numbers for spc = 1 and 10 at eps = 10 are those of the paper's Table 3; for eps = 1 it prints none.",
    ),
    "table3": (
        "With the prior, the set is what a generator makes of codes that are drawn once; its weights are what is optimised.",
    ),
    "table2": (
        "The reported DP-CGAN row is identical for MNIST and FashionMNIST in the paper.",
        "Its ConvNet entry for MNIST (50.2) differs from Table 1 (52.5), and so does GS-WGAN's for FashionMNIST (54.7, 63.1).",
    ),
}


def _protocols(metrics: pd.DataFrame) -> str:
    """How the networks behind a table were trained, by the sizes of the sets."""
    by_protocol: dict[tuple[str, str], list[str]] = {}
    labelled = metrics.method.map(lambda row: described(row).labelled)
    order = list(dict.fromkeys([*NETWORKS, *sorted(metrics.network.unique())]))  # one's own come last
    for (network, protocol, taught), images in metrics.groupby(["network", "protocol", labelled]).images:
        low, high = images.min(), images.max()
        sizes = (f"{low:,}" if low == high else f"{low:,} to {high:,}") + " images" + " with a teacher's labels" * taught
        by_protocol.setdefault((protocol, sizes), []).append(network)
    rules = [
        f"{', '.join(NETWORKS.get(name, name) for name in sorted(names, key=order.index))}: {protocol} for {sizes}"
        for (protocol, sizes), names in by_protocol.items()
    ]
    return (
        "Evaluation protocols (psg: the reference program's; otherwise SGD steps or epochs of so many images at a learning rate, "
        "a tenth of it in the second half; width: channels of the first layer, later ones in proportion, where it is not the "
        f"published one): {'; '.join(rules)}."
    )


def comparison(table: str, metrics: pd.DataFrame, reported: pd.DataFrame, *, datasets: list[str]) -> Table:
    """Table 1, 2 or 3 with every row of the paper and every row of this run."""
    generative, sizes = ~metrics.method.map(is_small_set), metrics.groupby("method").spc.transform("nunique")
    metrics = metrics.assign(spc=metrics.spc.mask(generative & (sizes == 1), ""))
    reported = reported.assign(spc=reported.spc.fillna(""))
    frame = _reported(table, reported).merge(_reproduced(metrics), on=KEYS, how="outer")
    frame = frame[frame.dataset.isin(datasets)].copy()
    frame["difference"] = frame.reproduced - frame.reported
    order = {name: rank for rank, name in enumerate(dict.fromkeys([*DATASETS, *datasets, *NETWORKS, *frame.network]))}
    rank = pd.DataFrame(
        {
            "method": frame.method.map(_row_order),
            "spc": pd.to_numeric(frame.spc.replace("", "0")),
            "epsilon": frame.epsilon.astype(float),
            "network": frame.network.map(order),
            "dataset": frame.dataset.map(order),
        }
    )
    frame = frame.loc[rank.sort_values(list(rank.columns)).index].reset_index(drop=True)

    # A line is a method, a size, an epsilon and a network. The one that all private rows share is left to the title.
    first, other = ("network", "epsilon") if table == "table2" else ("epsilon", "network")
    heads = [first, other] if frame[frame.epsilon != "inf"][other].nunique() > 1 else [first]
    shown: dict[tuple[str, ...], dict[str, str]] = {}
    for row in frame.round(DIGITS).itertuples():
        labels = {head: getattr(row, head) for head in heads}
        start = {"method": sized_title(row.method, row.spc)}
        start |= {head.replace("epsilon", "eps"): NETWORKS.get(label, label) for head, label in labels.items()}
        columns = [f"{dataset_title(name)} {column}" for name in datasets for column in ("reported", "reproduced", "n", "diff")]
        line = shown.setdefault((*start.values(),), {**start, **dict.fromkeys(columns, "-")})
        name = dataset_title(row.dataset)
        if pd.notna(row.reported):
            line[f"{name} reported"] = f"{row.reported:.1f}"
        if pd.notna(row.reproduced):
            spread = "" if pd.isna(row.std) else f" ± {row.std:.1f}"
            line[f"{name} reproduced"] = f"{row.reproduced:.1f}{spread}"
            line[f"{name} n"] = f"{row.sets:.0f}x{row.networks:.0f}"
        if pd.notna(row.difference):
            line[f"{name} diff"] = f"{row.difference:+.1f}"
    missing = sorted({sized_title(row.method, row.spc) for row in frame[frame.reproduced.isna()].itertuples()})
    notes = [
        "reported: printed in the PSG paper. reproduced: this code, mean ± standard deviation; n is sets x networks per set, "
        "the deviation is over sets, or over the networks of a single set. diff: reproduced minus reported.",
        *NOTES[table],
        _protocols(metrics),
    ]
    if missing:
        notes.append(f"Without a reproduced number in this preset: {', '.join(missing)}.")
    epsilon = max(metrics.epsilon[metrics.epsilon != "inf"], key=float, default="inf")
    names = [NETWORKS.get(name, name) for name in dict.fromkeys(metrics.network)]
    title = TITLES[table].format(epsilon=epsilon, networks=names[0] if len(names) == 1 else f"{len(names)} networks")
    return Table(name=table, title=title, frame=frame, shown=pd.DataFrame(list(shown.values())), notes=tuple(notes))


def storage(metrics: pd.DataFrame, *, datasets: list[str]) -> Table:
    """Every method at every size of set, on the first network: small sets and generators on equal terms."""
    summary = _reproduced(metrics).assign(size=lambda frame: frame.spc.astype(int))
    summary = summary.sort_values(["size"])
    shown: dict[tuple[str, str], dict[str, str]] = {}
    sizes = list(dict.fromkeys(summary["size"]))
    for dataset in datasets:
        for method in sorted(set(summary.method), key=_row_order):
            for row in summary[(summary.dataset == dataset) & (summary.method == method)].round(DIGITS).itertuples():
                key = (dataset_title(dataset), row_title(method))
                line = shown.setdefault(key, {f"spc={size}": "-" for size in sizes})
                spread = "" if pd.isna(row.std) else f" ± {row.std:.1f}"
                line[f"spc={row.size}"] = f"{row.reproduced:.1f}{spread}"
    lines = [{"dataset": dataset, "method": method, **line} for (dataset, method), line in shown.items()]
    counts = sorted({f"{int(row.sets)}x{int(row.networks)}" for row in summary.itertuples()})
    (epsilon,), (network,) = summary.epsilon.unique(), summary.network.map(lambda name: NETWORKS.get(name, name)).unique()
    return Table(
        name="table_storage",
        title=f"Equal storage. Test accuracy (%) of {network} by images per class that are kept, eps = {epsilon}",
        frame=summary,
        shown=pd.DataFrame(lines),
        notes=(
            f"Mean ± standard deviation over sets, or over the networks of one set; n (sets x networks): {', '.join(counts)}.",
            _protocols(metrics),
            "A generator's sizes below its own are the first images per class of its one set; PSG is run for each size; "
            "PSM and Taught compute every size from the same releases. '-': the method does not give such a size in this preset.",
        ),
    )


def ablation(metrics: pd.DataFrame, *, datasets: list[str]) -> Table:
    """PSM and its variants, with the difference that each makes, seed by seed, and its 95 % t interval."""
    keys = ["dataset", "epsilon", "method"]
    per_set = metrics.groupby([*keys, "set_seed"])["test_accuracy"].mean()
    rows = []
    for (dataset, epsilon, method), accuracy in per_set.groupby(level=keys):
        accuracy = accuracy.droplevel(keys)
        difference = accuracy - per_set[dataset, epsilon, "psm"]
        n = len(difference)
        half = t.ppf(0.975, n - 1) * difference.std() / n**0.5 if n > 1 else float("nan")
        rows.append(
            {
                "dataset": dataset,
                "epsilon": epsilon,
                "method": method,
                "accuracy": accuracy.mean(),
                "std": accuracy.std(),
                "sets": n,
                "difference": difference.mean(),
                "half_interval": half,
            }
        )
    frame = pd.DataFrame(rows)
    rank = pd.DataFrame(
        {"d": frame.dataset.map(datasets.index), "e": frame.epsilon.astype(float), "m": frame.method.map(_row_order)}
    )
    frame = frame.loc[rank.sort_values(["d", "e", "m"]).index].reset_index(drop=True)
    rounded = list(frame.round(DIGITS).itertuples())
    shown = pd.DataFrame(
        {
            "dataset": [dataset_title(name) for name in frame.dataset],
            "eps": frame.epsilon,
            "row": frame.method.map(row_title),
            "accuracy": [f"{row.accuracy:.1f}" + ("" if pd.isna(row.std) else f" ± {row.std:.1f}") for row in rounded],
            "minus PSM": [
                ""
                if row.method == "psm"
                else f"{row.difference:+.1f}" + ("" if pd.isna(row.half_interval) else f" ± {row.half_interval:.1f}")
                for row in rounded
            ],
        }
    )
    (spc,), (network,) = metrics.spc.unique(), metrics.network.map(lambda name: NETWORKS.get(name, name)).unique()
    networks = len(metrics) // len(per_set)
    return Table(
        name="ablation_psm",
        title=f"What each part of PSM brings, at equal budget. Test accuracy (%) of {network}, {spc} samples per class",
        frame=frame,
        shown=shown,
        notes=(
            f"Mean ± standard deviation over {frame.sets.max()} sets, each another draw of all noise, with {networks} network(s) "
            "each. minus PSM: mean difference between sets of the same seed ± half of its 95 % t interval.",
            "Each row spends the whole budget; what a row leaves out of the method is in config.yaml, ablation.variants.",
        ),
    )


SAMPLING = {
    "poisson-subsampled-gaussian": "Poisson",
    "gaussian-of-one-shard": "one shard of many",
    "gaussian": "all records",
    "non-private": "none",
}
"""Which records a release is about, by a certificate's kinds."""


def privacy(certificates: list[Path]) -> Table:
    """What every set promises: one row per cell, from the certificates."""
    rows = []
    for path in certificates:
        content = read_json(path)
        cell = content["cell"]
        entries = content["ledger"]
        rows.append(
            {
                "method": method_title(cell["method"], cell["spc"]),
                "dataset": dataset_title(cell["dataset"]),
                "eps": cell["epsilon"],
                "spc": cell["spc"],
                "set_seed": cell["seed"],
                "neighbours": content["neighbouring_relation"] or "-",
                "sampling": ", ".join(dict.fromkeys(SAMPLING[entry["kind"]] for entry in entries)),
                "sampling_rate": ", ".join(f"{entry.get('sampling_rate', 1):.6g}" for entry in entries),
                "sensitivity": ", ".join(f"{float(entry['sensitivity']):g}" for entry in entries),
                "noise_multiplier": ", ".join(
                    f"{entry['noise_multiplier']:.4f}" if "noise_multiplier" in entry else "0" for entry in entries
                ),
                "releases": sum(entry["count"] for entry in entries),
                "delta": f"{content['delta']:g}",
                "eps_spent": _epsilon(content["epsilon"]),
                "eps_rdp": _epsilon(content["epsilon_rdp"]),
                "eps_pld": _epsilon(content["epsilon_pld"]),
                "labels_protected": "yes" if content["protects_labels"] else "no",
                "released_without_noise": "nothing" if content["private"] else "everything",
                "noise_from": content["noise_source"].split()[0],
            }
        )
    frame = pd.DataFrame(rows)
    return Table(
        name="table_privacy",
        title="Privacy of every set, from its certificate",
        frame=frame,
        shown=frame.drop(columns=["set_seed"]).drop_duplicates(),
        notes=(
            "eps_spent is the smaller of the RDP accountant's epsilon and the exact one of unsampled Gaussian releases; eps_rdp "
            "is the accountant of the PSG paper; eps_pld is the tightest, by privacy loss distributions.",
            "noise_multiplier: standard deviation of the noise divided by the L2 sensitivity for the stated neighbours.",
            "noise_from: 'seed' means that the run is repeatable and its set must not be published as private; 'operating' "
            "means the operating system's entropy.",
            "Public for every method: the number of records, the classes, the image shape, published normalisation constants.",
            "The sets of continual learning, whose ledgers are in parts, are not listed; their certificates are beside them.",
        ),
    )


def _epsilon(value: float | str) -> str:
    return "inf" if value == "inf" else f"{value:.4f}"
