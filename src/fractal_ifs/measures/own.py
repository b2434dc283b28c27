"""Measures of a user's own: ``measures=[mine.margin]`` names the function ``margin(snapshot)``, by this contract.

It returns a number, whose column is its name, or numbers by name, ``{"low": 1, "high": 2}``, whose columns are
``margin_low`` and ``margin_high``. Its parameter must be called ``snapshot``: so a list of names can't call what was
never meant as a measure. A column of ours is left out, and one that two functions would write is of one of them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fractal_ifs.config.measures import NAMES, is_own
from fractal_ifs.config.own_class import resolve
from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError
from fractal_ifs.mkl import ask_for_equal_bits
from fractal_ifs.runs.history import COLUMNS, Summary

if TYPE_CHECKING:
    from fractal_ifs.measures.snapshot import Snapshot

OURS = re.compile(
    "val_acc|val_loss|train_acc|train_loss_now|acc_.*|norm_.*|grad_.*|dead|regions|said_positive|labels_positive"
)  # columns of our own measures, asked for or not
OF_REPORTS = ("best", "final", "last10", "chosen", "train")  # by these names ``report --number`` takes other numbers


def is_ours(column: str) -> bool:
    """Whether a column is one of every run or of a measure of ours, or called like a number of a whole run."""
    of_run = ("best_test_acc", "best_step", *Summary._fields)
    return column in (*COLUMNS, *of_run) or OURS.fullmatch(column) is not None


def why_not(column: str, name: str, measures: Sequence[str]) -> str | None:
    """Why the function ``name`` of some measures may not write a column; None where it may.

    Of two functions whose columns could be called so, it is of the one with the longer name, whatever they return: so
    it never has numbers of both.
    """
    if is_ours(column) or column in OF_REPORTS:
        return "a column of ours is called so" if is_ours(column) else "a report's number is called so"
    could = [each for each in measures if is_own(each) and f"{column}_".startswith(f"{_last(each)}_")]
    owner = max(could, key=lambda each: len(_last(each)), default=name)
    return None if owner == name else f"a column of {owner} is called so"


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def check_measures(config: RunConfig) -> None:
    """Raises ConfigError for a function of a user's own that can't be imported, or isn't as the module says."""
    for name in config.measures:
        if is_own(name):
            function_of(name)


def function_of(name: str) -> Callable[[Snapshot], Any]:
    """The function that has a name now: in a notebook it may be another one than before. Raises ConfigError."""
    ask_for_equal_bits()  # before a user's code may multiply
    found = resolve("measures", name)
    _check(found, name)
    return found


def _check(found: Callable[..., Any], name: str) -> None:
    key = f"measures=[{name}]"
    try:
        first, *others = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        raise ConfigError(f"{key}: must be a function of one parameter, whose name is snapshot") from None
    if first.name != "snapshot" or any(each.default is each.empty and each.kind < 2 for each in others):
        raise ConfigError(f"{key}: must be a function of one parameter, whose name is snapshot")
    column = _last(name)
    if column in NAMES or is_ours(column):
        raise ConfigError(f"{key}: must have another name, {column} is ours")
