"""Seeds from names, so that every random number of a cell follows from the cell and from nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def derived_seed(*parts: object) -> int:
    """A 63-bit seed from a purpose and names, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def cell_seed(use: str, cell: Mapping[str, str], *more: object) -> int:
    """The seed of one use of randomness in a cell. Not of the preset: presets that agree on a method make the same set."""
    return derived_seed(use, *more, *(cell[part] for part in ("dataset", "method", "epsilon", "spc", "seed")))
