"""Finished runs kept in one small table that can be committed. A run in it is not trained again on any machine.

A row is a run that has used its budget. It has the columns of a report's results.csv, without the run's directory.
With ``kept=FILE`` a sweep reads the table and fills it while it trains; ``report collect`` fills it later.
"""

import csv
import io
import logging
import math
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from fractal_ifs import files
from fractal_ifs.config.machine import check_table
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.results.rows import CELL, COLUMNS, row_of
from fractal_ifs.runs.records import NOT_KEPT, Status, understood, walk

log = logging.getLogger(__name__)

KEPT = [name for name in COLUMNS if name not in ("directory", *NOT_KEPT)]
_NEEDED = ("fingerprint", *CELL, "best_test_acc", "best_step", "status")
ORDER = (*CELL, "steps_asked", "lr", "seed", "fingerprint")  # the rows are sorted by these columns


def read(path: Path, key: str = "kept") -> dict[str, dict[str, str]]:
    """The rows of a table by fingerprint, with all values as text. Empty where there is no file.

    Raises ConfigError where the file is not such a table. ``key`` is what the user named it by.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or (), list(reader)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{key}={short(path, 200)}: can't be read ({short(error)})") from None
    if missing := [name for name in _NEEDED if name not in columns]:
        raise ConfigError(f"{key}={short(path, 200)}: not a table of finished runs, it has no column {missing[0]}")
    for number, line in enumerate(rows, 2):
        if None in line or None in line.values() or not _is_row(line):
            raise ConfigError(
                f"{key}={short(path, 200)}: line {number} is no row of it: {short(next(iter(line.values())))}"
            )
    return {line["fingerprint"]: line for line in rows}


def _is_row(line: Mapping[str, str]) -> bool:
    """Whether the values that we read are there: the others may be of any version."""
    numbers = (_number(line[name]) for name in ("best_test_acc", "best_step"))
    return bool(line["fingerprint"]) and None not in numbers and line["status"] in {*Status}


def add(path: Path, directories: Iterable[Path], key: str = "kept") -> tuple[int, list[str]]:
    """Add the runs of these directories that have ended. Returns how many were new, and notes.

    A run that the table has already stays as it is. A note says where its accuracy is another one here.

    Raises ConfigError where the file is not such a table, or can't be written.
    """
    check_table(path.absolute(), f"{key}={short(path, 200)}")
    rows = read(path, key)
    before, notes = len(rows), []
    for directory in directories:
        record = understood(directory)
        if record is None or not record.status.ended or record.best_test_acc is None:
            continue
        found = row_of(directory, record)
        known = next((name for name in record.config.fingerprints if name in rows), record.fingerprint)
        there = rows.setdefault(known, {name: _text(found[name]) for name in KEPT})
        if float(there["best_test_acc"]) != record.best_test_acc:
            notes.append(f"{directory}: best test accuracy {record.best_test_acc}, kept {there['best_test_acc']}")
    if len(rows) > before:
        write(path, rows)
    return len(rows) - before, notes


def add_below(path: Path, roots: Iterable[Path], key: str = "kept") -> tuple[int, list[str]]:
    """``add`` for all runs at or below some directories. Raises ConfigError where one of these doesn't exist."""
    roots = list(roots)
    if missing := [root for root in roots if not root.is_dir()]:
        raise ConfigError(f"{short(missing[0], 200)}: there is no such directory")
    return add(path, (directory for root in roots for directory, _ in walk(root)), key)


def write(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the table, sorted by ``ORDER``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, KEPT, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows.values(), key=lambda line: [_order(line[name]) for name in ORDER]))
    files.write(path, text.getvalue().encode())


class KeptRun(NamedTuple):
    """The result of a run, from its row in the table."""

    status: Status
    best_test_acc: float
    best_step: int


def find(config: RunConfig) -> KeptRun | None:
    """The result of a run in the table that its key ``kept`` names. None where the table doesn't have it.

    Raises ConfigError where the file is not such a table.
    """
    rows = _fingerprints(Path(config.kept)) if config.kept else {}
    there = next((rows[name] for name in config.fingerprints if name in rows), None)
    if there is None:
        return None
    return KeptRun(Status(there["status"]), float(there["best_test_acc"]), int(float(there["best_step"])))


@lru_cache(maxsize=1)
def _read_version(path: Path, modified: int) -> dict[str, dict[str, str]]:
    return read(path)


def _fingerprints(path: Path) -> dict[str, dict[str, str]]:
    """``read``, but only once for all jobs of a sweep."""
    return _read_version(path.absolute(), path.stat().st_mtime_ns if path.exists() else 0)


class Keeper:
    """Adds the runs of some jobs to the tables that their keys ``kept`` name, as they end."""

    def __init__(self, jobs: Iterable[Job]):
        self.waiting: dict[Path, set[Path]] = {}
        for job in jobs:
            if job.config.kept and job.directory is not None:
                self.waiting.setdefault(Path(job.config.kept).absolute(), set()).add(job.directory)
        self.looked = time.monotonic()

    def add(self, every: float = 0.0) -> None:
        """Look for new records and add them, unless that was done in the last ``every`` seconds."""
        if time.monotonic() - self.looked < every:
            return
        for path, waiting in self.waiting.items():
            ended = sorted(directory for directory in waiting if _has_ended(directory))
            waiting.difference_update(ended)
            for note in add(path, ended)[1]:
                log.warning("%s", note)
        self.looked = time.monotonic()


def _has_ended(directory: Path) -> bool:
    """Whether a run has ended. The record of an earlier, interrupted training doesn't count."""
    record = understood(directory)
    return record is not None and record.status.ended


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _number(text: str) -> float | None:
    try:
        return None if math.isnan(number := float(text)) else number
    except ValueError:
        return None


def _order(text: str) -> tuple[float, str]:
    """Numbers by value, then texts."""
    return (math.inf, text) if (number := _number(text)) is None else (number, "")
