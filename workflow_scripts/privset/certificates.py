"""The privacy certificate of a set: the vault's ledger in JSON, and its verification by independent accountants."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import dp_accounting

from privset import PrivsetError, accounting
from privset.artifacts import matching_certificate, read_set, sha256
from privset.vault import Ledger

FORMAT = 1


def certificate(ledger: Ledger, set_path: Path, *, noise_seed: int | None, run: dict[str, Any]) -> dict[str, Any]:
    """The privacy statement of a set, from the ledger of the vault that it came out of.

    `noise_seed` None means operating-system entropy. `run` holds the cell, its configuration, code digest and provenance.
    """
    counted = [(release.event, release.count) for release in ledger.releases]
    private = not any(isinstance(event, dp_accounting.NonPrivateDpEvent) for event, _ in counted)
    if not private:
        statement = "NOT PRIVATE: this is, or contains, the training data itself."
    elif noise_seed is None:
        statement = "The noise came from the operating system's entropy. The set may be published under the stated guarantee."
    else:
        statement = (
            "The noise came from a fixed seed: the run can be repeated to the bit, and for that very reason this set must "
            "not be published as private. Anyone with the seed could remove the noise."
        )
    return {
        "format": FORMAT,
        "statement": statement,
        "private": private,
        "epsilon_budget": ledger.epsilon,
        "delta": ledger.delta,
        "epsilon": accounting.spent_epsilon(counted, ledger.delta),
        "epsilon_rdp": accounting.rdp_epsilon(counted, ledger.delta),
        "epsilon_pld": accounting.pld_epsilon(counted, ledger.delta),
        "neighbouring_relation": ledger.releases[0].relation if ledger.releases else None,
        "protects_labels": private,  # a record is an image with its label, and the set's labels are balanced by rule
        "noise_source": "operating system" if noise_seed is None else f"seed {noise_seed}",
        "ledger": [release.to_dict() for release in ledger.releases],
        "public_facts": "number of records, classes, image shape, published normalisation constants",
        "set_sha256": sha256(set_path),
        **run,
    }


def verify(set_path: Path, certificate_path: Path | None = None) -> dict[str, Any]:
    """Check a set against its certificate with an accountant that made neither; return the certificate.

    Recomputes epsilon from the ledger by dp-accounting's RDP and PLD accountants. Raises PrivsetError with one line on a
    checksum that differs, a stated epsilon that does not follow from the ledger, or a budget that was exceeded.
    """
    certificate_path = certificate_path or set_path.with_name("certificate.json")
    read_set(set_path)
    stated = matching_certificate(set_path, certificate_path)
    try:
        budget, delta = float(stated["epsilon_budget"]), float(stated["delta"])
        counted = [(accounting.event_from_dict(entry), entry["count"]) for entry in stated["ledger"]]
        claimed = {key: float(stated[key]) for key in ("epsilon", "epsilon_rdp", "epsilon_pld")}
    except (KeyError, TypeError, ValueError) as error:
        raise PrivsetError(f"{certificate_path}: not a certificate ({error!r})") from error
    private = not any(isinstance(event, dp_accounting.NonPrivateDpEvent) for event, _ in counted)
    if stated["private"] is not private:
        raise PrivsetError(f"{certificate_path}: private = {stated['private']} does not follow from its ledger")
    rdp = math.inf
    if private:
        accountant = dp_accounting.rdp.RdpAccountant(orders=list(accounting.ORDERS))
        for event, count in counted:
            accountant.compose(event, count)
        rdp = accountant.get_epsilon(delta)
    pld = accounting.pld_epsilon(counted, delta)
    recomputed = {"epsilon_rdp": rdp, "epsilon_pld": pld, "epsilon": accounting.spent_epsilon(counted, delta)}
    for key, value in recomputed.items():
        if not (value == claimed[key] or abs(value - claimed[key]) <= 1e-3 * value):
            raise PrivsetError(
                f"{certificate_path}: {key} = {claimed[key]:.6g}, but its ledger gives {value:.6g}; it was changed"
            )
    if min(recomputed.values()) > budget:
        raise PrivsetError(f"{certificate_path}: spent epsilon = {min(recomputed.values()):.6g}, budget {budget:g}")
    return stated
