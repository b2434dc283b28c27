"""The table that is shown at the end of a sweep, and its file results.csv."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from fractal_ifs.config.run import RunConfig, placement
from fractal_ifs.errors import Damaged, Refused, counted, reason
from fractal_ifs.files import write
from fractal_ifs.results.choice import APART
from fractal_ifs.results.columns import COLUMNS, is_measured
from fractal_ifs.results.finished_runs import KeptRun
from fractal_ifs.results.numbers import BEST, CHOSEN
from fractal_ifs.results.pivot import Pivot, legend, pivot, title
from fractal_ifs.results.rows import kept_rows, row_of, went_on, without_zeros
from fractal_ifs.results.terminal import Folded, show
from fractal_ifs.results.text_table import csv_of, may_replace
from fractal_ifs.results.varied import DRAWN, KEYS, follows, group_of, inner_keys, with_inner_keys
from fractal_ifs.runs.records import (
    HISTORY,
    RESULT,
    TABLE,
    NotUnderstood,
    RunRecord,
    Status,
    read_stored,
    unmeasured,
    walk,
)
from fractal_ifs.streams import columns
from fractal_ifs.sweeps.driver import driving, failed, kept

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

_PLACEMENT = placement()


def frame(directory: Path) -> pd.DataFrame:
    """A row per run below a sweep's directory, and per job of its commands that a table of finished runs has.

    A run that was killed has its row from its history.csv, as in a report.

    The columns are those of ``results.columns``, with those of measures, then the keys of groups in which runs differ:
    ``data.margin``, ....
    Directories are relative to the sweep's; the attribute ``by_validation`` is whether all runs are to be
    chosen by validation, and can be.
    """
    directory = directory.absolute()
    found, begun = _runs_below(directory)
    for path, record in failed.items():  # some have no record on disk, or one of an earlier attempt
        if directory in path.parents and not (path in found and found[path].status.ended):
            found[path] = record
    found |= {path: run for path, run in kept.items() if directory in path.parents and path not in found}
    before = kept_rows(directory)
    of_tables = {row["fingerprint"] for row in before}
    for path, record in begun.items():
        if path not in found and of_tables.isdisjoint(record.config.fingerprints):
            found[path] = record
    if before:
        there = {name for record in found.values() for name in record.config.fingerprints}
        before = [row for row in before if row["fingerprint"] not in there]
    table = table_of(sorted(found.items()), directory, before)
    asked = bool(found) and not before and all(record.config.objective == "val_acc" for record in found.values())
    table.attrs["by_validation"] = asked and bool(table.loc[~table.status.isin(APART), "chosen_test_acc"].notna().all())
    return table


def _runs_below(directory: Path) -> tuple[dict[Path, RunRecord], dict[Path, RunRecord]]:
    """The runs below a directory that have a record, as they are now; and those that have none, but a measurement.

    Warns of what can't be read.
    """
    found: dict[Path, RunRecord] = {}
    begun: dict[Path, RunRecord] = {}
    for path, names in walk(directory, log.warning):
        record = newer = wrong = None
        try:
            record = read_stored(path).record if RESULT in names else None
        except NotUnderstood as error:
            log.warning("left out: %s", error)
            continue
        except (FileNotFoundError, Damaged) as error:
            wrong = error
        try:
            newer = went_on(path, record) if HISTORY in names and not (record and record.status.ended) else None
        except (FileNotFoundError, Damaged) as error:
            wrong = wrong or error
        if wrong and not (record or newer):
            log.warning("left out: %s", wrong)
        if record:
            found[path] = newer or record
        elif newer:
            begun[path] = newer
    return found, begun


def table_of(
    found: Iterable[tuple[Path, RunRecord]], base: Path | None, before: Sequence[dict[str, Any]] = ()
) -> pd.DataFrame:
    """A row per run, with the columns of ``frame``. Directories are relative to ``base``, or absolute without it.

    A run from a table of finished runs has none. ``before``: rows of such runs of earlier commands.
    """
    import pandas as pd

    rows = [without_zeros(_row(path, record, base)) | inner_of(record.config) for path, record in found]
    rows += before
    others = list(dict.fromkeys(key for line in rows for key in line if key not in COLUMNS))
    measured = [key for key in others if is_measured(key)]
    settings = [tuple(line[key] for key in KEYS if key not in DRAWN) for line in rows]
    choices = {key for key in KEYS if len({line[key] for line in rows}) > 1}
    inner = [key for key in others if not is_measured(key) and _differs(rows, key, settings, choices)]
    table = pd.DataFrame(rows, columns=pd.Index([*COLUMNS, *measured, *inner]))
    return table.assign(best_step=table.best_step.astype("Int64"))  # whole also where some runs have none


def _row(path: Path, record: RunRecord, base: Path | None) -> dict[str, Any]:
    row = row_of(path, record)
    if isinstance(record, KeptRun):
        return row | {"directory": None, "history": record.history}
    return row | {"directory": str(path.relative_to(base) if base else path.absolute())}


def _differs(
    rows: Sequence[dict[str, Any]], key: str, settings: Sequence[tuple[Any, ...]], choices: Collection[str]
) -> bool:
    """Whether a key of a group differs, and not just as the choice that brings it does: see ``results.varied``."""
    texts = [_text(line, key) for line in rows]
    return not follows(texts, settings) if group_of(key) in choices else len({*texts} - {None}) > 1


def _text(line: dict[str, Any], key: str) -> str | None:
    """The value of a key of a group. None where a run hasn't got it as the name of its choice says, which is a column.

    Choices of two groups have no name: there a run that hasn't got it differs.
    """
    return str(line.get(key)) if key in line or key.startswith(("trainer.", "callbacks.")) else None


def inner_of(config: RunConfig) -> dict[str, Any]:
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
        if not table.empty and may_replace(path):
            write(path, csv_of(table))
        elif not table.empty:
            wrong = "is left as it is: no sweep wrote this table; put it elsewhere"
    except (OSError, Refused) as error:
        wrong = f"can't be written ({reason(error)})"
    if wrong:
        log.error("%s %s", path, wrong)
    return table, wrong is None


def write_kept(directory: Path) -> None:
    """Write the table of a sweep at its start, if it lacks runs that the sweep has from a table of finished runs.

    Report and status find these there alone, also while others train, and where the sweep is killed. What is wrong with
    the table is told at the sweep's end, when it is written again.
    """
    directory = directory.absolute()
    ours = [run for path, run in kept.items() if directory in path.parents]
    there = {row["fingerprint"] for row in kept_rows(directory)} if ours else set[str]()
    if any(there.isdisjoint(run.config.fingerprints) for run in ours):
        with contextlib.suppress(OSError):
            if may_replace(directory / TABLE):
                write(directory / TABLE, csv_of(frame(directory)))


def show_table(directory: Path) -> str | None:
    """Print a sweep's table, means over seeds by the keys that differ, and write the table of its runs to results.csv.

    It shows the best test accuracies, or where all runs have ``objective=val_acc`` those that validation chose.
    Returns what is wrong with the sweep, in a line: its table could not be written, or all its runs diverged.
    """
    path = directory / TABLE
    try:
        with driving(directory):
            table, good = write_table(directory)
    except (OSError, Refused) as error:
        table, good = frame(directory), False
        table = table.loc[table["status"] != Status.RUNNING, :]  # another command trains these
        if not table.empty:
            log.error("%s can't be written (%s)", path, reason(error))
    if table.empty:  # of a sweep that was refused, or has trained nothing yet
        return None
    own = inner_keys(table)
    with_keys, inner = with_inner_keys(table.drop(columns=own))  # as in a report
    # Those that differ without a part in results, as trainer.threads, tell apart only runs that are else the same.
    more = [key for key in own if key not in inner] if table["fingerprint"].duplicated().any() else []
    with_keys, inner = with_keys.assign(**{key: table[key] for key in more}), [*inner, *more]
    console = Console(file=sys.stdout, width=columns(200))
    found = pivot(with_keys, inner, CHOSEN if table.attrs["by_validation"] else BEST, doubles="directory")
    waiting = _waiting(directory, table)
    lines = [*legend(found), *([f"{counted(waiting, 'job')}: no measurement yet, so in no table."] if waiting else [])]
    show(Folded(found, _title(table, found)), lines, console)
    print(path)
    if not good:
        return f"{directory} has no table of this sweep; the same command writes it"
    if set(table["status"]) == {Status.DIVERGED}:
        return f"{directory}: {'the run' if len(table) == 1 else f'all {len(table)} runs'} diverged; try a smaller lr"
    return None


def _waiting(directory: Path, table: pd.DataFrame) -> int:
    """How many jobs of a sweep have no measurement yet, in their directory or as a row of a table of finished runs."""
    there = {(directory / where).resolve() for where in table["directory"].dropna()}
    of_tables = set(table.loc[table["directory"].isna(), "fingerprint"])
    return sum(
        path not in there and of_tables.isdisjoint(config.fingerprints)
        for path, config in unmeasured(directory).items()
    )


def _title(table: pd.DataFrame, found: Pivot) -> str:
    low = sorted(set(table["precision"].dropna()) - {"32-true"})
    return title(found) + (f"; precision {', '.join(low)}" if low else "")
