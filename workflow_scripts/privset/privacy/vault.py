"""The only door to private data.

A `Vault` holds the private images and labels of one job and a privacy budget. Methods keep none; they ask for releases. Each is
charged to the ledger *before* a record is touched, or refused (`BudgetExceeded`), clips, adds its noise, and only then returns.

Public, in `data.datasets.PublicFacts`, are the number of records, the classes, the image shape and the published normalisation
constants, and nothing else. Class counts are not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dp_accounting
import numpy as np
import torch
from torch import Tensor, nn

from privset import PrivsetError
from privset.data.datasets import PublicFacts
from privset.privacy import accounting, noise
from privset.privacy.batches import check_clip, room, rows_of_batch
from privset.privacy.ensembles import Ensemble
from privset.privacy.gradients import Inputs, Loss, clipped_gradient_sum, cross_entropy, cut, plain, released
from privset.privacy.ledger import Ledger, Relation, Release, check_delta
from privset.privacy.places import AT_ONCE, check_function, check_places


class Vault:
    """Private images (N, C, H, W), in normalised units on the device on which releases are computed, and labels (N,) int64,
    behind a budget of epsilon (infinite for non-private rows) and delta, spent by an accountant. `facts` are public, and have N
    records; `key` is that of the noise and of the batches (`noise.fresh_key`, `noise.key_of`).
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        facts: PublicFacts,
        epsilon: float,
        delta: float,
        accountant: accounting.Accountant = "rdp",
        key: int,
    ):
        if len(images) != facts.records or len(labels) != facts.records:
            raise ValueError(f"{len(images)} images and {len(labels)} labels, but {facts.records} records are announced")
        if facts.records > noise.RECORDS:
            raise PrivsetError(f"{facts.records} records: the proof in privacy/noise.py covers at most {noise.RECORDS}")
        if math.isfinite(epsilon):
            check_delta(delta, facts.records)
        self.facts = facts
        self.ledger = Ledger(epsilon=epsilon, delta=delta, accountant=accountant)
        self.device = images.device
        self._fixed_rows = images.device.type != "cpu"
        self.__images, self.__labels = images, labels
        self.__finite = torch.isfinite(images).flatten(1).all(1)
        self.__key = key
        self.__ahead = noise.Ahead() if images.device.type == "cuda" else None
        self.__part: tuple[int, ...] | None = None
        self.__ensembles: list[Ensemble] = []

    def part(self, classes: Sequence[int], *, local_labels: bool = False) -> Vault:
        """The records of some classes, as a vault whose releases concern them alone and are charged to that part of the ledger.

        How many records a part has becomes public by this (`facts.records`), and so does, for a record, to which part it
        belongs: the guarantee is for adding or removing a record of any class, not for moving one to another part.
        `local_labels` counts the classes of the part from 0, and `facts.classes` is then their number.

        A release from a part that overlaps another one's raises ValueError. Key and ledger are shared.
        """
        if self.__part is not None:
            raise ValueError("a part has no parts")
        chosen = torch.as_tensor(classes, device=self.device)
        inside = torch.isin(self.__labels, chosen)
        part = copy.copy(self)
        part.__part = tuple(classes)
        part.__images, part.__labels, part.__finite = self.__images[inside], self.__labels[inside], self.__finite[inside]
        part.facts = replace(self.facts, records=len(part.__images))
        if local_labels:
            part.__labels = (part.__labels[:, None] == chosen).int().argmax(1)
            part.facts = replace(part.facts, classes=len(classes))
        return part

    def seen(self, function: Callable[[Tensor], Tensor], *, channels: int, size: int) -> Vault:
        """The same records as a public function shows them, computed once: (N, channels, size, size). Key and ledger are shared.

        `function` takes images (B, C, H, W) in normalised units, each by itself, or PrivsetError is raised (`places`): to add or
        remove a record is to add or remove its row. A record with NaN or infinity counts nowhere."""
        check_function(function, self.facts, self.device)
        view = copy.copy(self)
        view.facts = replace(self.facts, channels=channels, size=size)
        with torch.no_grad():
            images = torch.where(self.__finite.view(-1, 1, 1, 1), self.__images, 0)
            view.__images = torch.cat([function(part) for part in images.split(AT_ONCE)])
        if (shape := view.__images.shape) != (len(self.__images), *view.facts.shape):
            raise ValueError(f"the function of images gives {tuple(shape)}, not (N, {channels}, {size}, {size})")
        view.__finite = self.__finite & torch.isfinite(view.__images).flatten(1).all(1)
        return view

    def _charge(
        self, mechanism: str, event: dp_accounting.DpEvent, relation: Relation | None, sensitivity: float, dimension: int
    ) -> Release:
        """Record the release that is about to happen."""
        release = Release(
            mechanism=mechanism,
            event=event,
            relation=relation,
            sensitivity=sensitivity,
            records=self.facts.records,
            dimension=dimension,
            part=self.__part,
        )
        self.ledger.charge(release)
        return release

    @property
    def _question(self) -> int:
        """The place in the ledger of the release that was charged last, counted from 0."""
        return sum(release.count for release in self.ledger.releases) - 1

    def _answer(self, total: Tensor, release: Release, noise_multiplier: float) -> Tensor:
        """The end of every query: noise on the sum, as charged."""
        if total.numel() != release.dimension:
            raise ValueError(f"{release.mechanism}: a sum of {total.numel()} coordinates, but {release.dimension} were announced")
        answer = noise.release(
            total,
            sensitivity=release.sensitivity,
            noise_multiplier=noise_multiplier,
            key=self.__key,
            question=self._question,
            ahead=self.__ahead,
        )
        return answer.float()  # still on the grid: float32 has fewer bits, and drops the lowest

    def _uniforms(self) -> np.ndarray:
        """One number in [0, 1) for each record, of 53 bits: which of them the batch of this question has."""
        return noise.stream(self.__key, self._question, "sample").random(self.facts.records)

    def _slots(self, sampling_rate: float, present: Tensor, size: int) -> Tensor:
        """(B,) where the rows of a batch go among `size` places: to the first ones of a random order."""
        order = noise.stream(self.__key, self._question, "order").permutation(size)
        return noise.on_device(order[: len(present)], self.device)

    def _poisson_batch(self, sampling_rate: float) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels and presence of a fresh Poisson batch: each record independently with probability `sampling_rate`, and
        one with NaN or infinity never."""
        mask = noise.on_device(self._uniforms() < sampling_rate, self.device) & self.__finite
        size = room(sampling_rate, self.facts.records) if self._fixed_rows else None
        return rows_of_batch(self.__images, self.__labels, mask, size=size)

    def gradient_mean(
        self,
        network: nn.Module,
        *,
        sampling_rate: float,
        clip: float,
        noise_multiplier: float,
        inputs: Inputs = plain,
        loss: Loss = cross_entropy,
        weights_only: bool = False,
        compile: bool = False,
    ) -> list[Tensor]:
        """DP-SGD's noisy mean gradient of a loss (Abadi et al. 2016, Algorithm 1) on a fresh Poisson batch.

        Each record is in the batch independently with probability `sampling_rate`; its gradient over all parameters is
        clipped to L2 norm `clip`; the sum gets Gaussian noise of standard deviation `noise_multiplier * clip` and is divided
        by the *expected* batch size, which is public. An empty batch releases pure noise. Neighbours: add or remove one.

        The network is given `inputs(images, labels)`, and its outputs and the labels go into `loss`, (B,), each record by itself.
        `weights_only` releases (and clips) the kernels' and matrices' gradients alone. `compile` compiles the computation.
        Returns a tensor per released parameter, in the network's order. Raises BudgetExceeded before sampling, and PrivsetError
        for gradients that depend on a record's place (`places`).
        """
        check_clip(clip)
        event = accounting.gaussian_event(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate)
        parameters = released(network, weights_only=weights_only)
        dimension = sum(parameter.numel() for parameter in parameters)
        release = self._charge("gradient_mean", event, "add-or-remove-one", clip * (1 + noise.ROUNDING), dimension)
        check_places(network, self.facts, self.device, inputs=inputs, loss=loss, weights_only=weights_only, compile=compile)
        images, labels, present = self._poisson_batch(sampling_rate)
        total = clipped_gradient_sum(
            network,
            inputs(images, labels),
            labels,
            clip=clip,
            present=present,
            loss=loss,
            weights_only=weights_only,
            compile=compile,
        )
        mean = self._answer(total, release, noise_multiplier) / (sampling_rate * self.facts.records)
        return [part.view_as(p) for part, p in zip(mean.split([p.numel() for p in parameters]), parameters, strict=True)]

    def feature_sums(
        self,
        features: Callable[[Tensor, Tensor], Tensor],
        *,
        dimension: int,
        clip: float,
        noise_multiplier: float,
        relation: Relation,
        chunk: int = 1000,
    ) -> Tensor:
        """One Gaussian release, over all records, of the per-class sums of clipped feature vectors.

        `features` maps (B, C, H, W) normalised images and their (B,) labels to (B, dimension), each row from its own record
        alone; rows longer than `clip` in L2 are scaled down to it, and rows with NaN or infinity count as zeros. It is called
        with at most `chunk` records, as many each time, or one less. A record touches one class's sum, so the sensitivity is
        `clip` for adding or removing one, `2 * clip` for replacing one (by one of any class), and what rounding adds (`noise`).
        Noise is `noise_multiplier` times that. Returns (classes, dimension). Raises BudgetExceeded before any is computed.
        """
        check_clip(clip)
        if not 8 <= chunk <= 1024:
            raise ValueError(f"chunk = {chunk}: the proof in privacy/noise.py is for 8 to 1,024")
        sensitivity = {"add-or-remove-one": clip, "replace-one": 2 * clip}[relation] * (1 + noise.ROUNDING)
        event, classes = accounting.gaussian_event(noise_multiplier=noise_multiplier), self.facts.classes
        release = self._charge("feature_sums", event, relation, sensitivity, classes * dimension)
        sums = torch.zeros(classes, dimension, device=self.device, dtype=torch.float64)
        parts = max(1, -(-self.facts.records // chunk))
        with torch.no_grad():
            for images, labels in zip(self.__images.tensor_split(parts), self.__labels.tensor_split(parts), strict=True):
                rows, factors = cut(features(images, labels), clip, look=self.device.type == "cpu")
                sums += (nn.functional.one_hot(labels, classes) * factors[:, None]).T @ rows
        return self._answer(sums, release, noise_multiplier)

    def batch_function(
        self,
        function: Callable[[Tensor, Tensor, Tensor], Tensor],
        *,
        dimension: int,
        sampling_rate: float,
        clip: float,
        noise_multiplier: float,
    ) -> Tensor:
        """Any vector computed from a fresh Poisson batch, cut as a whole to L2 norm `clip`, with noise.

        `function` takes images (B, C, H, W) in normalised units, labels (B,) and presence (B,), 0 for rows that are padding,
        which are zeros, and gives (dimension,). It may mix the records as it likes; B may be 0, and a vector with NaN or
        infinity counts as zeros. What it leaves behind elsewhere, in a generator for instance, must not depend on the batch.

        Neighbours: add or remove one. All that is known of the vector is that it stays within the ball of radius `clip`, so the
        sensitivity is the diameter, 2 * clip, and the noise `noise_multiplier` times that. Returns (dimension,). Raises
        BudgetExceeded before sampling, and ValueError for a result of another shape.
        """
        check_clip(clip)
        event = accounting.gaussian_event(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate)
        release = self._charge("batch_function", event, "add-or-remove-one", 2 * clip * (1 + noise.ROUNDING), dimension)
        vector = function(*self._poisson_batch(sampling_rate)).detach()
        if vector.shape != (dimension,):
            raise ValueError(f"the function of a batch gives {tuple(vector.shape)}, not ({dimension},)")
        exact, factors = cut(vector[None], clip, look=False)
        return self._answer(exact[0] * factors, release, noise_multiplier)

    def projected_rows(
        self,
        rows: Callable[[Tensor, Tensor], Tensor],
        directions: Tensor,
        *,
        sampling_rate: float,
        clip: float,
        noise_multiplier: float,
    ) -> Tensor:
        """The records of a fresh Poisson batch one by one, along a few directions, in random order, with noise.

        `rows` maps images (B, C, H, W) and labels (B,) to (B, d), each row from its own record alone, to the same bits whoever
        else is there; rows longer than `clip` in L2 are scaled down to it, and rows with NaN count as zeros. They are multiplied
        with `directions` U (d, k), float64 with orthonormal columns. The answer has `room` places, of which the batch takes as
        many as it has, drawn at random. In its place a record has its k numbers in the row of its class, and zeros in the other
        classes'; the other places are zeros. Noise has standard deviation `noise_multiplier` times the sensitivity.

        Neighbours: add or remove one record x. A batch in random places is a batch put into the places of a random order, with x
        last, so x moves no other record, unless the batch is beyond its room (`room`): one place has x U instead of zeros, and
        |x U| <= |x| <= `clip`, for U U' is a projection. So the sensitivity is `clip`. Products in float64 may have other last
        bits where a row more is there, in all by d sqrt(k room) 2^-52 of `clip` (Higham 2002, section 3.5), which is within what
        ROUNDING adds while d sqrt(k room) is below 2^33.

        Returns (room, classes, k). Raises BudgetExceeded before sampling, ValueError for directions that are not orthonormal."""
        check_clip(clip)
        count, classes, size = directions.shape[1], self.facts.classes, room(sampling_rate, self.facts.records)
        gram = directions.T @ directions
        if gram.dtype != torch.float64 or not torch.linalg.matrix_norm(gram - torch.eye(count).to(gram)) <= 1e-9:
            raise ValueError("directions must be float64 with orthonormal columns (to 1e-9)")
        event = accounting.gaussian_event(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate)
        release = self._charge("projected_rows", event, "add-or-remove-one", clip * (1 + noise.ROUNDING), size * classes * count)
        images, labels, present = (part[:size] for part in self._poisson_batch(sampling_rate))
        given = rows(images, labels)
        if given.ndim != 2 or len(given) != len(images):
            raise ValueError(f"the rows of {len(images)} records are {tuple(given.shape)}, not ({len(images)}, d)")
        exact, factors = cut(given, clip, look=self.device.type == "cpu")
        placed = torch.zeros(size, classes, count, device=self.device, dtype=torch.float64)
        placed[self._slots(sampling_rate, present, size), labels] = (exact * (factors * present)[:, None]) @ directions
        return self._answer(placed, release, noise_multiplier)

    def _chosen(self, shards: int) -> int:
        """Which of so many shards this question is about."""
        return int(noise.stream(self.__key, self._question, "sample").integers(shards))

    def ensemble(
        self,
        network: nn.Module,
        *,
        members: int,
        generator: torch.Generator,
        learning_rate: float,
        betas: tuple[float, float] = (0.5, 0.999),
    ) -> Ensemble:
        """A network for each of so many equal shards of the records, which learns behind this vault by Adam (`ensembles`).

        `network` takes images (B, C, H, W) and labels (B,). `generator` draws shards, weights, batches and coins, all public. A
        record with NaN or infinity counts as zeros. Raises PrivsetError for more members than records.
        """
        made = Ensemble(
            network,
            torch.where(self.__finite.view(-1, 1, 1, 1), self.__images, 0),
            self.__labels,
            charge=self._charge,
            answer=self._answer,
            chosen=self._chosen,
            members=members,
            generator=generator,
            learning_rate=learning_rate,
            betas=betas,
        )
        self.__ensembles.append(made)
        return made

    def state(self) -> dict[str, Any]:
        """The ledger, the key and the ensembles, for a checkpoint. As secret as the data: it tells the noise."""
        return {
            "releases": [release.to_dict() for release in self.ledger.releases],
            "key": f"{self.__key:032x}",
            "ensembles": [ensemble._state() for ensemble in self.__ensembles],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken: what is asked again is answered with the same batches and the same noise."""
        self.ledger.releases = [Release.from_dict(entry) for entry in state["releases"]]
        self.__key = int(state["key"], 16)
        for ensemble, saved in zip(self.__ensembles, state["ensembles"], strict=True):
            ensemble._load_state(saved)

    def everything(self) -> tuple[Tensor, Tensor]:
        """All images and labels as they are: the non-private rows. Refused under any finite budget."""
        self._charge("everything", dp_accounting.NonPrivateDpEvent(), None, math.inf, self.__images.numel())
        return self.__images, self.__labels
