"""Code digests: an edit changes the digest of what uses the module, and of nothing else."""

from privset.jobs import digest


def names(*modules):
    return {path.stem for path in digest.reachable(*modules)}


def test_a_cells_code_is_the_script_the_method_and_what_they_import():
    psg = names("synthesize", "privset.methods.psg")
    assert {"synthesize", "psg", "vault", "gradients", "accounting", "classifiers", "certificates", "seeds"} <= psg
    assert not psg & {"dp_merf", "training", "augment", "tables", "figures", "digest"}
    assert "dp_merf" in names("synthesize", "privset.methods.dp_merf")


def test_an_evaluation_does_not_depend_on_the_methods_or_the_accounting():
    assert {"training", "augment", "classifiers", "datasets", "arrays"} <= names("evaluate")
    assert not names("evaluate") & {"psg", "dp_merf", "vault", "accounting", "tables"}


def test_tables_and_figures_need_no_training_code():
    for script in ("collect", "compare", "privacy", "samples"):
        assert not names(script) & {"training", "psg", "vault", "classifiers"}, script


def test_a_changed_file_changes_the_digest(tmp_path, monkeypatch):
    package = tmp_path / "privset"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from privset import b\n")
    (package / "b.py").write_text("x = 1\n")
    (package / "c.py").write_text("y = 1\n")
    monkeypatch.setattr(digest, "ROOT", tmp_path)

    def fresh():
        digest.reachable.cache_clear()
        digest.code_digest.cache_clear()
        return digest.code_digest("privset.a")

    before = fresh()
    (package / "c.py").write_text("y = 2\n")
    assert fresh() == before
    (package / "b.py").write_text("x = 2\n")
    assert fresh() != before
    monkeypatch.undo()
    digest.reachable.cache_clear()
    digest.code_digest.cache_clear()
