"""The methods that turn private data into a synthetic set, one file each. They may use every room above, and reach private data
through a vault alone; whatever is random in them comes from `run.generator`.

A method is a module with

- `METHOD`, what it is (`jobs.rows.Method`, with literal values);
- `Config`, a `Block`: its block in config.yaml, described and with ranges;
- `synthesize(vault, config, run) -> (images, labels)`: images (N, C, H, W) in normalised units and labels (N,) on the
  vault's device;
- `asks(config, records) -> [Asked, ...]`: which releases that is, in order, by the configuration and the number of records alone.

One whose releases do not depend on the size of the set names in `METHOD.releases` a module with

- `ReleaseConfig`, `release(vault, config, run) -> Statistics`, whose arrays are stored with a certificate of their own, `asks`,
  and `whole(arrays, config)`, whether a file has these arrays and no others;

and has itself, unless what was released is all that it makes (a classifier),

- `Statistics` and `Config`, and `synthesize(statistics, facts, config, run) -> (images, labels)`, which is post-processing;
- `soft_labels(statistics, images, labels, config, facts)`, probabilities for the finished set's training images, or None;
- in `Config`, if its stored images hold several training images each, `tiles` (`sets.tiles`).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

from privset import PrivsetError
from privset.jobs import rows
from privset.jobs.blocks import parse
from privset.privacy.certificate import STATISTICS
from privset.privacy.noise import ROUNDING, STREAM
from privset.sets.arrays import read_statistics


def load(row: str) -> ModuleType:
    """The module of a method or of a variant of one. Imported by name, so that a change in one method's file leaves the other
    methods' cells alone."""
    return importlib.import_module(f"privset.methods.{rows.method_of(row)}")


def load_releases(row: str) -> ModuleType:
    """The module with the `release` of a method or of a variant of one."""
    return importlib.import_module(f"privset.methods.{rows.described(row).releases}")


def check(stated: Mapping[str, Any], path: Path) -> None:
    """Raises PrivsetError unless the ledger of a (verified) certificate is what its configuration asks for, and released
    statistics at `path` are what its method releases, and no more."""
    where = str(path.with_name("certificate.json"))
    row = stated["cell"]["method"]
    method = rows.methods().get(rows.method_of(row))
    if method is None:
        raise PrivsetError(f"{where}: cell.method = {row}: no such method here")
    if (method.releases is not None) != ("statistics_sha256" in stated or stated["cell"]["spc"] == "any"):
        raise PrivsetError(f"{where}: {row} and statistics do not belong together; it was changed")
    if method.releases is None:
        module, block = load(row), parse(load(row).Config, stated["config"], f"{where}: config")
    else:
        of_set = "statistics_sha256" in stated
        if of_set:
            parse(load(row).Config, stated["config"], f"{where}: config")
        module = load_releases(row)
        block = parse(module.ReleaseConfig, stated["releases" if of_set else "config"], f"{where}: releases")
    if path.name == STATISTICS and not module.whole(read_statistics(path), block):
        raise PrivsetError(f"{path}: not the arrays that {row} releases with its configuration; it was changed")
    entries = stated["ledger"]
    records = {tuple(entry["part"]) if "part" in entry else None: entry["records"] for entry in entries}
    try:
        asked = module.asks(block, lambda part: records.get(part, 1))
    except PrivsetError as error:
        raise PrivsetError(f"{where}: its configuration does not fit its ledger ({error}); it was changed") from None
    extra = 1 + ROUNDING if stated["noise_stream"] == STREAM else 1
    for entry, ask in zip_longest(entries, asked):
        keys = ("mechanism", "neighbouring_relation", "count")
        if entry is None or ask is None or [entry[key] for key in keys] != [ask.mechanism, ask.relation, ask.count]:
            raise PrivsetError(f"{where}: its ledger is not what its configuration asks of the data; it was changed")
        numbers = (float(entry["sensitivity"]), entry.get("sampling_rate", 1.0))
        expected = (ask.sensitivity * extra, ask.rate)
        if not all(map(math.isclose, numbers, expected)) or tuple(entry.get("part", ())) != (ask.part or ()):
            raise PrivsetError(
                f"{where}: sensitivity, sampling rate or part in its ledger is not what its configuration asks for"
            )
