"""The first page of the report: the workflow's description, Table 1 at the largest epsilon, and where the numbers are from."""

from __future__ import annotations

import csv
import io
import subprocess
from pathlib import Path

import pandas as pd

from privset.reporting import NETWORKS, dataset_title, sized_title
from privset.sets.files import read_json, sha256


def read(path: Path) -> pd.DataFrame | None:
    """Table 1 as it was written; nothing for a preset without one."""
    return pd.read_csv(path, dtype={"epsilon": str, "spc": str}) if path.exists() else None


def commit() -> str:
    """The commit of this checkout, with `-dirty` after it if files differ; "unknown" where there is no git."""
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=here, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def headline(table: pd.DataFrame) -> str:
    """Table 1 at its largest finite epsilon and for the real data, in reStructuredText: reported and reproduced by dataset."""
    largest = max((epsilon for epsilon in table.epsilon.unique() if epsilon != "inf"), key=float, default="inf")
    shown = table[table.epsilon.isin([largest, "inf"])].assign(spc=lambda rows: rows.spc.fillna(""))
    networks = list(dict.fromkeys(shown.network[shown.reproduced.notna()]))
    shown = shown[shown.network.isin(networks)]
    datasets = list(dict.fromkeys(shown.dataset))
    text = io.StringIO()
    lines = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    columns = [f"{dataset_title(name)} {what}" for name in datasets for what in ("reported", "here")]
    lines.writerow(["method", *columns])
    for (method, spc, network), group in shown.groupby(["method", "spc", "network"], sort=False):
        of = {row.dataset: row for row in group.itertuples()}
        cells = [
            "\\-" if name not in of or pd.isna(getattr(of[name], column)) else f"{getattr(of[name], column):.1f}"
            for name in datasets
            for column in ("reported", "reproduced")
        ]
        lines.writerow([sized_title(method, spc) + (f", {network}" if len(networks) > 1 else ""), *cells])
    trained = ", ".join(NETWORKS.get(name, name) for name in networks) or "a network"
    title = f"Test accuracy (%) of {trained} trained on the set alone, eps = {largest}"
    return f".. csv-table:: {title}\n   :header-rows: 1\n\n" + "".join(f"   {line}\n" for line in text.getvalue().splitlines())


def sums(certificates: list[Path]) -> str:
    """The certificates' SHA-256 as a literal block, as `sha256sum -c` reads it in the folder of the run."""
    lines = (f"   {sha256(path)}  {path.as_posix()}\n" for path in sorted(certificates))
    return "Certificates, for ``sha256sum -c``::\n\n" + "".join(lines)


def page(description: str, *, table: pd.DataFrame | None, certificates: list[Path]) -> str:
    """All of it, as reStructuredText."""
    stated = [content for content in map(read_json, certificates) if content["private"]]
    epsilons = sorted({(content["cell"]["epsilon"], content["delta"]) for content in stated}, key=lambda pair: float(pair[0]))
    parts = [description]
    if table is not None and len(table):
        parts.append(headline(table))
    parts.append(f":Commit: {commit()}")
    if stated:
        parts[-1] += "\n:Epsilon: " + ", ".join(f"{epsilon} at delta = {delta:g}" for epsilon, delta in epsilons)
        parts.append(sums(certificates))
    return "\n\n".join(parts) + "\n"
