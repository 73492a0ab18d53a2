"""The house: eight rooms in one order of imports, no circles, nothing that does not import, nothing too long to read."""

import ast
import importlib
import re
import sys

import pytest

from conftest import ROOT

SCRIPTS = ROOT / "workflow_scripts"
LIBRARY = SCRIPTS / "privset"
ROOMS = ("sets", "data", "networks", "privacy", "jobs", "evaluation", "methods", "reporting")
"""A room imports from itself and from those before it."""


def imports(path):
    """(line, dotted name) of everything of privset that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.startswith("privset."))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "privset":
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def upward(library):
    """Lines that import from a room below their own, from the command line, or from a script."""
    found = []
    for path in sorted(library.rglob("*.py")):
        room, *rest = path.relative_to(library).parts
        if not rest:  # PrivsetError and the command line, which stands on top
            continue
        for line, name in imports(path):
            other = name.split(".")[1]
            if other != "PrivsetError" and (other not in ROOMS or ROOMS.index(other) > ROOMS.index(room)):
                found.append(f"{path.relative_to(library)}:{line}: {room} imports {name}")
    return found


def test_no_room_imports_from_a_room_below():
    assert sorted(path.name for path in LIBRARY.iterdir() if path.is_dir() and path.name != "__pycache__") == sorted(ROOMS)
    assert upward(LIBRARY) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("privacy/vault.py", "from privset.methods import psg"),
        ("sets/files.py", "import privset.data.datasets"),
        ("jobs/cells.py", "def late():\n    from privset.evaluation.training import train"),
        ("data/own.py", "from privset import __main__"),
    ],
)
def test_a_planted_upward_import_is_named_with_its_line(tmp_path, file, line):
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(f"from privset import PrivsetError\n{line}\n")
    (found,) = upward(tmp_path)
    assert found.startswith(f"{file}:{1 + len(line.splitlines())}: ")


def test_no_two_modules_import_each_other_in_a_circle():
    modules = {}
    for path in LIBRARY.rglob("*.py"):
        parts = ("privset", *path.relative_to(LIBRARY).with_suffix("").parts)
        modules[".".join(parts).removesuffix(".__init__")] = path
    graph = {
        name: {
            target
            for _, found in imports(path)
            for target in (found, found.rpartition(".")[0])
            if target in modules and target.count(".") > 1
        }
        for name, path in modules.items()
    }
    done = set()

    def visit(name, way):
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name] - {name}):
                visit(target, [*way, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def test_each_room_says_what_belongs_there_and_what_it_may_touch():
    for room in ROOMS:
        text = ast.get_docstring(ast.parse((LIBRARY / room / "__init__.py").read_text())).split("\n\n")[0]
        assert " ".join(text.split()).count(". ") == 1, room  # two sentences


MODULES = sorted(
    ".".join(path.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__") for path in SCRIPTS.rglob("*.py")
)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "privset.__main__"])
def test_everything_imports(module, monkeypatch):
    """The library's modules and the rules' scripts, which do nothing without Snakemake."""
    monkeypatch.setattr(sys, "argv", ["test"])
    assert importlib.import_module(module).__doc__


def test_scripts_are_thin_and_modules_can_be_read_in_one_sitting():
    long = {path.name: len(path.read_text().splitlines()) for path in SCRIPTS.glob("*.py")}
    assert {name: lines for name, lines in long.items() if lines > 40} == {}
    long = {str(path.relative_to(LIBRARY)): len(path.read_text().splitlines()) for path in LIBRARY.rglob("*.py")}
    assert {name for name, lines in long.items() if lines > 350} <= {"jobs/grids.py"}  # says why at its top


def test_noise_is_drawn_in_one_place_of_the_trusted_core():
    """No other module there calls anything that draws random numbers, but for public ones: of a generator that was given to an
    ensemble, and the seed of an attack's."""
    drawing = re.compile(
        r"\b(rand\w*|normal\w*|standard_normal|uniform_?|bernoulli\w*|multinomial|urandom|manual_seed|integers|permutation)\("
    )
    found = {}
    for path in sorted((LIBRARY / "privacy").glob("*.py")):
        calls = [
            node.lineno
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and drawing.search(ast.unparse(node.func) + "(")
        ]
        if calls:
            found[path.name] = calls
    assert set(found) == {"noise.py", "vault.py", "audit.py", "ensembles.py", "worst.py"}
    lines = (LIBRARY / "privacy" / "ensembles.py").read_text().splitlines()
    assert all(re.search(r"generator=(self\.__)?generator\b", lines[line - 1]) for line in found["ensembles.py"])
    (line,) = found["worst.py"]
    assert "torch.Generator().manual_seed(0)" in (LIBRARY / "privacy" / "worst.py").read_text().splitlines()[line - 1]
    for name in ("vault.py", "audit.py"):  # which records are in a batch, and an attacker's coins, from the stream of noise.py
        lines = (LIBRARY / "privacy" / name).read_text().splitlines()
        assert all("noise.stream(" in lines[line - 1] for line in found[name])
