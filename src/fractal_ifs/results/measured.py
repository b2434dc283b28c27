"""What was measured along a run: the columns of its history.csv, whatever they are."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fractal_ifs import files
from fractal_ifs.results.numbers import accuracies
from fractal_ifs.results.text_table import number_of
from fractal_ifs.runs.records import HISTORY

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
