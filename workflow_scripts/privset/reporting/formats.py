"""The forms of a finished table: CSV, Markdown, LaTeX and HTML."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from privset.sets.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class Table:
    """A finished table: `frame` is what CSV readers get (one row per number), `shown` what people read."""

    name: str
    title: str
    frame: pd.DataFrame
    shown: pd.DataFrame
    notes: tuple[str, ...]


DIGITS = 4
"""Decimals in CSV files. What a table shows is rounded from these, so that whoever reads the file finds the same."""


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    write_atomically(path, lambda stream: frame.to_csv(stream, index=False, float_format=f"%.{DIGITS}f"))


def markdown(table: Table, *, preset: str) -> str:
    notes = "\n".join(f"- {note}" for note in table.notes)
    return f"## {table.title} ({preset} preset)\n\n{table.shown.to_markdown(index=False, disable_numparse=True)}\n\n{notes}\n"


_LATEX = {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}


def _escaped(text: str) -> str:
    return str(text).translate(str.maketrans(_LATEX))


def latex(table: Table, *, preset: str) -> str:
    """A booktabs table (\\usepackage{booktabs})."""
    body = table.shown.map(_escaped).rename(columns=_escaped)
    rows = body.to_latex(index=False, escape=False, column_format="ll" + "r" * (len(body.columns) - 2))
    notes = "\n".join("% " + note for note in table.notes)
    return f"{notes}\n\\begin{{table}}\n\\caption{{{_escaped(table.title)} ({_escaped(preset)} preset).}}\n{rows}\\end{{table}}\n"


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{font: 14px/1.4 sans-serif; margin: 1.5em; color: #111}}
table {{border-collapse: collapse; margin: 1em 0}}
th, td {{padding: 0.25em 0.8em; text-align: right; border-bottom: 1px solid #ccc; white-space: nowrap}}
th:first-child, td:first-child {{text-align: left}}
</style>
<h1 style="font-size: 1.2em">{title}</h1>
{body}
<ul>{notes}</ul>
"""


def page(table: Table, *, preset: str) -> str:
    """A page of its own, for the report."""
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    body = table.shown.to_html(index=False, border=0)
    return PAGE.format(title=html.escape(f"{table.title} ({preset} preset)"), body=body, notes=notes)


def write(table: Table, paths: list[Path], *, preset: str) -> None:
    """CSV, Markdown, LaTeX and HTML, whichever of the suffixes the paths have."""
    for path in paths:
        match path.suffix:
            case ".csv":
                write_csv(table.frame.assign(preset=preset), path)
            case ".md":
                text = markdown(table, preset=preset)
                write_atomically(path, lambda stream, text=text: stream.write(text))
            case ".tex":
                text = latex(table, preset=preset)
                write_atomically(path, lambda stream, text=text: stream.write(text))
            case ".html":
                text = page(table, preset=preset)
                write_atomically(path, lambda stream, text=text: stream.write(text))
