"""The schema of config.yaml: the model of the whole file with the blocks of the methods and of the schedules put in.

`rules/schemas/config.schema.yaml` is written by it (`privset schema --write`), for editors and for the start of the workflow,
which has no time to import the methods. A method that is not in the file yet, or not as it is now, costs that time.
"""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from privset.jobs import rows
from privset.jobs.blocks import Block
from privset.jobs.config import Configuration
from privset.privacy import certificate
from privset.sets.files import write_atomically

LIBRARY = Path(__file__).parents[1]
FILE = LIBRARY.parents[1] / "rules" / "schemas" / "config.schema.yaml"
SIZE = "^[1-9][0-9]*$"
NAME = "^[a-z][a-z0-9_]*$"


def current() -> dict[str, Any]:
    """The schema as the code is now."""
    if FILE.exists():
        known = yaml.load(FILE.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if known["$comment"] == _comment():
            return known
    return generate()


def write() -> Path:
    """Bring the file up to date, and the one of certificates; returns its path."""
    write_atomically(FILE, lambda stream: stream.write(text()))
    write_atomically(certificate.FILE, lambda stream: stream.write(certificate.schema()))
    return FILE


def text() -> str:
    """The file as it should be."""
    plain = json.loads(json.dumps(generate()))  # every repetition written out, instead of YAML's anchors
    return yaml.safe_dump(plain, sort_keys=False, width=130, allow_unicode=True, default_flow_style=None)


def _comment() -> str:
    """Says where the file comes from, with a digest of what it was made of: the classes and constants of its sources."""
    digest = hashlib.sha256()
    sources = [LIBRARY / "jobs" / name for name in ("blocks.py", "config.py", "rows.py")]
    for path in [*sources, LIBRARY / "evaluation" / "training.py", *sorted((LIBRARY / "methods").glob("*.py"))]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        kept = [node for node in tree.body if isinstance(node, (ast.ClassDef, ast.Assign, ast.AnnAssign))]
        digest.update("\n".join(map(ast.dump, kept)).encode())
    return f"written by `privset schema --write` from the code of digest {digest.hexdigest()[:16]}"


def generate() -> dict[str, Any]:
    """The schema from the models themselves; imports every method."""
    from privset import methods
    from privset.evaluation.training import Schedule

    definitions: dict[str, Any] = {}
    schema = _plain(Configuration, definitions)
    blocks: dict[bool, dict[str, Any]] = {False: {}, True: {}}
    for name, method in rows.methods().items():
        config = releases = None
        needed = ["releases"]
        if method.family != "classifier":
            model = methods.load(name).Config
            config = _hyper_parameters(f"{name}_config", model, definitions)
            needed = ["spc", *(["config"] if any(field.is_required() for field in model.model_fields.values()) else [])]
        if method.releases:
            releases = _hyper_parameters(f"{name}_releases", methods.load_releases(name).ReleaseConfig, definitions)
        definitions[name] = _method_block(method, config, releases, needed)
        blocks[method.tasks][name] = {"$ref": f"#/$defs/{name}"}
        if name == "psm":
            variants = {"releases": releases, "config": config}
            definitions["Ablation"]["properties"]["variants"] |= {
                "propertyNames": {"pattern": _variants_of("psm")},
                "additionalProperties": {"type": "object", "additionalProperties": False, "properties": variants},
            }
    for owner, tasks in (("Preset", False), ("Continual", True)):
        definitions[owner]["properties"]["methods"] |= {
            "minProperties": 1,
            "properties": blocks[tasks],
            "patternProperties": {_variants_of(name): block for name, block in blocks[tasks].items() if name != "real"},
            "additionalProperties": False,
        }
    _hyper_parameters("schedule", Schedule, definitions)
    for kind, needed in (("small_sets", ["default"]), ("large_sets", ["default"]), ("real_data", []), ("labelled_sets", [])):
        definitions["Evaluation"]["properties"][kind] |= {
            "required": needed,
            "propertyNames": {"pattern": NAME},
            "additionalProperties": {"$ref": "#/$defs/schedule"},
        }
    first = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$comment": _comment(), "title": "privset configuration"}
    return {**first, **schema, "$defs": definitions}


def _variants_of(method: str) -> str:
    """A pattern for the variants of a method, and of no method with a longer name."""
    longer = [name[len(method) + 1 :] for name in rows.methods() if name.startswith(f"{method}_")]
    not_these = f"(?!(?:{'|'.join(longer)})(?:_|$))" if longer else ""
    return f"^{method}_{not_these}[a-z0-9_]+$"


def _method_block(method: rows.Method, config: Any, releases: Any, needed: list[str]) -> dict[str, Any]:
    """The block of one row: sizes, hyper-parameters, and what differs by size and by dataset."""
    if method.family == "real data":
        return {"type": "object", "description": method.title, "additionalProperties": False}
    properties: dict[str, Any] = {}
    if config:
        size = {"type": "integer", "minimum": 1}
        properties["spc"] = size if method.tasks else _several(size)
        properties["spc"]["description"] = "Samples per class, one set for each."
        if not method.tasks:
            properties["epsilon"] = _several({"type": "number", "exclusiveMinimum": 0})
            properties["epsilon"]["description"] = "Instead of the preset's."
    properties["accountant"] = {
        "enum": ["rdp", "pld"],
        "description": "By which noise is calibrated to the budget: Renyi DP, the PSG paper's (the default), or privacy loss "
        "distributions, the tightest.",
    }
    if releases:
        properties["releases"] = releases
    if config:
        properties["config"] = config
        for overlay, pattern, what in (("by_spc", SIZE, "a size of set"), ("by_dataset", NAME, "a dataset")):
            properties[overlay] = {
                "type": "object",
                "propertyNames": {"pattern": pattern},
                "additionalProperties": config,
                "description": f"What differs for {what}.",
            }
    return {
        "type": "object",
        "description": method.title,
        "required": needed,
        "additionalProperties": False,
        "properties": properties,
    }


def _several(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "uniqueItems": True, "items": item}


def _hyper_parameters(name: str, model: type[Block], definitions: dict[str, Any]) -> dict[str, str]:
    """The definition of a block whose keys may be spread over overlays, so that none is required by itself."""
    definitions[name] = {key: value for key, value in _plain(model, definitions).items() if key != "required"}
    return {"$ref": f"#/$defs/{name}"}


def _plain(model: type[Block], definitions: dict[str, Any]) -> dict[str, Any]:
    """A model's schema as people write one: no titles, no null for what may be left out, definitions in one place."""

    def tidy(value: Any) -> Any:
        if isinstance(value, list):
            return [tidy(item) for item in value]
        if not isinstance(value, dict):
            return value
        value = {key: tidy(item) for key, item in value.items() if not (key == "title" and isinstance(item, str))}
        if len(value.get("patternProperties", {})) == 1:  # what the pattern does not match is an error
            ((pattern, items),) = value.pop("patternProperties").items()
            value |= {"propertyNames": {"pattern": pattern}, "additionalProperties": items}
        if "anyOf" in value:
            given = [option for option in value.pop("anyOf") if option != {"type": "null"}]
            nullable = "default" not in value
            (option,) = given
            value = {**option, **({"type": [option["type"], "null"]} if nullable else {}), **value}
        if value.get("default", 0) is None:
            value.pop("default")
        if isinstance(value.get("description"), str):
            value["description"] = " ".join(value["description"].split())
        return value

    made = tidy(model.model_json_schema())
    definitions |= made.pop("$defs", {})
    return made
