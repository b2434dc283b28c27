"""Measures of a user's own: ``measures=[mine.margin]`` names the function ``margin(snapshot)``, by this contract.

It returns a number, whose column is its name, or numbers by name, ``{"low": 1, "high": 2}``, whose columns are
``margin_low`` and ``margin_high``. Its parameter must be called ``snapshot``: so a list of names can't call what was
never meant as a measure.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fractal_ifs.config.measures import NAMES, is_own
from fractal_ifs.config.own_class import resolve
from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError
from fractal_ifs.mkl import ask_for_equal_bits
from fractal_ifs.runs.history import Evaluation

if TYPE_CHECKING:
    from fractal_ifs.measures.snapshot import Snapshot


def check_measures(config: RunConfig) -> None:
    """Raises ConfigError for a function of a user's own that can't be imported, or isn't as the module says."""
    for name in config.measures:
        if is_own(name):
            function_of(name)


@lru_cache
def function_of(name: str) -> Callable[[Snapshot], Any]:
    """The function of a name. Raises ConfigError."""
    ask_for_equal_bits()  # before a user's code may multiply
    key = f"measures=[{name}]"
    found = resolve("measures", name)
    try:
        first, *others = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        raise ConfigError(f"{key}: must be a function of one parameter, snapshot") from None
    if first.name != "snapshot" or any(each.default is each.empty and each.kind < 2 for each in others):
        raise ConfigError(f"{key}: must be a function of one parameter, snapshot")
    column = name.rpartition(".")[2]
    if column in NAMES or column in Evaluation._fields:
        raise ConfigError(f"{key}: must have another name, {column} is ours")
    return found
