"""Every run below some directories as one table, with a row per run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractal_ifs.config.data import ImageData
from fractal_ifs.errors import ConfigError, Damaged, counted, short
from fractal_ifs.results.columns import BOOLS, COLUMNS, COUNTS, ENDED, NUMBERS, is_measured, measured_of
from fractal_ifs.results.protocol import setting_of
from fractal_ifs.results.text_table import TextTable, read_text
from fractal_ifs.results.values import number_of
from fractal_ifs.runs import locks, records
from fractal_ifs.runs.history import MOST_MEASURED, Summary, best_row, read_history
from fractal_ifs.runs.records import TABLE, RunRecord, Status

if TYPE_CHECKING:
    import pandas as pd


LEFT_OUT = "left out: "  # begins a note on a record that can't be understood


def read_runs(paths: Sequence[Path]) -> tuple["pd.DataFrame", list[str]]:
    """The table of all runs, with the columns ``COLUMNS``, those of their measures, and notes for its reader.

    A run that is still training, or was killed, has a row from its ``history.csv``, also where it has a record of an
    earlier attempt. One that a sweep has from a kept table has its row in the sweep's own table. Two records of one
    fingerprint are one run: the one that went further is kept.

    Args:
        paths: directories with runs at any depth below them, or files ``results.csv`` of an earlier report.

    A record that this version doesn't understand is left out, with a note. Raises ConfigError where a path holds no
    run, or only such records.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for path in paths:
        before = len(notes)
        is_table = path.is_file() or (path.suffix == ".csv" and not path.is_dir())
        found = _read_csv(path, notes) if is_table else _read_directory(path, notes)
        if not found and len(notes) > before:
            raise ConfigError(notes[-1].removeprefix(LEFT_OUT))
        if not found and path.is_file():
            raise ConfigError(f"{path}: holds no run")
        if not found and records.unmeasured(path):
            raise ConfigError(f"{path}: no run has a measurement yet; `report status {path}` says how far they are")
        if not found:
            raise ConfigError(
                f"{path}: there is no run in this directory; give one that a sweep wrote, as multirun/NAME"
            )
        rows += map(without_zeros, found)
    told, seen = {row["fingerprint"] for row in rows}, set[Path]()  # by another of the paths too
    for path in filter(Path.is_dir, paths):
        waiting = {where for where, config in records.unmeasured(path).items() if config.fingerprint not in told} - seen
        seen |= waiting
        if waiting:
            notes.append(f"{counted(len(waiting), 'job')} of {path}: no measurement yet, so in no table")
    measured = list(dict.fromkeys(name for row in rows for name in row if is_measured(name)))
    table = pd.DataFrame(rows, columns=pd.Index([*COLUMNS, *measured]))
    for name in [*NUMBERS, *measured]:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    for name in measured:
        table[name] = table[name].where(table[name].abs() <= MOST_MEASURED)
    if unverified := int((table.verified == False).sum()):  # noqa: E712 (some are missing)
        notes.append(f"{unverified} runs were trained on images without the published checksum (data.verify=false)")
    return _without_doubles(table, notes), notes


def runs_of(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """The rows of a table of runs, with None where a value is missing: a nan is true, and equals nothing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def row_of(directory: Path, record: RunRecord, expected: records.Stored | None = None) -> dict[str, Any]:
    """The row of a run: its values for ``COLUMNS`` and of its measures, by name.

    Its history is left out where it isn't that of ``expected``, the record as it is stored.
    """
    data = record.config.data
    return {
        **{name: record[name] for name in records.COLUMNS},
        **setting_of(record.config)._asdict(),
        "directory": str(directory),
        "verified": data.verify if isinstance(data, ImageData) else None,
        "history": _history(directory, expected),
        **measured_of(record),
    }


def without_zeros(row: dict[str, Any]) -> dict[str, Any]:
    """The row for tables from which means are taken: a network that has diverged gives no answer, so none is right.

    Of such a run the record has 0.0, and here it is missing. The best accuracy before stays.
    """
    if row["status"] != Status.DIVERGED:
        return row
    zeros = [] if row.get("final_test_acc") else ["final_test_acc", "last10_test_acc"]
    zeros += [] if row["best_step"] else ["best_test_acc", "best_step"]
    return row | dict.fromkeys(zeros)


def train_command(run: Mapping[str, Any]) -> str | None:
    """The command that trains a run alone, to the same numbers. None where the run isn't of the paper's protocol."""
    if run["data"] != "fractal" or run["differs"]:
        return None
    keys = {"fractal": run["fractal"], "fractal.depth": f"{run['fractal_depth']:g}", "curve": run["curve"]}
    keys |= {"depth": f"{run['depth']:.0f}", "width": f"{run['width']:.0f}"}
    keys |= {"lr": repr(float(run["lr"])), "seed": str(int(run["seed"]))}
    budget = {"steps": f"{run['steps_asked']:.0f}", "eval_every": f"{run['eval_every']:.0f}"}
    usual = {"fractal.depth": "5", "steps": "1000000", "eval_every": "10000"}
    words = [f"{key}={value}" for key, value in {**keys, **budget}.items() if usual.get(key) != value]
    return " ".join(["python -m fractal_ifs.train", *words])


def _history(directory: Path, expected: records.Stored | None) -> str | None:
    """The test accuracy at each evaluation, every ``eval_every`` steps and at the last step: ``0.5012 0.6044``."""
    try:
        return " ".join(f"{row.test_acc:.4f}" for row in read_history(directory, expected) if row.step > 0) or None
    except (FileNotFoundError, Damaged):
        return None


def _read_csv(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    try:
        table = read_text(path, "the results.csv of a report")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    if table.damaged and not table.rows:
        raise ConfigError(f"{path}: {table.damaged[0]}")
    return _rows_of(table, path, notes)


def _rows_of(table: TextTable, path: Path, notes: list[str]) -> list[dict[str, Any]]:
    notes += [f"{LEFT_OUT}{path}: {each}" for each in table.damaged]
    rows = [_typed(row, path.parent) for row in table.rows.values()]
    others = [row for row in rows if row.get("directory") and _gone(row)]
    for row in others:
        row["directory"] = None
    if others:
        number = counted(len(others), "run")
        notes.append(f"{number} of {path}: another, or a damaged one, lies where the table says, and isn't read")
    return rows


def _gone(row: Mapping[str, Any]) -> bool:
    """Whether the directory of a table's row has another run by now, whose numbers would be taken for this one's."""
    return records.has_another(Path(row["directory"]), row["fingerprint"])


def kept_rows(sweep: Path, notes: list[str] | None = None) -> list[dict[str, Any]]:
    """The runs that a sweep has from a kept table: the rows of its own table that name no directory.

    ``notes`` gets a line on each of them that is damaged. A table that no sweep of ours wrote has none.
    """
    path, notes = sweep / TABLE, [] if notes is None else notes
    try:
        table = read_text(path, "the table of a sweep", lambda row: row.get("directory") == "")
    except (FileNotFoundError, ConfigError):  # the first of a sweep that has not ended
        return []
    return [_whole(row) for row in _rows_of(table, path, notes) if row["status"] in ENDED]


def _whole(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the whole numbers that its record had."""
    return {name: int(value) if name in COUNTS and isinstance(value, float) else value for name, value in row.items()}


def _typed(row: Mapping[str, str], beside: Path) -> dict[str, Any]:
    """A row of a CSV file with its values as ``row_of`` has them, None where it has none."""
    found: dict[str, Any] = {name: text or None for name, text in row.items()}
    found |= {name: number_of(row[name]) for name in NUMBERS if name in row}
    found["seed"] = int(row["seed"]) if row["seed"].isdecimal() else found["seed"]  # a float has 53 bits of its 63
    bools = {"true": True, "false": False}  # a spreadsheet writes TRUE
    found |= {name: bools.get(row[name].lower()) for name in BOOLS if name in row}
    found["differs"] = row.get("differs", "")
    # A kept table has no such column, and says it in ``differs``.
    found.setdefault("training", "layerwise" if "training=layerwise" in found["differs"] else "joint")
    if found.get("directory") and (beside / found["directory"]).is_dir():  # in a sweep's table, relative to its place
        found["directory"] = str(beside / found["directory"])
    return found


def _read_directory(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no such directory")
    rows: list[dict[str, Any]] = []
    damaged: list[str] = []
    for directory, names in records.walk(path, notes.append):
        if not str(directory).isprintable():  # no table could name it
            notes.append(f"{LEFT_OUT}{short(directory, 200)}: has a name that can't be printed in this locale")
            continue
        if records.SWEEP in names:
            rows += kept_rows(directory, notes)
        found = stored = None
        if records.RESULT in names:
            try:
                stored = records.read_stored(directory)
                found = row_of(directory, stored.record, stored.with_history)
            except records.NotUnderstood as error:
                notes.append(f"{LEFT_OUT}{error}")
                continue
            except FileNotFoundError:  # it went meanwhile
                pass
            except Damaged as error:
                damaged.append(str(error))
        record = stored.record if stored else None
        if records.HISTORY in names and (
            found is None or found["history"] is None or not (record and record.status.ended)
        ):
            try:
                newer = went_on(directory, record, stored and stored.with_history)
                found = row_of(directory, newer) if newer else found
            except FileNotFoundError:
                pass
            except Damaged as error:
                damaged.append(str(error))
        if found is not None:
            rows.append(found)
    if damaged:
        notes.append(f"{counted(len(damaged), 'file')} damaged and left out, the first: {damaged[0]}")
    return rows


def went_on(directory: Path, before: RunRecord | None, expected: records.Stored | None = None) -> RunRecord | None:
    """How far a run has come since its record was written, from its history.csv. None where that has nothing newer.

    It is running where a process trains it now, else interrupted. Raises FileNotFoundError and Damaged, as
    ``read_history`` does.

    Args:
        before: its record; None where it has none.
        expected: as for ``read_history``.
    """
    rows = read_history(directory, expected)
    if not rows or rows[-1].step <= (before.steps or 0 if before else 0):
        return None
    config = before.config if before else records.asked_of(directory)
    if config is None:
        return None
    best, last = best_row(rows, config.counts_from), rows[-1]
    return RunRecord.of(
        config,
        Status.RUNNING if locks.trained(directory) else Status.INTERRUPTED,
        best_test_acc=best.test_acc if best else None,
        best_step=best.step if best else None,
        final_test_acc=last.test_acc if last.step > config.counts_from else None,
        steps=last.step,
        seconds=last.seconds,
        **Summary.of(rows, config.counts_from)._asdict(),
        measured=last.measured or None,
    )


def _without_doubles(table: "pd.DataFrame", notes: list[str]) -> "pd.DataFrame":
    """One row per fingerprint: of an ended run if there is one, of those that went furthest, with the most numbers."""
    order = {"ended": table.status.isin(ENDED), "numbers": table.notna().sum(axis="columns")}
    by = ["ended", "steps", "numbers"]
    table = table.assign(**order).sort_values(by, kind="stable", ascending=False)
    ended = table.loc[table.ended & table.fingerprint.notna()]
    apart = ended.groupby("fingerprint").best_test_acc.agg(["min", "max", "size"])
    apart = apart.loc[apart["max"] > apart["min"]]
    if len(apart):
        notes.append(
            f"{counted(len(apart), 'run')} there twice with different accuracies (by up to "
            f"{(apart['max'] - apart['min']).max():.4f}; another engine or machine?), the longer one, or the "
            "one with more numbers, is kept: "
            f"fingerprint {apart.index[0]}"
        )
    double = table.fingerprint.notna() & table.duplicated("fingerprint")
    here = table.dropna(subset=["fingerprint", "directory"])
    if again := int(here.duplicated("fingerprint").sum()):
        notes.append(f"{again} runs are there more than once, and counted once")
    where = here.drop_duplicates("fingerprint").set_index("fingerprint")
    table["directory"] = table.directory.fillna(table.fingerprint.map(where.directory))
    return table.loc[~double].sort_index().drop(columns=[*order]).reset_index(drop=True)
