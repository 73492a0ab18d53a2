"""Rows of the tables: methods, and variants of methods under names of their own. Needs nothing, so anything may import it."""

METHODS = ("psg", "psg_prior", "psg_continual", "psm", "dp_merf", "dp_merf_continual", "dpsgd", "real")
"""The modules of privset.methods."""


def method_of(row: str) -> str:
    """The module that a row runs: its own name, or the beginning of a variant's (psm_features is a psm); "" for none."""
    return max((known for known in METHODS if row == known or row.startswith(f"{known}_")), key=len, default="")
