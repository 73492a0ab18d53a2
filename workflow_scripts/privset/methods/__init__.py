"""The methods that turn private data into a synthetic set, one file each. They may use every room above, and reach private data
through a vault alone; whatever is random in them comes from `run.generator`.

A method is a module with

- `METHOD`, what it is (`jobs.rows.Method`, with literal values);
- `Config`, a `Block`: its block in config.yaml, described and with ranges;
- `synthesize(vault, config, run) -> (images, labels)`: images (N, C, H, W) in normalised units and labels (N,) on the
  vault's device.

One whose releases do not depend on the size of the set names in `METHOD.releases` a module with

- `ReleaseConfig` and `release(vault, config, run) -> Statistics`, whose arrays are stored with a certificate of their own;

and has itself, unless what was released is all that it makes (a classifier),

- `Statistics` and `Config`, and `synthesize(statistics, facts, config, run) -> (images, labels)`, which is post-processing;
- `soft_labels(statistics, images, labels, config)`, probabilities for the finished set's training images, or None.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from privset.jobs import rows


def load(row: str) -> ModuleType:
    """The module of a method or of a variant of one. Imported by name, so that a change in one method's file leaves the other
    methods' cells alone."""
    return importlib.import_module(f"privset.methods.{rows.method_of(row)}")


def load_releases(row: str) -> ModuleType:
    """The module with the `release` of a method or of a variant of one."""
    return importlib.import_module(f"privset.methods.{rows.described(row).releases}")
