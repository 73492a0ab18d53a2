"""The privacy certificate of a set: the vault's ledger in JSON, and its verification by independent accountants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dp_accounting
import jsonschema
import numpy as np

from privset import PrivsetError, accounting
from privset.artifacts import matching_certificate, read_set, read_statistics, sha256
from privset.vault import Ledger, Release

FORMAT = 1
STATISTICS = "statistics.npz"
"""The name of released statistics; they have a certificate as sets do."""
SCHEMA = Path(__file__).with_name("certificate.schema.json")
"""What each entry means."""


OS_ENTROPY = "operating system"


def _statement(private: bool, noise_source: str) -> str:
    if not private:
        return "NOT PRIVATE: this is, or contains, the training data itself."
    if noise_source == OS_ENTROPY:
        return "The noise came from the operating system's entropy. The set may be published under the stated guarantee."
    return (
        "The noise came from a fixed seed: the run can be repeated to the bit, and for that very reason this set must not be "
        "published as private. Anyone with the seed could remove the noise."
    )


def certificate(ledger: Ledger, set_path: Path, *, noise_seed: int | None, run: dict[str, Any]) -> dict[str, Any]:
    """The privacy statement of a set, from the ledger of the vault that it came out of.

    `noise_seed` None means operating-system entropy. `run` holds the cell, its configuration, code digest and provenance.
    """
    counted = [(release.event, release.count) for release in ledger.releases]
    private = not any(isinstance(event, dp_accounting.NonPrivateDpEvent) for event, _ in counted)
    noise_source = OS_ENTROPY if noise_seed is None else f"seed {noise_seed}"
    return {
        "format": FORMAT,
        "statement": _statement(private, noise_source),
        "private": private,
        "epsilon_budget": ledger.epsilon,
        "delta": ledger.delta,
        "epsilon": accounting.spent_epsilon(counted, ledger.delta),
        "epsilon_rdp": accounting.rdp_epsilon(counted, ledger.delta),
        "epsilon_pld": accounting.pld_epsilon(counted, ledger.delta),
        "neighbouring_relation": ledger.releases[0].relation if ledger.releases else None,
        "protects_labels": private,  # a record is an image with its label, and the set's labels are balanced by rule
        "noise_source": noise_source,
        "ledger": [release.to_dict() for release in ledger.releases],
        "public_facts": "number of records, classes, image shape, published normalisation constants",
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
        counts = np.bincount(read_set(set_path)[1])
    stated = matching_certificate(set_path, certificate_path)
    error = next(jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).iter_errors(stated), None)
    if error:
        position = ".".join(map(str, error.path)) or "top level"
        raise PrivsetError(f"{certificate_path}: not a certificate of format {FORMAT}: {position}: {error.message[:200]}")
    try:
        budget, delta = float(stated["epsilon_budget"]), float(stated["delta"])
        counted = [(accounting.event_from_dict(entry), entry["count"]) for entry in stated["ledger"]]
        claimed = {key: float(stated[key]) for key in ("epsilon", "epsilon_rdp", "epsilon_pld")}
    except (KeyError, TypeError, ValueError) as error:
        raise PrivsetError(f"{certificate_path}: not a certificate ({error!r})") from error
    private = not any(isinstance(event, dp_accounting.NonPrivateDpEvent) for event, _ in counted)
    follows = {
        "private": private,
        "protects_labels": private,
        "neighbouring_relation": stated["ledger"][0]["neighbouring_relation"],
        "statement": _statement(private, stated["noise_source"]),
    }
    for key, value in follows.items():
        if stated[key] != value:
            raise PrivsetError(f"{certificate_path}: {key} = {stated[key]!r} does not follow from the rest; it was changed")
    if len({entry["neighbouring_relation"] for entry in stated["ledger"]}) > 1:
        raise PrivsetError(f"{certificate_path}: its ledger mixes neighbouring relations, whose guarantees do not compose")
    if private and len(set(counts.tolist())) > 1:
        raise PrivsetError(f"{set_path}: its classes are not balanced ({counts.tolist()}), which may tell about the data")
    recomputed = {
        "epsilon_rdp": accounting.rdp_epsilon(counted, delta),
        "epsilon_pld": accounting.pld_epsilon(counted, delta),
        "epsilon": accounting.spent_epsilon(counted, delta),
    }
    if private:
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
