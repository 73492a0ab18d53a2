"""The privacy certificate of a set: the vault's ledger in JSON, and its verification.

A certificate is arithmetic that anyone can repeat on what its maker states happened; it is no proof that this is what happened.
Whatever in it follows from the rest is computed again and compared, so that it cannot contradict itself.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
import pydantic

from privset import PrivsetError
from privset.privacy import accounting
from privset.privacy.certificate import FLOAT32, FORMAT, OS_ENTROPY, STATISTICS, Certificate, epsilon_spelled
from privset.privacy.ledger import LARGEST_BUDGET, LARGEST_DELTA, Ledger, Release, compositions
from privset.privacy.noise import DIMENSION, RECORDS, STREAM, grid
from privset.sets.arrays import read_set, read_statistics
from privset.sets.files import matching_certificate, sha256

# --------------------------------------------------------------------------------------------------- what follows from what


def _spent(epsilon: Callable[..., float], releases: list[Release], delta: float, *more: Any) -> float:
    return max(epsilon(counted, delta, *more) for counted in compositions(releases))


def _statement(releases: list[Release], noise_source: str, noise_stream: str | None, replacing: float, delta: float) -> str:
    relation, in_parts = releases[0].relation, any(release.part is not None for release in releases)
    if relation is None:
        return "NOT PRIVATE: this is, or contains, the training data itself."
    if relation == "replace-one":
        said = "The guarantee is for replacing one record by another"
    else:
        said = "The guarantee is for adding or removing one record; for replacing one, epsilon is "
        said += f"{replacing:.4g} at delta = {delta:g}"
    if in_parts:
        said += ", within the part of the records, by class, that it belongs to: to which part a record belongs is not protected"
    if noise_source != OS_ENTROPY:
        said += (
            ". The noise came from a fixed seed: the run can be repeated to the bit, and for that very reason this must not be "
        )
        return f"{said}published as private. Anyone with the seed could remove the noise."
    if noise_stream == FLOAT32:
        said += (
            ". It is about real numbers: the noise was float32, whose grain could tell the sums that it was added to. They were "
        )
        return f"{said}not published; what was computed from them may be, with that in mind."
    return f"{said}. The noise came from the operating system's entropy. This may be published under the stated guarantee."


def _follows(releases: list[Release], delta: float, accountant: accounting.Accountant, source: str, stream: str | None) -> dict:
    """What a certificate says beside its ledger, as it follows from it."""
    relation, in_parts = releases[0].relation, any(release.part is not None for release in releases)
    spent = {
        "epsilon_rdp": _spent(accounting.rdp_epsilon, releases, delta),
        "epsilon": _spent(accounting.spent_epsilon, releases, delta, accountant),
    }
    if relation == "add-or-remove-one":
        spent["epsilon_replacing"] = _spent(accounting.replacing_epsilon, releases, delta)
    else:
        spent["epsilon_replacing"] = spent["epsilon"]
    of_parts = " of each part" if in_parts else ""
    return {
        "statement": _statement(releases, source, stream, spent["epsilon_replacing"], delta),
        "private": relation is not None,
        "neighbouring_relation": relation,
        # A record is an image with its label, and the set's labels are balanced by rule. But to which part it belongs is public.
        "protects_labels": relation is not None and not in_parts,
        "public_facts": f"number of records{of_parts}, classes, image shape, published normalisation constants",
        **spent,
    }


def certificate(ledger: Ledger, path: Path, *, noise_seed: int | None, run: Mapping[str, Any]) -> dict[str, Any]:
    """The privacy statement of a set or of statistics, from the ledger of the vault that they came out of.

    `noise_seed` None means operating-system entropy. `run` holds the cell, its configuration, code digest and provenance.
    """
    source = OS_ENTROPY if noise_seed is None else f"seed {noise_seed}"
    stream = STREAM if ledger.releases[0].relation else None
    stated = {
        "format": FORMAT,
        **_follows(ledger.releases, ledger.delta, ledger.accountant, source, stream),
        "epsilon_budget": ledger.epsilon,
        "delta": ledger.delta,
        "accountant": ledger.accountant,
        "epsilon_pld": _spent(accounting.pld_epsilon, ledger.releases, ledger.delta),
        "noise_source": source,
        "noise_stream": stream,
        "ledger": [release.to_dict() for release in ledger.releases],
        "set_sha256": sha256(path),
        **run,
    }
    return {key: stated[key] for key in Certificate.model_fields if key in stated}


def ledger(stated: Mapping[str, Any]) -> Ledger:
    """The ledger that a certificate states."""
    made = Ledger(epsilon=float(stated["epsilon_budget"]), delta=stated["delta"], accountant=stated["accountant"])
    made.releases = [Release.from_dict(entry) for entry in stated["ledger"]]
    return made


def post_processed(stated: Mapping[str, Any], path: Path, *, run: Mapping[str, Any]) -> dict[str, Any]:
    """The certificate of a set that was computed from released statistics alone: theirs, for other bytes.

    All sets that name the same statistics share one expenditure: publishing every one of them costs its epsilon once.
    """
    made = {
        **stated,
        "set_sha256": sha256(path),
        "statistics_sha256": stated["set_sha256"],
        "releases": stated["config"],
        **run,
    }
    return {key: made[key] for key in Certificate.model_fields if key in made}


# ----------------------------------------------------------------------------------------------------------- verification


def _parsed(stated: Mapping[str, Any], where: Path) -> Certificate:
    try:
        return Certificate.model_validate_json(json.dumps(stated, allow_nan=False))
    except (ValueError, RecursionError) as error:
        if not isinstance(error, pydantic.ValidationError):
            raise PrivsetError(f"{where}: not a certificate ({error})") from None
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "top level"
        made = " (made by version 0.1; CHANGELOG.md says what changed)" if stated.get("format") == 1 else ""
        raise PrivsetError(f"{where}: not a certificate of format {FORMAT}{made}: {place}: {first['msg'][:150]}") from None


_SAMPLED, _ALL = ("gaussian", "poisson-subsampled-gaussian"), ("gaussian",)
_QUERIES = {
    "gradient_mean": ("add-or-remove-one", _SAMPLED),
    "batch_function": ("add-or-remove-one", _SAMPLED),
    "projected_rows": ("add-or-remove-one", _SAMPLED),
    "feature_sums": (None, _ALL),
    "votes": ("replace-one", _ALL),
    "signed_sums": ("replace-one", _ALL),
    "labels": ("replace-one", _ALL),
    "one_gradient": ("replace-one", ("gaussian", "gaussian-of-one-shard")),
}
"""Of each query its neighbouring relation, if it has but one, and how it may be accounted."""


def _refuse_contradictions(content: Certificate, where: Path) -> list[Release]:
    """The ledger, if each line of it can be; nothing here takes time."""

    def wrong(what: str) -> PrivsetError:
        return PrivsetError(f"{where}: {what}; it was changed")

    relations = {entry.neighbouring_relation for entry in content.ledger}
    if len(relations) > 1:
        raise wrong("its ledger mixes neighbouring relations, whose guarantees do not compose")
    for number, entry in enumerate(content.ledger):
        line = f"ledger[{number}]"
        private = entry.kind != "non-private"
        given = (entry.sampling_rate, entry.noise_multiplier, entry.neighbouring_relation)
        if any((value is not None) != private for value in given) or (entry.sensitivity == "inf") == private:
            raise wrong(f"{line} is {entry.kind} with sampling rate, noise multiplier, relation, sensitivity {given}")
        if (entry.mechanism == "everything") == private or (content.noise_stream is None) == private:
            raise wrong(f"{line}: {entry.mechanism} is not {entry.kind} with noise from {content.noise_stream}")
        if not private:
            continue
        if (entry.kind == "gaussian") != (entry.sampling_rate == 1):
            raise wrong(f"{line} is {entry.kind} with sampling_rate = {entry.sampling_rate}")
        relation, kinds = _QUERIES[entry.mechanism]
        if relation not in (entry.neighbouring_relation, None):
            raise wrong(f"{line}: {entry.mechanism} is for neighbours of {relation}")
        if entry.kind not in kinds:
            raise wrong(f"{line}: {entry.mechanism} is never {entry.kind}")
        if content.noise_stream == FLOAT32 and entry.mechanism not in ("gradient_mean", "feature_sums"):
            raise wrong(f"{line}: {entry.mechanism} never had noise from {FLOAT32}")
        if entry.kind == "gaussian-of-one-shard" and entry.sampling_rate * entry.records < 1 - 1e-9:
            raise wrong(f"{line}: more shards than its {entry.records} records")
        if content.delta * entry.records >= 1 or content.delta > LARGEST_DELTA:
            raise wrong(f"delta = {content.delta:g} is not below one in {entry.records} records, or above {LARGEST_DELTA}")
        if content.noise_stream == STREAM and (entry.records > RECORDS or entry.dimension > DIMENSION):
            raise wrong(f"{line} has more records or coordinates than the vault admits")
        if entry.records != next(other.records for other in content.ledger if other.part == entry.part):
            raise wrong(f"{line}: its records are not those of the same part before")
        expected = None if content.noise_stream == FLOAT32 else grid(entry.sensitivity, entry.dimension)
        if entry.grid != expected:
            raise wrong(f"{line}.grid = {entry.grid}, and its sensitivity and dimension give {expected}")
    if content.ledger[0].kind != "non-private" and not float(content.epsilon_budget) <= LARGEST_BUDGET:
        raise wrong(f"epsilon_budget = {content.epsilon_budget}, and more than {LARGEST_BUDGET} promises nothing")
    if content.cell.epsilon != epsilon_spelled(float(content.epsilon_budget)):
        raise wrong(f"cell.epsilon = {content.cell.epsilon}, but epsilon_budget = {content.epsilon_budget}")
    if (content.statistics_sha256 is None) != (content.releases is None) or content.statistics_sha256 == content.set_sha256:
        raise wrong("statistics_sha256 and releases belong together, and to other bytes than these")
    try:
        releases = [Release.from_dict(entry.model_dump(exclude_none=True)) for entry in content.ledger]
        compositions(releases)
    except (ValueError, OverflowError) as error:
        raise wrong(str(error)) from None
    for first, second in pairwise(releases):
        if first.same_kind(second):
            raise wrong("two lines of its ledger are one release")
    return releases


def _refuse_contents(path: Path, content: Certificate) -> None:
    """The file itself: whole, finite, and with as many images of each class as its name says."""
    if path.name == STATISTICS:
        read_statistics(path)
        if content.cell.spc != "any" or content.statistics_sha256:
            raise PrivsetError(f"{path}: these are statistics, and the certificate is of a set")
        if content.noise_stream == FLOAT32:
            raise PrivsetError(f"{path}: statistics with float32 noise can tell who is in the data (CHANGELOG.md): delete them")
        return
    counts = np.unique(read_set(path).labels, return_counts=True)[1]
    if content.private and set(counts.tolist()) != {int(content.cell.spc) if content.cell.spc.isdigit() else -1}:
        raise PrivsetError(
            f"{path}: its classes are not balanced, {content.cell.spc} images each as its certificate says, but {counts.tolist()}"
        )


def verify(path: Path, certificate_path: Path | None = None) -> dict[str, Any]:
    """Check a set, or released statistics, against its certificate; return the certificate.

    Raises PrivsetError with one line for whatever contradicts itself: other bytes, an unknown or missing entry, a value out of
    its range, an entry that does not follow from the ledger, a budget that was exceeded. What takes time comes last: epsilon
    again, by dp-accounting's RDP and PLD accountants, which are not those that calibrated the noise. For one shard of many there
    are none but ours, which must lie between two of dp-accounting's bounds.
    """
    certificate_path = certificate_path or path.with_name("certificate.json")
    stated = matching_certificate(path, certificate_path)
    content = _parsed(stated, certificate_path)
    releases = _refuse_contradictions(content, certificate_path)
    _refuse_contents(path, content)

    follows = _follows(releases, content.delta, content.accountant, content.noise_source, content.noise_stream)
    # The sentence has a figure in it, which may differ from ours in its last digit.
    replacing = float(content.epsilon_replacing)
    follows["statement"] = _statement(releases, content.noise_source, content.noise_stream, replacing, content.delta)
    for key, value in follows.items():
        claimed = stated[key]
        same = _close(value, claimed) if isinstance(value, float) and claimed is not None else value == claimed
        if not same:
            raise PrivsetError(f"{certificate_path}: {key} = {claimed!r}, and its ledger gives {value!r}; it was changed")
    if follows["epsilon"] > float(content.epsilon_budget) * (1 + 1e-9):
        raise PrivsetError(
            f"{certificate_path}: epsilon = {follows['epsilon']:.6g} was spent of a budget of {content.epsilon_budget:g}"
        )
    for counted in compositions(releases) if content.private else []:
        if doubt := _doubt(tuple(counted), content.delta):
            raise PrivsetError(f"{certificate_path}: {doubt}")
    exact = _spent(accounting.pld_epsilon, releases, content.delta)
    if not _close(exact, stated["epsilon_pld"]):
        raise PrivsetError(
            f"{certificate_path}: epsilon_pld = {stated['epsilon_pld']}, and its ledger gives {exact:.6g}; it was changed"
        )
    return stated


@functools.lru_cache(maxsize=100)
def _doubt(counted: tuple[accounting.Counted, ...], delta: float) -> str | None:
    """What dp-accounting says against our epsilon. Many sets have equal ledgers, so it is asked once for each."""
    sampled = any(accounting.of_one_shard(event) for event, _ in counted)
    neighbours = dp_accounting.NeighboringRelation
    relation = neighbours.REPLACE_ONE if sampled else neighbours.ADD_OR_REMOVE_ONE
    accountant = dp_accounting.rdp.RdpAccountant(list(accounting.WHOLE_ORDERS), relation)
    for event, count in counted:
        accountant.compose(event, count)
    theirs = float(accountant.get_epsilon(delta))
    ours = accounting.rdp_epsilon(counted, delta, orders=accounting.WHOLE_ORDERS)
    if abs(ours - theirs) > 1e-3 * theirs:
        return f"two RDP accountants disagree on its ledger ({ours:.6g}, {theirs:.6g})"
    return _impossible(counted, delta) if sampled else None


def _impossible(counted: tuple[accounting.Counted, ...], delta: float) -> str | None:
    """Releases about one shard of many spend at most what Renyi DP says, and at least what Poisson samples of the same rate do,
    by dp-accounting's own PLD: removing a record from these is the worst case of those (`accounting._one_of`)."""
    accountant = dp_accounting.pld.PLDAccountant()
    for event, count in counted:
        rate, noise_multiplier = accounting.parameters(event)
        accountant.compose(accounting.gaussian_event(noise_multiplier=noise_multiplier, sampling_rate=rate), count)
    least, tight, most = (
        float(accountant.get_epsilon(delta)),
        accounting.pld_epsilon(counted, delta),
        accounting.rdp_epsilon(counted, delta),
    )
    if least <= tight * (1 + 1e-3) and tight <= most * (1 + 1e-3):
        return None
    return f"epsilon of its shards is not between its bounds ({least:.6g}, {tight:.6g}, {most:.6g})"


def _close(value: float, claimed: float | str) -> bool:
    """Equal to what two versions of a library may differ by."""
    if math.isinf(value) or value == 0:
        return float(claimed) == value
    return -1e-6 * value <= float(claimed) - value <= 1e-4 * value
