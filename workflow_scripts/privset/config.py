"""Read `config.yaml`: strict validation with one-line messages, and frozen dataclasses from its blocks.

Imported while the workflow is being parsed, so it must not import torch.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jsonschema
import yaml

from privset import PrivsetError
from privset.datasets import DATASETS, base_name

SCHEMA = Path(__file__).parents[2] / "rules" / "schemas" / "config.schema.yaml"

T = TypeVar("T")


def _position(path: Any) -> str:
    """`grid.epsilon[1]` for the path of a validation error."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f"{'.' if text else ''}{key}"
    return text


def _order(config: Any, path: Any) -> list[int]:
    """Sorts errors as a reader of the file meets them: an anchor before the places that repeat it."""
    places = []
    for key in path:
        places.append(list(config).index(key) if isinstance(config, Mapping) else key)
        config = config[key]
    return places


def _reason(error: jsonschema.ValidationError) -> str:
    value = json.dumps(error.instance, default=str)
    value = value if len(value) <= 60 else value[:57] + "..."
    match error.validator:
        case "additionalProperties":
            known = sorted(error.schema.get("properties", {}))
            unknown = sorted(set(error.instance) - set(known))
            return f"unknown key {', '.join(map(repr, unknown))}; known keys: {', '.join(known)}"
        case "required":
            missing = [key for key in error.schema["required"] if key not in error.instance]
            return f"missing key {', '.join(map(repr, missing))}"
        case "exclusiveMinimum":
            return f"= {value}: must be > {error.validator_value}"
        case "minimum":
            return f"= {value}: must be >= {error.validator_value}"
        case "exclusiveMaximum":
            return f"= {value}: must be < {error.validator_value}"
        case "maximum":
            return f"= {value}: must be <= {error.validator_value}"
        case "enum":
            return f"= {value}: choose from {', '.join(map(str, error.validator_value))}"
        case "type":
            return f"= {value}: must be of type {error.validator_value}"
        case _:
            return f"= {value}: {error.message}"


def validate(config: Mapping[str, Any], *, source: str = "config.yaml") -> None:
    """Check a whole configuration against the schema.

    Raises PrivsetError with one line, `config.yaml: presets.quick.epsilon[1] = -3: must be > 0`, for the first problem.
    """
    schema = yaml.safe_load(SCHEMA.read_text())
    plain = json.loads(json.dumps(config, default=str))  # YAML's integer keys are strings, as in JSON
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(plain), key=lambda error: _order(plain, error.path))
    if errors:
        error = errors[0]
        separator = " " if _position(error.path) and _reason(error).startswith("=") else ": "
        position = _position(error.path) or "top level"
        raise PrivsetError(f"{source}: {position}{separator}{_reason(error)}")
    known = {
        "dataset": [*DATASETS, *config.get("datasets", {})],
        "network": network_names(),
        "preset": list(config["presets"]),
    }

    def check(what: str, value: str, where: str) -> None:
        if value not in known[what]:
            raise PrivsetError(f"{source}: {where} = {json.dumps(value)}: choose from {', '.join(known[what])}")

    check("preset", config["preset"], "preset")
    for name, preset in config["presets"].items():
        for what in ("dataset", "network"):
            for index, value in enumerate(preset[f"{what}s"]):
                check(what, base_name(value) if what == "dataset" else value, f"presets.{name}.{what}s[{index}]")
        for kind in ("small_sets", "large_sets"):
            for network in set(preset["evaluation"][kind]) - {"default"}:
                check("network", network, f"presets.{name}.evaluation.{kind}")


def network_names() -> list[str]:
    """The names in `networks.NETWORKS`, read from its source: importing it would import torch."""
    tree = ast.parse(Path(__file__).with_name("networks.py").read_text())
    (registry,) = (
        node.value for node in tree.body if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "NETWORKS"
    )
    return [key.value for key in registry.keys]


def parse(cls: type[T], block: Mapping[str, Any], where: str) -> T:
    """Build the frozen dataclass `cls` from a config block; unknown and missing keys are errors that name `where`."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(block) - set(fields))
    if unknown:
        raise PrivsetError(f"{where}: unknown key {unknown[0]!r}; known keys: {', '.join(fields)}")
    required = {name for name, field in fields.items() if field.default is field.default_factory is dataclasses.MISSING}
    missing = sorted(required - set(block))
    if missing:
        raise PrivsetError(f"{where}: missing key {missing[0]!r}")
    return cls(**block)


def epsilon_text(value: Any) -> str:
    """The one spelling of an epsilon in paths: 10 -> "10", 10.0 -> "10", 0.2 -> "0.2", infinity -> "inf".

    Raises PrivsetError unless the value is a number > 0.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise PrivsetError(f"epsilon = {value!r}: must be a number > 0, or inf for the non-private rows") from None
    if math.isnan(number) or number <= 0:
        raise PrivsetError(f"epsilon = {value}: must be > 0")
    return "inf" if math.isinf(number) else f"{number:g}"
