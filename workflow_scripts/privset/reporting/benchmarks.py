"""Timings of the private step beside its peers: interleaved in one process, so that a noisy machine disturbs all alike."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from privset.evaluation import plain, training
from privset.jobs.computation import Computation
from privset.methods import psg
from privset.networks import classifiers, compiled
from privset.privacy import noise
from privset.privacy.gradients import clipped_gradient_sum, per_record_gradients

OURS = "privset"
CLIP = 0.1


def peak_memory(call: Callable[[], Any], device: torch.device) -> float:
    """MB that a call needs above what was in use before it (0 where the system does not tell)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # memory that the C library keeps would hide what the call needs
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(key))

    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the high-water mark
    except OSError:
        return 0.0
    before = status("VmRSS")
    call()
    return (status("VmHWM") - before) / 2**10


def interleaved(
    calls: dict[str, Callable[[], Any]],
    *,
    repeats: int,
    device: torch.device,
    tick: Callable[[], None] = lambda: None,
    shares: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """One row per call: median and quartiles of `repeats` rounds in each of which every call runs once, after a warm-up.

    `ratio` is to the call named `privset`, of medians. `shares` are those of the work that a call does, 1 if not given: its
    seconds are divided by it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    memory = {}
    for name, call in calls.items():
        call()
        memory[name] = peak_memory(call, device)
    for _ in range(repeats):
        for name, call in calls.items():
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            begin = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name].append((time.perf_counter() - begin) / (shares or {}).get(name, 1))
        tick()
    ours = statistics.median(seconds[OURS])
    rows = []
    for name, taken in seconds.items():
        lower, median, upper = statistics.quantiles(taken, n=4, method="inclusive")
        rows.append({"program": name, "seconds": median, "lower": lower, "upper": upper, "n": repeats})
        rows[-1] |= {"fastest": min(taken), "ratio": median / ours, "peak_mb": memory[name]}
    return rows


class Timing:
    """The rows of several `interleaved` measurements, with the progress of all of them."""

    def __init__(self, job: Computation, title: str, *, rounds: int):
        self.device, self.details, self.rows = torch.device(job.device), job.details, []
        self.progress, self.done = job.progress(title), 0
        self.progress.start(rounds)

    def _tick(self) -> None:
        self.done += 1
        self.progress.update(self.done)

    def add(
        self,
        where: dict[str, Any],
        calls: dict[str, Callable[[], Any]],
        *,
        repeats: int,
        factor: float = 1,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        """Measure, and keep the rows under `where`, their seconds `factor` times as long."""
        for row in interleaved(calls, repeats=repeats, device=self.device, tick=self._tick, shares=shares):
            scaled = {key: row[key] * factor for key in ("seconds", "lower", "upper", "fastest")}
            self.rows.append({**where, **row, **scaled})

    def frame(self) -> pd.DataFrame:
        """Every row, with the machine and the versions."""
        versions = self.details["versions"]
        machine = {"device": self.details["device"], "torch": versions["torch"], "opacus": versions["opacus"]}
        return pd.DataFrame([{**row, **machine} for row in self.rows])


def _convnet(width: int, device: torch.device) -> nn.Module:
    generator = torch.Generator(device).manual_seed(0)
    return classifiers.build("convnet", channels=1, classes=10, size=28, width=width, generator=generator)


def private_gradient(*, batch: int, width: int, device: torch.device) -> dict[str, Callable[[], Any]]:
    """Programs that compute the sum of clipped per-record gradients of a ConvNet, and two that compute the plain gradient.

    Batches have a fixed size here. Ours adds its noise, on the grid; one program does as ours did before: sum and noise in
    float32. Opacus adds none here.
    """
    import opacus
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    data = torch.Generator().manual_seed(1)
    images = torch.randn(batch, 1, 28, 28, generator=data).to(device)
    labels = torch.randint(10, (batch,), generator=data).to(device)

    hooked = opacus.GradSampleModule(_convnet(width, device), loss_reduction="sum")
    hooks_optimiser = DPOptimizer(
        torch.optim.SGD(hooked.parameters(), lr=0.0),
        noise_multiplier=0.0,
        max_grad_norm=CLIP,
        expected_batch_size=batch,
        loss_reduction="sum",
    )

    def opacus_hooks() -> None:
        hooks_optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(hooked(images), labels, reduction="sum").backward()
        hooks_optimiser.clip_and_accumulate()

    ghostly = GradSampleModuleFastGradientClipping(
        _convnet(width, device), max_grad_norm=CLIP, use_ghost_clipping=True, loss_reduction="sum"
    )
    ghost_optimiser = DPOptimizerFastGradientClipping(
        torch.optim.SGD(ghostly.parameters(), lr=0.0),
        noise_multiplier=0.0,
        max_grad_norm=CLIP,
        expected_batch_size=batch,
        loss_reduction="sum",
    )
    ghost_loss = DPLossFastGradientClipping(ghostly, ghost_optimiser, nn.CrossEntropyLoss(reduction="sum"), loss_reduction="sum")

    def opacus_ghost() -> None:
        ghost_optimiser.zero_grad(set_to_none=True)
        ghost_loss(ghostly(images), labels).backward()

    network = _convnet(width, device)
    named = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def loss_of_one(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(network, weights, (image[None],)), label[None])

    per_record = torch.func.vmap(torch.func.grad(loss_of_one), in_dims=(None, 0, 0))

    def vmap_grad() -> None:
        rows = [gradient.flatten(1) for gradient in per_record(named, images, labels).values()]
        norms = torch.stack([row.norm(dim=1) for row in rows]).norm(dim=0)
        scale = (CLIP / (norms + 1e-6)).clamp(max=1.0)
        for row in rows:
            scale @ row

    fused = torch.compile(network, dynamic=False)

    def plain(model: nn.Module) -> None:
        torch.autograd.grad(F.cross_entropy(model(images), labels), list(network.parameters()))

    def ours(compile: bool) -> None:
        total = clipped_gradient_sum(network, images, labels, clip=CLIP, compile=compile)
        noise.release(total, sensitivity=CLIP, noise_multiplier=1.0, key=1, question=0)

    random = torch.Generator(device).manual_seed(2)

    def before(compile: bool) -> None:
        size, weights = 16 * torch.get_num_threads() if width > 32 else 32, list(network.parameters())
        total = torch.zeros(sum(weight.numel() for weight in weights), device=device)
        for part in zip(images.split(size), labels.split(size), strict=True):
            total += compiled.run(_float32_sum, network, *part, compile=compile)
        total += torch.randn(total.shape, generator=random, device=device) * CLIP

    return {
        OURS: lambda: ours(True),
        "privset, float32 sum and noise": lambda: before(True),
        "privset, not compiled": lambda: ours(False),
        "the same, float32": lambda: before(False),
        "Opacus hooks": opacus_hooks,
        "Opacus ghost clipping": opacus_ghost,
        "vmap(grad)": vmap_grad,
        "not private": lambda: plain(network),
        "not private, compiled": lambda: plain(fused),
    }


def _float32_sum(network: nn.Module, weights: list[Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """The sum as it was collected until version 0.1."""
    gradients = per_record_gradients(network, images, labels, weights=weights)
    norms = torch.stack([torch.linalg.vector_norm(gradient, dim=1) for gradient in gradients])
    scale = (CLIP / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    return torch.cat([scale @ gradient for gradient in gradients])


def noise_draws(*, coordinates: int, device: torch.device) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """Gaussian noise on a vector: ours, PyTorch's float32, and where it is installed OpenDP's, which is exact and so much slower
    that it gets a thousandth of the coordinates; with the shares of the work."""
    total = torch.zeros(coordinates, device=device, dtype=torch.float64)
    random = torch.Generator(device).manual_seed(2)
    calls: dict[str, Callable[[], Any]] = {
        OURS: lambda: noise.release(total, sensitivity=1.0, noise_multiplier=1.0, key=1, question=0),
        "PyTorch, float32": lambda: torch.randn(coordinates, generator=random, device=device),
    }
    if importlib.util.find_spec("opendp") is None:
        return calls, {}
    import opendp.prelude as dp

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=float, nan=False)), dp.l2_distance(T=float)
    exact = space >> dp.m.then_gaussian(scale=1.0)
    few = [0.0] * max(1, coordinates // 1000)
    return {**calls, "OpenDP": lambda: exact(few)}, {"OpenDP": len(few) / coordinates}


def matching_step(*, images: int, width: int, device: torch.device) -> dict[str, Callable[[], Any]]:
    """PSG's update of the images: our compiled step and the same by plain autograd."""
    network = _convnet(width, device)
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(images, 1, 28, 28, generator=generator).to(device)
    labels = (torch.arange(images) * 10 // images).to(device)
    private = [torch.randn(p.shape, generator=generator).to(device) for p in network.parameters()]

    def step(compile: bool) -> None:
        compiled.run(psg._matching_step, network, pixels, labels, *private, compile=compile, metric="gm", weights_only=False)

    def autograd() -> None:
        seen = pixels.detach().requires_grad_()
        parameters = list(network.parameters())
        loss = F.cross_entropy(network(seen), labels)
        torch.autograd.grad(psg.matching_loss(list(torch.autograd.grad(loss, parameters, create_graph=True)), private), [seen])

    return {OURS: lambda: step(True), "privset, not compiled": lambda: step(False), "plain autograd": autograd}


def inner_step(*, images: int, width: int, device: torch.device) -> dict[str, Callable[[], Any]]:
    """One step of PSG's training of a network on the set, compiled and not."""
    network = _convnet(width, device)
    pixels = torch.randn(images, 1, 28, 28, generator=torch.Generator().manual_seed(2)).to(device)
    labels = (torch.arange(images) * 10 // images).to(device)
    weights = [weight.detach() for weight in network.parameters()]

    def step(compile: bool) -> None:
        gradients = compiled.run(psg._set_gradient, network, pixels, labels, compile=compile)
        torch._foreach_add_(weights, gradients, alpha=-1e-6)

    return {OURS: lambda: step(True), "privset, not compiled": lambda: step(False)}


def evaluation_epoch(*, network: str, images: int, precision: str, device: torch.device) -> dict[str, Callable[[], Any]]:
    """One training step of the evaluation, augmentation included, on a batch of at most 256 of `images` images.

    An epoch is `batches(images)` such steps. The peer is the loop as published programs write it (`plain`).
    """
    data = torch.Generator().manual_seed(3)
    pixels = torch.randn(min(images, 256), 1, 28, 28, generator=data).to(device)
    labels = torch.randint(10, (len(pixels),), generator=data).to(device)
    generator = torch.Generator(device).manual_seed(4)

    def build() -> nn.Module:
        return classifiers.build(network, channels=1, classes=10, size=28, generator=generator)

    models = {name: build() for name in ("ours", "float32", "plain")}
    random = np.random.default_rng(5)
    optimiser = torch.optim.SGD(models["plain"].parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def ours(name: str, **options: Any) -> None:
        schedule = training.Schedule(steps=1, batch_size=256, **options)
        training.train(models[name], pixels, labels, schedule, augmentation="crop_scale_rotate", generator=generator)

    def loop() -> None:
        augmented = plain.augment(pixels.cpu(), random).to(device)
        optimiser.zero_grad()
        F.cross_entropy(models["plain"](augmented), labels).backward()
        optimiser.step()

    return {
        OURS: lambda: ours("ours", precision=precision),
        "privset, float32": lambda: ours("float32"),
        "plain loop": loop,
    }


def batches(images: int) -> int:
    """Steps of an epoch."""
    return -(-images // 256)


def testing(*, network: str, images: int, precision: str, device: torch.device) -> dict[str, Callable[[], Any]]:
    """Predictions for `images` test images."""
    model = classifiers.build(network, channels=1, classes=10, size=28, generator=torch.Generator(device).manual_seed(4))
    pixels = torch.randn(images, 1, 28, 28, generator=torch.Generator().manual_seed(3)).to(device)
    labels = torch.zeros(images, dtype=torch.int64, device=device)
    return {
        OURS: lambda: training.predict(model, pixels, precision=precision),
        "privset, float32": lambda: training.predict(model, pixels, precision="float32"),
        "plain loop": lambda: plain.accuracy(model, pixels, labels),
    }
