"""Which keys differ between the runs of a table, whatever they are."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fractal_ifs.results.columns import COLUMNS, is_measured
from fractal_ifs.results.protocol import keys_of_difference, protocol_value
from fractal_ifs.results.values import number_of
from fractal_ifs.runs import records

if TYPE_CHECKING:
    import pandas as pd

KEYS = tuple(name for name in records.KEYS if name != "fingerprint")  # the keys that have a column in every table
FOLLOW = ("eval_every", "batch_size", "init")  # often follow from others, as eval_every from the steps
DRAWN = ("lr", "seed")  # which may be others for each run, so that nothing follows from them


def with_inner_keys(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table with a column for each key of ``differs`` that has none yet, and the names of these.

    A run that doesn't say the key has the value of the paper's protocol.

    Args:
        runs: as ``results.rows.read_runs`` returns it.
    """
    lines: list[dict[str, Any]] = runs.to_dict("records")
    found = [keys_of_difference(line) for line in lines]
    every = dict.fromkeys(key for keys in found for key in keys)
    names = [name for name in every if name.removesuffix(".name") not in COLUMNS]  # model is the column of model.name
    columns = {
        name: [
            _value(keys[name] if name in keys else protocol_value(line, name))
            for keys, line in zip(found, lines, strict=True)
        ]
        for name in names
    }
    return runs.assign(**columns), names


def inner_keys(table: pd.DataFrame) -> list[str]:
    """The keys of groups that are columns of a table of runs, beside those that every table has."""
    return [str(name) for name in table if name not in COLUMNS and not is_measured(str(name))]


def measured(table: pd.DataFrame) -> list[str]:
    """The columns of a table of runs with what measures found after the last step, beside the test accuracy."""
    return [str(name) for name in table if is_measured(str(name)) or name == "final_train_acc"]


def varied(runs: pd.DataFrame, inner: Sequence[str]) -> list[str]:
    """The keys in which the runs differ.

    Of ``FOLLOW``, and of the keys of groups whose choices differ, those are left out that follow from the keys before
    them: the maps of a fractal follow from its name, unless two of one name differ.
    """
    text = runs.astype(object).where(runs.notna(), "").astype(str)
    return differing({name: text[name].tolist() for name in (*KEYS, *inner)}, inner)


def differing(values: Mapping[str, Sequence[str]], inner: Sequence[str]) -> list[str]:
    """``varied``, of the values of each key: a text for each run."""
    last = [name for name in (*FOLLOW, *inner) if name in values]
    names = [name for name in values if name not in last and len(set(values[name])) > 1]
    for name in last:
        before = [values[key] for key in names if key not in DRAWN]
        settings = list(zip(*before, strict=True)) if before else [()] * len(values[name])
        # A margin that goes with a width doesn't come from it. ``init`` is the column of ``model.init``.
        may_follow = name in FOLLOW or group_of(name) in names or name.rpartition(".")[2] in names
        if not follows(values[name], settings) if may_follow else len(set(values[name])) > 1:
            names.append(name)
    return names


def group_of(name: str) -> str:
    """The group of a key, whose choice may bring it: ``fractal.ratio`` comes with ``fractal``."""
    return name.partition(".")[0]


def follows(values: Sequence[Hashable], settings: Sequence[Hashable]) -> bool:
    """Whether all runs of one setting have one value of a key. Those that don't have the key, None, don't count."""
    found = {pair for pair in zip(settings, values, strict=True) if pair[1] is not None}
    return len(found) == len({setting for setting, _ in found})


def _value(text: str | None) -> Any:
    number = None if text is None else number_of(text)
    return text if number is None else number
