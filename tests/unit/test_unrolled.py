"""Unrolled training: its value against torch.optim's SGD, its gradient against finite differences, what following it does."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from privset.networks import classifiers, unrolled


def plain(images, generator):
    return images


def small(dtype, generator):
    """A linear layer after a smooth one, whose loss has derivatives of every order."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 6, dtype=dtype), nn.Tanh(), nn.Linear(6, 3, dtype=dtype))
    for weight in network.parameters():
        weight.data.copy_(0.3 * torch.randn(weight.shape, generator=generator, dtype=dtype))
    return network.requires_grad_(False)


@pytest.fixture
def pairs(generator):
    """Six images of three classes, and forty targets, in double precision."""
    images, targets = (torch.randn(n, 1, 4, 4, generator=generator, dtype=torch.float64) for n in (6, 40))
    return images, torch.arange(6) % 3, targets, torch.arange(40) % 3


def value(network, images, labels, targets, target_labels, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return unrolled.loss(network, images, labels, targets, target_labels, augment=plain, generator=draws)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_that_of_a_network_trained_by_torchs_sgd(pairs, generator, monkeypatch, seed):
    """For each age and batch of targets that the seeds draw; the weights that were handed in stay as they are."""
    monkeypatch.setattr(unrolled, "LONGEST", 20)
    images, labels, *_ = pairs
    network = small(torch.float64, generator)
    before = [weight.clone() for weight in network.parameters()]
    got = value(network, *pairs, seed=seed)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))

    draws = torch.Generator().manual_seed(seed)
    age = int(20 ** torch.rand((), generator=draws).item())
    batch = torch.randint(40, (unrolled.BATCH,), generator=draws)
    network.requires_grad_(True)
    sgd = torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4)
    for _ in range(age + unrolled.STEPS):
        sgd.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        sgd.step()
    expected = F.cross_entropy(network(pairs[2][batch]), pairs[3][batch])
    assert got.item() == pytest.approx(expected.item(), rel=1e-10)


def test_its_gradient_is_that_of_finite_differences_through_the_last_steps(pairs, generator, monkeypatch):
    """With one step before them, which the gradient does not go through: the reference takes it at the images as they were."""
    monkeypatch.setattr(unrolled, "LONGEST", 1)
    images, labels, targets, target_labels = pairs
    network = small(torch.float64, generator)

    def warmed_up():
        """Weights and momenta after the one step that takes no part in the gradient."""
        copy = small(torch.float64, generator)
        copy.load_state_dict(network.state_dict())
        copy.requires_grad_(True)
        sgd = torch.optim.SGD(copy.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4)
        F.cross_entropy(copy(images), labels).backward()
        sgd.step()
        return copy, sgd

    draws = torch.Generator().manual_seed(0)
    torch.rand((), generator=draws)
    batch = torch.randint(40, (unrolled.BATCH,), generator=draws)

    def loss_of(changed):
        copy, sgd = warmed_up()
        for _ in range(unrolled.STEPS):
            sgd.zero_grad()
            F.cross_entropy(copy(changed), labels).backward()
            sgd.step()
        return F.cross_entropy(copy(targets[batch]), target_labels[batch]).item()

    wanted = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(network, wanted, labels, targets, target_labels), [wanted])
    assert gradient.abs().max() > 1e-4
    for index in ((0, 0, 1, 2), (3, 0, 0, 0), (5, 0, 3, 3)):
        shift = torch.zeros_like(images)
        shift[index] = 1e-5
        slope = (loss_of(images + shift) - loss_of(images - shift)) / 2e-5
        assert gradient[index].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_descending_it_teaches_a_set_of_noise_two_classes(generator, monkeypatch):
    """A ConvNet trained on two images of noise learns the targets' classes once the images have followed the gradient."""
    monkeypatch.setattr(unrolled, "LONGEST", 5)
    target_labels = torch.arange(40) % 2
    targets = 0.3 * torch.randn(40, 1, 28, 28, generator=generator)
    targets[target_labels == 0, :, 4:12, 4:24] += 1
    targets[target_labels == 1, :, 16:24, 4:24] += 1
    images, labels = 0.1 * torch.randn(2, 1, 28, 28, generator=generator), torch.arange(2)
    losses = []
    for _ in range(25):
        network = classifiers.build("convnet", channels=1, classes=2, size=28, generator=generator, width=4).requires_grad_(False)
        images.requires_grad_()
        loss = unrolled.loss(network, images, labels, targets, target_labels, augment=plain, generator=generator)
        (gradient,) = torch.autograd.grad(loss, [images])
        images = (images - 0.1 * gradient.sign()).detach()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.5 * sum(losses[:5]) / 5
