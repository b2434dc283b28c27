"""The table that is shown at the end of a sweep, and its file results.csv."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fractal_ifs.config.run import RunConfig, placement
from fractal_ifs.errors import Refused, reason
from fractal_ifs.files import read, write
from fractal_ifs.results.columns import COLUMNS, is_measured
from fractal_ifs.results.finished_runs import TABLE
from fractal_ifs.results.rows import row_of
from fractal_ifs.results.text_table import by_value, csv_of
from fractal_ifs.runs import records
from fractal_ifs.runs.records import RunRecord, Status, find
from fractal_ifs.sweeps.driver import driving, failed

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

EARLY = (Status.STOPPED, Status.PAUSED, Status.PRUNED)  # of runs that the table says the last step of
KEYS = tuple(name for name in records.KEYS if name != "fingerprint")
_PLACEMENT = placement()


def frame(directory: Path) -> pd.DataFrame:
    """A row per record below a sweep's directory.

    The columns are those of ``results.columns``, with those of measures, then the keys of groups in which runs differ:
    ``data.margin``, ....
    Directories are relative to the sweep's.
    """
    directory = directory.absolute()
    found = dict(find(directory))
    for path, record in failed.items():  # some have no record on disk, or one of an earlier attempt
        if directory in path.parents and not (path in found and found[path].status.ended):
            found[path] = record
    return table_of(sorted(found.items()), directory)


def table_of(found: Iterable[tuple[Path, RunRecord]], base: Path | None) -> pd.DataFrame:
    """A row per run, with the columns of ``frame``. Directories are relative to ``base``, or absolute without it."""
    import pandas as pd

    rows = [
        row_of(path, record)
        | {"directory": str(path.relative_to(base) if base else path.absolute())}
        | _inner(record.config)
        for path, record in found
    ]
    others = list(dict.fromkeys(key for line in rows for key in line if key not in COLUMNS))
    measured = [key for key in others if is_measured(key)]
    inner = [key for key in others if not is_measured(key)]
    table = pd.DataFrame(rows, columns=pd.Index([*COLUMNS, *measured, *inner]))
    if not inner:
        return table
    # Keep only the keys of groups in which runs differ that have the same values for all of KEYS. A key that some
    # don't have differs only in groups whose choices have no name: elsewhere the name says so.
    texts = [
        {key: str(line.get(key)) for key in inner if key in line or key.startswith(("trainer.", "callbacks."))}
        for line in rows
    ]
    given = pd.DataFrame(texts, columns=pd.Index(inner))
    differ = given.groupby([table[key] for key in KEYS], dropna=False)[inner].nunique().max() > 1
    return table.drop(columns=[key for key in inner if not bool(differ[key])])


def _inner(config: RunConfig) -> dict[str, Any]:
    """The keys that can change a result and have no column, with lists as text."""
    return {
        name: str(value) if isinstance(value, list) else value
        for name, value in config.leaves().items()
        if value != {} and name not in COLUMNS and name not in _PLACEMENT and not name.startswith("logger.")
    }


def write_table(directory: Path) -> tuple[pd.DataFrame, bool]:
    """Write the table of a sweep that this process drives to results.csv, if it has rows.

    Returns it, and whether it could be written; if not, that is logged.
    """
    table, path, wrong = frame(directory), directory / TABLE, None
    try:
        if not table.empty and _is_ours(path):
            write(path, csv_of(table))
        elif not table.empty:
            wrong = "is left as it is: no sweep wrote this table"
    except (OSError, Refused) as error:
        wrong = f"can't be written ({reason(error)})"
    if wrong:
        log.error("%s %s", path, wrong)
    return table, wrong is None


def show_table(directory: Path) -> bool:
    """Print a sweep's table, with the swept keys as rows and columns, and write the whole table to results.csv.

    Returns whether it could be written; if not, that is logged.
    """
    path = directory / TABLE
    try:
        with driving(directory):
            table, good = write_table(directory)
    except (OSError, Refused) as error:
        table, good = frame(directory), False
        if not table.empty:
            log.error("%s can't be written (%s)", path, reason(error))
    if table.empty:  # of a sweep that was refused, or has trained nothing yet
        return True
    inner = [str(key) for key in table if key not in COLUMNS and not is_measured(str(key))]
    table = table.astype(object).where(table.notna(), "")
    swept = [key for key in (*KEYS, *inner) if len(set(map(str, table[key]))) > 1]
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200)
    if len(table) > 1 and (not swept or bool(table.duplicated(swept).any())):  # they differ in nothing that has a name
        swept.append("directory")
        out = _grid(table, swept, None)
    else:
        out = _grid(table, swept[:-1], swept[-1]) if len(swept) > 1 else _grid(table, swept, None)
    if console.measure(out, options=console.options.update(width=10_000)).maximum > console.width:
        # a line for each run needs the fewest columns
        out = _grid(table, swept, None)
    console.print(out)
    print(path)
    return good


def _grid(table: pd.DataFrame, rows: Sequence[str], column: str | None) -> Table:
    """The accuracies by the keys ``rows``, with a column for each value of ``column``."""
    columns = sorted(table[column].unique(), key=by_value) if column else ["best test accuracy"]
    grid: dict[tuple, dict[Any, str]] = {}
    for line in table.to_dict("records"):
        accuracy = line.get("best_test_acc")
        cell = "" if accuracy == "" else f"{accuracy:.4f}"
        cell += "" if line["status"] == Status.FINISHED else f" {line['status']}"
        cell += f" at {line['steps']:,.0f}" if line["status"] in EARLY else ""
        key = tuple(line[row] for row in rows)
        grid.setdefault(key, {})[line[column] if column else columns[0]] = cell
    title = f"best test accuracy{f', columns: {column}' if column else ''}"
    if low := sorted(set(table["precision"]) - {"", "32-true"}):
        title += f"; precision {', '.join(low)}"
    out = Table(title=title)
    for name in [*rows, *columns]:
        out.add_column(Text(str(name)), justify="right")  # a Text: a value in brackets is no colour
    for key in sorted(grid, key=lambda values: [by_value(v) for v in values]):
        out.add_row(*(Text(str(v)) for v in key), *(grid[key].get(c, "") for c in columns))
    return out


def _is_ours(path: Path) -> bool:
    """Whether there is no file yet, or a sweep's table, which says where its runs are. A kept table doesn't."""
    try:
        return b"directory" in read(path).partition(b"\n")[0].rstrip(b"\r").split(b",")
    except FileNotFoundError:
        return True
