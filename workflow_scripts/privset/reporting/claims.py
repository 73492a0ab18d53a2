"""What the epsilons of published programs are worth: their noise and their steps through the accountants of this project.

`resources/claims.yaml` has the facts, each with repository, commit and file.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import dp_accounting
import pandas as pd
import yaml
from pydantic import Field

from privset.jobs.blocks import Block, Count, Positive, parse
from privset.privacy import accounting
from privset.reporting.formats import Table


class Released(Block):
    """Equal releases in a row."""

    noise_multiplier: Positive
    """Standard deviation (Laplace: scale) of the noise, by the true sensitivity of what it is added to."""
    count: Count
    """How many."""
    sampling_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of a Poisson sample."""
    noise: Literal["gaussian", "laplace"] = "gaussian"
    """Its distribution."""


class Claim(Block):
    """One published setting."""

    program: str
    """Its name."""
    setting: str
    """What is claimed of which setting."""
    claimed: Positive | None = None
    """The epsilon that the program or its paper states; None: none is stated."""
    delta: Positive = 1e-5
    """At which it is stated."""
    releases: list[Released] = Field(default_factory=list)
    """What it does by its code, for an accountant; none: there is no mechanism to account."""
    none_because: str | None = None
    """Why there is no epsilon, whatever the noise."""
    why: str
    """What makes the difference, in a sentence."""
    read: str
    """What was read in the code, and not computed."""
    repository: str
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    files: str
    """Paths with lines."""


def read(path: Path) -> list[Claim]:
    """The facts. Raises PrivsetError for one that is incomplete."""
    return [parse(Claim, entry, f"{path}: {entry.get('program')}") for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]


def _events(claim: Claim) -> list[accounting.Counted]:
    events = []
    for part in claim.releases:
        if part.noise == "laplace":
            events.append((dp_accounting.LaplaceDpEvent(part.noise_multiplier), part.count))
        else:
            event = accounting.gaussian_event(noise_multiplier=part.noise_multiplier, sampling_rate=part.sampling_rate)
            events.append((event, part.count))
    return events


def epsilons(claim: Claim) -> tuple[float, float]:
    """By Renyi DP and the tightest known: exact for Gaussian releases, by privacy loss distributions for sampled ones, and for
    Laplace the smaller of Renyi DP and the plain sum."""
    events = _events(claim)
    if any(part.noise == "laplace" for part in claim.releases):
        accountant = dp_accounting.rdp.RdpAccountant()
        for event, count in events:
            accountant.compose(event, count)
        renyi = float(accountant.get_epsilon(claim.delta))
        return renyi, min(renyi, sum(part.count / part.noise_multiplier for part in claim.releases))
    renyi, exact = accounting.rdp_epsilon(events, claim.delta), accounting.gaussian_epsilon(events, claim.delta)
    if math.isinf(exact):  # sampled; the grid as coarse as a large epsilon allows
        loss = accounting.privacy_loss(events, interval=1e-4 if renyi < 100 else 1e-3)
        return renyi, float(loss.get_epsilon_for_delta(claim.delta))
    return renyi, exact


def _text(epsilon: float) -> str:
    return "-" if math.isnan(epsilon) else f"{epsilon:,.0f}" if epsilon >= 100 else f"{epsilon:.3f}".rstrip("0").rstrip(".")


def table(claims: list[Claim]) -> Table:
    """One line per setting."""
    rows = []
    for claim in claims:
        renyi, tight = epsilons(claim) if claim.releases else (math.nan, math.nan)
        rows.append(
            {
                "program": claim.program,
                "setting": claim.setting,
                "claimed": math.nan if claim.claimed is None else claim.claimed,
                "delta": claim.delta,
                "by_rdp": renyi,
                "tightest": tight,
                "verdict": _verdict(claim, tight),
                "why": claim.why,
                "basis": f"{'epsilon computed here; ' if claim.releases else ''}read: {claim.read}",
                "source": f"{claim.repository}@{claim.commit[:7]}: {claim.files}",
            }
        )
    frame = pd.DataFrame(rows)
    shown = frame.assign(
        claimed=[_text(value) for value in frame.claimed],
        delta=[f"{value:.3g}" for value in frame.delta],
        by_rdp=[_text(value) for value in frame.by_rdp],
        tightest=[_text(value) for value in frame.tightest],
    )
    return Table(
        name="table_claims",
        title="What published epsilons are worth",
        frame=frame,
        shown=shown.rename(columns={"by_rdp": "by RDP"}),
        notes=(
            "claimed: by the program's defaults, README or paper. by RDP, tightest: what its noise and its steps give by this "
            "project's accountants (exact for Gaussian releases, else privacy loss distributions), as if the noise were secret.",
            "verdict 'none': a part of the release has no noise, or anybody can draw the noise again; no accountant has a number "
            "for that. The numbers then say what the rest would be worth.",
            "basis: what was computed here from the setting, and what was only read in the code. No program was run.",
        ),
    )


def _verdict(claim: Claim, tight: float) -> str:
    found = [] if claim.claimed is not None else ["none stated"]
    if claim.releases and claim.claimed is not None:
        same = math.isclose(tight, claim.claimed, rel_tol=0.02)
        found.append("as claimed" if same else "spends more" if tight > claim.claimed else "spends less")
    return "; ".join([*found, *([f"none: {claim.none_because}"] if claim.none_because else [])])
