"""Whole files: written atomically, read with checks, recognised by their checksum."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from privset import PrivsetError


def remedy(path: Path) -> str:
    """What to do about a damaged file: what an epsilon was spent on is not to be made again."""
    if path.name in ("set.npz", "statistics.npz", "certificate.json"):
        return "bring it back as it was: to make a private one again costs another epsilon, unless its noise was seeded"
    return "delete it and run again"


def write_atomically(path: Path, write: Callable[[Any], None], mode: str = "w", *, secret: bool = False) -> None:
    """Write a file under a temporary name beside it and move it into place, so that it is whole or not there at all.

    A `secret` file is readable by its owner alone, from its first byte on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        encoding = None if "b" in mode else "utf-8"
        how = 0o600 if secret else 0o666
        with open(partial, mode, encoding=encoding, opener=lambda name, flags: os.open(name, flags, how)) as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise PrivsetError(f"{path} could not be written: {error.strerror}; nothing was replaced") from error


def write_json(path: Path, content: Any) -> None:
    """Indented JSON; infinities as the string "inf" (JSON has no infinity)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if isinstance(value, float) and math.isinf(value):
            return "inf"
        return value

    text = json.dumps(plain(content), indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda stream: stream.write(text))


def read_json(path: Path) -> Any:
    """Raises PrivsetError for what is no JSON: NaN and infinities are none, nor is one key twice."""

    def no_number(text: str) -> None:
        raise ValueError(f"{text} is no number")

    def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError(f"a key stands there twice: {', '.join(key for key, _ in pairs)[:100]}")
        return dict(pairs)

    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=no_number, object_pairs_hook=no_key_twice)
    except (OSError, ValueError, RecursionError) as error:
        raise PrivsetError(f"{path} is not readable JSON ({error}); {remedy(path)}") from error


def sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def matching_certificate(set_path: Path, certificate_path: Path) -> dict[str, Any]:
    """The certificate of a set. Raises PrivsetError if it was issued for other bytes."""
    stated = read_json(certificate_path)
    if not isinstance(stated, dict):
        raise PrivsetError(f"{certificate_path} is not a certificate; {remedy(certificate_path)}")
    if stated.get("set_sha256") != sha256(set_path):
        raise PrivsetError(
            f"{set_path}: its SHA-256 is not the one in {certificate_path.name}; one of them was changed; {remedy(set_path)}"
        )
    return stated


def summary(stated: Mapping[str, Any]) -> dict[str, Any]:
    """What a result says of the certificate of the set behind it."""
    keys = ("epsilon", "delta", "private", "neighbouring_relation", "noise_source", "set_sha256")
    return {key: stated[key] for key in keys}
