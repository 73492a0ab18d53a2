"""Blocks of the configuration: what a method or a schedule can be told, with types, ranges and descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import Field

from privset import PrivsetError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class Block(pydantic.BaseModel):
    """A block with fixed keys. The docstring below a key is its description in the schema; unknown keys are errors."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


T = TypeVar("T", bound=Block)


def parse(cls: type[T], block: Mapping[str, Any], where: str) -> T:
    """Build `cls` from a block; raises PrivsetError with one line that names `where`, the key and the remedy."""
    try:
        return cls.model_validate(dict(block))
    except pydantic.ValidationError as error:
        raise PrivsetError(f"{where}: {_problem(error.errors()[0], cls)}") from None


def _problem(error: Mapping[str, Any], cls: type[Block]) -> str:
    key = ".".join(map(str, error["loc"]))
    limits = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key {key!r}; known keys: {', '.join(cls.model_fields)}"
        case "missing":
            return f"missing key {key!r}"
        case "greater_than":
            remedy = f"must be > {limits['gt']:g}"
        case "greater_than_equal":
            remedy = f"must be >= {limits['ge']:g}"
        case "less_than":
            remedy = f"must be < {limits['lt']:g}"
        case "less_than_equal":
            remedy = f"must be <= {limits['le']:g}"
        case "literal_error":
            remedy = f"choose from {limits['expected']}"
        case "value_error":  # a validator of ours, which names the keys
            return str(limits["error"])
        case _:
            remedy = error["msg"]
    return f"{key} = {error['input']!r}: {remedy}"
