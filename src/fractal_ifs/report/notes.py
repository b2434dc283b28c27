"""Notes on runs that came to nothing, which say the same whatever tables a report has, and of whatever number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fractal_ifs.errors import counted
from fractal_ifs.report.tables import Table
from fractal_ifs.results.choice import APART
from fractal_ifs.results.numbers import collapsed
from fractal_ifs.results.pivot import Pivot
from fractal_ifs.results.rows import runs_of
from fractal_ifs.runs.records import Status

if TYPE_CHECKING:
    import pandas as pd


def lost(runs: pd.DataFrame, own: Pivot | None, made: Sequence[Table]) -> list[str]:
    """Lines on runs that diverged, failed or collapsed to a constant, and on where the last are shown.

    Collapsed is what ``results.numbers.collapsed`` says, here as in the tables, of those that are in no other line.

    Args:
        runs: as ``results.rows.read_runs`` returns it.
        own: the sweep's own table, if there is one.
        made: those of the paper's tables that are shown.
    """
    rows = runs_of(runs)
    lines: list[str] = []
    if diverged := [run for run in rows if run["status"] == Status.DIVERGED]:
        lines.append(f"{_of(len(diverged), len(rows))} diverged: in no mean")
    if failed := [run for run in rows if run["status"] == Status.FAILED]:
        lines.append(f"{_of(len(failed), len(rows))} failed, the first: {_why(failed[0])}")
    if found := [run for run in rows if run["status"] not in APART and collapsed(run)]:
        by_lr = {lr: sum(run["lr"] == lr for run in found) for lr in sorted({run["lr"] for run in found})}
        rates = ", ".join(f"{lr:g}: {count}" for lr, count in by_lr.items())
        lines.append(f"{_of(len(found), len(rows))} collapsed to a constant (lr {rates}){_where(own, made)}")
    return lines


def _why(run: Mapping[str, Any]) -> str:
    return ": ".join(str(run[name]) for name in ("directory", "error") if run[name])


def _of(some: int, every: int) -> str:
    return f"{some} of all {every} runs" if every > 1 else "the run"


def _where(own: Pivot | None, made: Sequence[Table]) -> str:
    """Where collapsed runs are shown: ``, 2 of them in the table; in 1 cell of the paper's tables: ...``."""
    parts: list[str] = []
    if own:
        parts.append(f", {sum(entry.collapsed for entry in own.cells) or 'none'} of them in the table")
    cells = [cell.result for table in made for cell in table.cells if cell.result and cell.result.collapsed]
    inside = list(dict.fromkeys(str(cell.key) for cell in cells))  # some are in two tables
    if made:
        of = "of the paper's tables " if own else ""
        said = f"in {counted(len(inside), 'cell')} {of}one of them is shown or averaged"
        parts.append(f"; {said}{': ' if inside else ''}{'; '.join(inside)}")
    return "".join(parts)
