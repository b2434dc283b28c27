"""What was measured along a run: the columns of its history.csv, whatever they are."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError, Damaged, short
from fractal_ifs.results.columns import MEASURED, last_of
from fractal_ifs.results.numbers import NUMBERS, Number, learning_curve
from fractal_ifs.results.rows import runs_of
from fractal_ifs.runs import records
from fractal_ifs.runs.history import MOST_MEASURED, read_history

if TYPE_CHECKING:
    import pandas as pd

OUTSIDE = ("step", "seconds")  # columns that are no measure
# How the columns of a measure of several numbers begin; of a function of a user's own with its name.
_COLUMNS = {"levels": "acc_", "gradient": "grad_", "norms": "norm_", "balance": ("said_positive", "labels_positive")}


class Series(NamedTuple):
    """A measure along a run."""

    steps: list[int]
    values: list[float]


def measures_of(run: Mapping[str, Any]) -> dict[str, Series]:
    """Every measure of a run by its name, from its directory; of a run that is elsewhere ``test_acc`` alone.

    What is no number is left out of its series.

    Args:
        run: a row of a table of runs.
    """
    found = {**_of_directory(Path(run["directory"]))} if run["directory"] else {}
    if "test_acc" not in found and (curve := Series(*learning_curve(run))).values:
        found["test_acc"] = curve
    return found


def with_measure(runs: pd.DataFrame, number: str) -> tuple[pd.DataFrame, Number]:
    """The table with a column for a measure, and the measure as a number.

    Args:
        runs: as ``results.rows.read_runs`` returns it.
        number: ``grad_snr@0``; ``grad_snr`` is that of the last step, and is missing where it is missing there.

    Raises ConfigError where no run has such a measurement.
    """
    name, _, step = number.partition("@")
    step = step or "last"
    lines = runs_of(runs)
    series = [measures_of(run) for run in lines]
    known = list(dict.fromkeys(measure for found in series for measure in found))
    numbered = [str(column) for column in runs.columns[runs.notna().any()]]
    known += [own for column in numbered if (own := last_of(column)) and own not in known]
    if name not in known:
        configs = [config for run in lines if (config := config_of(run))]
        if name in {each.rpartition(".")[2] for config in configs for each in config.measures}:
            if columns := [each for each in known if each.startswith(_COLUMNS.get(name, f"{name}_"))]:
                raise ConfigError(f"number={short(number)}: has several numbers, must be one of {', '.join(columns)}")
            raise ConfigError(f"number={short(number)}: was measured, but no run has a number; train.log says why")
        near = difflib.get_close_matches(name, [*NUMBERS, *known], 1, 0.6)
        others = f"did you mean {near[0]}?" if near else ", ".join([*NUMBERS, *known])
        raise ConfigError(f"number={short(number)}: must be a number or a measure of these runs: {others}")
    values = [_value(run, found, name, step) for run, found in zip(lines, series, strict=True)]
    if all(value is None for value in values):
        steps = sorted({at for found in series if name in found for at in found[name].steps})
        there = ", ".join(map(str, steps if len(steps) < 8 else [*steps[:3], "...", steps[-1]]))
        raise ConfigError(f"number={short(number)}: must be {name}@STEP with a step of a measurement: {there}")
    found = Number.of_measure(name, step)
    return runs.assign(**{found.column: values}), found


def config_of(run: Mapping[str, Any]) -> RunConfig | None:
    """The config of a run, from its directory. None where that can't be read here."""
    try:
        where = Path(run["directory"])
        begun = records.read_begun(where)
        return begun.config if begun else records.read_stored(where).record.config
    except (OSError, TypeError, ConfigError, Damaged, records.NotUnderstood):
        return None


def _value(run: Mapping[str, Any], found: Mapping[str, Series], name: str, step: str) -> float | None:
    """A measure of a run at a step, or after its last one, which the run's row may have."""
    if step == "last" and run.get(f"{MEASURED}{name}") is not None:
        return run[f"{MEASURED}{name}"]
    at = str(int(run["steps"] or 0)) if step == "last" else step
    pairs = zip(*found[name], strict=True) if name in found else ()
    return next((value for when, value in pairs if str(when) == at), None)


def _of_directory(directory: Path) -> Mapping[str, Series]:
    try:
        files = [(directory / name).stat() for name in (records.HISTORY, records.RESULT) if (directory / name).exists()]
    except OSError:
        return {}
    return _read(directory, tuple((each.st_mtime_ns, each.st_size) for each in files))


@lru_cache(maxsize=5_000)
def _read(directory: Path, _state: tuple[tuple[int, int], ...]) -> Mapping[str, Series]:
    """The measures in a history, while its files are as they are. Empty where it isn't that of its record."""
    try:
        stored = records.read_stored(directory)
    except (OSError, Damaged, records.NotUnderstood):  # one in training has none
        stored = None
    try:
        rows = read_history(directory, stored and stored.with_history)
    except (OSError, Damaged):
        return {}
    found: dict[str, Series] = {}
    for row in rows:
        for name, value in row.by_name().items():
            if name not in OUTSIDE and abs(value) <= MOST_MEASURED:
                series = found.setdefault(name, Series([], []))
                series.steps.append(row.step)
                series.values.append(value)
    return found
