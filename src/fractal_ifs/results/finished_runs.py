"""Finished runs kept in one small table that can be committed. A run in it is not trained again on any machine.

A row is a run that has used its budget. It has the columns of a report's results.csv, without the run's directory.
With ``kept=FILE`` a sweep reads the table and fills it while it trains; ``report collect`` fills it later.

Several processes may fill one table: each locks it, reads it again and adds its rows. Where the file system has no
locks (``runs.locks`` warns), or they don't hold between two machines, one may overwrite what the other added at that
moment. The runs' records still have it, and the same command adds it at its next start.
"""

import contextlib
import csv
import hashlib
import io
import logging
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from fractal_ifs import files
from fractal_ifs.config.keys import shown
from fractal_ifs.config.machine import check_table
from fractal_ifs.config.run import Job
from fractal_ifs.errors import ConfigError, Damaged, reason, short
from fractal_ifs.results.columns import CELL, COLUMNS, ENDED
from fractal_ifs.results.rows import kept_rows, row_of
from fractal_ifs.results.text_table import TextTable, quoted, read_text
from fractal_ifs.results.values import by_value, number_of
from fractal_ifs.runs import locks
from fractal_ifs.runs.records import NOT_KEPT, OF_RUN, SOURCES, SWEEP, TABLE, RunRecord, Status, understood, walk

log = logging.getLogger(__name__)

KEPT = [name for name in COLUMNS if name not in ("directory", *NOT_KEPT)]
ORDER = (*CELL, "steps_asked", "lr", "seed", "fingerprint")  # the rows are sorted by these columns
# What the row of a run that diverged has here, and the table of a sweep leaves out (``rows.without_zeros``).
ZEROS = {"best_test_acc": "0.0", "best_step": "0", "final_test_acc": "0.0", "last10_test_acc": "0.0"}
PATIENCE = 10.0  # seconds to wait for another process that writes the same table

Row = Mapping[str, Any]


class Kept(NamedTuple):
    """The rows of a table of finished runs, with all values as text."""

    rows: dict[str, dict[str, str]]  # by fingerprint
    damaged: list[str]  # a note for each line that is no such row, and left out


def read(path: Path, key: str = "kept") -> Kept:
    """The rows of a table. Empty where there is no file.

    Raises ConfigError where the file is not such a table. ``key`` is what the user named it by.
    """
    try:
        table = read_text(path, "a table of finished runs")
    except FileNotFoundError:
        return Kept({}, [])
    except ConfigError as error:
        raise ConfigError(f"{key}={error}") from None
    if other := [name for name in table.names if name not in KEPT]:
        raise ConfigError(f"{key}={short(path, 200)}: not a table of finished runs, it has a column {short(other[0])}")
    return _finished(table)


def _finished(table: TextTable) -> Kept:
    """The rows of runs that have ended, each once."""
    rows: dict[str, dict[str, str]] = {}
    damaged = list(table.damaged)
    for number, row in table.rows.items():
        name, accuracy = row["fingerprint"], row["best_test_acc"]
        if row["status"] not in ENDED or not accuracy or not row["best_step"]:
            damaged.append(f"line {number} is not of a finished run: status={row['status']}, best_test_acc={accuracy}")
        elif (first := rows.setdefault(name, row)["best_test_acc"]) != accuracy:
            damaged.append(f"line {number} is of a run that is there already: best_test_acc={first}, and {accuracy}")
    return Kept(rows, damaged)


def add(
    path: Path, directories: Iterable[Path], key: str = "kept", others: Mapping[str, Row] | None = None
) -> tuple[int, list[str]]:
    """Add the runs of these directories that have ended. Returns how many were new, and notes.

    A run that the table has already stays as it is. A note says where its accuracy is another one here.

    Raises ConfigError where the file is not such a table, or has damaged lines, or can't be written. ``key`` is what
    the user named it by. ``others`` are rows to add besides, by fingerprint.
    """
    check_table(path.absolute(), f"{key}={short(path, 200)}")
    records = ((directory, understood(directory)) for directory in directories)
    ended = {directory: record for directory, record in records if record and record.status.ended}
    return _add(path, ended, others, key)


def add_below(path: Path, roots: Iterable[Path], key: str = "kept") -> tuple[int, list[str]]:
    """``add`` for all runs at or below some directories, and for those that a sweep there has from another such table.

    Raises ConfigError where one of the directories doesn't exist.
    """
    roots = list(roots)
    if missing := [root for root in roots if not root.is_dir()]:
        raise ConfigError(f"{short(missing[0], 200)}: there is no such directory")
    there = {directory: names for root in roots for directory, names in walk(root, log.warning)}
    others = [_of_other_tables(directory) for directory, names in there.items() if SWEEP in names]
    return add(path, there, key, {name: row for rows in others for name, row in rows.items()})


def _of_other_tables(sweep: Path) -> dict[str, dict[str, str]]:
    """The runs that a sweep has from a table of finished runs: the rows of its own table without a directory."""
    found: dict[str, dict[str, str]] = {}
    for row in kept_rows(sweep):
        texts = {name: _text(row.get(name)) for name in KEPT}
        if row["status"] == Status.DIVERGED:
            texts |= {name: zero for name, zero in ZEROS.items() if not texts[name]}
        if texts["best_test_acc"] and texts["best_step"]:
            found[texts["fingerprint"]] = texts
    return found


def _add(
    path: Path, ended: Mapping[Path, RunRecord], others: Mapping[str, Row] | None = None, key: str = "kept"
) -> tuple[int, list[str]]:
    """Add finished runs, and other rows by their fingerprints. Result and errors are those of ``add``."""
    asked = f"{key}={short(path, 200)}"
    path = Path(os.path.realpath(path))  # a link to the table stays one
    found = {**(others or {}), **_rows(ended)}
    names = {record.fingerprint: record.config.fingerprints for record in ended.values()}
    try:
        there = read(path, key)
        new = _new(there.rows, found, names)
        if new:
            lock = locks.of_table(path, PATIENCE)
            try:
                if lock.held:
                    files.remove_abandoned(path.parent, (path.name,))
                there = read(path, key)  # again: another process may have written meanwhile
                if there.damaged:
                    raise Damaged(f"{asked}: {there.damaged[0]}; mend it, until then nothing is written there")
                new = _new(there.rows, found, names)
                if new:
                    write(path, {**there.rows, **new})
            finally:
                lock.release()
    except OSError as error:
        raise ConfigError(f"{asked}: can't be written ({reason(error)})") from None
    return len(new), _differing(there.rows, ended)


def _rows(ended: Mapping[Path, RunRecord]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for directory, record in ended.items():
        row = row_of(directory, record)
        found[record.fingerprint] = {name: _text(row[name]) for name in KEPT}
    return found


def _new(there: Mapping[str, Row], found: Mapping[str, Row], names: Mapping[str, Iterable[str]]) -> dict[str, Row]:
    """Those rows that a table lacks under all the fingerprints that their runs may have."""
    return {one: row for one, row in found.items() if not any(name in there for name in names.get(one, (one,)))}


def _differing(there: Mapping[str, Row], ended: Mapping[Path, RunRecord]) -> list[str]:
    """A note for each run that has another accuracy here than in the table."""
    notes: list[str] = []
    for directory, record in ended.items():
        row = next((there[name] for name in record.config.fingerprints if name in there), None)
        if row is not None and float(row["best_test_acc"]) != record.best_test_acc:
            notes.append(f"{directory}: best test accuracy {record.best_test_acc}, kept {row['best_test_acc']}")
    return notes


def write(path: Path, rows: Mapping[str, Row]) -> None:
    """Write the table, sorted by ``ORDER``. It has columns of sources only where a run has one. Raises OSError."""
    text = io.StringIO()
    names = [name for name in KEPT if name not in SOURCES or any(row.get(name) for row in rows.values())]
    writer = csv.DictWriter(text, names, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in sorted(rows.values(), key=lambda row: [by_value(row.get(name, "")) for name in ORDER]):
        writer.writerow({name: quoted(value) for name, value in row.items()})
    files.write(path, text.getvalue().encode())


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptRun(RunRecord):
    """The record of a run as far as its row in a table has it. The run has no directory."""

    history: str | None

    def lacking(self, measures: Iterable[str]) -> set[str]:
        """Those measures of which the row has no number. Tables of finished runs have no others than these two."""
        if self.status == Status.DIVERGED:  # of such a network only the test set is measured
            return set()
        there = {"train_acc": self.final_train_acc, "val_acc": self.best_val_acc}
        return {name for name in measures if there.get(name) is None}


def find(job: Job) -> KeptRun | None:
    """The result of a job in the table that its key ``kept`` names. None where the table doesn't have it.

    Raises ConfigError where the file is not such a table.
    """
    rows = _table_of(job)
    there = next((rows[name] for name in job.config.fingerprints if name in rows), None)
    if there is None:
        return None
    values = {name: _value(kind, text) for name, kind in OF_RUN.items() if (text := there.get(name))}
    return KeptRun.of(job.config, Status(there["status"]), **values, history=there.get("history") or None)


def _value(kind: type, text: str) -> Any:
    """A value of a row. None for a number that is none."""
    number = number_of(text)
    return text if kind is str else None if number is None else kind(number)


def check(job: Job) -> None:
    """Raises ConfigError where the key ``kept`` of a job names no table of finished runs, and no place for one."""
    if job.config.kept:
        check_table(Path(job.config.kept).absolute(), f"kept={shown(job.config.kept)}")
        _table_of(job)


def _table_of(job: Job) -> dict[str, dict[str, str]]:
    """The rows of the table that a job's key ``kept`` names, read only once for all jobs of a sweep."""
    if not job.config.kept:
        return {}
    path = Path(job.config.kept).absolute()
    if job.directory is not None and path == (job.directory.parent / TABLE).absolute():
        raise ConfigError(f"kept={path}: the sweep itself writes its table there; name another file")
    try:
        modified = path.stat().st_mtime_ns
    except OSError:
        modified = 0
    return _read_version(path, modified)


@lru_cache(maxsize=16)  # a sweep may have several
def _read_version(path: Path, modified: int) -> dict[str, dict[str, str]]:
    found = read(path)
    for each in found.damaged:
        log.warning("kept=%s: %s", path, each)
    return found.rows


class Keeper:
    """Adds the runs of some jobs to the tables that their keys ``kept`` name, as they end.

    Training never ends because of a table. What can't be added now is written beside the runs, into a table of its own,
    and added as soon as it can be: by this process, or by the next start of the same command.
    """

    def __init__(self, jobs: Iterable[Job]):
        self.lacks: dict[Path, set[Path]] = {}  # for each table, the directories of runs that it may lack
        for job in jobs:
            if job.config.kept and job.directory is not None:
                self.lacks.setdefault(Path(job.config.kept).absolute(), set()).add(job.directory)
        self.beside = {path: _beside(path, directories) for path, directories in self.lacks.items()}
        if len(self.lacks) == 1 and (former := _former(*self.beside.items())).exists():
            self.beside = dict.fromkeys(self.lacks, former)
        self.ended: dict[Path, dict[Path, RunRecord]] = {path: {} for path in self.lacks}  # those of them with a record
        self.said: set[str] = set()
        self.looked = time.monotonic()

    @property
    def lacking(self) -> list[Path]:
        """The directories of runs that a table may lack, and of which no record was given yet."""
        return sorted({each for path, lacks in self.lacks.items() for each in lacks if each not in self.ended[path]})

    def add(self, records: Mapping[Path, RunRecord]) -> None:
        """Add runs that have ended, given their directories. Records of others are left out."""
        for path, lacks in self.lacks.items():
            ended = self.ended[path]
            ended |= {where: record for where, record in records.items() if where in lacks and record.status.ended}
            if (ended or os.path.lexists(self.beside[path])) and self._added(path, ended):
                lacks.difference_update(ended)
                ended.clear()
        self.looked = time.monotonic()

    def _added(self, path: Path, ended: Mapping[Path, RunRecord]) -> bool:
        """Add finished runs to a table, with those that are still beside. False where that has to wait."""
        beside, others = self.beside[path], Kept({}, [])
        try:
            others = read(beside)
        except ConfigError as error:
            self._say(str(error))
        for each in others.damaged:
            self._say(f"{beside}: {each}")
        try:
            _, notes = _add(path, ended, others.rows)
            if others.damaged:
                self._say(f"{beside}: its other lines are added; set aside as {files.set_aside(beside).name}")
            elif others.rows:
                _remove(beside, others.rows)
        except (ConfigError, OSError) as error:
            self._say(f"{error}: finished runs are written to {beside} until they can be added")
            try:
                _add(beside, ended)
            except ConfigError as second:
                self._say(f"{second}; the same command adds the runs at its next start")
            return False
        for note in notes:
            self._say(note)
        return True

    def _say(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            log.warning("%s", text)


def _remove(beside: Path, added: Mapping[str, Row]) -> None:
    """Remove a table whose rows were added elsewhere, unless another process has added others, or is about to."""
    with contextlib.suppress(ConfigError, OSError):  # then the next start finds it
        lock = locks.of_table(beside, PATIENCE)
        try:
            if not read(beside).rows.keys() - added.keys():
                beside.unlink(missing_ok=True)
        finally:
            lock.release()


def _beside(path: Path, directories: Iterable[Path]) -> Path:
    """Where the rows for a table wait: in the directory that holds the runs, in which several tables' may wait."""
    own = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    return min(directories).absolute().parent / f"{path.stem}-{own}.waiting.csv"


def _former(item: tuple[Path, Path]) -> Path:
    """Where earlier versions let the rows for a table wait, given the table and where they wait now."""
    path, beside = item
    return beside.with_name(f"{path.stem}.waiting.csv")


def _text(value: Any) -> str:
    return "" if value is None else str(value)
