"""What a report says of some runs: all of it is computed before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fractal_ifs.report.notes import lost
from fractal_ifs.report.tables import Table, missing, shown, tables, tell_all
from fractal_ifs.report.verdicts import Verdict, verdicts
from fractal_ifs.results.cells import Cells, form_cells
from fractal_ifs.results.measured import with_measure
from fractal_ifs.results.numbers import BEST, NUMBERS
from fractal_ifs.results.pivot import Pivot, pivot
from fractal_ifs.results.varied import with_inner_keys

if TYPE_CHECKING:
    import pandas as pd

MOST_NOTES = 20  # on cells
LEAST = 0.1  # of the cells of a table of the paper's, for a sweep of another budget to be shown in its place


@dataclass(frozen=True)
class Own:
    """The part on whatever varied."""

    table: Pivot
    runs: pd.DataFrame  # as ``results.varied.with_inner_keys`` returns it


@dataclass(frozen=True)
class Content:
    """What a report says."""

    runs: pd.DataFrame
    own: Own | None  # None: the paper's tables have a place for each run of a kept table
    cells: Cells
    tables: Sequence[Table]  # those of the paper's that runs belong to
    verdicts: Sequence[Verdict]  # on the paper's claims; none where no cell has its budget
    missing: Sequence[str] | None  # what the paper's tables lack; None: nobody asks for these alone
    notes: Sequence[str]

    @property
    def states(self) -> str:
        """How many runs there are of each status: ``20 finished, 4 running``."""
        return ", ".join(f"{n} {state}" for state, n in self.runs.status.value_counts().items())


def content_of(runs: pd.DataFrame, number: str = BEST.name, columns: str | None = None) -> Content:
    """What there is to say of some runs. Arguments and what it raises are those of ``report.write.write_report``.

    Args:
        runs: as ``results.rows.read_runs`` returns it.
    """
    cells, claimed = form_cells(runs, NUMBERS.get(number, BEST))
    every = tables(cells)
    on_grid = tell_all(runs, cells)
    a_sweep = any(Path(place).is_dir() for place in runs.directory.dropna())
    made = shown(every, whole=not on_grid, least=LEAST if a_sweep else 0)
    at_its_budget = bool(shown(made, whole=True))
    own = None
    asked = columns or number not in NUMBERS
    if asked or not made or not on_grid or a_sweep:
        own = _own(runs, number, columns)
    notes = [f"of the paper's tables: {line}" if own else line for line in claimed[:MOST_NOTES]]
    notes += [f"... and {len(claimed) - MOST_NOTES} more notes on cells"] if len(claimed) > MOST_NOTES else []
    return Content(
        runs=runs,
        own=own,
        cells=cells,
        tables=made,
        verdicts=verdicts(every) if at_its_budget else [],
        missing=[line for table in made if (line := missing(table))] if on_grid and at_its_budget else None,
        notes=[*(notes if made else []), *lost(runs, own and own.table, made)],
    )


def _own(runs: pd.DataFrame, number: str, columns: str | None) -> Own:
    runs, inner = with_inner_keys(runs)
    runs, of = (runs, NUMBERS[number]) if number in NUMBERS else with_measure(runs, number)
    return Own(pivot(runs, inner, of, columns), runs)
