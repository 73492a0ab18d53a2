"""Members behind the vault: each is what it would be alone, no record reaches two, and answers are what they are said to be."""

import math
import time

import numpy as np
import pytest
import torch
from torch import nn

from privset import PrivsetError
from privset.data.datasets import PublicFacts
from privset.networks.weights import initialise
from privset.privacy.ledger import BudgetExceeded
from privset.privacy.vault import Vault

MEMBERS, RECORDS, SIZE = 6, 50, 12
FACTS = PublicFacts(records=RECORDS, classes=4, channels=1, size=SIZE, mean=(0.5,), std=(0.5,))
PIXELS = SIZE**2


class Dense(nn.Module):
    def __init__(self, hidden=16):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(PIXELS + 4, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1))

    def forward(self, images, labels):
        told = (labels[:, None] == torch.arange(4)).to(images)
        return self.body(torch.cat([images.flatten(1), told], 1))[:, 0]


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(100, 4))

    def forward(self, images, labels):
        return self.body(images).gather(1, labels[:, None])[:, 0]


NETWORKS = {"dense": Dense, "convolutional": Convolutional}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


IMAGES = torch.randn(RECORDS, 1, SIZE, SIZE, generator=generator(1))
LABELS = torch.arange(RECORDS) % 4
FAKES, FAKE_LABELS = torch.randn(5, 1, SIZE, SIZE, generator=generator(2)), torch.tensor([0, 1, 2, 3, 0])


def adversarial(member, images, labels):
    """Binary cross-entropy of real and generated images."""
    return nn.functional.softplus(-member(images, labels)).mean() + nn.functional.softplus(member(FAKES, FAKE_LABELS)).mean()


def penalised(member, images, labels):
    """Wasserstein with a gradient penalty: a derivative inside the derivative."""
    slopes = torch.func.grad(lambda mixed: member(mixed, labels).sum())((images + FAKES) / 2).flatten(1).norm(dim=1)
    return member(FAKES, FAKE_LABELS).mean() - member(images, labels).mean() + 10 * (slopes - 1).square().mean()


LOSSES = {"adversarial": adversarial, "penalised": penalised}


def score(member, images, labels):
    return member(images, labels).sum()


def a_vault(images=IMAGES, *, epsilon=math.inf, key=5, labels=LABELS):
    return Vault(images, labels, facts=FACTS, epsilon=epsilon, delta=1e-5, key=key)


def trained(vault, network="dense", loss="adversarial", steps=4, members=MEMBERS):
    made = vault.ensemble(NETWORKS[network](), members=members, generator=generator(), learning_rate=0.01)
    for _ in range(steps):
        made.train(LOSSES[loss], batch=5)
    return made


def weights(ensemble):
    return ensemble._state()["weights"]


def alone(network="dense", loss="adversarial", steps=4):
    """The same members by PyTorch's own autograd and Adam, one after the other: networks, and the shards' places."""
    drawn = generator()
    order = torch.randperm(RECORDS, generator=drawn)[: MEMBERS * (RECORDS // MEMBERS)].view(MEMBERS, -1)
    networks = [initialise(NETWORKS[network](), drawn) for _ in range(MEMBERS)]
    optimisers = [torch.optim.Adam(one.parameters(), lr=0.01, betas=(0.5, 0.999)) for one in networks]
    for _ in range(steps):
        places = torch.randint(order.shape[1], (5,), generator=drawn)
        for one, optimiser, shard in zip(networks, optimisers, order, strict=True):
            images, labels = IMAGES[shard[places]], LABELS[shard[places]]
            if loss == "adversarial":
                value = adversarial(one, images, labels)
            else:
                mixed = ((images + FAKES) / 2).requires_grad_()
                (slopes,) = torch.autograd.grad(one(mixed, labels).sum(), mixed, create_graph=True)
                penalty = 10 * (slopes.flatten(1).norm(dim=1) - 1).square().mean()
                value = one(FAKES, FAKE_LABELS).mean() - one(images, labels).mean() + penalty
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    return networks, order


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("loss", LOSSES)
def test_each_member_is_what_it_would_be_alone(network, loss):
    stacked = weights(trained(a_vault(), network, loss))
    networks, _ = alone(network, loss)
    for member, one in enumerate(networks):
        for name, parameter in one.named_parameters():
            # Adam divides by tiny moments, which magnifies the last bits of float32.
            torch.testing.assert_close(stacked[name][member], parameter.detach(), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("pixel", [1e6, math.nan])
def test_a_record_reaches_one_member_and_not_a_bit_of_the_others(network, loss, pixel):
    before = weights(trained(a_vault(), network, loss))
    _, order = alone(network, loss, steps=0)
    for place in (0, 17, RECORDS - 1):
        images = IMAGES.clone()
        images[place] = pixel
        after = weights(trained(a_vault(images), network, loss))
        differs = [
            member for member in range(MEMBERS) if any(not torch.equal(before[n][member], after[n][member]) for n in before)
        ]
        owners = [member for member in range(MEMBERS) if place in order[member]]
        assert set(differs) <= set(owners) and len(owners) <= 1


def test_the_order_of_records_decides_the_shards_and_nothing_else():
    """Of 50 records six members have eight each, and two are left over; other images and labels lie the same."""
    _, order = alone(steps=0)
    assert order.shape == (6, 8) and len(set(order.flatten().tolist())) == 48
    left_over = next(place for place in range(RECORDS) if place not in order)
    images = IMAGES.clone()
    images[left_over] = 100.0
    before, after = weights(trained(a_vault())), weights(trained(a_vault(images)))
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(PrivsetError, match="51 members: there are 50 records, and each needs one"):
        trained(a_vault(), members=51)


def test_together_is_faster_than_one_after_the_other():
    """A hundred small critics, at least twice as fast, which leaves room for a noisy machine."""
    facts = PublicFacts(records=600, classes=4, channels=1, size=SIZE, mean=(0.5,), std=(0.5,))
    images = torch.randn(600, 1, SIZE, SIZE, generator=generator())
    vault = Vault(images, torch.arange(600) % 4, facts=facts, epsilon=math.inf, delta=1e-5, key=0)
    ensemble = vault.ensemble(Dense(), members=100, generator=generator(), learning_rate=0.01)
    networks = [initialise(Dense(), generator()) for _ in range(100)]
    optimisers = [torch.optim.Adam(one.parameters(), lr=0.01, betas=(0.5, 0.999)) for one in networks]

    def loop():
        for member, (one, optimiser) in enumerate(zip(networks, optimisers, strict=True)):
            optimiser.zero_grad()
            adversarial(one, images[6 * member : 6 * member + 5], LABELS[:5]).backward()
            optimiser.step()

    def seconds(work):
        work()
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
        return min(taken)

    assert seconds(loop) > 2 * seconds(lambda: ensemble.train(adversarial, batch=5))


def gradients_alone():
    """(members, images, pixels) of the scores, by autograd."""
    networks, _ = alone()
    found = []
    for one in networks:
        images = FAKES.clone().requires_grad_()
        found.append(torch.autograd.grad(one(images, FAKE_LABELS).sum(), images)[0].flatten(1))
    return torch.stack(found)


QUIET = 1e-6
"""A noise multiplier that leaves answers readable."""


def test_votes_are_counted_in_bins():
    directions = torch.randn(PIXELS, 3, generator=generator(4)) / 3
    answer = trained(a_vault()).votes(score, FAKES, FAKE_LABELS, directions=directions, clip=0.05, bins=4, noise_multiplier=QUIET)
    projected = (gradients_alone() @ directions).numpy()
    edges = [-math.inf, -0.025, 0.0, 0.025, math.inf]
    expected = np.stack([np.histogram(projected[:, i, k], edges)[0] for i in range(5) for k in range(3)]).reshape(5, 3, 4)
    assert np.array_equal(answer.round().numpy(), expected) and answer.sum() == pytest.approx(5 * 3 * MEMBERS, abs=0.1)


def test_signs_of_the_largest_coordinates_add_up():
    """The largest of all is its sign with certainty; the mean over coins is g / max |g|. Coordinates are along the basis."""
    basis = torch.linalg.qr(torch.randn(PIXELS, 20, generator=generator(5))).Q
    answers = []
    ensemble = trained(a_vault())
    for _ in range(400):
        answers.append(ensemble.signed_sums(score, FAKES, FAKE_LABELS, basis=basis, largest=7, noise_multiplier=QUIET))
    mean = torch.stack(answers).mean(0)
    expected = torch.zeros(5, 20)
    for gradient in gradients_alone() @ basis:
        kept = torch.where(gradient.abs() >= gradient.abs().topk(7, dim=1).values[:, -1:], gradient, 0.0)
        expected += kept / kept.abs().amax(1, keepdim=True)
    # Each coordinate is a mean of 400 sums of at most six signs: five standard deviations are 5 sqrt(6 / 400).
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.62)
    # On average it is a mean of 400 sums of 6 x 7 / 20 signs, whose variance is at most 1: sqrt(2.1 / 400).
    assert (mean - expected).square().mean().sqrt() < 0.072
    assert all(answer.round().abs().sum(1).max() <= 7 * MEMBERS for answer in answers)


def test_labels_count_the_scores_above_zero():
    answer = trained(a_vault()).labels(FAKES, FAKE_LABELS, noise_multiplier=QUIET)
    networks, _ = alone()
    expected = sum((one(FAKES, FAKE_LABELS) > 0).double() for one in networks)
    assert torch.equal(answer.round().double(), expected)


def test_one_gradient_is_of_a_member_that_is_drawn_uniformly():
    clip = 5 * float(gradients_alone().norm(dim=2).median())
    cut = gradients_alone() * (clip / 5 / gradients_alone().norm(dim=2, keepdim=True)).clamp(max=1)
    ensemble = trained(a_vault())
    counts = np.zeros(MEMBERS)
    for _ in range(600):
        answer = ensemble.one_gradient(score, FAKES, FAKE_LABELS, clip=clip, noise_multiplier=QUIET)
        distances = (cut - answer.flatten(1)).flatten(1).norm(dim=1)
        assert distances.min() < 1e-2 * clip and answer.shape == FAKES.shape
        assert (answer.flatten(1).norm(dim=1) <= clip / 5 * 1.001).all()
        counts[int(distances.argmin())] += 1
    # Chi-squared with 5 degrees of freedom: 20.5 at 0.1 %.
    assert (((counts - 100) ** 2) / 100).sum() < 20.5


def test_who_is_asked_follows_from_the_key_and_not_from_what_is_public():
    """The same public generator, other keys: other members, and the generator is where it was."""
    told = []
    for key in range(6):
        vault, drawn = a_vault(key=key), generator()
        ensemble = vault.ensemble(Dense(), members=MEMBERS, generator=drawn, learning_rate=0.01)
        before = drawn.get_state()
        answers = [ensemble.one_gradient(score, FAKES, FAKE_LABELS, clip=1.0, noise_multiplier=QUIET) for _ in range(5)]
        assert torch.equal(before, drawn.get_state())
        told.append(tuple(round(float(answer.sum()), 2) for answer in answers))
    assert len(set(told)) == 6


def test_a_network_whose_members_would_share_buffers_is_refused():
    class Normalised(Dense):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

    with pytest.raises(TypeError, match="Normalised has buffers, which all members would share"):
        a_vault().ensemble(Normalised(), members=MEMBERS, generator=generator(), learning_rate=0.01)


def test_a_member_that_is_no_number_counts_as_nothing_or_one_vote():
    ensemble = trained(a_vault())
    for name in weights(ensemble):
        weights(ensemble)[name][2] = math.nan
    options = {"directions": torch.ones(PIXELS, 1), "clip": 1.0, "bins": 2}
    votes = ensemble.votes(score, FAKES, FAKE_LABELS, **options, noise_multiplier=QUIET)
    assert torch.equal(votes.sum(2).round(), torch.full((5, 1), float(MEMBERS)))
    for answer in (
        ensemble.signed_sums(score, FAKES, FAKE_LABELS, basis=torch.eye(PIXELS), largest=3, noise_multiplier=QUIET),
        ensemble.labels(FAKES, FAKE_LABELS, noise_multiplier=QUIET),
        *(ensemble.one_gradient(score, FAKES, FAKE_LABELS, clip=1.0, noise_multiplier=QUIET) for _ in range(30)),
    ):
        assert torch.isfinite(answer).all()


def test_a_question_beyond_the_budget_is_refused_before_a_member_is_asked():
    ensemble = trained(a_vault(epsilon=1.0))

    def never(member, images, labels):
        raise AssertionError("asked")

    for ask in (
        lambda: ensemble.votes(never, FAKES, FAKE_LABELS, directions=torch.ones(PIXELS, 1), clip=1, bins=2, noise_multiplier=1.0),
        lambda: ensemble.signed_sums(never, FAKES, FAKE_LABELS, basis=torch.eye(PIXELS), largest=3, noise_multiplier=1.0),
        lambda: ensemble.labels(FAKES, FAKE_LABELS, noise_multiplier=1.0),
        lambda: ensemble.one_gradient(never, FAKES, FAKE_LABELS, clip=1.0, noise_multiplier=0.3),
    ):
        with pytest.raises(BudgetExceeded):
            ask()


def test_a_vault_keeps_its_ensembles_through_a_checkpoint():
    def go_on(ensemble):
        for _ in range(3):
            ensemble.train(adversarial, batch=5)
        return ensemble.labels(FAKES, FAKE_LABELS, noise_multiplier=1.0)

    vault, drawn = a_vault(), generator()
    ensemble = vault.ensemble(Dense(), members=MEMBERS, generator=drawn, learning_rate=0.01)
    go_on(ensemble)
    saved, coins = torch.load(_saved(vault.state()), weights_only=True), drawn.get_state()
    expected = go_on(ensemble)
    again, drawn = a_vault(key=1), generator()
    ensemble = again.ensemble(Dense(), members=MEMBERS, generator=drawn, learning_rate=0.01)
    again.load_state(saved)
    drawn.set_state(coins)
    assert torch.equal(go_on(ensemble), expected)


def _saved(state):
    import io

    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return stream
