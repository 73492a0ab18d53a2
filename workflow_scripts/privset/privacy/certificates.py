"""The privacy certificate of a set: the vault's ledger in JSON, and its verification by independent accountants."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dp_accounting
import jsonschema
import numpy as np

from privset import PrivsetError
from privset.privacy import accounting
from privset.privacy.ledger import Ledger, Release, compositions
from privset.sets.arrays import read_set, read_statistics
from privset.sets.files import matching_certificate, sha256

FORMAT = 1
STATISTICS = "statistics.npz"
"""The name of released statistics; they have a certificate as sets do."""
SCHEMA = Path(__file__).with_name("certificate.schema.json")
"""What each entry means."""


OS_ENTROPY = "operating system"


def _statement(private: bool, noise_source: str, in_parts: bool) -> str:
    if not private:
        return "NOT PRIVATE: this is, or contains, the training data itself."
    parts = (
        "The records were used in disjoint parts, by class. The guarantee is for adding or removing one record, or replacing "
        "one within its part; moving a record to another part touches two. "
        if in_parts
        else ""
    )
    if noise_source == OS_ENTROPY:
        return f"{parts}The noise came from the operating system's entropy. The set may be published under the stated guarantee."
    return (
        f"{parts}The noise came from a fixed seed: the run can be repeated to the bit, and for that very reason this set must "
        "not be published as private. Anyone with the seed could remove the noise."
    )


def _follows(releases: list[Release], noise_source: str) -> dict[str, Any]:
    """What a certificate says beside its numbers, as it follows from the ledger."""
    private = not any(isinstance(release.event, dp_accounting.NonPrivateDpEvent) for release in releases)
    in_parts = any(release.part is not None for release in releases)
    return {
        "statement": _statement(private, noise_source, in_parts),
        "private": private,
        "neighbouring_relation": releases[0].relation,
        # A record is an image with its label, and the set's labels are balanced by rule. But to which part it belongs is public.
        "protects_labels": private and not in_parts,
    }


def _spent(epsilon: Callable[..., float], releases: list[Release], delta: float, **options: Any) -> float:
    return max(epsilon(counted, delta, **options) for counted in compositions(releases))


def certificate(ledger: Ledger, set_path: Path, *, noise_seed: int | None, run: dict[str, Any]) -> dict[str, Any]:
    """The privacy statement of a set, from the ledger of the vault that it came out of.

    `noise_seed` None means operating-system entropy. `run` holds the cell, its configuration, code digest and provenance.
    """
    noise_source = OS_ENTROPY if noise_seed is None else f"seed {noise_seed}"
    in_parts = any(release.part is not None for release in ledger.releases)
    return {
        "format": FORMAT,
        **_follows(ledger.releases, noise_source),
        "epsilon_budget": ledger.epsilon,
        "delta": ledger.delta,
        "epsilon": _spent(accounting.spent_epsilon, ledger.releases, ledger.delta),
        "epsilon_rdp": _spent(accounting.rdp_epsilon, ledger.releases, ledger.delta),
        "epsilon_pld": _spent(accounting.pld_epsilon, ledger.releases, ledger.delta),
        "noise_source": noise_source,
        "ledger": [release.to_dict() for release in ledger.releases],
        "public_facts": "number of records"
        + (" of each part" if in_parts else "")
        + ", classes, image shape, published normalisation "
        "constants",
        "set_sha256": sha256(set_path),
        **run,
    }


def ledger(stated: dict[str, Any]) -> Ledger:
    """The ledger that a certificate states."""
    made = Ledger(epsilon=float(stated["epsilon_budget"]), delta=stated["delta"])
    made.releases = [Release.from_dict(entry) for entry in stated["ledger"]]
    return made


def post_processed(stated: dict[str, Any], set_path: Path, *, run: dict[str, Any]) -> dict[str, Any]:
    """The certificate of a set that was computed from released statistics alone: theirs, for other bytes.

    All sets that name the same statistics share one expenditure: publishing every one of them costs its epsilon once.
    """
    return {
        **{key: stated[key] for key in json.loads(SCHEMA.read_text())["required"]},
        "set_sha256": sha256(set_path),
        "statistics_sha256": stated["set_sha256"],
        **run,
    }


def verify(set_path: Path, certificate_path: Path | None = None) -> dict[str, Any]:
    """Check a set, or released statistics, against its certificate with an accountant that made neither; return the certificate.

    Recomputes epsilon from the ledger by dp-accounting's RDP and PLD accountants, and checks the set itself (checksum, types,
    finite pixels, balance of its classes). Raises PrivsetError with one line for a mismatch, whatever was changed, and for a
    budget that was exceeded. A certificate is arithmetic that anyone can repeat on what its maker states happened; it is no
    proof that this is what happened.
    """
    certificate_path = certificate_path or set_path.with_name("certificate.json")
    if set_path.name == STATISTICS:
        read_statistics(set_path)
        counts = np.zeros(1)
    else:
        counts = np.bincount(read_set(set_path).labels)
    stated = matching_certificate(set_path, certificate_path)
    error = next(jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).iter_errors(stated), None)
    if error:
        position = ".".join(map(str, error.path)) or "top level"
        raise PrivsetError(f"{certificate_path}: not a certificate of format {FORMAT}: {position}: {error.message[:200]}")
    try:
        budget, delta = float(stated["epsilon_budget"]), float(stated["delta"])
        releases = [Release.from_dict(entry) for entry in stated["ledger"]]
        claimed = {key: float(stated[key]) for key in ("epsilon", "epsilon_rdp", "epsilon_pld")}
        composed = compositions(releases)
    except (KeyError, TypeError, ValueError) as error:
        raise PrivsetError(f"{certificate_path}: not a certificate ({error!r})") from error
    follows = _follows(releases, stated["noise_source"])
    for key, value in follows.items():
        if stated[key] != value:
            raise PrivsetError(f"{certificate_path}: {key} = {stated[key]!r} does not follow from the rest; it was changed")
    if len({release.relation for release in releases}) > 1:
        raise PrivsetError(f"{certificate_path}: its ledger mixes neighbouring relations, whose guarantees do not compose")
    if follows["private"] and len(set(counts.tolist())) > 1:
        raise PrivsetError(f"{set_path}: its classes are not balanced ({counts.tolist()}), which may tell about the data")
    recomputed = {
        "epsilon_rdp": _spent(accounting.rdp_epsilon, releases, delta),
        "epsilon_pld": _spent(accounting.pld_epsilon, releases, delta),
        "epsilon": _spent(accounting.spent_epsilon, releases, delta),
    }
    for counted in composed if follows["private"] else []:
        accountant = dp_accounting.rdp.RdpAccountant(orders=list(accounting.WHOLE_ORDERS))
        for event, count in counted:
            accountant.compose(event, count)
        theirs = float(accountant.get_epsilon(delta))
        ours = accounting.rdp_epsilon(counted, delta, orders=accounting.WHOLE_ORDERS)
        if abs(ours - theirs) > 1e-3 * theirs:
            raise PrivsetError(f"{certificate_path}: two RDP accountants disagree on its ledger ({ours:.6g}, {theirs:.6g})")
    for key, value in recomputed.items():
        if not (value == claimed[key] or abs(value - claimed[key]) <= 1e-3 * value):
            raise PrivsetError(
                f"{certificate_path}: {key} = {claimed[key]:.6g}, but its ledger gives {value:.6g}; it was changed"
            )
    if recomputed["epsilon"] > budget * (1 + 1e-9):
        raise PrivsetError(f"{certificate_path}: epsilon = {recomputed['epsilon']:.6g} was spent of a budget of {budget:g}")
    return stated
