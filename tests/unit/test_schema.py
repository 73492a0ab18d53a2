"""The schema of config.yaml is generated, and the file is up to date."""

import jsonschema
import pytest
import yaml

from privset.jobs import rows
from privset.methods import schema
from privset.privacy import certificate


def test_the_file_is_what_the_code_says():
    """Otherwise: `privset schema --write`."""
    assert schema.FILE.read_text() == schema.text()
    assert certificate.FILE.read_text() == certificate.schema()
    jsonschema.Draft202012Validator.check_schema(schema.current())


def test_every_key_has_a_description():
    def described(where, block):
        for name, value in block.get("properties", {}).items():
            if isinstance(value, dict) and "$ref" not in value:
                assert value.get("description"), f"{where}.{name}"
                described(f"{where}.{name}", value)

    for name, block in schema.current()["$defs"].items():
        described(name, block)


def test_a_schema_of_other_code_is_not_believed(tmp_path, monkeypatch):
    """A method that is not in the file yet, or not with these keys: then the schema is made from the code."""
    old = yaml.safe_load(schema.FILE.read_text())
    old["$comment"] = "written from other code"
    del old["$defs"]["psg_config"]["properties"]["clip"]
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(old))
    monkeypatch.setattr(schema, "FILE", tmp_path / "schema.yaml")
    assert schema.current()["$defs"]["psg_config"]["properties"]["clip"]["exclusiveMinimum"] == 0


@pytest.mark.parametrize(
    ("row", "method"),
    [
        ("psg_siamese", "psg"),
        ("psg_prior_wide", "psg_prior"),
        ("psm_x", "psm"),
        ("psg", None),
        ("psg_", None),
        ("psg_prior", None),
    ],
)
def test_variants_are_recognised_by_the_longest_name(row, method):
    patterns = schema.current()["$defs"]["Preset"]["properties"]["methods"]["patternProperties"]
    validator = jsonschema.Draft202012Validator
    fitting = [block["$ref"] for pattern, block in patterns.items() if validator({"pattern": pattern}).is_valid(row)]
    assert fitting == ([f"#/$defs/{method}"] if method else [])
    assert method is None or rows.method_of(row) == method
