"""Every run below some directories as one table, with a row per run."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

from fractal_ifs.config.data import ImageData
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.results.protocol import Setting, setting_of
from fractal_ifs.runs import records
from fractal_ifs.runs.records import RunRecord, Status

if TYPE_CHECKING:
    import pandas as pd


class CellKey(NamedTuple):
    """What names a cell of a table. On images the fractal, its depth and the curve are None."""

    data: str
    fractal: str | None
    fractal_depth: int | None
    curve: str | None
    depth: int
    width: int

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> "CellKey":
        """The cell of a run, given its row or any mapping with these keys."""
        synthetic = run["data"] == "fractal"
        where = (run["fractal"], int(run["fractal_depth"]), str(run["curve"])) if synthetic else (None, None, None)
        return cls(run["data"], *where, int(run["depth"]), int(run["width"]))

    def __str__(self) -> str:
        """``vicsek n=5 curve 4 depth 5 width 20``."""
        synthetic = self.data == "fractal"
        where = f"{self.fractal} n={self.fractal_depth} curve {self.curve}" if synthetic else self.data
        return f"{where} depth {self.depth} width {self.width}"


CELL = CellKey._fields
ENDED = tuple(status for status in Status if status.ended)  # runs of such a status have used their budget

_TYPES = get_type_hints(RunRecord)
_AFTER = records.COLUMNS.index("fingerprint") + 1
_BESIDE = ("directory", "verified", "history")  # what a row has besides the record and the setting
# The fields of a record, with its setting after the fingerprint.
COLUMNS = [*records.COLUMNS[:_AFTER], *Setting._fields, *records.COLUMNS[_AFTER:], *_BESIDE]
NUMBERS = [name for name in records.COLUMNS if _TYPES[name] in (int, float, int | None, float | None)]
TEXTS = [name for name in records.COLUMNS if _TYPES[name] in (str, str | None)] + [*Setting._fields, "history"]


# What every row of a table has, and the least that it can be.
_ALWAYS = {"depth": 1, "width": 1, "lr": 0, "seed": 0, "steps_asked": 1, "eval_every": 1}
_TEXTS_ALWAYS = ("data", "status", "fingerprint", "setting")

LEFT_OUT = "left out: "  # begins a note on a record that can't be understood


def read_runs(paths: Iterable[Path]) -> tuple["pd.DataFrame", list[str]]:
    """The table of all runs, with the columns ``COLUMNS``, and notes for its reader.

    A run that is still training, or was killed, has a row from its ``history.csv``. Two records of one fingerprint are
    one run: the one that went further is kept.

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
        found = _read_csv(path) if path.suffix == ".csv" else _read_directory(path, notes)
        if not found and len(notes) > before:
            raise ConfigError(notes[-1].removeprefix(LEFT_OUT))
        if not found and path.is_dir() and any(".hydra" in names for _, names in records.walk(path)):
            raise ConfigError(f"{path}: no run has a measurement yet; `report status {path}` says how far they are")
        if not found:
            raise ConfigError(
                f"{path}: there is no run in this directory; give one that a sweep wrote, as multirun/NAME"
            )
        rows += found
    table = pd.DataFrame(rows, columns=pd.Index(COLUMNS))
    for name in NUMBERS:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    if unverified := int((table.verified == False).sum()):  # noqa: E712 (some are missing)
        notes.append(f"{unverified} runs were trained on images without the published checksum (data.verify=false)")
    return _without_doubles(table, notes), notes


def row_of(directory: Path, record: RunRecord) -> dict[str, Any]:
    """The row of a run: its values for ``COLUMNS``, by name."""
    data = record.config.data
    return {
        **{name: record[name] for name in records.COLUMNS},
        **setting_of(record.config)._asdict(),
        "directory": str(directory),
        "verified": data.verify if isinstance(data, ImageData) else None,
        "history": _history(directory),
    }


def learning_curve(run: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    """The steps and test accuracies of a row's ``history``; empty lists where it has none."""
    accuracies = [float(value) for value in str(run["history"] or "").split()]
    every, last = int(run["eval_every"]), int(run["steps"])
    return [min(every * (i + 1), last) for i in range(len(accuracies))], accuracies


def train_command(run: Mapping[str, Any]) -> str | None:
    """The command that trains a run alone, to the same numbers. None where the run isn't of the paper's protocol."""
    if run["data"] != "fractal" or run["differs"]:
        return None
    keys = {"fractal": run["fractal"], "fractal.depth": f"{run['fractal_depth']:g}", "curve": run["curve"]}
    keys |= {"depth": f"{run['depth']:.0f}", "width": f"{run['width']:.0f}"}
    keys |= {"lr": repr(float(run["lr"])), "seed": f"{run['seed']:.0f}"}
    budget = {"steps": f"{run['steps_asked']:.0f}", "eval_every": f"{run['eval_every']:.0f}"}
    usual = {"fractal.depth": "5", "steps": "1000000", "eval_every": "10000"}
    words = [f"{key}={value}" for key, value in {**keys, **budget}.items() if usual.get(key) != value]
    return " ".join(["python -m fractal_ifs.train", *words])


def _history(directory: Path) -> str | None:
    """The test accuracy at each evaluation, every ``eval_every`` steps and at the last step: ``0.5012 0.6044``."""
    try:
        lines = (directory / records.HISTORY).read_text().splitlines()[1:]
        return " ".join(f"{float(line.rsplit(',', 1)[1]):.4f}" for line in lines) or None
    except (OSError, ValueError, IndexError):
        return None


def _read_csv(path: Path) -> list[dict[str, Any]]:
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: can't be read ({short(error, 200)})") from None
    if missing := [name for name in (*CELL, *_ALWAYS, *_TEXTS_ALWAYS) if name not in table]:
        raise ConfigError(f"{path}: not the results.csv of a report, it has no column {missing[0]}")
    for name in (*_TEXTS_ALWAYS, *_ALWAYS, "fractal_depth", "best_test_acc"):
        if (bad := table.index[_is_bad(table, name)]).size:
            raise ConfigError(f"{path}: line {bad[0] + 2} is no row of it: {name}={short(table[name][bad[0]])}")
    table["differs"] = table["differs"].fillna("") if "differs" in table else ""
    if "training" not in table:  # a kept table, which says it in ``differs``
        layerwise = table["differs"].str.contains("training=layerwise", regex=False)
        table["training"] = layerwise.map({True: "layerwise", False: "joint"})
    if "directory" in table:  # in a sweep's table, directories are relative to its own place
        beside = [path.parent / str(name) for name in table["directory"]]
        there = [str(full) if full.is_dir() else name for full, name in zip(beside, table["directory"], strict=True)]
        table["directory"] = there
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _is_bad(table: "pd.DataFrame", name: str) -> Any:
    """For each row of a table whether it lacks a value that every row has, or has one that can't be."""
    import pandas as pd

    value: Any = table[name]
    if name in _TEXTS_ALWAYS:
        return value.isna() | ((name == "status") & ~value.isin([*Status]))
    number: Any = pd.to_numeric(value, errors="coerce")
    if name == "best_test_acc":  # a run that failed may have none
        return value.notna() & ~number.between(0, 1)
    wrong = ~number.between(_ALWAYS.get(name, 1), 1e38)
    return wrong & (table["data"] == "fractal") if name == "fractal_depth" else wrong


def _read_directory(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no such directory")
    rows, torn = [], []
    for directory, names in records.walk(path):
        found = None
        if records.RESULT in names:
            try:
                record = records.read_record(directory)
            except records.NotUnderstood as error:
                notes.append(f"{LEFT_OUT}{error}")
                continue
            found = row_of(directory, record) if record else None
            if found is None:
                torn.append(directory)
        if found is None and records.HISTORY in names:
            found = _unfinished(directory)
        if found is not None:
            rows.append(found)
    if torn:
        notes.append(f"{len(torn)} records can't be read and are left out, the first: {torn[0]}/result.json")
    return rows


def _unfinished(directory: Path) -> dict[str, Any] | None:
    """The row of a run without a record, from its history and its config. None where these can't be read."""
    begun = records.read_begun(directory)
    config = begun.config if begun else records.read_composed(directory)
    if config is None:
        return None
    try:
        rows = records.read_history(directory)
        best = max(rows, key=lambda evaluation: evaluation.test_acc)
    except (OSError, ValueError, TypeError):
        return None
    last = rows[-1]
    record = RunRecord.of(
        config,
        Status.RUNNING,
        best_test_acc=best.test_acc,
        best_step=best.step,
        final_test_acc=last.test_acc,
        steps=last.step,
        seconds=last.seconds,
    )
    return row_of(directory, record)


def _without_doubles(table: "pd.DataFrame", notes: list[str]) -> "pd.DataFrame":
    """One row per fingerprint: of an ended run if there is one, otherwise of the run that went furthest."""
    table = table.assign(ended=table.status.isin(ENDED)).sort_values(["ended", "steps"], kind="stable", ascending=False)
    ended = table.loc[table.ended & table.fingerprint.notna()]
    apart = ended.groupby("fingerprint").best_test_acc.agg(["min", "max", "size"])
    apart = apart.loc[apart["max"] > apart["min"]]
    if len(apart):
        notes.append(
            f"{len(apart)} runs are there twice with different accuracies (by up to "
            f"{(apart['max'] - apart['min']).max():.4f}; another engine or machine?), the first read is kept: "
            f"fingerprint {apart.index[0]}"
        )
    double = table.fingerprint.notna() & table.duplicated("fingerprint")
    here = table.dropna(subset=["fingerprint", "directory"])
    if again := int(here.duplicated("fingerprint").sum()):
        notes.append(f"{again} runs are there more than once, and counted once")
    where = here.drop_duplicates("fingerprint").set_index("fingerprint")
    table["directory"] = table.directory.fillna(table.fingerprint.map(where.directory))
    return table.loc[~double].sort_index().drop(columns="ended").reset_index(drop=True)
