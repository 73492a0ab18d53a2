"""The whole of `config.yaml`: its model, and its validation with one-line messages.

Read while the workflow is being parsed, so nothing here imports torch. The blocks of the methods and of the schedules are
described where they are used; `methods.schema` puts them into this model's schema.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
from pydantic import Field, StringConstraints

from privset import PrivsetError
from privset.data.datasets import DATASETS, base_name
from privset.jobs.blocks import Block, Count, Positive
from privset.privacy.certificate import epsilon_spelled

Name = Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_]*$")]
_SEVERAL = {"uniqueItems": True}
Sizes = Annotated[list[Count], Field(min_length=1, json_schema_extra=_SEVERAL)]
Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, json_schema_extra=_SEVERAL)]
Names = Annotated[list[Name], Field(min_length=1, json_schema_extra=_SEVERAL)]
Epsilons = Annotated[list[Positive], Field(min_length=1, json_schema_extra=_SEVERAL)]
PerChannel = list[float]


class Data(Block):
    """Where the datasets' files come from."""

    dir: str | None
    """Folder with the datasets' IDX files (raw or .gz), itself or in a subfolder named like the dataset."""
    sources: Annotated[list[Literal["directory", "torchvision", "packages"]], Field(min_length=1, json_schema_extra=_SEVERAL)]
    """Where to look for the files, in this order."""
    timeout: Positive
    """Seconds after which a silent connection is given up."""


class OwnDataset(Block):
    """A dataset of the user's own."""

    format: Literal["idx", "npz", "imagefolder"]
    """How the files are stored."""
    train: str
    """A .npz file, a folder with one subfolder per class, or the common beginning of two IDX files."""
    test: str
    """Likewise."""
    channels: Literal[1, 3]
    """Grey or colour."""
    size: Annotated[int, Field(ge=8)]
    """Height and width in pixels."""
    mean: PerChannel
    """One per channel, for pixels in [0, 1]. Public constants, so they must not be computed from the private data."""
    std: PerChannel
    """Likewise."""
    class_names: Annotated[list[str], Field(min_length=2)]
    """In the order of the labels 0 1 2 ..."""
    title: str | None = None
    """Its name in tables."""
    augmentation: Literal["none", "crop_scale_rotate", "crop_flip_color"] = "none"
    """What the evaluation does to its images."""


class Ablation(Block):
    """Target ablation_psm."""

    spc: Count
    """Samples per class of every set."""
    seeds: Seeds
    """Sets per row."""
    variants: dict[str, Any]
    """Rows beside psm, by what differs from it."""
    epsilon: Annotated[list[Positive], Field(min_length=2, json_schema_extra=_SEVERAL)]
    """The range of the figure of accuracy against epsilon."""


class Continual(Block):
    """Target fig_continual, the classes arriving two at a time."""

    epsilon: Epsilons
    """Of each task, on its own records."""
    seeds: Seeds
    """Runs per line."""
    methods: dict[str, Any]
    """One line each."""


class Evaluation(Block):
    """How networks are trained on the sets."""

    small_up_to_spc: Count
    """Sets with up to this many samples per class are trained on by `small_sets`, larger ones by `large_sets`."""
    small_sets: dict[str, Any]
    """The default schedule, and what differs from it for a network."""
    large_sets: dict[str, Any]
    """Likewise."""
    real_data: dict[str, Any] | None = None
    """What differs from `large_sets` for the real training data, by default and for a network."""
    labelled_sets: dict[str, Any] | None = None
    """Likewise, from either, for sets with a teacher's probabilities (`taught`)."""


class EvaluationBenchmark(Block):
    """Set sizes whose epochs are timed, and the size of the test pass."""

    images: Sizes
    """Sizes of the sets."""
    test_images: Count
    """Images of the test pass."""
    precision: Literal["float32", "bfloat16"]
    """Of the matrix products."""
    repeats: Annotated[int, Field(ge=2)]
    """Rounds."""


class PrivateStepBenchmark(Block):
    """Batch sizes are timed at `width`, widths at `batch`, the matching step for sets of `images`."""

    batch: Count
    """Records of a batch."""
    width: Count
    """Channels of the ConvNet."""
    batches: Sizes
    """Batch sizes."""
    widths: Sizes
    """Widths."""
    images: Sizes
    """Sizes of the sets."""
    repeats: Annotated[int, Field(ge=2)]
    """Rounds."""


class Audit(Block):
    """Target audit, on the preset's first dataset."""

    epsilon: Epsilons
    """Claims that are audited, for every private row."""
    questions: Annotated[int, Field(ge=10)]
    """To the vault, about, behind each bound at release level."""
    image_epsilon: Positive
    """The one of these at which images are attacked; of a large one, a single set could not refute anything."""
    records: Annotated[int, Field(ge=20)]
    """Of the data behind the sets whose images are attacked."""
    canaries: Annotated[int, Field(ge=10)]
    """Of these, the ones that are in or out by a coin."""


class Benchmarks(Block):
    """Target benchmarks."""

    evaluation: EvaluationBenchmark | None = None
    """Training and test passes."""
    private_step: PrivateStepBenchmark | None = None
    """Private gradients and matching steps."""


class Preset(Block):
    """One grid with its hyper-parameters."""

    datasets: Names
    """mnist, fashion_mnist, cifar10, digits, or a name under the top-level `datasets`; NAME_validation holds out records."""
    epsilon: Epsilons
    """Privacy budgets of the private methods."""
    set_seeds: Seeds
    """One synthetic set per seed."""
    networks: Names
    """Evaluation networks, of NETWORKS in privset/networks/classifiers.py; Table 1 uses the first, Table 2 all of them."""
    noise: Literal["os", "seeded"]
    """os draws the noise from the operating system's entropy; seeded makes a run repeatable and its sets unfit for publication as
    private."""
    methods: dict[str, Any]
    """The rows of the tables."""
    evaluation: Evaluation
    """How networks are trained on the sets."""
    storage: Sizes | None = None
    """Samples per class at which table_storage compares all methods."""
    ablation: Ablation | None = None
    """Target ablation_psm."""
    continual: Continual | None = None
    """Target fig_continual."""
    audit: Audit | None = None
    """Target audit."""
    benchmarks: Benchmarks | None = None
    """Target benchmarks."""


class Configuration(Block):
    """privset configuration"""

    preset: str
    """Which block of `presets` the targets (all_tables, ...) compute."""
    delta: Annotated[float, Field(gt=0, lt=1)]
    """The delta of every (epsilon, delta) guarantee."""
    gpu: Literal["auto", True, False]
    """Whether synthesis and evaluation jobs ask for one GPU; auto asks for one where a driver is present."""
    threads: Count
    """CPU threads of each synthesis and evaluation job."""
    data: Data
    """Where the datasets' files come from."""
    presets: Annotated[dict[Name, Preset], Field(min_length=1)]
    """Grids by name."""
    datasets: dict[Name, OwnDataset] | None = None
    """Datasets of your own, by the name that presets use."""


# ------------------------------------------------------------------------------------------------------------ validation


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


def _number(value: float) -> str:
    """As YAML 1.1 reads it: with a point before an exponent, which has a sign."""
    mantissa, _, exponent = repr(value).partition("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}e{int(exponent):+d}" if exponent else mantissa


def _endless(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], float]]:
    """Where in a configuration NaN and infinities are, which no comparison with a range would find."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path, value
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _endless(inner, (*path, key))


def _reason(error: jsonschema.ValidationError) -> str:
    value = json.dumps(error.instance, default=str)
    value = value if len(value) <= 60 else value[:57] + "..."
    match error.validator:
        case "additionalProperties":
            known = sorted(error.schema.get("properties", {}))
            patterns = error.schema.get("patternProperties", {})
            unknown = sorted(key for key in error.instance if key not in known and not any(re.search(p, key) for p in patterns))
            return f"unknown key {', '.join(map(repr, unknown))}; known keys: {', '.join(known)}"
        case "required":
            missing = [key for key in error.schema["required"] if key not in error.instance]
            return f"missing key {', '.join(map(repr, missing))}"
        case "exclusiveMinimum":
            return f"= {value}: must be > {error.validator_value:g}"
        case "minimum":
            return f"= {value}: must be >= {error.validator_value:g}"
        case "exclusiveMaximum":
            return f"= {value}: must be < {error.validator_value:g}"
        case "maximum":
            return f"= {value}: must be <= {error.validator_value:g}"
        case "enum":
            return f"= {value}: choose from {', '.join(map(str, error.validator_value))}"
        case "type":
            hint = ""
            if isinstance(error.instance, str) and error.validator_value in ("number", "integer"):
                with contextlib.suppress(ValueError):
                    hint = f"; YAML takes it for text: write {_number(float(error.instance))}"
            return f"= {value}: must be of type {error.validator_value}{hint}"
        case _:
            return f"= {value}: {error.message}"


def validate(config: Mapping[str, Any], *, schema: Mapping[str, Any], source: str = "config.yaml") -> None:
    """Check a whole configuration against the schema (`methods.schema.current`).

    Raises PrivsetError with one line, `config.yaml: presets.quick.epsilon[1] = -3: must be > 0`, for the first problem.
    """
    for path, value in _endless(config):
        raise PrivsetError(f"{source}: {_position(path)} = {value}: must be a finite number")
    plain = json.loads(json.dumps(config, default=str))  # YAML's integer keys are strings, as in JSON
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(plain), key=lambda error: _order(plain, error.path))
    if errors:
        error = errors[0]
        separator = " " if _position(error.path) and _reason(error).startswith("=") else ": "
        position = _position(error.path) or "top level"
        raise PrivsetError(f"{source}: {position}{separator}{_reason(error)}")
    titles = {dataset.title: name for name, dataset in DATASETS.items()}
    for name, block in config.get("datasets", {}).items():
        title = block.get("title", name)
        if titles.setdefault(title, name) != name:
            raise PrivsetError(f"{source}: datasets.{name}.title = {title}: {titles[title]} is called so; give it another")
    known = {
        "dataset": [*DATASETS, *config.get("datasets", {})],
        "network": list(networks()),
        "preset": list(config["presets"]),
    }

    def check(what: str, value: str, where: str) -> None:
        if value not in known[what]:
            raise PrivsetError(f"{source}: {where} = {json.dumps(value)}: choose from {', '.join(known[what])}")

    check("preset", config["preset"], "preset")
    for name, preset in config["presets"].items():
        for what in ("dataset", "network"):
            for index, value in enumerate(preset[f"{what}s"]):
                meant = base_name(value, config.get("datasets", {})) if what == "dataset" else value
                check(what, meant, f"presets.{name}.{what}s[{index}]")
        for method, block in {**preset["methods"], **preset.get("continual", {}).get("methods", {})}.items():
            for value in block.get("by_dataset", {}):
                check("dataset", base_name(value, config.get("datasets", {})), f"presets.{name}.methods.{method}.by_dataset")
        for kind in ("small_sets", "large_sets", "real_data", "labelled_sets"):
            for network in set(preset["evaluation"].get(kind, {})) - {"default"}:
                check("network", network, f"presets.{name}.evaluation.{kind}")


def networks() -> dict[str, bool]:
    """The names in `classifiers.NETWORKS`, and whether each takes a `width`; from its source: importing it would import torch."""
    tree = ast.parse((Path(__file__).parents[1] / "networks" / "classifiers.py").read_text(encoding="utf-8"))
    takes = {made.name: {each.arg for each in made.args.kwonlyargs} for made in tree.body if isinstance(made, ast.FunctionDef)}
    (registry,) = (
        node.value for node in tree.body if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "NETWORKS"
    )
    return {key.value: "width" in takes[made.id] for key, made in zip(registry.keys, registry.values, strict=True)}


def epsilon_text(value: Any) -> str:
    """The one spelling of an epsilon in paths: 10 -> "10", 10.0 -> "10", 0.2 -> "0.2", infinity -> "inf". All its digits: what is
    spent is what was asked.

    Raises PrivsetError unless the value is a number > 0.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise PrivsetError(f"epsilon = {value!r}: must be a number > 0, or inf for the non-private rows") from None
    if math.isnan(number) or number <= 0:
        raise PrivsetError(f"epsilon = {value}: must be > 0")
    return epsilon_spelled(number)
