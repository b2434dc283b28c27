"""Finished runs kept as one small table that can be committed: what stands in it is trained on no machine again.

A row is a run that has used its budget: the columns of a report's results.csv without where it lay, and ``history``,
its test accuracy at each evaluation. ``kept=FILE`` reads and fills it while a sweep trains, ``report collect``
does later.
"""

import csv
import io
import logging
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from fractal_ifs.config.schema import Job, fingerprint
from fractal_ifs.errors import ConfigError
from fractal_ifs.results.cells import CELL, COLUMNS, ENDED, row
from fractal_ifs.runs import records

log = logging.getLogger(__name__)

KEPT = [name for name in COLUMNS if name not in ("directory", "error")]
ORDER = ("data", "fractal", "fractal_depth", "curve", "depth", "width", "steps_asked", "lr", "seed", "fingerprint")


def read(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a table of finished runs by fingerprint, all values as text; none where there is no file.

    Raises ConfigError where the file is something else.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"kept={path}: can't be read ({error})") from None
    if missing := [name for name in ("fingerprint", *CELL, "best_test_acc") if name not in (reader.fieldnames or ())]:
        raise ConfigError(f"kept={path}: not a table of finished runs, it has no column {missing[0]}")
    for number, line in enumerate(rows, 2):
        if None in line or None in line.values() or not line["fingerprint"] or _number(line["best_test_acc"]) is None:
            raise ConfigError(f"kept={path}: line {number} is no row of it: {next(iter(line.values()))}")
    return {line["fingerprint"]: line for line in rows}


def add(path: Path, directories: Iterable[Path]) -> tuple[int, list[str]]:
    """Add the runs of these directories that have ended; returns how many were new, and what has to be said.

    A run that is there already stays as it is, also where another machine found another accuracy: that is said.
    """
    rows = read(path)
    before, notes = len(rows), []
    for directory in directories:
        record = records.read_result(directory)
        if record is None or record["status"] not in ENDED or (found := row(directory, record)) is None:
            continue
        there = rows.setdefault(record["fingerprint"], {name: _text(found.get(name)) for name in KEPT})
        if float(there["best_test_acc"]) != record["best_test_acc"]:
            notes.append(f"{directory}: best test accuracy {record['best_test_acc']}, kept {there['best_test_acc']}")
    if len(rows) > before:
        write(path, rows)
    return len(rows) - before, notes


def write(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """The table, sorted by cell, budget, learning rate and seed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, KEPT, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows.values(), key=lambda line: [_order(line[name]) for name in ORDER]))
    path.parent.mkdir(parents=True, exist_ok=True)
    records.write(path, text.getvalue().encode())


def find(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the table of a job's ``kept`` says of it: ``status``, ``best_test_acc`` and ``best_step``; or None."""
    if not config["kept"] or not (there := _fingerprints(Path(config["kept"])).get(fingerprint(config))):
        return None
    accuracy, step = float(there["best_test_acc"]), int(float(there["best_step"]))
    return {"status": there["status"], "best_test_acc": accuracy, "best_step": step}


@lru_cache(maxsize=1)
def _read_version(path: Path, modified: int) -> dict[str, dict[str, str]]:
    return read(path)


def _fingerprints(path: Path) -> dict[str, dict[str, str]]:
    """``read``, but once for all jobs of a sweep."""
    return _read_version(path.absolute(), path.stat().st_mtime_ns if path.exists() else 0)


class Keeper:
    """Adds the runs of some jobs to their tables as they end."""

    def __init__(self, jobs: Iterable[Job]):
        self.waiting: dict[Path, set[Path]] = {}
        for job in jobs:
            if job.config["kept"] and job.directory is not None:
                self.waiting.setdefault(Path(job.config["kept"]).absolute(), set()).add(job.directory)
        self.looked = time.monotonic()

    def add(self, every: float = 0.0) -> None:
        """Look for new records, unless that was done in the last ``every`` seconds."""
        if time.monotonic() - self.looked < every:
            return
        for path, waiting in self.waiting.items():
            ended = sorted(directory for directory in waiting if _has_ended(directory))
            waiting.difference_update(ended)
            for note in add(path, ended)[1]:
                log.warning("%s", note)
        self.looked = time.monotonic()


def _has_ended(directory: Path) -> bool:
    """Not so where an earlier, interrupted training has left its record."""
    record = records.read_result(directory) if (directory / "result.json").exists() else None
    return record is not None and record["status"] in ENDED


def check(path: Path, number: int = 3, width: int | None = None, seed: int | None = None) -> Iterator[tuple[str, bool]]:
    """Train some runs of a table again, each alone by its command: what was found of each, and whether it is the same.

    Args:
        number: how many, drawn at random by ``seed`` (None: other ones every time).
        width: none wider than that.

    Their bits depend on the instruction set, so they are drawn from the runs whose own is to be had here. Raises
    ConfigError where there are none, and on a number below 1.
    """
    import pandas as pd

    from fractal_ifs.engines import cpp as native
    from fractal_ifs.results.cells import collect, command

    for key, value, least in (("--number", number, 1), ("--width", width, 1), ("--seed", seed, 0)):
        if value is not None and value < least:
            raise ConfigError(f"{key}={value}: must be a whole number >= {least}")
    runs = collect([path])[0]
    runs = runs.loc[(runs.engine == "native") & (runs.width <= (width or float("inf")))]
    runs = runs.loc[[command(run) is not None for run in runs.to_dict("records")]]
    if runs.empty:
        raise ConfigError(f"{path}: has no run of the paper's protocol and the native engine of width <= {width}")
    state = native.variants()
    here = runs.loc[[state.get(str(isa)) == "ok" for isa in runs.isa]]
    if here.empty:
        reasons = (f"{isa}: {state.get(isa, 'unknown')}" for isa in sorted({str(isa) for isa in runs.isa}))
        raise ConfigError(f"{path}: its runs are equal on their own instruction set alone: {', '.join(reasons)}")
    for run in here.sample(min(number, len(here)), random_state=seed).to_dict("records"):
        line = str(command(run))
        with tempfile.TemporaryDirectory() as directory:
            arguments = [sys.executable, *line.split()[1:], "logger=none", f"hydra.run.dir={directory}/run"]
            environment = {**os.environ, "FRACTAL_IFS_ISA": str(run["isa"])}
            done = subprocess.run(arguments, env=environment, capture_output=True, text=True, cwd=directory)
            record = records.read_result(Path(directory) / "run")
        if record is None:
            yield f"{line}\n  failed: {done.stderr.strip().splitlines()[-1:]}", False
            continue
        names = ("best_test_acc", "best_step", "final_test_acc")
        same = all(record[name] == run[name] or (pd.isna(run[name]) and record[name] is None) for name in names)
        kept, now = (", ".join(f"{name} {found[name]}" for name in names) for found in (run, record))
        yield f"{line}\n  kept: {kept}\n  now:  {now}: {'the same' if same else 'DIFFERENT'}", same


def best_lr(path: Path) -> dict[tuple, float]:
    """For each cell (data, fractal, its depth, curve, depth, width) the learning rate that the report shows."""
    from fractal_ifs.results.cells import cells, collect

    if not read(path):
        raise ConfigError(f"hydra.sweeper.best_lr={path}: holds no run; train some learning rates first")
    best, _ = cells(collect([path])[0])
    return {_cell(line): float(line["lr"]) for line in best.to_dict("records")}


def cell_of(config: dict[str, Any]) -> tuple:
    """The cell of a config, as a key of ``best_lr``."""
    from fractal_ifs.runs.run import keys_of

    return _cell(keys_of(config))


def _cell(keys: Mapping[str, Any]) -> tuple:
    synthetic = keys["data"] == "fractal"
    where = (keys["fractal"], int(keys["fractal_depth"]), str(keys["curve"])) if synthetic else (None, None, None)
    return (keys["data"], *where, int(keys["depth"]), int(keys["width"]))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _number(text: str) -> float | None:
    try:
        return None if math.isnan(number := float(text)) else number
    except ValueError:
        return None


def _order(text: str) -> tuple[float, str]:
    return (math.inf, text) if (number := _number(text)) is None else (number, "")
