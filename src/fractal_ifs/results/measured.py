"""What was measured along a run: the columns of its history.csv, whatever they are."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fractal_ifs import files
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.results.numbers import NUMBERS, accuracies
from fractal_ifs.results.text_table import number_of
from fractal_ifs.runs.records import HISTORY

if TYPE_CHECKING:
    import pandas as pd

OUTSIDE = ("step", "seconds")  # columns that are no measure


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
    found = _of_file(Path(run["directory"]) / HISTORY) if run["directory"] else {}
    if "test_acc" not in found and (values := accuracies(run)):
        every, last = int(run["eval_every"]), int(run["steps"])
        found["test_acc"] = Series([min(every * (i + 1), last) for i in range(len(values))], values)
    return found


def with_measure(runs: pd.DataFrame, number: str) -> tuple[pd.DataFrame, str]:
    """The table with a column for a measure, and its name: ``grad_snr@0``, or ``grad_snr@last`` for the last step.

    Args:
        runs: as ``results.rows.read_runs`` returns it.
        number: ``grad_snr@0``; ``grad_snr`` is that of the last step.

    Raises ConfigError where no run has such a measurement.
    """
    name, _, step = number.partition("@")
    step = step or "last"
    lines = runs.astype(object).where(runs.notna(), None).to_dict("records")
    series = [measures_of(run) for run in lines]
    known = list(dict.fromkeys(measure for found in series for measure in found))
    if name not in known:
        near = difflib.get_close_matches(name, [*NUMBERS, *known], 1, 0.6)
        others = f"did you mean {near[0]}?" if near else ", ".join([*NUMBERS, *known])
        raise ConfigError(f"number={short(number)}: must be a number or a measure of these runs: {others}")
    values = [_at(found[name], step) if name in found else None for found in series]
    if all(value is None for value in values):
        steps = sorted({at for found in series if name in found for at in found[name].steps})
        there = ", ".join(map(str, steps if len(steps) < 8 else [*steps[:3], "...", steps[-1]]))
        raise ConfigError(f"number={short(number)}: must be {name}@STEP with a step of a measurement: {there}")
    return runs.assign(**{f"{name}@{step}": values}), f"{name}@{step}"


def _at(series: Series, step: str) -> float | None:
    if step == "last":
        return series.values[-1]
    return next((value for at, value in zip(*series, strict=True) if str(at) == step), None)


def _of_file(path: Path) -> dict[str, Series]:
    try:
        lines = list(csv.DictReader(files.read(path).decode().splitlines()))
    except (OSError, ValueError, csv.Error):
        return {}
    found: dict[str, Series] = {}
    for line in lines:
        step = number_of(line.get("step") or "")
        for name, text in line.items():
            value = number_of(text) if isinstance(text, str) else None
            if name and name not in OUTSIDE and step is not None and value is not None:
                series = found.setdefault(name, Series([], []))
                series.steps.append(int(step))
                series.values.append(value)
    return found
