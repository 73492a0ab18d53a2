"""Names of rows: a variant runs its method's module and has a title of its own."""

import pytest

from privset.jobs.rows import method_of, methods
from privset.reporting import method_title


@pytest.mark.parametrize(
    ("row", "method"),
    [*((name, name) for name in methods()), ("psm_features", "psm"), ("psg_siamese", "psg"), ("psmx", ""), ("unknown", "")],
)
def test_a_variant_belongs_to_the_method_that_its_name_begins_with(row, method):
    assert method_of(row) == method


@pytest.mark.parametrize(
    ("row", "title"),
    [
        ("psg", "PSG (spc=10)"),
        ("psm_features_alone", "PSM (ours), features alone (spc=10)"),
        ("dp_merf", "DP-MERF"),
        ("gs_wgan", "GS-WGAN"),
    ],
)
def test_titles_tell_variants_apart(row, title):
    assert method_title(row, "10") == title
