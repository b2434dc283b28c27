"""The report as one page: the sweep's own table and figures; any measure against any key; and beside the paper heat
maps that can be filtered, with the curve and the picture of the cell under the pointer.

The page contains Plotly's library and all numbers, compressed. So it needs no network and no server.
"""

import base64
import gzip
import html
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.plotting.style import Line, lines, ordered
from fractal_ifs.report import own_figures
from fractal_ifs.report.content import Content, Own
from fractal_ifs.report.forms import pivot_html
from fractal_ifs.report.tables import CURVES, FRACTALS, Table, difference, legend, places
from fractal_ifs.report.verdicts import Verdict, rows
from fractal_ifs.results.cells import CellResult, form_cells
from fractal_ifs.results.columns import CellKey
from fractal_ifs.results.measured import measures_of
from fractal_ifs.results.numbers import NUMBERS, learning_curve
from fractal_ifs.results.pivot import APART, COUNTED, Pivot, Run
from fractal_ifs.results.rows import runs_of, train_command
from fractal_ifs.results.values import plain_value
from fractal_ifs.results.varied import inner_keys, measured, varied
from fractal_ifs.runs.records import key_of

FIGURES = ("sweep", "along_test_acc", "along_levels")  # those of own figures that the page shows
EACH = 24  # the most lines of the explorer that have a name each
SYMBOLS = dict(  # matplotlib's markers, as Plotly calls them
    zip("os^DvPX*", ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star"], strict=True)
)
HISTORIES = 3000  # the most learning curves, which keeps the page at a few megabytes


def render_page(
    found: Content, notes: Sequence[str], pictures: Mapping[str, bytes], figures: Sequence[Path] = ()
) -> str:
    """The page's HTML. It has a part beside the paper where runs belong to its tables, and one on what varied.

    Args:
        found: what the report says.
        notes: lines for the reader, besides on what is missing.
        pictures: PNGs by fingerprint.
        figures: PNG files of what varied, of which ``FIGURES`` are shown.
    """
    from plotly.offline import get_plotlyjs

    parts = {
        "@TITLE@": "Is deeper better only when shallow is good? Our numbers beside the paper's"
        if found.verdicts
        else "Results",
        "@OWN@": _own(found.own, figures) if found.own else "",
        "@PAPER@": _beside_the_paper(found, pictures) if found.tables else "",
        "@NOTES@": _items([*notes, *(found.missing or ())]) or "<li>None.</li>",
        "@PLOTLY@": _packed(get_plotlyjs()),
        "@SCRIPT@": "".join(_file(name) for name, there in _SCRIPTS.items() if there(found)),
    }
    return _filled("page.html", parts)


_SCRIPTS: dict[str, Callable[[Content], bool]] = {
    "page.js": lambda _: True,
    "explore.js": lambda found: _explored(found.own),
    "paper.js": lambda found: bool(found.tables),
}


def _items(lines: Sequence[str]) -> str:
    return "".join(f"<li>{html.escape(line)}</li>" for line in lines)


def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _filled(name: str, parts: Mapping[str, str]) -> str:
    """A template with its parts, in one pass: a note may say @DATA@."""
    return re.sub("|".join(parts), lambda found: parts[found[0]], _file(name))


def _own(own: Own, files: Sequence[Path]) -> str:
    figures = "".join(
        f'<figure><img alt="{file.stem}" src="data:image/png;base64,{_text_of(file.read_bytes())}"></figure>'
        for file in files
        if file.stem in FIGURES
    )
    explorer = ""
    if _explored(own):
        runs = _packed(json.dumps(_runs(own), separators=(",", ":")))
        explorer = _filled("explore.html", {"@RUNS@": runs})
    return _filled("own.html", {"@TABLE@": pivot_html(own.table), "@FIGURES@": figures, "@EXPLORER@": explorer})


def _explored(own: Own | None) -> bool:
    """Whether the page has anything to draw: some run that is neither diverged nor failed."""
    return own is not None and not own.runs.status.isin(APART).all()


def _text_of(png: bytes) -> str:
    return base64.b64encode(png).decode()


def _runs(own: Own) -> dict[str, Any]:
    """The runs as the page's script reads them: their keys, numbers, and measures along training."""
    table = own.runs
    keys = varied(table, inner_keys(table)) or ["seed"]
    told = []
    chosen = {run["fingerprint"] for cell in own.table.cells for run in cell.runs}
    counted = {run["fingerprint"] for cell in own.table.cells for run in cell.group}
    runs = runs_of(table)
    drawn = _drawn(runs, [key for key in keys if key != "seed"], chosen)
    for run in runs:
        series = measures_of(run) if run["fingerprint"] in drawn else {}
        told.append(
            {
                "keys": {key_of(key): plain_value(run[key]) for key in keys},
                "double": run["fingerprint"] not in counted,  # the table has another of the same keys and seed
                "status": str(run["status"]),
                "ended": run["status"] in COUNTED,
                "best": run["fingerprint"] in chosen,
                "numbers": {number.head: number.of(run) for number in NUMBERS.values()}
                | {name: run[name] for name in (*measured(table), "seconds", "params", "steps")},
                "history": {name: [s.steps, [float(f"{v:.5g}") for v in s.values]] for name, s in series.items()},
            }
        )
    numbers = [name for name in told[0]["numbers"] if any(run["numbers"][name] is not None for run in told)]
    measures = list(dict.fromkeys(name for run in told for name in run["history"]))
    keys = [*map(key_of, keys)]
    x = own.table.column or (own.table.rows[0] if own.table.rows else keys[0])
    shown = own.table.number
    number = shown.head if shown.name in NUMBERS else shown.column
    looks = {"lines": _plain(lines(64)), "ordered": [_plain(ordered(n)) for n in range(EACH + 1)]}
    shown_first = {"x": x, "by": _colour_of(own.table), "number": number}
    lacking = len(runs) - len(drawn)
    return {
        "keys": keys, "numbers": numbers, "measures": measures, "looks": looks, "runs": told, "lacking": lacking,
    } | shown_first  # fmt: skip


def _drawn(runs: Sequence[Run], settings: Sequence[str], chosen: Set[str]) -> set[str]:
    """Those of the runs whose learning curves the page has room for: first the chosen, and of each config a seed."""
    mixed = random.Random(0).sample(runs, len(runs))  # else the first values of a key would have all curves
    seeds: Counter[str] = Counter()
    turn: dict[str, tuple[bool, int]] = {}
    for run in mixed:
        config = str([run[key] for key in settings])
        turn[run["fingerprint"]] = (run["fingerprint"] not in chosen, seeds[config])
        seeds[config] += 1
    return set(sorted(turn, key=lambda name: turn[name])[:HISTORIES])


def _colour_of(table: Pivot) -> str:
    """The key whose values have a colour each in the table's figure; empty where it has one panel and each line has."""
    panels = own_figures.panels(table)
    return "" if len(panels) == 1 else next(iter(panels[0].lines)).partition(" ")[0]


def _plain(looks: Sequence[Line]) -> list[tuple[str, str]]:
    """Colours and symbols, as the page's script reads them."""
    from matplotlib.colors import to_hex

    return [(to_hex(look.color), SYMBOLS[look.marker]) for look in looks]


def _beside_the_paper(found: Content, pictures: Mapping[str, bytes]) -> str:
    runs, cells = found.runs, found.cells
    theirs = places() if cells.number.beside_paper else {}
    entries: list[dict[str, Any]] = []
    curves: dict[str, Any] = {}
    by_name = {run["fingerprint"]: run for run in runs_of(runs.drop_duplicates("fingerprint"))}
    by_lr = [(f"{lr:g}", form_cells(own, cells.number)[0]) for lr, own in runs.groupby("lr")]
    for lr, part in [("best", cells), *by_lr]:
        for cell in part.values():
            run = by_name[cell.fingerprint]
            if len(curves) < HISTORIES and run["history"]:
                curves[cell.fingerprint] = learning_curve(run)
            entries.append(_entry(cell, lr, theirs) | {"command": train_command(run) or ""})
    images = {name: _text_of(picture) for name, picture in pictures.items()}
    known = {(e["curve"], e["n"]) for e in entries if e["curve"] in CURVES}
    levels = {f"{curve} {n}": _levels(curve, n) for curve, n in sorted(known)}
    data = {"entries": entries, "curves": curves, "pictures": images, "P": levels}
    parts = {
        "@SUMMARY@": _items([_summary(table) for table in found.tables]),
        "@VERDICTS@": _verdicts(found.verdicts),
        "@DATA@": _packed(json.dumps(data, separators=(",", ":"))),
    }
    return _filled("paper.html", parts)


def _packed(text: str) -> str:
    """Text as the page's script unpacks it: gzip in base64, which is a third of the bytes."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _entry(cell: CellResult, lr: str, theirs: Mapping[CellKey | None, float | None]) -> dict[str, Any]:
    """A cell as the page's script reads it. ``lr``: a learning rate, or "best" for the best of all."""
    key = cell.key
    if key.data == "fractal":
        label = FRACTALS.get(str(key.fractal), str(key.fractal)) + (
            f", n={key.fractal_depth}" if key.fractal_depth != 5 else ""
        )
    else:
        label = "CIFAR-10" if key.data == "cifar10" else key.data
    return {
        "fractal": label,
        "n": key.fractal_depth or 0,
        "curve": key.curve or "-",
        "depth": key.depth,
        "width": key.width,
        "lr": lr,
        "chosen": f"{cell.lr:g}",
        "acc": round(cell.accuracy, 6),
        "spread": None if cell.spread is None else round(cell.spread, 4),
        "seeds": cell.seeds,
        "budget": cell.budget,
        "whole": bool(cell.whole),
        "differs": cell.differs or "",
        "params": cell.params,
        "paper": theirs.get(key),
        "run": cell.fingerprint,
    }


def _levels(curve: str, n: int) -> list[float]:
    """P(0), ..., P(n) of one of the paper's curves."""
    return [round(float(p), 4) for p in ApproximationCurve.load(int(curve)).P(n)]


def _summary(table: Table) -> str:
    lines = legend(table)
    name = table.title.split(":")[0]
    return f"{name}: {lines[0]} {lines[-1] if difference(table.cells) else ''}"


def _verdicts(found: Sequence[Verdict]) -> str:
    """The table of verdicts, empty without any."""
    names, *lines = rows(found)
    body: list[str] = []
    for line in lines:
        state = line[1].rstrip("*").replace(" ", "-")
        cells = "".join(f"<td>{html.escape(value)}</td>" for value in line)
        body.append(f'<tr class="{state}">{cells}</tr>')
    head = "".join(f"<th>{name}</th>" for name in names)
    table = f'<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>'
    return f"<h2>Verdicts on the claims of section 5</h2>\n{table}" if found else ""
