"""Tables and figures, from the tidy metrics, the certificates and resources/reported.csv, and from nothing else."""

from privset.rows import method_of

DATASETS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR-10", "digits": "digits"}
NETWORKS = {
    "convnet": "ConvNet",
    "lenet": "LeNet",
    "alexnet": "AlexNet",
    "vgg11": "VGG11",
    "resnet18": "ResNet18",
    "mlp": "MLP",
}
METHODS = {
    "real": "Real data (not private)",
    "dp_cgan": "DP-CGAN",
    "gpate": "G-PATE",
    "datalens": "DataLens",
    "gs_wgan": "GS-WGAN",
    "dp_merf": "DP-MERF",
    "dp_sinkhorn": "DP-Sinkhorn",
    "psg": "PSG",
    "psg_prior": "PSG with prior",
    "psm": "PSM (ours)",
    "dpsgd": "DP-SGD classifier",
    "dp_merf_continual": "DP-MERF",
    "psg_continual": "PSG",
}
"""In the order of the paper's tables."""
SMALL_SETS = ("psg", "psg_prior", "psg_continual", "psm")
"""Methods, with their variants, that make another set for each number of samples per class."""


def is_small_set(row: str) -> bool:
    return method_of(row) in SMALL_SETS


def row_title(row: str) -> str:
    """ "PSG"; a variant's name follows its method's: "PSM (ours), features"."""
    method = row if row in METHODS else method_of(row)
    return ", ".join(filter(None, (METHODS[method], row[len(method) + 1 :].replace("_", " "))))


def method_title(row: str, spc: str) -> str:
    """ "PSG (spc=10)"; generative methods have no number of samples that would be part of their name."""
    return f"{row_title(row)} (spc={spc})" if is_small_set(row) else row_title(row)
