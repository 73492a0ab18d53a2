"""The flow is a bijection with the determinant it states, its frequencies are those of the cosine transform, and it learns."""

import pytest
import scipy.fft
import torch

from privset.jobs.run import Run
from privset.methods import dp_flow
from privset.networks import cosine_transform, flows
from privset.networks.weights import initialise
from privset.privacy import gradients


def random_flow(generator, *, features, classes=3, couplings=9):
    """In float64, with weights so large that nothing in it is nearly linear."""
    flow = flows.ConditionalFlow(features=features, classes=classes, hidden=16, couplings=couplings)
    flow = initialise(flow, generator).double().requires_grad_(False)
    for parameter in flow.parameters():
        parameter.mul_(2)
    return flow


@pytest.mark.parametrize("features", [2, 7, 8, 12])
def test_a_flow_is_invertible(features, generator):
    flow = random_flow(generator, features=features)
    x = torch.randn(20, features, generator=generator, dtype=torch.float64)
    classes = torch.eye(3, dtype=torch.float64)[torch.arange(20) % 3]
    z, _ = flow.encode(x, classes)
    assert (z - x).abs().max() > 1
    torch.testing.assert_close(flow.decode(z, classes), x, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(flow.encode(flow.decode(x, classes), classes)[0], x, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("features", [2, 7, 8])
def test_the_log_determinant_is_that_of_the_jacobian(features, generator):
    flow = random_flow(generator, features=features)
    for label in range(3):
        x = torch.randn(features, generator=generator, dtype=torch.float64)
        condition = torch.eye(3, dtype=torch.float64)[label][None]
        jacobian = torch.autograd.functional.jacobian(lambda x, condition=condition: flow.encode(x[None], condition)[0][0], x)
        _, stated = flow.encode(x[None], condition)
        torch.testing.assert_close(stated[0], torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-7, atol=1e-7)
        assert abs(stated) > 0.01


def test_a_density_integrates_to_one(generator):
    flow = random_flow(generator, features=2, couplings=2)
    line = torch.arange(-30, 30, 0.05, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    density = flow.log_density(grid, torch.eye(3, dtype=torch.float64)[:1].expand(len(grid), -1)).exp()
    assert density.sum() * 0.05**2 == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("features", [2, 7, 64, 192])
def test_every_coordinate_moves_and_every_two_are_parted(features):
    """In one round of couplings for each pair, in two for each coordinate."""
    digits = max(1, (features - 1).bit_length())
    couplings = [flows.Coupling(features=features, classes=2, hidden=16, k=k) for k in range(2 * digits)]
    moved = torch.stack([coupling.back >= coupling.kept for coupling in couplings]).int()
    assert (moved.sum(0) == digits).all()
    assert torch.equal(moved[:digits], 1 - moved[digits:])
    assert len(torch.unique(moved[:digits], dim=1)[0]) == features


def test_as_identity_it_is_the_standard_normal(generator):
    flow = random_flow(generator, features=8).float()
    flow.become_identity()
    x, classes = torch.randn(5, 8, generator=generator), torch.eye(3)[[0, 1, 2, 0, 1]]
    assert torch.equal(flow.decode(x, classes), x)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
    torch.testing.assert_close(flow.log_density(x, classes), expected)


@pytest.mark.parametrize("size", [8, 28, 32])
def test_the_cosine_transform_is_scipys(size, generator):
    rows = cosine_transform.cosines(size)
    torch.testing.assert_close(rows @ rows.T, torch.eye(size, dtype=torch.float64))
    image = torch.randn(size, size, generator=generator, dtype=torch.float64)
    theirs = torch.from_numpy(scipy.fft.dctn(image.numpy(), norm="ortho"))
    torch.testing.assert_close(rows @ image @ rows.T, theirs)


def test_the_lowest_frequencies_come_first():
    assert cosine_transform.lowest(28, 6) == [(0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0)]
    assert sorted(cosine_transform.lowest(8, 1000)) == [(i, j) for i in range(8) for j in range(8)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "count"), [(8, 64), (28, 64), (32, 100)])
def test_frequencies_keep_the_smooth_part_of_an_image(size, count, channels, generator):
    frequencies = flows.Frequencies((channels, size, size), count)
    assert frequencies.features == channels * count
    images = torch.randn(4, channels, size, size, generator=generator)
    coefficients = frequencies(images)
    assert coefficients.shape == (4, channels * count)
    kept = frequencies.inverse(coefficients)
    torch.testing.assert_close(frequencies(kept), coefficients, rtol=1e-4, atol=1e-4)
    theirs = torch.from_numpy(scipy.fft.dctn(images.numpy(), axes=(2, 3), norm="ortho"))
    low = torch.zeros(size, size)
    low[tuple(zip(*cosine_transform.lowest(size, count), strict=True))] = 1
    expected = torch.from_numpy(scipy.fft.idctn((theirs * low).numpy(), axes=(2, 3), norm="ortho"))
    torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-4)


def test_units_share_out_the_variance_of_the_pixels():
    units = flows.Frequencies((1, 28, 28), 784).synthesis.norm(dim=1)
    assert units.square().sum().item() == pytest.approx(784, rel=1e-5)
    assert (units[:-1] / units[1:]).min() > 0.8 and units[0] / units[-1] > 5


def small_network(generator):
    network = flows.ImageFlow(shape=(1, 8, 8), classes=2, class_scale=4.0, coefficients=32, hidden=16, couplings=3)
    return initialise(network, generator)


def test_gradients_record_by_record_are_autograds(generator):
    """All its parameters are in linear layers, so the closed form is used; it agrees with one backward pass per record."""
    network = small_network(generator)
    assert gradients.only_linear(network)
    images, labels = torch.randn(8, 1, 8, 8, generator=generator), torch.arange(8) % 2
    inputs = network.labelled(images, labels)
    expected = 0.0
    for record, label in zip(inputs.split(1), labels.split(1), strict=True):
        loss = dp_flow.negative(network(record), label).sum()
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(network.parameters()))])
        expected = expected + gradient / max(1.0, gradient.norm() / 5.0)
    total = gradients.clipped_gradient_sum(network, inputs, labels, clip=5.0, loss=dp_flow.negative)
    torch.testing.assert_close(total.float(), expected, rtol=1e-3, atol=1e-4)


def test_with_hardly_any_noise_it_learns_the_classes(make_vault):
    """A sanity check, never a result: samples of a class look like its records, which differ in place and in brightness."""
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    images = torch.full((200, 1, 28, 28), -1.0)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 8:20, 4 + 12 * label : 12 + 12 * label] = float(torch.rand((), generator=source))
    vault = make_vault(images=images, labels=labels, classes=2, epsilon=1e6)
    config = dp_flow.Config(steps=150, batch_size=100, coefficients=32, couplings=2, hidden=16, learning_rate=0.02)
    made, classes = dp_flow.synthesize(vault, config, Run(spc=20, generator=source))
    sides = torch.stack([made[:, 0, 8:20, 4:12].mean((1, 2)), made[:, 0, 8:20, 16:24].mean((1, 2))], dim=1)
    assert (sides.argmax(1) == classes).float().mean() > 0.95
    brightness = sides[torch.arange(len(made)), classes]
    assert 0 < brightness.mean() < 1 and brightness.std() > 0.05
