"""Tables and figures, from the tidy metrics, the certificates and resources/reported.csv, and from nothing else."""

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
}
"""In the order of the paper's tables."""


def method_title(method: str, spc: str) -> str:
    """ "PSG (spc=10)"; generative methods have no number of samples that would be part of their name."""
    return f"{METHODS[method]} (spc={spc})" if method == "psg" else METHODS[method]
