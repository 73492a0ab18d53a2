"""The evaluation protocol: its schedule, its determinism, and that it measures what it says."""

import io
import math
import statistics

import pytest
import torch

from privset import PrivsetError
from privset.data import datasets, sources
from privset.evaluation import plain, training
from privset.evaluation.training import Schedule
from privset.jobs import checkpoints
from privset.jobs.blocks import parse
from privset.networks import classifiers


def easy(count, generator):
    """Two classes that differ in which half is bright."""
    labels = torch.arange(count) % 2
    images = 0.1 * torch.randn(count, 1, 28, 28, generator=generator)
    images[labels == 0, :, :14] += 1
    images[labels == 1, :, 14:] += 1
    return images, labels


def test_a_thousand_epochs_are_a_thousand_and_one_with_the_drop_where_the_reference_has_it(generator):
    """Against the protocol written out with PyTorch's optimiser class: the learning rate falls after the epoch with index
    epochs // 2 + 1, with a new optimiser, and one epoch more than `epochs` runs."""
    images, labels = easy(6, generator)

    def fresh():
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 2))

    ours, reference = fresh(), fresh()
    reference.load_state_dict(ours.state_dict())
    schedule = Schedule(epochs=10, batch_size=4)  # two steps an epoch
    order = torch.Generator().manual_seed(3)
    steps = training.train(ours, images, labels, schedule, augmentation="none", generator=order)
    order.manual_seed(3)
    rate = 0.01
    optimiser = torch.optim.SGD(reference.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    for epoch in range(10 + 1):
        for batch in torch.randperm(6, generator=order).split(4):
            loss = torch.nn.functional.cross_entropy(reference(images[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if epoch == 10 // 2 + 1:
            rate *= 0.1
            optimiser = torch.optim.SGD(reference.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    assert steps == 22
    for a, b in zip(ours.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_stated_number_of_steps_is_what_happens(generator):
    images, labels = easy(100, generator)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 2))
    seen = []
    steps = training.train(
        model,
        images,
        labels,
        Schedule(steps=7, batch_size=32),
        augmentation="crop_scale_rotate",
        generator=generator,
        report=lambda step, loss: seen.append(step),
    )
    assert steps == 7 and seen == list(range(1, 8))


def run(seed, **options):
    data = torch.Generator().manual_seed(5)
    images, labels = easy(20, data)
    test_images, test_labels = easy(101, data)
    return training.evaluate(
        *(images, labels, test_images, test_labels),
        network="mlp",
        classes=2,
        schedule=Schedule(**{"epochs": 20, "batch_size": 10, **options}),
        augmentation="none",
        generator=torch.Generator().manual_seed(seed),
    )[0]


def test_an_easy_problem_is_solved_and_the_accuracy_is_in_percent():
    assert run(0)["test_accuracy"] == 100.0
    assert run(0, precision="bfloat16")["test_accuracy"] == 100.0


def test_the_same_seed_gives_the_same_accuracy_whatever_the_global_generator_does():
    def weights_after(seed, global_seed):
        torch.manual_seed(global_seed)
        return run(seed, steps=2, epochs=None)["test_accuracy"]

    assert weights_after(0, 1) == weights_after(0, 2)


def test_predictions_do_not_depend_on_the_chunk(generator):
    images, _ = easy(23, generator)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 2))
    whole = training.predict(model, images, precision="float32", chunk=100)
    assert torch.equal(whole, training.predict(model, images, precision="float32", chunk=7))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "give exactly one of epochs and steps"),
        ({"steps": 5, "epochs": 5}, "give exactly one of epochs and steps"),
        ({"steps": 5, "precision": "float8"}, "precision = 'float8': choose from"),
        ({"steps": 0}, "steps = 0: must be >= 1"),
        ({"steps": True}, "steps = True: "),
        ({"step": 5}, "unknown key 'step'; known keys: epochs, steps"),
    ],
)
def test_impossible_schedules_are_refused_in_one_line(options, reason):
    with pytest.raises(PrivsetError) as error:
        parse(Schedule, options, "evaluation")
    assert str(error.value).startswith(f"evaluation: {reason}") and "\n" not in str(error.value)


def test_a_diverged_training_is_an_error_not_a_number(generator):
    with pytest.raises(PrivsetError, match="diverged"):
        run(0, learning_rate=1e12)


def test_unknown_options_name_the_known_ones():
    with pytest.raises(PrivsetError, match="unknown key 'epoch'; known keys: epochs"):
        parse(Schedule, {"epoch": 3}, "evaluation")


@pytest.mark.parametrize("stop", [1, 11, 12, 13, 23])
def test_training_resumed_is_uninterrupted_to_the_bit(stop, generator):
    """Before, at and after the drop of the learning rate (step 12 of 24), in the middle of an epoch of three batches."""
    images, labels = easy(20, generator)
    schedule = Schedule(steps=24, batch_size=8)

    def train(restore=lambda: None, checkpoint=lambda make: None):
        start = torch.Generator().manual_seed(1)
        network = classifiers.build("mlp", channels=1, classes=2, size=28, generator=start, width=8)
        hooks = {"restore": restore, "checkpoint": checkpoint}
        training.train(*(network, images, labels, schedule), augmentation="crop_scale_rotate", generator=start, **hooks)
        return network

    class Stopped(Exception):
        pass

    kept = io.BytesIO()

    def interrupt(make):
        state = make()
        if state["step"] == stop:
            torch.save(state, kept)
            raise Stopped

    whole = train()
    with pytest.raises(Stopped):
        train(checkpoint=interrupt)
    kept.seek(0)
    resumed = train(restore=lambda: torch.load(kept, weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A small training set (10 per class) and the test half of scikit-learn's digits."""
    folder = tmp_path_factory.mktemp("digits")
    sources.fetch("digits", folder, sources=[], directory=None, timeout=1, log=lambda line: None)
    facts = datasets.public_facts(datasets.describe(folder), records=100)
    images, labels, test_images, test_labels = (
        torch.from_numpy(array) for train in (True, False) for array in datasets.load(folder, train=train)
    )
    few = torch.cat([(labels == label).nonzero()[:10, 0] for label in range(10)])
    return facts.normalise(images[few]), labels[few], facts.normalise(test_images), test_labels


@pytest.mark.parametrize(("name", "options", "epochs"), [("mlp", {}, 60), ("convnet", {"width": 16}, 30)])
def test_a_plain_eager_loop_gives_the_same_accuracy(name, options, epochs, digits):
    """Two implementations of one protocol, ten networks each: the means agree within two standard errors."""
    images, labels, test_images, test_labels = digits
    ours, plains = [], []
    for seed in range(10):
        for accuracies in (ours, plains):
            start = torch.Generator().manual_seed(seed if accuracies is ours else 100 + seed)
            network = classifiers.build(name, channels=1, classes=10, size=28, generator=start, **options)
            if accuracies is ours:
                schedule = Schedule(epochs=epochs, batch_size=256)
                training.train(*(network, images, labels, schedule), augmentation="crop_scale_rotate", generator=start)
                predicted = training.predict(network, test_images, precision="float32")
                ours.append(100 * (predicted == test_labels).double().mean().item())
            else:
                plain.train(network, images, labels, epochs=epochs, batch_size=256, seed=seed)
                plains.append(plain.accuracy(network, test_images, test_labels))
    error = math.sqrt((statistics.variance(ours) + statistics.variance(plains)) / 10)
    assert statistics.mean(ours) > 60  # both learned something
    assert abs(statistics.mean(ours) - statistics.mean(plains)) < 2 * error, (ours, plains)


class Interrupted(Exception):
    pass


def test_several_networks_interrupted_end_with_the_same_numbers(tmp_path):
    """Each by its own schedule and seeds; finished runs, of whatever network, are not run again."""
    images, labels = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 10
    schedules = {"mlp": Schedule(steps=3, seeds=2), "lenet": Schedule(steps=2)}
    told, stop = [], [99]

    class Shown:
        title = "a run"

        def start(self, total):
            pass

        def report(self, step, loss):
            stop[0] -= 1
            if not stop[0]:
                raise Interrupted

    def go(path):
        file = checkpoints.File(path, belongs_to="this", log=lambda line: None)
        file.due = lambda: True
        return training.repeat(
            *(images, labels, images, labels),
            schedules=schedules,
            classes=10,
            augmentation="none",
            generator=lambda network, seed: torch.Generator().manual_seed(1000 * len(network) + seed),
            progress=lambda network, seed: told.append((network, seed)) or Shown(),
            checkpoint=file,
        )

    rows, said = go(tmp_path / "whole.pt")
    mlp, lenet = "3 steps of 256 at 0.01", "2 steps of 256 at 0.01"
    assert [(row["network"], row["network_seed"], row["protocol"], row["steps"]) for row in rows] == [
        *(("mlp", 0, mlp, 3), ("mlp", 1, mlp, 3), ("lenet", 0, lenet, 2)),
    ]
    assert {name: tuple(each.shape) for name, each in said.items()} == {"mlp": (2, 40), "lenet": (1, 40)}
    stop[0] = 8  # in the second step of the second network
    with pytest.raises(Interrupted):
        go(tmp_path / "stopped.pt")
    told.clear()
    again, once_more = go(tmp_path / "stopped.pt")
    assert told == [("lenet", 0)]
    assert [row["test_accuracy"] for row in again] == [row["test_accuracy"] for row in rows]
    assert all(torch.equal(said[name], once_more[name]) for name in said)


@pytest.mark.parametrize(
    ("schedule", "protocol"),
    [
        ({"epochs": 1000, "seeds": 3}, "psg"),
        ({"epochs": 500}, "500 epochs of 256 at 0.01"),
        ({"steps": 1000}, "1,000 steps of 256 at 0.01"),
        ({"epochs": 1000, "width": 32}, "1,000 epochs of 256 at 0.01, width 32"),
        ({"epochs": 1000, "precision": "bfloat16"}, "1,000 epochs of 256 at 0.01 in bfloat16"),
        ({"epochs": 1000, "weight_decay": 0.0}, "1,000 epochs of 256 at 0.01, weight decay 0"),
        ({"epochs": 1000, "augment": False}, "1,000 epochs of 256 at 0.01, not augmented"),
    ],
)
def test_only_the_reference_programs_schedule_is_called_psg(schedule, protocol):
    assert Schedule(**schedule).protocol == protocol


@pytest.mark.parametrize(("network", "published"), [("convnet", 128), ("alexnet", 128), ("vgg11", 64), ("resnet18", 64)])
def test_a_width_is_the_first_layers_and_the_others_are_in_proportion(network, published, generator):
    options = {"channels": 1, "classes": 10, "size": 28, "generator": generator}
    whole, same, half = (classifiers.build(network, **options, width=width) for width in (None, published, published // 2))
    shapes = [[weight.shape for weight in model.parameters()] for model in (whole, same, half)]
    assert shapes[0] == shapes[1]
    for wide, narrow in zip(shapes[0], shapes[2], strict=True):
        assert narrow[0] in (wide[0] / 2, 10) and narrow[2:] == wide[2:]
    assert half(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_a_network_of_one_width_has_no_other(generator):
    with pytest.raises(PrivsetError, match="width = 3: lenet has one width alone"):
        classifiers.build("lenet", channels=1, classes=10, size=28, width=3, generator=generator)
