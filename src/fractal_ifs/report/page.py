"""The report as one page: heat maps that can be filtered, with the curve and the picture of the cell under the pointer.

Plotly's library and the numbers are written into the page, packed, so that it needs no network and no server.
"""

import base64
import gzip
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.report.tables import CURVES, FRACTALS, Table, difference, legend, paper
from fractal_ifs.report.verdicts import Verdict
from fractal_ifs.results.cells import cells
from fractal_ifs.results.rows import CELL, command

if TYPE_CHECKING:
    import pandas as pd

HISTORIES = 3000  # learning curves at most, to keep the page at a few megabytes


def page(
    runs: "pd.DataFrame",
    best: "pd.DataFrame",
    tables: Sequence[Table],
    verdicts: Sequence[Verdict],
    notes: Sequence[str],
    pictures: Mapping[str, bytes],
) -> str:
    """The page's HTML.

    ``runs``, ``best``: of ``results.rows.collect`` and ``results.cells.cells``; ``notes``: lines to be said;
    ``pictures``: PNGs by fingerprint.
    """
    from plotly.offline import get_plotlyjs

    theirs = paper_values()
    entries: list[dict[str, Any]] = []
    curves: dict[str, Any] = {}
    by_name = runs.drop_duplicates("fingerprint").set_index("fingerprint", drop=False)
    by_name = by_name.astype(object).where(by_name.notna(), None).to_dict("index")
    for lr, part in [("best", best), *((f"{lr:g}", cells(own)[0]) for lr, own in runs.groupby("lr"))]:
        for row in part.astype(object).where(part.notna(), None).to_dict("records"):
            run = by_name[row["fingerprint"]]
            if len(curves) < HISTORIES and run["history"]:
                curves[row["fingerprint"]] = [int(run["eval_every"]), int(run["steps"]), run["history"]]
            entries.append(entry(row, lr, theirs) | {"command": command(run) or ""})
    images = {name: base64.b64encode(picture).decode() for name, picture in pictures.items()}
    known = {(e["curve"], e["n"]) for e in entries if e["curve"] in CURVES}
    levels = {f"{curve} {n}": _levels(curve, n) for curve, n in sorted(known)}
    data = {"entries": entries, "curves": curves, "pictures": images, "P": levels}
    template, script = (Path(__file__).with_suffix(kind).read_text() for kind in (".html", ".js"))
    parts = {
        "@SUMMARY@": "".join(f"<li>{html.escape(line)}</li>" for table in tables for line in _summary(table)),
        "@VERDICTS@": _verdicts(verdicts),
        "@NOTES@": "".join(f"<li>{html.escape(line)}</li>" for line in notes) or "<li>None.</li>",
        "@DATA@": packed(json.dumps(data, separators=(",", ":"))),
        "@PLOTLY@": packed(get_plotlyjs()),
        "@SCRIPT@": script,
    }
    for name, text in parts.items():
        template = template.replace(name, text)
    return template


def packed(text: str) -> str:
    """Text as the page's script unpacks it: gzip in base64, a third of the bytes."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def entry(row: dict[str, Any], lr: str, theirs: dict[tuple, float]) -> dict[str, Any]:
    """A cell as the page's script reads it; ``lr`` is a learning rate, or "best" for the best of all."""
    data, fractal, n, curve, depth, width = (row[k] for k in CELL)
    if data == "fractal":
        label = FRACTALS.get(fractal, str(fractal)) + ("" if n == 5 else f", n={n:g}")
        where = (fractal, n, str(curve))
    else:
        label = "CIFAR-10" if data == "cifar10" else data
        where = (None, None, None)
    return {
        "fractal": label,
        "n": int(n) if data == "fractal" else 0,
        "curve": str(curve) if data == "fractal" else "-",
        "depth": int(depth),
        "width": int(width),
        "lr": lr,
        "chosen": f"{row['lr']:g}",
        "acc": round(row["accuracy"], 6),
        "spread": None if row["spread"] is None else round(row["spread"], 4),
        "seeds": row["seeds"],
        "budget": row["budget"],
        "whole": bool(row["whole"]),
        "differs": row["differs"] or "",
        "params": row["params"],
        "paper": theirs.get((data, *where, int(depth), int(width))),
        "run": row["fingerprint"],
    }


def _levels(curve: str, n: int) -> list[float]:
    """P(0..n) of one of the paper's curves."""

    return [round(float(p), 4) for p in ApproximationCurve.load(int(curve)).P(n)]


def paper_values() -> dict[tuple, float]:
    """The paper's numbers by (data, fractal, fractal depth, curve, depth, width), keyed as ``tables.lookup``."""
    numbers = paper()
    found = {}
    for table, where in (("table1", lambda r: ("1", r)), ("table2", lambda r: (str(r), 5))):
        for fractal, block in numbers[table]["values"].items():
            for row, line in zip(numbers[table]["rows"], block, strict=True):
                for width, value in zip(numbers["widths"], line, strict=True):
                    found[("fractal", fractal, 5, *where(row), width)] = value
    seven = numbers["figure7"]
    for depth, line in zip(seven["rows"], seven["values"], strict=True):
        for channels, value in zip(seven["channels"], line, strict=True):
            found[("cifar10", None, None, None, depth, channels)] = value
    return found


def _summary(table: Table) -> list[str]:
    lines = legend(table)
    name = table.title.split(":")[0]
    return [f"{name}: {lines[0]} {lines[-1] if difference(table.cells) else ''}"]


def _verdicts(found: Sequence[Verdict]) -> str:
    rows = []
    for v in found:
        state = v.verdict.rstrip("*").replace(" ", "-")
        line = [v.claim, v.verdict, v.ours, v.theirs, v.cells]
        cells = "".join(f"<td>{html.escape(value)}</td>" for value in line)
        rows.append(f'<tr class="{state}">{cells}</tr>')
    return "".join(rows)
