"""Every run below some directories as one table: a row per run."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from fractal_ifs.config.data import ImageData
from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError
from fractal_ifs.files import CONF
from fractal_ifs.runs import records
from fractal_ifs.runs.records import (
    HISTORY,
    RESULT,
    RunRecord,
    Status,
    read_begun,
    read_composed,
    read_history,
    read_record,
    walk,
)

if TYPE_CHECKING:
    import pandas as pd

CELL = ["data", "fractal", "fractal_depth", "curve", "depth", "width"]  # what names a cell of a table
ENDED = tuple(status for status in Status if status.ended)  # such runs have used the budget they were given

_OF_RECORD = records.COLUMNS
_TYPES = get_type_hints(RunRecord)
_AFTER = _OF_RECORD.index("fingerprint") + 1
# A record's fields, how its setting compares with the paper's, and what lies beside it.
COLUMNS = [*_OF_RECORD[:_AFTER], "setting", "differs", *_OF_RECORD[_AFTER:], "directory", "verified", "history"]
NUMBERS = [name for name in _OF_RECORD if _TYPES[name] in (int, float, int | None, float | None)]

# Not part of a run's setting: what names its cell, and what a cell is formed over.
_OUTSIDE = {"depth", "width", "lr", "seed", "steps", "eval_every", "trainer"}


def collect(paths: Iterable[Path]) -> tuple["pd.DataFrame", list[str]]:
    """One row per run, and what has to be said about them.

    Args:
        paths: directories with runs at any depth below them, or a ``results.csv`` that an earlier report wrote.

    A run that is still training, or was killed, has a row from its ``history.csv``. Two records of one fingerprint are
    one run: the one that went further is kept. Raises ConfigError where a path holds no run, and on a later format.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for path in paths:
        found = _read_csv(path) if path.suffix == ".csv" else _read_directory(path, notes)
        if not found and path.is_dir() and any(".hydra" in names for _, names in walk(path)):
            raise ConfigError(f"{path}: no run has a measurement yet; `report status {path}` says how far they are")
        if not found:
            raise ConfigError(
                f"{path}: there is no run in this directory; give one that a sweep wrote, as multirun/NAME"
            )
        rows += found
    table = pd.DataFrame(rows, columns=pd.Index(COLUMNS))
    for name in NUMBERS:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    if unverified := int((table.verified == False).sum()):  # noqa: E712 (there are missing ones)
        notes.append(f"{unverified} runs were trained on images without the published checksum (data.verify=false)")
    return _without_doubles(table, notes), notes


def _read_csv(path: Path) -> list[dict[str, Any]]:
    import pandas as pd

    try:
        text = ("curve", "setting", "differs", "fingerprint", "history")
        table = pd.read_csv(path, dtype=dict.fromkeys(text, str))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: can't be read ({str(error).splitlines()[0]})") from None
    if missing := [name for name in (*CELL, "best_test_acc", "fingerprint", "setting") if name not in table]:
        raise ConfigError(f"{path}: not the results.csv of a report, it has no column {missing[0]}")
    if (bad := table.index[table.fingerprint.isna() | table.setting.isna()]).size:
        raise ConfigError(f"{path}: line {bad[0] + 2} is no row of it: {table.iloc[bad[0], 0]}")
    table["differs"] = table["differs"].fillna("")
    if "directory" in table:  # a sweep's table names them from where it lies
        beside = [path.parent / str(name) for name in table["directory"]]
        there = [str(full) if full.is_dir() else name for full, name in zip(beside, table["directory"], strict=True)]
        table["directory"] = there
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _read_directory(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no such directory")
    rows, torn = [], []
    for directory, names in walk(path):
        found = None
        if RESULT in names:
            record = read_record(directory)
            found = row(directory, record) if record else None
            if found is None:
                torn.append(directory)
        if found is None and HISTORY in names:
            found = _unfinished(directory)
        if found is not None:
            rows.append(found)
    if torn:
        notes.append(f"{len(torn)} records can't be read and are left out, the first: {torn[0]}/result.json")
    return rows


def row(directory: Path, record: RunRecord) -> dict[str, Any]:
    """The columns of a run, by name."""
    data = record.config.data
    return {
        **{name: record[name] for name in _OF_RECORD},
        "directory": str(directory),
        "verified": data.verify if isinstance(data, ImageData) else None,
        "history": history(directory),
        **_setting(record.config),
    }


def history(directory: Path) -> str | None:
    """The test accuracy at each evaluation, every ``eval_every`` steps and at the last step: ``0.5012 0.6044``."""
    try:
        lines = (directory / "history.csv").read_text().splitlines()[1:]
        return " ".join(f"{float(line.rsplit(',', 1)[1]):.4f}" for line in lines) or None
    except (OSError, ValueError, IndexError):
        return None


def learning_curve(run: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    """(steps, test accuracies) of a row's ``history``; empty where it has none."""
    accuracies = [float(value) for value in str(run["history"] or "").split()]
    every, last = int(run["eval_every"]), int(run["steps"])
    return [min(every * (i + 1), last) for i in range(len(accuracies))], accuracies


def command(run: Mapping[str, Any]) -> str | None:
    """What trains a run of the paper's protocol alone, to the same numbers; None for a run of another protocol."""
    if run["data"] != "fractal" or run["differs"]:
        return None
    keys = {"fractal": run["fractal"], "fractal.depth": f"{run['fractal_depth']:g}", "curve": run["curve"]}
    keys |= {"depth": f"{run['depth']:.0f}", "width": f"{run['width']:.0f}"}
    keys |= {"lr": repr(float(run["lr"])), "seed": f"{run['seed']:.0f}"}
    budget = {"steps": f"{run['steps_asked']:.0f}", "eval_every": f"{run['eval_every']:.0f}"}
    usual = {"fractal.depth": "5", "steps": "1000000", "eval_every": "10000"}
    words = [f"{key}={value}" for key, value in {**keys, **budget}.items() if usual.get(key) != value]
    return " ".join(["python -m fractal_ifs.train", *words])


def _unfinished(directory: Path) -> dict[str, Any] | None:
    """The row of a run without a record: what its history and its config say."""
    begun = read_begun(directory)
    config = begun.config if begun else read_composed(directory)
    if config is None:
        return None
    try:
        rows = read_history(directory)
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
    return row(directory, record)


def _setting(config: RunConfig) -> dict[str, str]:
    """What else a run was: a hash of all that names no cell, and how that differs from the paper's protocol."""
    flat = _flat({key: value for key, value in config.identity().items() if key not in _OUTSIDE})
    flat.pop("data.verify", None)  # whether images were compared with the published checksum is no protocol
    flat["trainer.precision"] = config.trainer.precision
    return dict(zip(("setting", "differs"), _compared(json.dumps(flat, sort_keys=True)), strict=True))


@lru_cache(maxsize=65536)
def _compared(text: str) -> tuple[str, str]:
    flat = json.loads(text)
    names = tuple(str(flat.get(f"{group}.name")) for group in ("fractal", "curve", "data", "model"))
    paper = _protocol(*names)
    differs = [f"{key}={value}" for key, value in sorted(flat.items()) if key not in paper or paper[key] != value]
    return hashlib.sha256(text.encode()).hexdigest()[:12], ", ".join(differs)


@lru_cache
def _protocol(*names: str) -> dict[str, Any]:
    """The flat keys of the paper's protocol: what conf/ holds, its defaults, under these names."""
    import yaml

    config = yaml.safe_load((CONF / "config.yaml").read_text())
    own = CONF / "protocol" / f"{names[2]}.yaml"
    config |= yaml.safe_load(own.read_text()) if own.exists() else {}
    flat = {key: value for key, value in config.items() if key not in (*_OUTSIDE, "defaults", "hydra")}
    for group, name in zip(("fractal", "curve", "data", "model"), names, strict=True):
        path = CONF / group / f"{name}.yaml"
        if path.exists():
            flat[group] = yaml.safe_load(path.read_text())
    return _flat(flat) | {"trainer.precision": "32-true"}


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """``{"data.name": ...}``, without the fractal's depth, which names the cell. Null is as good as absent."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{k}": v for k, v in value.items() if v is not None}
        elif value is not None:
            flat[key] = value
    flat.pop("fractal.depth", None)
    return flat


def _without_doubles(table: "pd.DataFrame", notes: list[str]) -> "pd.DataFrame":
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
