"""Rows of the tables: methods, and variants of methods under names of their own.

What a method is stands in its own file, as `METHOD = Method(...)`, and is read from there without running the file: methods
import torch, and who only plans or reports does without.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).parents[1] / "methods"


@dataclass(frozen=True, kw_only=True)
class Method:
    """What a method says of itself."""

    title: str
    """Its name in tables and figures."""
    family: Literal["optimised set", "generator", "classifier", "real data"]
    """"optimised set": the images are what is computed, and each number of samples per class is a set of its own. "generator":
    as many images as one likes from one model. "classifier": no images, but a network's weights."""
    releases: str | None = None
    """The module of `methods/` whose `release` asks all there is to ask of the private data, once for the sets of every size;
    None: the making of each set asks for itself."""
    labelled: bool = False
    """Its sets come with a teacher's probabilities, and networks are trained on them by `labelled_sets`."""
    tasks: bool = False
    """For classes that arrive task by task: its block stands under `continual`."""


@functools.cache
def methods() -> dict[str, Method]:
    """Every method by the name of its file.

    Raises ValueError for a METHOD that is not literal.
    """
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "METHOD":
                found[path.stem] = Method(**{word.arg: ast.literal_eval(word.value) for word in node.value.keywords})
    return found


def method_of(row: str) -> str:
    """The method that a row runs: its own name, or the beginning of a variant's (psm_features is a psm); "" for none."""
    return max((known for known in methods() if row == known or row.startswith(f"{known}_")), key=len, default="")


def is_variant(row: str) -> bool:
    """Whether it is a method under other settings: a row of the tables, and no line of the figures."""
    return row not in methods()


def described(row: str) -> Method:
    """What a row's method says of itself. Raises KeyError for a row of no method."""
    return methods()[method_of(row)]
