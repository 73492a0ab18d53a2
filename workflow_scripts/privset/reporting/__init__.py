"""Tables, figures and timings, from the tidy metrics, certificates, audits and resources/, and from nothing else. Private data
never get here; only `augmentation`, `benchmarks` and `timings` import torch."""

from privset.data import datasets
from privset.jobs import rows

DATASETS = {name: dataset.title for name, dataset in datasets.DATASETS.items()}
NETWORKS = {
    "convnet": "ConvNet",
    "lenet": "LeNet",
    "alexnet": "AlexNet",
    "vgg11": "VGG11",
    "resnet18": "ResNet18",
    "mlp": "MLP",
}
_PAPER = ("real", "dp_cgan", "g_pate", "datalens", "gs_wgan", "dp_merf", "dp_sinkhorn", "psg", "psg_prior", "psm", "dpsgd")
"""The order of the paper's tables."""
METHODS = {name: method.title for name, method in rows.methods().items()}
METHODS = {name: METHODS[name] for name in (*_PAPER, *sorted(METHODS.keys() - set(_PAPER)))}
"""Titles in the order of the rows."""


def name_datasets(titles: dict[str, str]) -> None:
    """Give a configuration's own datasets their titles, for this process."""
    DATASETS.update(titles)


def dataset_title(name: str) -> str:
    """ "FashionMNIST"; a held-out part is called after its whole: "FashionMNIST, held out"."""
    whole = name.removesuffix("_validation")
    if name in DATASETS or whole == name:
        return DATASETS.get(name, name)
    return f"{DATASETS.get(whole, whole)}, held out"


def is_small_set(row: str) -> bool:
    """Whether the row makes another set for each number of samples per class."""
    method = rows.methods().get(rows.method_of(row))
    return method is not None and method.family == "optimised set"


def row_title(row: str) -> str:
    """ "PSG"; a variant's name follows its method's: "PSM (ours), features"."""
    method = row if row in METHODS else rows.method_of(row)
    return ", ".join(filter(None, (METHODS[method], row[len(method) + 1 :].replace("_", " "))))


def method_title(row: str, spc: str) -> str:
    """ "PSG (spc=10)"; generative methods have no number of samples that would be part of their name."""
    return f"{row_title(row)} (spc={spc})" if is_small_set(row) else row_title(row)


def sized_title(row: str, spc: str) -> str:
    """ "DP-MERF (10 per class)": with the size of the set also where it is no part of the name; without one, "DP-MERF"."""
    return method_title(row, spc) if is_small_set(row) or not spc else f"{row_title(row)} ({spc} per class)"
