"""Ensembles of private members: networks behind the vault, each trained on a shard of its own. Nothing but noisy answers leaves.

**Shards.** Which shard a record is in is drawn for its place among the records, publicly and whatever any record is; each shard
has as many places, and what the division leaves over is in none. Neighbours replace the record in one place, so they differ in
one shard.

**Members.** A member is a function of its shard, of what is public, and of earlier answers: `torch.func.vmap` computes each one's
gradients from its own weights and records, all members take the same steps on the same places, and Adam keeps moments of its own
for each. So of two neighbours one member differs, arbitrarily, and all others have the same bits. Nor does a member depend on
which one was asked before, which `one_gradient` keeps secret.

Each query states the most that an answer moves when one member is another. What is no number in a member's answer counts as 0.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from privset.networks import optimisers
from privset.networks.weights import initialise
from privset.privacy.accounting import gaussian_event
from privset.privacy.batches import check_clip
from privset.privacy.gradients import cut
from privset.privacy.ledger import Release, check_members
from privset.privacy.noise import ROUNDING

Member = Callable[[Tensor, Tensor], Tensor]
"""A network with its weights: scores of images (B, C, H, W) and labels (B,)."""
Loss = Callable[[Member, Tensor, Tensor], Tensor]
"""A number, from a member, images and labels. Whatever else it uses must be public."""


class Ensemble:
    """Made by `Vault.ensemble`, of the vault's images (N, C, H, W) and labels (N,); `charge` and `answer` are the vault's, and
    `chosen` draws one of so many shards from its key."""

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        charge: Callable[..., Release],
        answer: Callable[[Tensor, Release, float], Tensor],
        chosen: Callable[[int], int],
        members: int,
        generator: torch.Generator,
        learning_rate: float,
        betas: tuple[float, float],
    ):
        check_members(members, len(labels))
        if next(network.buffers(), None) is not None:
            raise TypeError(f"{type(network).__name__} has buffers, which all members would share")
        self.members, self.size = members, len(labels) // members
        self.__charge, self.__answer, self.__chosen, self.__generator = charge, answer, chosen, generator
        self.__images, self.__labels = images, labels
        order = torch.randperm(len(labels), generator=generator, device=labels.device)
        self.__shards = order[: members * self.size].view(members, self.size)
        self.__network = copy.deepcopy(network).requires_grad_(False)
        own = dict(self.__network.named_parameters())
        self.__weights = {name: parameter.new_empty(members, *parameter.shape) for name, parameter in own.items()}
        for member in range(members):
            initialise(self.__network, generator)
            for name, parameter in own.items():
                self.__weights[name][member] = parameter
        self.__optimiser = optimisers.Adam(self.__weights.values(), learning_rate=learning_rate, betas=betas)

    def __member(self, weights: dict[str, Tensor]) -> Member:
        return lambda images, labels: functional_call(self.__network, weights, (images, labels))

    def train(self, loss: Loss, *, batch: int) -> None:
        """One step of Adam of every member, on `batch` places of its shard."""
        places = torch.randint(self.size, (batch,), generator=self.__generator, device=self.__labels.device)

        def of_member(weights: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
            return loss(self.__member(weights), images, labels)

        records = self.__shards[:, places]
        gradients = vmap(grad(of_member))(self.__weights, self.__images[records], self.__labels[records])
        self.__optimiser.step(list(gradients.values()))

    def __gradients(self, loss: Loss, images: Tensor, labels: Tensor, members: slice) -> Tensor:
        """(K, B, pixels) those of the members' losses at public images (B, C, H, W) with labels (B,), by pixels."""

        def of_member(weights: dict[str, Tensor], images: Tensor) -> Tensor:
            return loss(self.__member(weights), images, labels)

        weights = {name: stacked[members] for name, stacked in self.__weights.items()}
        return vmap(grad(of_member, argnums=1), in_dims=(0, None))(weights, images).flatten(2)

    def __sum(
        self, mechanism: str, shape: tuple[int, ...], make: Callable[[], Tensor], *, sensitivity: float, noise_multiplier: float
    ) -> Tensor:
        """The noisy sum over members of `make()`'s answers, whole numbers (K, *shape), which add up exactly in float64."""
        event = gaussian_event(noise_multiplier=noise_multiplier)
        stated = sensitivity * (1 + ROUNDING)
        release = self.__charge(mechanism, event, "replace-one", stated, math.prod(shape))
        total = make().sum(0, dtype=torch.float64)
        return self.__answer(total.view(shape), release, noise_multiplier)

    def votes(
        self,
        loss: Loss,
        images: Tensor,
        labels: Tensor,
        *,
        directions: Tensor,
        clip: float,
        bins: int,
        noise_multiplier: float,
    ) -> Tensor:
        """How many members' gradients fall into each bin, image by image and direction by direction (Long et al. 2021, G-PATE).

        Each member's gradient of its loss at each image is projected onto `directions` (pixels, k), and each coordinate is put
        into one of `bins` equal bins of [-clip, clip], the outer ones for what is beyond.

        A member adds 1 to one of the `bins` counts of each of the B k coordinates. Another member in its place takes one away and
        adds one: sqrt(2) in L2 for each, together sqrt(2 B k). Noise of standard deviation `noise_multiplier` times that.

        Returns (B, k, bins). Raises BudgetExceeded before a member is asked.
        """
        check_clip(clip)
        shape = (len(images), directions.shape[1], bins)

        def make() -> Tensor:
            projected = self.__gradients(loss, images, labels, slice(None)).nan_to_num(0.0, 0.0, 0.0) @ directions
            chosen = ((projected / clip).nan_to_num(0.0).clamp(-1, 1) + 1) * (bins / 2)
            chosen = chosen.floor().clamp(max=bins - 1).long()
            return nn.functional.one_hot(chosen, bins)

        sensitivity = votes_sensitivity(len(images) * directions.shape[1])
        return self.__sum("votes", shape, make, sensitivity=sensitivity, noise_multiplier=noise_multiplier)

    def signed_sums(
        self,
        loss: Loss,
        images: Tensor,
        labels: Tensor,
        *,
        basis: Tensor,
        largest: int,
        noise_multiplier: float,
    ) -> Tensor:
        """The sum of the signs of each member's `largest` gradient coordinates (Wang et al. 2021, DataLens).

        Coordinates are along the columns of `basis` (pixels, d). For each image a member's answer is 0 but at its `largest` ones,
        where it is 1 with probability 1/2 + g / (2 max |g|) of the coordinate g, and else -1, by public coins.

        Such a vector has norm sqrt(largest), and another member's differs from it by at most twice that; of B images by
        2 sqrt(B largest). Noise of standard deviation `noise_multiplier` times that.

        Returns (B, d). Raises BudgetExceeded before a member is asked.
        """

        def make() -> Tensor:
            gradients = self.__gradients(loss, images, labels, slice(None)).nan_to_num(0.0, 0.0, 0.0) @ basis
            gradients = gradients.nan_to_num(0.0, 0.0, 0.0)
            sizes, where = gradients.abs().topk(largest, dim=2)
            likely = 0.5 + gradients.gather(2, where) / (2 * sizes[:, :, :1].clamp(min=1e-30))
            coins = torch.rand(likely.shape, generator=self.__generator, device=likely.device)
            signs = (coins < likely).to(likely) * 2 - 1
            return torch.zeros_like(gradients).scatter_(2, where, signs)

        shape = (len(images), basis.shape[1])
        sensitivity = signs_sensitivity(len(images), largest)
        return self.__sum("signed_sums", shape, make, sensitivity=sensitivity, noise_multiplier=noise_multiplier)

    def labels(self, images: Tensor, labels: Tensor, *, noise_multiplier: float) -> Tensor:
        """How many members call each image real, that is, give it a score above 0 (Jordon et al. 2019, PATE-GAN).

        A member adds 0 or 1 to each of the B counts, so another one in its place moves them by at most sqrt(B). Noise of standard
        deviation `noise_multiplier` times that: normal, where the paper has Laplace's, as many such answers compose exactly.

        Returns (B,). Raises BudgetExceeded before a member is asked.
        """

        def make() -> Tensor:
            return vmap(lambda weights: self.__member(weights)(images, labels))(self.__weights) > 0

        sensitivity = labels_sensitivity(len(images))
        return self.__sum("labels", (len(images),), make, sensitivity=sensitivity, noise_multiplier=noise_multiplier)

    def one_gradient(self, loss: Loss, images: Tensor, labels: Tensor, *, clip: float, noise_multiplier: float) -> Tensor:
        """The gradient of one member's loss at each image; which member, nobody is told (Chen, Orekondy, Fritz 2020, GS-WGAN).

        The member is drawn uniformly, for each question anew. Its gradient at each of the B images is cut to L2 norm clip / B.

        Given the earlier answers, the members are functions of their shards: which of them were asked is in none of them. So an
        answer is a mixture over the members of a Gaussian at each one's vector, and neighbours' mixtures differ in one of K
        parts. Such a vector has norm at most (clip / B) sqrt(B), so another in its place is at most 2 clip / sqrt(B) away: the
        sensitivity, of which the noise is `noise_multiplier` times. All B gradients are of one member: this is one release, whose
        chance to concern a record is 1 / K, and not B releases with such a chance each.

        Returns (B, C, H, W). Raises BudgetExceeded before a member is asked.
        """
        check_clip(clip)
        event = gaussian_event(noise_multiplier=noise_multiplier, shards=self.members)
        stated = gradient_sensitivity(len(images), clip) * (1 + ROUNDING)
        release = self.__charge("one_gradient", event, "replace-one", stated, images.numel())
        chosen = self.__chosen(self.members)
        gradients = self.__gradients(loss, images, labels, slice(chosen, chosen + 1))[0]
        rows, factors = cut(gradients, clip / len(images), look=images.device.type == "cpu")
        return self.__answer((rows * factors[:, None]).view(images.shape), release, noise_multiplier)

    def _state(self) -> dict[str, Any]:
        """For the vault's state; as secret as the data, and for nobody else."""
        return {"shards": self.__shards, "weights": self.__weights, "optimiser": self.__optimiser.state()}

    def _load_state(self, state: dict[str, Any]) -> None:
        self.__shards = state["shards"]
        for name, stacked in self.__weights.items():
            stacked.copy_(state["weights"][name])
        self.__optimiser.load(state["optimiser"])


def votes_sensitivity(coordinates: int) -> float:
    """L2, of the counts of one vote on each of so many coordinates."""
    return math.sqrt(2 * coordinates)


def signs_sensitivity(images: int, largest: int) -> float:
    """L2, of the sum of so many signs for each image."""
    return 2 * math.sqrt(images * largest)


def labels_sensitivity(images: int) -> float:
    """L2, of the counts of one vote for or against each image."""
    return math.sqrt(images)


def gradient_sensitivity(images: int, clip: float) -> float:
    """L2, of a member's gradients at so many images, each cut to clip / images."""
    return 2 * clip / math.sqrt(images)
