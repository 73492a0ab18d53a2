"""Which code made a result: a digest over a script and every privset module that it can reach.

Snakemake watches a rule's script but not the modules that the script imports; rules carry this digest in their `params`, so
that an edit reruns the jobs that use the edited module and no others. Imported while the workflow is parsed: no torch here.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
from pathlib import Path

from privset import PrivsetError

ROOT = Path(__file__).parents[2]


def run_this_library() -> None:
    """Make every job import the library that lies beside its workflow, the one whose digests it carries.

    Snakemake appends a script's folder to the search path, so another checkout's library, installed in the environment, would
    win there; PYTHONPATH comes before it. Raises PrivsetError for a path that cannot stand in it.
    """
    if os.pathsep in str(ROOT):
        raise PrivsetError(f"{ROOT.parent}: a path with {os.pathsep!r} cannot be given to jobs; move this folder")
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != str(ROOT)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *others])


def _file(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(path: Path) -> set[str]:
    """Names of the privset modules that a file imports anywhere, `from privset import vault` included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "privset" and _file(name)}


@functools.cache
def reachable(*modules: str) -> tuple[Path, ...]:
    """Files of `modules` (a script's name or a dotted module) and of everything of privset that they import."""
    pending, seen = list(modules), {}
    while pending:
        name = pending.pop()
        path = _file(name)
        if path is None:
            raise FileNotFoundError(f"no module {name} under {ROOT}")
        if path not in seen:
            seen[path] = name
            pending += _imports(path)
    return tuple(sorted(seen))


QUESTION = ("data", "evaluation", "methods", "networks", "privacy")
"""Rooms that decide what is asked of the private data, and what is computed from the answers."""


@functools.cache
def question_digest(*modules: str) -> str:
    """First 16 hex digits of the SHA-256 over what the reachable files of these rooms do; comments and docstrings do not count.

    For rules that ask the private data: another answer costs another epsilon, so nothing else may make them run again.
    """
    digest = hashlib.sha256()
    for path in reachable(*modules):
        if path.relative_to(ROOT).parts[1] in QUESTION:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(getattr(node, "body", None), list):
                    node.body = [part for part in node.body if not _is_text(part)] or [ast.Pass()]
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + ast.dump(tree).encode() + b"\0")
    return digest.hexdigest()[:16]


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.cache
def code_digest(*modules: str) -> str:
    """First 16 hex digits of the SHA-256 over the reachable files' names and texts."""
    digest = hashlib.sha256()
    for path in reachable(*modules):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
