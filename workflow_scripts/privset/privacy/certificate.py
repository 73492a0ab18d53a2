"""What a certificate consists of: its entries, their types and ranges, and nothing else. The JSON schema beside this file is made
from it (`privset schema --write`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

FORMAT = 2
STATISTICS = "statistics.npz"
"""The name of released statistics; they have a certificate as sets do."""
OS_ENTROPY = "operating system"
FLOAT32 = "PyTorch's float32 generator, until version 0.1"
FILE = Path(__file__).with_name("certificate.schema.json")

Epsilon = Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["inf"]
Relation = Literal["add-or-remove-one", "replace-one"] | None
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1)]
Word = Annotated[str, Field(max_length=200)]


def epsilon_spelled(value: float) -> str:
    """As in paths and cells: 10.0 is "10", and no digit is left out."""
    return str(int(value)) if value.is_integer() else repr(value)


class Closed(pydantic.BaseModel):
    """A block of a certificate. The docstring below a key is its description in the schema; unknown keys are errors."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class Entry(Closed):
    """A line of the ledger: a release, and how often it was made in a row."""

    mechanism: Literal[
        "gradient_mean",
        "feature_sums",
        "batch_function",
        "projected_rows",
        "votes",
        "signed_sums",
        "labels",
        "one_gradient",
        "everything",
    ]
    """The query, of the vault or of an ensemble behind it."""
    kind: Literal["gaussian", "poisson-subsampled-gaussian", "gaussian-of-one-shard", "non-private"]
    """How it is accounted."""
    sampling_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Probability of each record to be in the batch, or in the shard that is asked."""
    noise_multiplier: Annotated[float, Field(ge=1e-6, le=1e6)] | None = None
    """Standard deviation of the noise over the sensitivity."""
    neighbouring_relation: Relation
    """For which the sensitivity holds; null for a release without privacy."""
    sensitivity: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["inf"]
    """L2, of the clipped sum, what rounding adds included."""
    records: Count
    """Records that it concerned, of which a batch is a sample."""
    dimension: Count
    """Coordinates of an answer."""
    grid: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Every coordinate of an answer is a whole multiple of this power of two."""
    count: Annotated[int, Field(ge=1, le=1_000_000)]
    """How often in a row."""
    part: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """The classes whose records it concerned; absent: all records. Parts are disjoint, so the epsilons of a certificate are those
    of the part that spent most."""


class Cell(Closed):
    """Where in the grid."""

    preset: Word
    """Of the configuration."""
    dataset: Word
    """Its name."""
    method: Word
    """Or a variant of one."""
    epsilon: Annotated[str, Field(pattern="^(inf|[0-9.e+-]+)$")]
    """As in paths."""
    spc: Annotated[str, Field(pattern="^(any|all|[1-9][0-9]*)$")]
    """Samples per class; any: statistics for sets of every size."""
    seed: Annotated[str, Field(pattern="^(0|[1-9][0-9]*)$")]
    """Of everything that is not noise, and of the noise of repeatable runs."""


class Certificate(Closed):
    """Privacy certificate of a synthetic set or of released statistics, format 2. Infinities are the string "inf"."""

    format: Literal[2]
    """Of the certificate."""
    statement: str
    """What may be done with it, in a few sentences."""
    private: bool
    """False if anything left the vault without noise."""
    epsilon_budget: Epsilon
    """The budget that the vault was opened with."""
    delta: Annotated[float, Field(gt=0, lt=1)]
    """Of every epsilon here."""
    accountant: Literal["rdp", "pld"]
    """By which the noise was calibrated and `epsilon` is stated."""
    epsilon: Epsilon
    """Spent: the smallest of the accountant's bound and, if nothing was subsampled, the exact one."""
    epsilon_rdp: Epsilon
    """Spent, by Renyi DP; comparable with the PSG paper."""
    epsilon_pld: Epsilon
    """Spent, by privacy loss distributions."""
    epsilon_replacing: Epsilon
    """At the same delta, for replacing one record by another."""
    neighbouring_relation: Relation
    """Of every release."""
    protects_labels: bool
    """False where the records were used in parts by class: to which part a record belongs is public."""
    noise_source: Annotated[str, Field(pattern="^(operating system|seed [0-9]{1,20})$")]
    """Where the key of the noise came from."""
    noise_stream: (
        Literal["AES-128 in counter mode; normals and sums in float64", "PyTorch's float32 generator, until version 0.1"] | None
    )
    """What the noise was drawn from; null for data without noise."""
    public_facts: str
    """What was used without noise."""
    ledger: Annotated[tuple[Entry, ...], Field(min_length=1)]
    """Every release in order; equal neighbours are counted together."""
    set_sha256: Digest
    """Of set.npz (or statistics.npz), byte for byte."""
    statistics_sha256: Digest | None = None
    """Of the released statistics that the set was computed from, without access to data. Sets that name the same ones share the
    ledger's epsilon: publishing all of them costs it once."""
    cell: Cell
    """Where in the grid."""
    config: dict[str, Any]
    """The method's hyper-parameters."""
    releases: dict[str, Any] | None = None
    """Those of the releases behind a set that was computed from statistics."""
    code: Word
    """Digest of the code that made the file."""
    device: Word
    """Processor, threads, precision of products."""
    versions: dict[str, Word]
    """Of Python and of what computed."""


def schema() -> str:
    """The JSON schema of a certificate."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Certificate.model_json_schema()}
    return json.dumps(made, indent=1) + "\n"
