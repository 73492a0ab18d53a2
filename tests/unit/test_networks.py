"""The six networks: sizes as published, weights from the given generator alone."""

import pytest
import torch

from privset.networks import classifiers, generators
from privset.networks.weights import initialise


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("convnet", 317_706),  # the paper's
        ("mlp", 784 * 128 + 128 + 128 * 128 + 128 + 1290),
        ("lenet", 61_706),  # LeNet-5
        # 5x5 and 3x3 convolutions with biases, and 192 * 4 * 4 -> 10
        (
            "alexnet",
            128 * 26 + 192 * (128 * 25 + 1) + 256 * (192 * 9 + 1) + 192 * (256 * 9 + 1) + 192 * (192 * 9 + 1) + 30730,
        ),
        ("vgg11", 9_226_122 - 64 * 18 + 5504 - 2 * 256),
        ("resnet18", 11_173_962 - 64 * 18),  # the usual CIFAR ResNet18 with one input channel instead of three
    ],
)
def test_parameter_counts_on_28x28_grey_images(name, parameters, generator):
    network = classifiers.build(name, channels=1, classes=10, size=28, generator=generator)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 28, 10), (3, 32, 10), (1, 28, 2)])
@pytest.mark.parametrize("name", classifiers.NETWORKS)
def test_images_in_logits_out(name, channels, size, classes, generator):
    network = classifiers.build(name, channels=channels, classes=classes, size=size, generator=generator)
    assert network(torch.randn(2, channels, size, size)).shape == (2, classes)


@pytest.mark.parametrize("name", classifiers.NETWORKS)
def test_weights_come_from_the_generator_alone(name):
    def weights(seed, global_seed):
        torch.manual_seed(global_seed)
        network = classifiers.build(name, channels=1, classes=10, size=28, generator=torch.Generator().manual_seed(seed))
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    assert torch.equal(weights(1, 1), weights(1, 2))
    assert not torch.equal(weights(1, 1), weights(2, 1))


def test_weights_are_drawn_by_pytorchs_rule(generator):
    ours = classifiers.build("convnet", channels=1, classes=10, size=28, generator=generator)
    theirs = classifiers.convnet(channels=1, classes=10, size=28)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        a, b = a.detach(), b.detach()
        if a.numel() > 1000:  # enough draws for both extremes to lie within a few percent of the bound
            assert a.abs().max() == pytest.approx(b.abs().max().item(), rel=0.05)
            assert a.std() == pytest.approx(b.std().item(), rel=0.05)
    assert torch.equal(ours[1].weight, torch.ones(128)) and not ours[1].bias.any()
    assert ours[0].bias.abs().max() <= 1 / 3  # fan-in 9


def test_an_unknown_network_is_named_with_the_known_ones(generator):
    with pytest.raises(KeyError, match=r"resnet99.*convnet, lenet"):
        classifiers.build("resnet99", channels=1, classes=10, size=28, generator=generator)


def test_the_conditional_generator_makes_pixels(generator):
    model = initialise(generators.ConditionalGenerator(latent=5, classes=10), generator)
    pixels = model(torch.randn(4, 5, generator=generator), torch.arange(4))
    assert pixels.shape == (4, 1, 28, 28)
    assert pixels.min() >= 0 and pixels.max() <= 1


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 2, 7, 9), (3, 1, 2, 2)])
def test_average_pooling_is_pytorchs_with_both_derivatives(shape, generator):
    images = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    pool = classifiers.AveragePool()
    assert torch.allclose(pool(images), torch.nn.functional.avg_pool2d(images, 2), atol=1e-12)
    assert torch.autograd.gradcheck(pool, images)
    assert torch.autograd.gradgradcheck(pool, images)
