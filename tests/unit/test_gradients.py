"""Per-record gradients against autograd, one record at a time, and against Opacus."""

import copy
import math

import opacus
import pytest
import torch
from torch.nn import functional as F

from privset.data.datasets import PublicFacts
from privset.networks import classifiers
from privset.networks.weights import initialise
from privset.privacy import gradients, places
from privset.privacy.gradients import _columns, clipped_gradient_sum, per_record_gradients


def batch(generator, *, count=3, channels=1, size=28):
    images = torch.randn(count, channels, size, size, generator=generator)
    return images, torch.arange(count) % 10


def one_at_a_time(network, images, labels):
    """Each record's gradient by autograd, flat, (B, P)."""
    rows = []
    for image, label in zip(images, labels, strict=True):
        loss = F.cross_entropy(network(image[None]), label[None])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))]))
    return torch.stack(rows)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
@pytest.mark.parametrize("name", classifiers.NETWORKS)
def test_agree_with_autograd_for_every_network(name, channels, size, generator):
    """In double precision: in single, a ReLU or a maximum near a tie may fall differently for a batch and for one image."""
    network = classifiers.build(name, channels=channels, classes=10, size=size, generator=generator).double()
    images, labels = batch(generator, channels=channels, size=size)
    images = images.double()
    ours = torch.cat(per_record_gradients(network, images, labels), dim=1)
    reference = one_at_a_time(network, images, labels)
    error = (ours - reference).norm(dim=1) / reference.norm(dim=1)
    assert error.max() < 1e-10


@pytest.mark.parametrize("name", classifiers.NETWORKS)
def test_clipped_sum_agrees_with_opacus(name, generator):
    """In double precision, as above; micro-batches here, one batch there."""
    options = {"width": 16} if name == "convnet" else {}
    network = classifiers.build(name, channels=1, classes=10, size=28, generator=generator, **options).double()
    images, labels = batch(generator, count=6)
    images = images.double()
    clip = 0.5
    # Opacus 1.6 gives other kernel gradients than autograd to a network whose weights are channels last, as AlexNet's are here.
    contiguous = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    wrapped = opacus.GradSampleModule(contiguous, loss_reduction="sum")
    F.cross_entropy(wrapped(images), labels, reduction="sum").backward()
    rows = torch.cat([parameter.grad_sample.flatten(1) for parameter in wrapped.parameters()], dim=1)
    expected = (rows * (clip / (rows.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1)).sum(0)
    wrapped.remove_hooks()
    ours = clipped_gradient_sum(network, images, labels, clip=clip, micro_batch=4)
    # The sum is collected in single precision.
    assert (ours - expected).norm() / expected.norm() < 1e-5


def test_padding_does_not_count(generator):
    network = classifiers.build("lenet", channels=1, classes=10, size=28, generator=generator)
    images, labels = batch(generator, count=6)
    present = torch.tensor([1.0, 0, 1, 1, 0, 0])
    alone = clipped_gradient_sum(network, images[present > 0], labels[present > 0], clip=0.1)
    padded = clipped_gradient_sum(network, images, labels, clip=0.1, present=present)
    assert (alone - padded).norm() / alone.norm() < 1e-5


def test_weights_only_leaves_out_biases_and_norm_layers_and_their_norms(generator):
    network = classifiers.build("convnet", channels=1, classes=10, size=28, width=8, generator=generator)
    images, labels = batch(generator, count=1)
    kept = torch.cat([p.flatten() for p in one_record_by_parameter(network, images, labels) if p.ndim > 1])
    ours = clipped_gradient_sum(network, images, labels, clip=0.1, weights_only=True).float()
    assert ours.shape == kept.shape
    assert torch.allclose(ours, 0.1 * kept / kept.norm(), rtol=1e-3, atol=1e-6)


def one_record_by_parameter(network, images, labels):
    return torch.autograd.grad(F.cross_entropy(network(images), labels), list(network.parameters()))


def test_compiled_is_the_same_sum_for_any_number_of_records_and_any_weights(generator):
    """Eleven records in compiled micro-batches of four: the last is padded. A second network uses the same compilation."""
    for _ in range(2):
        network = classifiers.build("convnet", channels=1, classes=10, size=28, width=4, depth=1, generator=generator)
        images, labels = batch(generator, count=11)
        plain = clipped_gradient_sum(network, images, labels, clip=0.1)
        fused = clipped_gradient_sum(network, images, labels, clip=0.1, compile=True, micro_batch=4)
        assert (plain - fused).norm() / plain.norm() < 1e-5


def test_without_a_compiler_one_line_says_so_and_the_result_is_the_same(generator, monkeypatch, caplog):
    def broken(*arguments, **options):
        def call(*tensors):
            raise torch._inductor.exc.InvalidCxxCompiler

        return call

    monkeypatch.setattr(torch, "compile", broken)
    network = classifiers.build("mlp", channels=1, classes=10, size=28, width=7, generator=generator)
    images, labels = batch(generator, count=4)
    plain, fallen_back = (clipped_gradient_sum(network, images, labels, clip=0.1, compile=compile) for compile in (False, True))
    clipped_gradient_sum(network, images, labels, clip=0.1, compile=True)
    assert (plain - fallen_back).norm() / plain.norm() < 1e-5
    assert len(caplog.messages) == 1 and "runs uncompiled" in caplog.messages[0]


@pytest.mark.parametrize("clip", [1e-3, 0.1, 1.0])
def test_no_record_counts_more_than_the_clip(clip, generator):
    network = classifiers.build("lenet", channels=1, classes=10, size=28, generator=generator)
    images, labels = batch(generator, count=8)
    images[0] *= 1000  # an outlier
    for image, label in zip(images, labels, strict=True):
        assert clipped_gradient_sum(network, image[None], label[None], clip=clip).norm() <= clip


def test_small_gradients_are_not_scaled_up(generator):
    network = classifiers.build("mlp", channels=1, classes=10, size=28, generator=generator)
    images, labels = batch(generator, count=1)
    unclipped = one_at_a_time(network, images, labels)[0]
    assert torch.allclose(clipped_gradient_sum(network, images, labels, clip=1e6).float(), unclipped, rtol=1e-4, atol=1e-7)


def test_micro_batches_do_not_change_the_sum(generator):
    network = classifiers.build("convnet", channels=1, classes=10, size=28, width=8, generator=generator)
    images, labels = batch(generator, count=11)
    sums = [clipped_gradient_sum(network, images, labels, clip=0.1, micro_batch=size) for size in (1, 4, 11, 64)]
    for other in sums[1:]:
        assert (other - sums[0]).norm() / sums[0].norm() < 1e-5


def test_an_empty_batch_sums_to_zero(generator):
    network = classifiers.build("mlp", channels=1, classes=10, size=28, generator=generator)
    images, labels = batch(generator, count=0)
    total = clipped_gradient_sum(network, images, labels, clip=0.1)
    assert total.shape == (118_282,)
    assert not total.any()


def test_layers_that_mix_records_are_refused(generator):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10), torch.nn.BatchNorm1d(10))
    with pytest.raises(TypeError, match="BatchNorm1d"):
        per_record_gradients(network, *batch(generator))


def test_weights_and_their_gradients_are_left_alone(generator):
    network = classifiers.build("mlp", channels=1, classes=10, size=28, generator=generator)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    clipped_gradient_sum(network, *batch(generator), clip=0.1)
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize(
    "options", [{}, {"padding": 2}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"kernel_size": (3, 5), "padding": (0, 2)}]
)
def test_columns_are_unfold(options, generator):
    layer = torch.nn.Conv2d(2, 3, **{"kernel_size": 3, **options})
    images = torch.randn(2, 2, 11, 9, generator=generator)
    expected = F.unfold(images, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    assert torch.equal(_columns(layer, images), expected)


def dense(inputs: int, hidden: int) -> torch.nn.Sequential:
    layers = [torch.nn.Linear(inputs, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1)]
    return initialise(torch.nn.Sequential(*layers), torch.Generator().manual_seed(0))


def softplus(outputs, labels):
    return F.softplus(-outputs[:, 0])


@pytest.mark.parametrize("weights_only", [False, True])
@pytest.mark.parametrize("count", [1, 31, 300])
def test_linear_layers_need_no_gradient_of_one_record_and_give_the_same_sum(count, weights_only):
    """Against the gradients written down one by one, clipped and added up in float64; a row with NaN counts as nothing."""
    network = dense(50, 32)
    inputs = torch.randn(count, 50, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(count, dtype=torch.int64)
    kept = [part for part in network.parameters() if part.ndim > 1 or not weights_only]
    one_by_one = gradients.per_record_gradients(network, inputs, labels, loss=softplus)
    rows = torch.cat([g for g, p in zip(one_by_one, network.parameters(), strict=True) if p.ndim > 1 or not weights_only], 1)
    rows = rows.double()
    expected = (rows * (0.5 / rows.norm(dim=1, keepdim=True)).clamp(max=1)).sum(0)
    options = {"clip": 0.5, "loss": softplus, "weights_only": weights_only}
    total = gradients.clipped_gradient_sum(network, inputs, labels, **options)
    assert total.shape == (sum(part.numel() for part in kept),)
    assert torch.allclose(total, expected, rtol=1e-5, atol=1e-6)
    spoilt = torch.cat([inputs, torch.full((1, 50), math.nan)])
    again = gradients.clipped_gradient_sum(network, spoilt, torch.zeros(count + 1, dtype=torch.int64), **options)
    assert torch.allclose(again, total, rtol=1e-12, atol=1e-12)


def test_a_linear_layer_over_positions_is_refused_and_not_clipped_wrongly():
    network = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Flatten(), torch.nn.Linear(24, 1))
    with pytest.raises(TypeError, match=r"is given \(32, 4, 6\)"):
        clipped_gradient_sum(network, torch.zeros(6, 4, 6), torch.zeros(6, dtype=torch.int64), clip=1.0, loss=softplus)


def test_a_record_adds_the_same_bits_to_linear_layers_wherever_it_stands():
    for inputs, hidden in ((794, 128), (64, 16)):
        network = dense(inputs, hidden)
        drawn = torch.randn(300, inputs, generator=torch.Generator().manual_seed(2))
        seen = []
        for rows in (1, 7, 31, 32, 33, 129, 256, 257, 300):
            for place in {0, rows // 2, rows - 1}:
                batch = torch.cat([drawn[1 : 1 + place], drawn[:1], drawn[1 + place : rows]])
                present = (torch.arange(rows) == place).float()
                labels = torch.zeros(rows, dtype=torch.int64)
                seen.append(gradients.clipped_gradient_sum(network, batch, labels, clip=1.0, present=present, loss=softplus))
        assert all(torch.equal(seen[0], other) for other in seen[1:])


def test_a_loss_that_mixes_records_is_found():
    """Each record's loss less the batch's mean."""
    facts = PublicFacts(records=1, classes=10, channels=1, size=8, mean=(0.5,), std=(0.5,))
    network = torch.nn.Sequential(torch.nn.Flatten(), *dense(64, 16))

    def mixed(outputs, labels):
        return (outputs[:, 0] - outputs[:, 0].mean()).square()

    device = torch.device("cpu")
    assert not places.depends_on_place(network, facts, device, loss=softplus, compile=False)
    assert places.depends_on_place(network, facts, device, loss=mixed, compile=False)


def test_a_network_whose_gradients_depend_on_the_place_in_the_batch_is_found(monkeypatch, generator):
    """A stand-in that adds the place's number to the bits is found; the networks of the presets have no such dependence here."""
    facts = PublicFacts(records=1, classes=10, channels=1, size=28, mean=(0.5,), std=(0.5,))
    for name, options in (("convnet", {"width": 16}), ("convnet", {"width": 32}), ("mlp", {}), ("lenet", {})):
        network = classifiers.build(name, channels=1, classes=10, size=28, generator=generator, **options)
        assert not places.depends_on_place(network, facts, torch.device("cpu"), compile=False), name
    network = classifiers.build("convnet", channels=1, classes=10, size=28, width=8, generator=generator)
    original = gradients.per_record_gradients

    def shifted(*arguments, **options):
        made = original(*arguments, **options)
        return [part * (1 + 1e-6 * torch.arange(len(part))[:, None]) for part in made]

    monkeypatch.setattr(gradients, "per_record_gradients", shifted)
    assert places.depends_on_place(network, facts, torch.device("cpu"), compile=False)
    places._PLACES.clear()
