"""What runs on a graphics card is what runs on the CPU, and the host never waits for it in PSG's loop."""

import io
import multiprocessing
import statistics

import pytest
import torch

from privset import PrivsetError, methods
from privset.evaluation import augment, plain, training
from privset.jobs import checkpoints, devices
from privset.jobs.progress import Progress
from privset.jobs.run import Run
from privset.methods import psg
from privset.networks import classifiers
from privset.privacy import noise
from privset.privacy.gradients import clipped_gradient_sum
from privset.privacy.vault import Vault
from unit.test_replay import BLOCKS, FACTS, IMAGES, LABELS, QUESTIONS, RELEASES, SIZE


def vault_on(device, *, epsilon=10.0, images=IMAGES, labels=LABELS, facts=FACTS):
    return Vault(images.to(device), labels.to(device), facts=facts, epsilon=epsilon, delta=1e-5, key=noise.key_of(1))


def convnet(width=16):
    return classifiers.build(
        "convnet", channels=1, classes=10, size=SIZE, width=width, generator=torch.Generator().manual_seed(0)
    )


def run_on(device, spc=1, **hooks):
    return Run(spc=spc, generator=torch.Generator(device).manual_seed(0), **hooks)


# ------------------------------------------------------------------------------------------------------------ the vault


def gradients(vault, device):
    network = convnet().to(device)
    parts = [vault.gradient_mean(network, sampling_rate=0.5, clip=0.1, noise_multiplier=1.0) for _ in range(3)]
    return torch.cat([part.flatten() for answer in parts for part in answer])


def feature_sums(vault, device):
    options = {"dimension": SIZE * SIZE, "clip": 3.0, "noise_multiplier": 1.0, "relation": "replace-one"}
    return vault.feature_sums(lambda images, labels: images.flatten(1), **options)


def batch_function(vault, device):
    options = {"dimension": SIZE * SIZE, "sampling_rate": 0.5, "clip": 3.0, "noise_multiplier": 1.0}
    return vault.batch_function(lambda images, labels, present: images.sum(0).flatten(), **options)


def projected_rows(vault, device):
    directions = torch.eye(SIZE * SIZE, dtype=torch.float64)[:, :20].to(device)
    options = {"sampling_rate": 0.5, "clip": 3.0, "noise_multiplier": 1.0}
    return vault.projected_rows(lambda images, labels: images.flatten(1), directions, **options)


@pytest.mark.parametrize(
    ("query", "tolerance"),
    # Gradients are float32, and so is the sum of a batch; the others are sums in float64, rounded to the grid.
    [(gradients, 1e-5), (feature_sums, 1e-9), (batch_function, 1e-5), (projected_rows, 1e-9)],
)
def test_a_query_has_the_cpus_answer(query, tolerance, card):
    """The same key draws the same batches and the same noise, so answers differ by rounding alone."""
    ours, theirs = (query(vault_on(device, epsilon=1e6), device).cpu().double() for device in (card, torch.device("cpu")))
    assert (ours - theirs).norm() <= tolerance * theirs.norm()


def test_the_noise_has_the_cpus_bits(card):
    total = torch.randn(1000, generator=torch.Generator().manual_seed(0)).double()
    options = {"sensitivity": 1.0, "noise_multiplier": 2.0, "key": 5, "question": 3}
    assert torch.equal(noise.release(total.to(card), **options).cpu(), noise.release(total, **options))
    ahead = noise.Ahead()
    for question in range(20):  # drawn before they are asked for
        options["question"] = question
        assert torch.equal(noise.release(total.to(card), **options, ahead=ahead).cpu(), noise.release(total, **options))


@pytest.mark.parametrize("network", list(classifiers.NETWORKS))
def test_clipped_sums_of_every_network_are_the_cpus(network, card):
    model = classifiers.build(network, channels=1, classes=10, size=SIZE, generator=torch.Generator().manual_seed(0))
    ours, theirs = (
        clipped_gradient_sum(model.to(device), IMAGES.to(device), LABELS.to(device), clip=0.1).cpu() for device in (card, "cpu")
    )
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


# ---------------------------------------------------------------------------------------------------------- the methods


@pytest.mark.parametrize("method", QUESTIONS)
def test_every_method_asks_as_on_the_cpu_and_makes_a_whole_set(method, card):
    """Networks and codes come from the card's own generator, so the sets differ; the ledger must not."""

    def make(device):
        vault = vault_on(device)
        made = None
        if method in RELEASES:
            module = methods.load_releases(method)
            released = module.release(vault, module.ReleaseConfig.model_validate(RELEASES[method]), run_on(device))
            if method == "psm":
                psm = methods.load("psm")
                config = psm.Config(first_iterations=1, iterations=1)
                made = psm.synthesize(released, vault.facts, config, run_on(device))
        else:
            module = methods.load(method)
            made = module.synthesize(vault, module.Config.model_validate(BLOCKS[method]), run_on(device))
        return made, [release.to_dict() for release in vault.ledger.releases]

    (made, asked), (_, expected) = make(card), make(torch.device("cpu"))
    assert asked == expected
    if made is not None:
        images, labels = made
        assert images.device.type == card.type and torch.isfinite(images).all()
        assert labels.bincount(minlength=10).unique().numel() == 1


def test_psg_compiled_makes_the_same_set_up_to_rounding(card):
    if card.type == "cpu":
        pytest.skip("tests/unit/test_methods.py compiles for the CPU")
    config = {"iterations": 2, "outer": 2, "inner": 1, "batches": 2, "batch_size": 16, "width": 16}
    plainly, fused = (
        psg.synthesize(vault_on(card), psg.Config(**config, compile=compile), run_on(card))[0] for compile in (False, True)
    )
    assert (plainly - fused).norm() <= 1e-3 * plainly.norm()


@pytest.mark.parametrize("compile", [False, True])
def test_the_host_never_waits_in_psgs_loop(compile, card):
    """After a first run, which compiles and looks whether gradients depend on their place."""
    if card.type == "cpu":
        pytest.skip("tests/unit/test_waiting.py looks at the CPU's form")
    config = psg.Config(iterations=3, outer=2, inner=1, batches=2, batch_size=16, width=16, compile=compile)
    psg.synthesize(vault_on(card), config, run_on(card))
    vault, run = vault_on(card), run_on(card)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        images, _ = psg.synthesize(vault, config, run)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(images).all()


def test_an_interrupted_psg_ends_with_the_same_set(card):
    config = psg.Config(iterations=4, outer=2, inner=1, batches=2, batch_size=16, width=16)
    whole = psg.synthesize(vault_on(card), config, run_on(card))[0]
    kept = {}
    first = vault_on(card)
    run = run_on(card)

    def keep(state):
        if state["iteration"] == 2:
            buffer = io.BytesIO()
            torch.save({"method": state, "vault": first.state(), "generator": run.generator.get_state()}, buffer)
            kept["bytes"] = buffer.getvalue()

    psg.synthesize(first, config, Run(spc=1, generator=run.generator, checkpoint=keep))
    again, second = run_on(card), vault_on(card)
    content = torch.load(io.BytesIO(kept["bytes"]), map_location=card, weights_only=True)

    def restore():
        second.load_state(content["vault"])
        again.generator.set_state(content["generator"].cpu())
        return content["method"]

    resumed = psg.synthesize(second, config, Run(spc=1, generator=again.generator, restore=restore))[0]
    assert (whole - resumed).norm() <= 1e-4 * whole.norm()  # a card's sums have no fixed order
    assert [r.to_dict() for r in second.ledger.releases] == [r.to_dict() for r in first.ledger.releases]


# ------------------------------------------------------------------------------------------------------- the evaluation


@pytest.mark.parametrize("network", list(classifiers.NETWORKS))
def test_every_network_predicts_as_on_the_cpu(network, card):
    model = classifiers.build(network, channels=1, classes=10, size=SIZE, generator=torch.Generator().manual_seed(0))
    ours, theirs = (model.to(device)(IMAGES.to(device)).detach().cpu() for device in (card, "cpu"))
    assert (ours - theirs).abs().max() <= 1e-3 * theirs.abs().max()


def test_the_augmentation_has_the_plain_ones_pixels(card):
    image = torch.randn(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    fill = torch.tensor([-0.4])[:, None, None]
    for degrees in range(-45, 45, 7):
        ours = augment.rotated(image.to(card), torch.tensor([degrees * torch.pi / 180], device=card), fill.to(card))[0]
        theirs = torch.from_numpy(plain.rotate_one(image[0].numpy(), degrees, fill.flatten().numpy()))
        assert (ours.cpu() - theirs).abs().max() < 1e-4


def test_networks_learn_and_an_interrupted_evaluation_goes_on(card, tmp_path):
    labels = torch.arange(200) % 2
    images = 0.1 * torch.randn(200, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    images[labels == 0, :, :14] += 1
    images[labels == 1, :, 14:] += 1
    tensors = [part.to(card) for part in (images, labels, images, labels)]
    schedule = training.Schedule(steps=60, batch_size=50, seeds=2)

    def evaluate(path):
        return training.repeat(
            *tensors,
            schedules={"mlp": schedule, "lenet": schedule},
            classes=2,
            augmentation="crop_scale_rotate",
            generator=lambda network, seed: torch.Generator(card).manual_seed(seed),
            progress=lambda network, seed: Progress(network, io.StringIO()),
            checkpoint=checkpoints.File(path, belongs_to="x", log=lambda line: None),
        )[0]

    rows = evaluate(tmp_path / "whole.pt")
    assert statistics.mean(row["test_accuracy"] for row in rows) > 95
    assert [row["test_accuracy"] for row in evaluate(tmp_path / "again.pt")] == pytest.approx(
        [row["test_accuracy"] for row in rows], abs=5
    )


# ----------------------------------------------------------------------------------------------------------- the card


def _hold(connection):
    with devices.device(gpu=True) as device:
        connection.send(device)
        connection.recv()


def test_two_jobs_never_share_a_card(card, monkeypatch):
    if card.type == "cpu":
        pytest.skip("tests/unit/test_devices.py has made-up cards")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    cards = torch.cuda.device_count()
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(cards)]
    jobs = [context.Process(target=_hold, args=(theirs,)) for _, theirs in pipes]
    for job in jobs:
        job.start()
    assert sorted(ours.recv() for ours, _ in pipes) == [f"cuda:{index}" for index in range(cards)]
    with pytest.raises(PrivsetError, match="became free"), devices.device(gpu=True, wait=0.05, patience=0.2):
        pass
    for ours, _ in pipes:
        ours.send("enough")
    for job in jobs:
        job.join()
