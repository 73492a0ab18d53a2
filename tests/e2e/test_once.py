"""Under the operating system's noise a cell is released once: what changes no question asks nothing again, and what does is
refused and loses nothing."""

import os
import shutil
import stat

import pytest
import yaml

from conftest import copy_repository, snakemake
from privset.jobs import digest
from privset.sets import files

SET = "results/tiny/sets/digits/psm/eps10/spc2/seed0/set.npz"
STATISTICS = "results/tiny/releases/digits/psm/eps10/seed0/statistics.npz"
GENERATOR = "results/tiny/sets/digits/dp_merf/eps10/spc20/seed0/set.npz"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = copy_repository(tmp_path_factory.mktemp("once") / "home")
    config = yaml.safe_load((path / "tests/config/digits.yaml").read_text())
    config["presets"]["tiny"]["noise"] = "os"
    (path / "own.yaml").write_text(yaml.safe_dump(config))
    made = run(path)
    assert made.returncode == 0, made.stdout
    return path


def run(path, *options):
    return snakemake(path, SET, GENERATOR, "--cores", "2", "--configfile", "own.yaml", *options)


def edited(path, name, old, new):
    text = (path / name).read_text()
    assert old in text
    (path / name).write_text(text.replace(old, new))


def test_released_files_are_read_only(home):
    for name in (STATISTICS, GENERATOR):
        assert stat.S_IMODE(os.stat(home / name).st_mode) == 0o444


def test_what_changes_no_question_asks_nothing_again(home):
    before = [files.sha256(home / name) for name in (STATISTICS, GENERATOR)]
    edited(home, "workflow_scripts/privset/sets/mosaic.py", '"""Pictures', '# a comment\n"""Pictures')
    edited(home, "workflow_scripts/privset/privacy/vault.py", '"""The only door', '"""The one and only door')
    edited(home, "workflow_scripts/privset/jobs/trajectory.py", '"""What a run leaves', '"""All that a run leaves')
    again = run(home)
    assert again.returncode == 0 and "release" not in again.stdout.split("Job stats")[-1].split("total")[0], again.stdout
    assert [files.sha256(home / name) for name in (STATISTICS, GENERATOR)] == before


@pytest.mark.parametrize(
    ("name", "old", "new", "kept"),
    [
        ("own.yaml", "random_networks: 2", "random_networks: 3", STATISTICS),
        ("own.yaml", "steps: 100\n", "steps: 101\n", GENERATOR),
        ("workflow_scripts/privset/methods/psm_releases.py", "CHUNK = 50", "CHUNK = 40", STATISTICS),
    ],
)
def test_another_question_under_the_same_name_is_refused_in_one_line_and_loses_nothing(home, name, old, new, kept):
    folder = (home / kept).parent
    before = {path.name: files.sha256(path) for path in folder.iterdir()}
    text = (home / name).read_text()
    edited(home, name, old, new)
    refused = run(home)
    assert refused.returncode == 1
    (line,) = {line for line in refused.stdout.splitlines() if line.startswith("error: ")}
    assert "already released; another release costs another epsilon: delete it yourself, or choose another seed" in line
    assert {path.name: files.sha256(path) for path in folder.iterdir()} == before
    # Kept on request, whatever changed since; and made anew once its owner has removed it.
    if kept == GENERATOR:
        assert run(home, "--touch").returncode == 0
        assert "Nothing to be done" in run(home).stdout
        shutil.rmtree(folder)
        made = run(home)
        assert made.returncode == 0, made.stdout
        assert files.sha256(home / GENERATOR) != before["set.npz"]
    (home / name).write_text(text)
    assert run(home, "--touch").returncode == 0  # what was refused counts as unfinished until its owner says so


def test_a_comment_is_no_question_and_a_number_is(tmp_path, monkeypatch):
    package = tmp_path / "privset" / "methods"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package.parent / "__init__.py").write_text("")
    monkeypatch.setattr(digest, "ROOT", tmp_path)

    def of(text):
        (package / "toy.py").write_text(text)
        digest.reachable.cache_clear()
        digest.question_digest.cache_clear()
        return digest.question_digest("privset.methods.toy")

    plain = of("def ask():\n    return 1\n")
    assert of('"""Says what."""\n\n\ndef ask():\n    """Why."""\n    return 1  # because\n') == plain
    assert of("def ask():\n    return 2\n") != plain
    monkeypatch.undo()
    digest.reachable.cache_clear()
    digest.question_digest.cache_clear()
