"""The report as one page: heat maps that can be filtered, with the learning curve of the cell under the pointer.

Plotly's library is written into the page, which so needs no network and no server.
"""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractal_ifs.report_data import CELL, cells, learning_curve
from fractal_ifs.report_tables import FRACTALS, PAPER_STEPS, Table, difference, legend, paper
from fractal_ifs.report_verdicts import Verdict

if TYPE_CHECKING:
    import pandas as pd

HISTORIES = 3000  # learning curves at most, to keep the page at a few megabytes


def page(
    runs: "pd.DataFrame",
    best: "pd.DataFrame",
    tables: Sequence[Table],
    verdicts: Sequence[Verdict],
    notes: Sequence[str],
) -> str:
    """The page's HTML. ``runs``, ``best``: of ``report_data.collect`` and ``cells``; ``notes``: lines to be said."""
    from plotly.offline import get_plotlyjs

    theirs = paper_values()
    entries, curves, where = [], [], {}
    by_name = runs.drop_duplicates("fingerprint").set_index("fingerprint")[["history", "eval_every", "steps"]]
    by_name = by_name.astype(object).where(by_name.notna(), None).to_dict("index")
    for lr, part in [("best", best), *((f"{lr:g}", cells(own)[0]) for lr, own in runs.groupby("lr"))]:
        for row in part.astype(object).where(part.notna(), None).to_dict("records"):
            run = row["fingerprint"]
            if run not in where and len(curves) < HISTORIES and by_name[run]["history"]:
                where[run] = len(curves)
                curves.append(learning_curve(by_name[run]))
            entries.append(entry(row, lr, theirs) | {"h": where.get(run, -1)})
    data = json.dumps({"entries": entries, "curves": curves}, separators=(",", ":")).replace("</", "<\\/")
    summary = "".join(f"<li>{html.escape(line)}</li>" for table in tables for line in _summary(table))
    said = "".join(f"<li>{html.escape(line)}</li>" for line in notes) or "<li>None.</li>"
    template, script = (Path(__file__).with_suffix(kind).read_text() for kind in (".html", ".js"))
    body = template.replace("@SUMMARY@", summary).replace("@VERDICTS@", _verdicts(verdicts)).replace("@NOTES@", said)
    return body.replace("@DATA@", data).replace("@PLOTLY@", get_plotlyjs()).replace("@SCRIPT@", script)


def entry(row: dict[str, Any], lr: str, theirs: dict[tuple, float]) -> dict[str, Any]:
    """A cell as the page's script reads it; ``lr`` is a learning rate, or "best" for the best of all."""
    key = tuple(row[k] for k in CELL)
    data, fractal, n, curve, depth, width = key
    label = "CIFAR-10" if data != "fractal" else FRACTALS.get(fractal, str(fractal)) + ("" if n == 5 else f", n={n:g}")
    return {
        "fractal": label,
        "curve": str(curve) if data == "fractal" else "-",
        "depth": int(depth),
        "width": int(width),
        "lr": lr,
        "chosen": f"{row['lr']:g}",
        "acc": round(row["accuracy"], 4),
        "spread": None if row["spread"] is None else round(row["spread"], 4),
        "seeds": row["seeds"],
        "budget": row["budget"],
        "small": bool(row["budget"] < PAPER_STEPS.get(data, 0) or not row["ended"]),
        "differs": row["differs"] or "",
        "params": row["params"],
        "paper": theirs.get((data, fractal, n, str(curve), int(depth), int(width))),
    }


def paper_values() -> dict[tuple, float]:
    """The paper's numbers by (data, fractal, fractal depth, curve, depth, width)."""
    numbers = paper()
    found = {}
    for table, where in (("table1", lambda r: ("1", r)), ("table2", lambda r: (str(r), 5))):
        for fractal, block in numbers[table]["values"].items():
            for row, line in zip(numbers[table]["rows"], block, strict=True):
                for width, value in zip(numbers["widths"], line, strict=True):
                    found[("fractal", fractal, 5, *where(row), width)] = value
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
