"""Measures some runs: on their test sets, and all that their key ``measures`` names."""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the type of fork_rng)

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch

from fractal_ifs.data.labelled import Labelled
from fractal_ifs.engines.protocol import Engine, Measurement
from fractal_ifs.errors import message, short
from fractal_ifs.measures.named import OF_SNAPSHOTS, ON_SETS
from fractal_ifs.measures.own import function_of, why_not
from fractal_ifs.measures.sets import OnSet
from fractal_ifs.measures.snapshot import Snapshot
from fractal_ifs.runs.history import MOST_MEASURED
from fractal_ifs.runs.records import note, warn
from fractal_ifs.runs.run import Run

log = logging.getLogger(__name__)

MOST = 100  # numbers of one function
LONGEST = 60  # letters of a column
TEST = "test"  # names the set that every run is measured on


class Taken(NamedTuple):
    """What ``Run.evaluated`` takes."""

    test_acc: float
    test_loss: float
    measured: dict[str, float]  # by their columns, without those that are missing
    train_loss: float | None  # where no batch came before, on the training points


def take(runs: Sequence[Run], engine: Engine) -> list[Taken]:
    """Measure the network of each run as it is now. Changes no run, and no generator.

    A measure that fails costs its numbers, which is logged once in a run. Of a network that has diverged nothing is
    measured but the test set. Sets are measured by the engine, those of all runs at once.
    """
    with torch.inference_mode(False), torch.no_grad():  # Lightning measures in inference mode, without gradients
        asked = [_sets(run) for run in runs]
        pairs = [(run, each) for run, sets in zip(runs, asked, strict=True) for of in sets.values() for each in of]
        found = iter(engine.evaluate([run for run, _ in pairs], [each.there for _, each in pairs]))
        return [
            _taken(run, {name: [(each, next(found)) for each in of] for name, of in sets.items()})
            for run, sets in zip(runs, asked, strict=True)
        ]


def _sets(run: Run) -> dict[str, list[OnSet]]:
    """The test set, then the sets of the measures by their names; where no batch came before, also the training set.

    Those without points are left out.
    """
    names = [name for name in run.config.measures if name in ON_SETS]
    if run.unbatched and "train_acc" not in names:
        names.append("train_acc")
    test = OnSet(Labelled(run.data.x_test, run.data.y_test), "test_acc", "test_loss")
    return {TEST: [test]} | {name: [each for each in ON_SETS[name](run) if len(each.there.y)] for name in names}


def _taken(run: Run, found: Mapping[str, Sequence[tuple[OnSet, Measurement]]]) -> Taken:
    [(_, test)] = found[TEST]
    train_loss = found["train_acc"][0][1].loss if run.unbatched else None
    numbers: dict[str, float] = {}
    if math.isfinite(test.loss):
        ours = Snapshot(run)  # a user's own function gets another, which it may change
        for name in run.config.measures:
            snapshot = ours if name in OF_SNAPSHOTS else Snapshot(run)
            numbers |= _on_sets(found[name]) if name in ON_SETS else _numbers(run, snapshot, name)
    return Taken(test.accuracy, test.loss, _good(run, numbers), train_loss)


def _on_sets(found: Sequence[tuple[OnSet, Measurement]]) -> dict[str, float]:
    """The accuracies and losses on some sets, by columns."""
    numbers = {each.accuracy: measured.accuracy for each, measured in found}
    return numbers | {each.loss: measured.loss for each, measured in found if each.loss}


def _numbers(run: Run, snapshot: Snapshot, name: str) -> dict[str, float]:
    """What a function says of a snapshot, by columns; nothing where it fails."""
    column = name.rpartition(".")[2]
    try:
        if name in OF_SNAPSHOTS:
            found: object = OF_SNAPSHOTS[name](snapshot)
        else:
            with torch.random.fork_rng(devices=[]):
                found = function_of(name)(snapshot)
        if not isinstance(found, Mapping):
            number = {column: _number(found)}
            return number if name in OF_SNAPSHOTS else _allowed(run, name, number)
        pairs = cast(Mapping[Any, Any], found)
        if len(pairs) > MOST:
            raise ValueError(f"must be at most {MOST} numbers, not {len(pairs)}")
        if name in OF_SNAPSHOTS:
            return {key: _number(value) for key, value in pairs.items()}
        return _allowed(run, name, {f"{column}_{key}": _number(value) for key, value in pairs.items()})
    except (Exception, SystemExit, GeneratorExit) as error:  # not an interrupt, which ends the sweep
        _tell(run, name, short(message(error), 200))
        return {}


def _allowed(run: Run, name: str, numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a user's function whose columns it may write."""
    whys = {column: why_not(column, name, run.config.measures) for column in numbers}
    for column, why in whys.items():
        if why is not None:
            _tell(run, column, why)
    return {column: number for column, number in numbers.items() if whys[column] is None}


def _number(value: Any) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return float(value.item())
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"must be a number, or numbers by name, not {type(value).__name__}")
    return float(value)


def _good(run: Run, numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers that are finite, with names that columns can have."""
    good: dict[str, float] = {}
    for column, number in numbers.items():
        if not (column.isidentifier() and len(column) <= LONGEST):
            _tell(run, column, f"a column must be named by at most {LONGEST} letters, digits and _")
        elif not abs(number) <= MOST_MEASURED:
            _tell(run, column, f"is {number:g}, must be a number up to {MOST_MEASURED:g}")
        else:
            good[column] = number
    return good


def _tell(run: Run, name: str, why: str) -> None:
    """Say once in a run's log that a number is missing; everywhere, once for runs that train together."""
    if name in run.unmeasured:
        return
    run.unmeasured.add(name)
    text = f"measures: {short(name)} is missing at step {run.steps_before + run.step}: {why}"
    if name in run.told:
        note(run.directory, text)
    else:
        run.told.add(name)
        warn(log, run.directory, text)
