"""The only door to private data.

A `Vault` holds the private images and labels of one job and a privacy budget. Methods never see a record; they ask for
releases. Each release states its sensitivity, is charged to the ledger *before* a record is touched (or refused with
`BudgetExceeded`), clips, adds its noise, and only then returns.

What methods may use without noise is in `data.datasets.PublicFacts`, and nothing else: the number of records, the classes, the
image shape and the published normalisation constants. Class counts are not public.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dp_accounting
import torch
from torch import Tensor, nn

from privset.data.datasets import PublicFacts
from privset.privacy import accounting
from privset.privacy.gradients import clipped_gradient_sum, released
from privset.privacy.ledger import Ledger, Relation, Release


class Vault:
    """Private images and labels behind a budget.

    Args:
        images: (N, C, H, W) in normalised units, on the device on which releases are computed.
        labels: (N,) int64 in [0, classes).
        facts: what is public; `facts.records` must be N.
        epsilon, delta: the budget; epsilon may be infinite (non-private rows).
        sampling, noise: generators on the images' device, separate from each other and from the method's own.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        facts: PublicFacts,
        epsilon: float,
        delta: float,
        sampling: torch.Generator,
        noise: torch.Generator,
    ):
        if len(images) != facts.records or len(labels) != facts.records:
            raise ValueError(f"{len(images)} images and {len(labels)} labels, but {facts.records} records are announced")
        if sampling is noise:
            raise ValueError("sampling and noise need generators of their own")
        self.facts = facts
        self.ledger = Ledger(epsilon=epsilon, delta=delta)
        self.device = images.device
        self._fixed_rows = images.device.type != "cpu"
        self.__images, self.__labels = images, labels
        self.__sampling, self.__noise = sampling, noise
        self.__part: tuple[int, ...] | None = None

    def part(self, classes: Sequence[int], *, local_labels: bool = False) -> Vault:
        """The records of some classes, as a vault whose releases concern them alone and are charged to that part of the ledger.

        How many records a part has becomes public by this (`facts.records`), and so does, for a record, to which part it
        belongs: the guarantee is for adding or removing a record of any class, not for moving one to another part.
        `local_labels` counts the classes of the part from 0, and `facts.classes` is then their number.

        A release from a part that overlaps another one's raises ValueError. Generators and ledger are shared.
        """
        if self.__part is not None:
            raise ValueError("a part has no parts")
        chosen = torch.as_tensor(classes, device=self.device)
        inside = torch.isin(self.__labels, chosen)
        part = copy.copy(self)
        part.__part = tuple(classes)
        part.__images, part.__labels = self.__images[inside], self.__labels[inside]
        part.facts = replace(self.facts, records=len(part.__images))
        if local_labels:
            part.__labels = (part.__labels[:, None] == chosen).int().argmax(1)
            part.facts = replace(part.facts, classes=len(classes))
        return part

    def _charge(self, mechanism: str, event: dp_accounting.DpEvent, relation: Relation | None, sensitivity: float) -> None:
        self.ledger.charge(
            Release(mechanism=mechanism, event=event, relation=relation, sensitivity=sensitivity, part=self.__part)
        )

    def _noise(self, shape: tuple[int, ...], std: float) -> Tensor:
        return torch.randn(shape, generator=self.__noise, device=self.device) * std

    def _poisson_batch(self, sampling_rate: float) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels and presence of a fresh Poisson batch: each record independently with probability `sampling_rate`.

        On a GPU the batch has a fixed number of rows, the absent ones marked, so that the host need not wait to learn its
        size. There is room for 12 standard deviations more records than expected; a larger batch, whose probability (below
        1e-24 at the paper's rate, by Chernoff's bound) vanishes beside delta, would lose its last records.
        """
        records = self.facts.records
        # Double precision: single-precision uniforms have 24 bits, too coarse for a rate of 256/60,000.
        uniform = torch.rand(records, generator=self.__sampling, device=self.device, dtype=torch.float64)
        mask = uniform < sampling_rate
        if not self._fixed_rows:
            rows = mask.nonzero().squeeze(1)
            present = self.__images.new_ones(len(rows))
        else:
            expected = sampling_rate * records
            room = min(records, math.ceil((expected + 12 * math.sqrt(expected) + 12) / 32) * 32)
            rows = torch.nonzero_static(mask, size=room, fill_value=-1).squeeze(1)
            present = (rows >= 0).to(self.__images.dtype)
            rows = rows.clamp(min=0)
        return self.__images[rows], self.__labels[rows], present

    def gradient_mean(
        self,
        network: nn.Module,
        *,
        sampling_rate: float,
        clip: float,
        noise_multiplier: float,
        weights_only: bool = False,
        transform: Callable[[Tensor], Tensor] | None = None,
        compile: bool = False,
    ) -> list[Tensor]:
        """DP-SGD's noisy mean gradient of the cross-entropy (Abadi et al. 2016, Algorithm 1) on a fresh Poisson batch.

        Each record is in the batch independently with probability `sampling_rate`; its gradient over all parameters is
        clipped to L2 norm `clip`; the sum gets Gaussian noise of standard deviation `noise_multiplier * clip` and is divided
        by the *expected* batch size, which is public. An empty batch releases pure noise. Neighbours: add or remove one.

        `weights_only` releases the kernels' and matrices' gradients alone, and clips those alone. `transform`, applied to the
        batch first, must map each image by itself, as augmentations do. `compile` compiles the computation (`compiled.run`).

        Returns one tensor per released parameter, in `network.parameters()` order. Raises BudgetExceeded before sampling.
        """
        if not clip > 0:
            raise ValueError(f"clip = {clip}: must be > 0")
        event = accounting.gaussian_event(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate)
        self._charge("gradient_mean", event, "add-or-remove-one", clip)
        images, labels, present = self._poisson_batch(sampling_rate)
        if transform is not None:
            images = transform(images)
        total = clipped_gradient_sum(
            network, images, labels, clip=clip, present=present, weights_only=weights_only, compile=compile
        )
        total += self._noise(total.shape, noise_multiplier * clip)
        mean = total / (sampling_rate * self.facts.records)
        parameters = released(network, weights_only=weights_only)
        return [part.view_as(p) for part, p in zip(mean.split([p.numel() for p in parameters]), parameters, strict=True)]

    def feature_sums(
        self,
        features: Callable[[Tensor, Tensor], Tensor],
        *,
        clip: float,
        noise_multiplier: float,
        relation: Relation,
        chunk: int = 1000,
    ) -> Tensor:
        """One Gaussian release, over all records, of the per-class sums of clipped feature vectors.

        `features` maps (B, C, H, W) normalised images and their (B,) labels to (B, d), each row from its own record alone; rows
        longer than `clip` in L2 are scaled down to it. It is called with at most `chunk` records at a time. A record touches
        one class's sum, so the sensitivity is `clip` for adding or removing one, and `2 * clip` for replacing one (by another
        of any class). The noise has standard deviation `noise_multiplier` times the sensitivity.

        Returns (classes, d). Raises BudgetExceeded before any feature is computed.
        """
        if not clip > 0:
            raise ValueError(f"clip = {clip}: must be > 0")
        sensitivity = {"add-or-remove-one": clip, "replace-one": 2 * clip}[relation]
        event = accounting.gaussian_event(noise_multiplier=noise_multiplier)
        self._charge("feature_sums", event, relation, sensitivity)
        sums = None
        with torch.no_grad():
            for images, labels in zip(self.__images.split(chunk), self.__labels.split(chunk), strict=True):
                rows = features(images, labels)
                rows = rows * (clip / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)
                if sums is None:
                    sums = torch.zeros(self.facts.classes, rows.shape[1], device=self.device)
                sums += nn.functional.one_hot(labels, self.facts.classes).to(rows.dtype).T @ rows
        return sums + self._noise(sums.shape, noise_multiplier * sensitivity)

    def state(self) -> dict[str, Any]:
        """The ledger and the generators' states, for a checkpoint. As secret as the data: it tells the noise."""
        return {
            "releases": [release.to_dict() for release in self.ledger.releases],
            "sampling": self.__sampling.get_state(),
            "noise": self.__noise.get_state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken: what is asked again is answered with the same batches and the same noise."""
        self.ledger.releases = [Release.from_dict(entry) for entry in state["releases"]]
        self.__sampling.set_state(state["sampling"].cpu())
        self.__noise.set_state(state["noise"].cpu())

    def everything(self) -> tuple[Tensor, Tensor]:
        """All images and labels as they are: the non-private rows. Refused under any finite budget."""
        event = dp_accounting.NonPrivateDpEvent()
        self._charge("everything", event, None, math.inf)
        return self.__images, self.__labels
