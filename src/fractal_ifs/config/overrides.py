"""What a command line may ask of Hydra, checked before Hydra reads it.

Hydra answers some bad values of its own keys with a traceback, or drops them and runs without what was asked. The keys
of a run are not checked here but where the config is parsed.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
import os
import re
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.conf import HydraConf
from hydra.core.override_parser.types import Glob, Override, QuotedString, RangeSweep

from fractal_ifs.config.command import own_places, parsed, split
from fractal_ifs.config.data import A_DIRECTORY
from fractal_ifs.config.keys import checked, shown
from fractal_ifs.config.machine import is_path, obstacle
from fractal_ifs.config.words import SEVERAL
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.files import CONF

MOST_JOBS = 10**7
MOST_NAMES = 10_000  # of one group that are looked at here
_SET_BY_HYDRA = ("hydra.runtime", "hydra.overrides", "hydra.job.override_dirname", "hydra.job.config_name")


def check_overrides(arguments: Sequence[str]) -> None:
    """Raises ConfigError for what Hydra can't read, and for bad values of its keys, groups and options."""
    options, words = split(arguments)
    for name, value in options:
        if name == "--config-dir" and not os.path.isdir(value):
            raise ConfigError(f"{name}={shown(value)}: must be a directory")
        if name == "--experimental-rerun" and not os.path.isfile(value):
            raise ConfigError(f"{name}={shown(value)}: must be the file config.pickle of a job")
        if name in ("--resolve", "--package") and "--cfg" not in dict(options):
            raise ConfigError(f"{name}: must stand beside --cfg")
    overrides = [_parsed(word) for word in words]
    folders = _folders(arguments)
    jobs: dict[str, int] = {}
    for override in overrides:
        key = override.key_or_group
        if override.is_delete():
            _check_deletion(override)
        elif key == "hydra" or key.startswith("hydra."):
            _check_hydra(override)
        elif _is_group(key):
            _check_choice(override, folders)
        elif key == "sweep" and not override.is_sweep_override():
            _check_place(key, override.value())
        jobs[key] = _count(override, folders)
    if (count := math.prod(jobs.values())) > MOST_JOBS:
        words = " ".join(short(override.input_line) for override in overrides if override.is_sweep_override())
        raise ConfigError(f"{words}: must be at most {MOST_JOBS} jobs, not {count}")


def unreadable(text: str) -> str:
    """What is wrong with an override that Hydra can't parse."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"(\+\+?|~)?[\w./@:$-]+", key):
        return f"{short(text)}: must be KEY=VALUE, as width=20"
    if value.startswith("~"):
        return f"{short(text)}: ~ can't stand here, write $HOME"
    if wrong := _bracket(value):
        return f"{short(text)}: can't be read; {wrong}"
    return f"{short(text)}: can't be read; a value with special characters needs two pairs of quotes: '{key}=\"...\"'"


def _bracket(value: str) -> str | None:
    """What is wrong with the brackets of a value, but for those within quotes."""
    open_ones: list[str] = []
    for letter in re.sub(r"""'(\\.|[^'\\])*'|"(\\.|[^"\\])*"|\\.""", "", value):
        if letter in "[{(":
            open_ones.append(letter)
        elif letter in "]})" and (not open_ones or "[{(".index(open_ones.pop()) != "]})".index(letter)):
            return f"{letter} closes no bracket"
    return f"the bracket {open_ones[-1]} is not closed" if open_ones else None


def _parsed(text: str) -> Override:
    if (override := parsed(text)) is None:
        raise ConfigError(unreadable(text))
    if not override.key_or_group:
        raise ConfigError(f"{short(text)}: must be KEY=VALUE, as width=20")
    return override


def _text(value: Any) -> Any:
    """A value as the config gets it: Hydra gives those of a sweep with their quotes."""
    return value.text if isinstance(value, QuotedString) else value


def _is_group(key: str) -> bool:
    return key.startswith("hydra/") or ("." not in key and (CONF / key).is_dir())


def _folders(arguments: Sequence[str]) -> list[Path] | None:
    """Where Hydra looks for the files of groups. None where that can't be told here, as in a Python package."""
    places = own_places(arguments)
    if wrong := [place for place in places if "://" not in place and not os.path.isdir(place)]:
        raise ConfigError(f"hydra.searchpath=[{short(wrong[0])}]: must be a list of directories that exist")
    return None if any("://" in place for place in places) else [CONF, *map(Path, places)]


def _names(group: str, folders: Sequence[Path]) -> list[str]:
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def _check_deletion(override: Override) -> None:
    value = override.value()
    if _is_group(override.key_or_group) and not (value is None or isinstance(value, str)):
        raise ConfigError(f"{short(override.input_line)}: must be ~{override.key_or_group} alone")


def _check_choice(override: Override, folders: Sequence[Path] | None) -> None:
    """Raises ConfigError unless a group is given the name of one of its files, or several in a sweep."""
    group, line = override.key_or_group, short(override.input_line)
    there = ", ".join(_names(group, folders or [CONF]))
    allowed = f"one of {there}" if there else "one name"
    if override.is_add() or override.is_force_add():
        raise ConfigError(f"{line}: must be without +, {group}=NAME")
    if override.is_sweep_override():
        if group.startswith("hydra/"):
            raise ConfigError(f"{line}: must be {allowed}: it is the same for all jobs of a sweep")
        _count(override, folders)  # first: a range may have any number of values
        values = override.sweep_iterator() if not isinstance(override.value(), Glob) else ()
    else:
        values = [override.value()]
    if group in SEVERAL:  # several, one after the other: [a,b]
        values = chain.from_iterable(value if isinstance(value, list) else [value] for value in values)
    for value in map(_text, islice(values, MOST_NAMES)):
        name = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if not name.strip() or "${" in name or name == "???" or len(name) > 200 or not name.isprintable():
            raise ConfigError(f"{group}={shown(value)}: must be {allowed}")
        if (
            group in ("protocol", *SEVERAL)  # the first is optional: Hydra says nothing; of several it says little
            and folders
            and not any((path / group / f"{name}.yaml").is_file() for path in folders)
        ):
            near = difflib.get_close_matches(name, _names(group, folders), 3, 0.5)
            raise ConfigError(
                f"{group}={shown(value)}: must be {allowed}" + (f"; did you mean {' or '.join(near)}?" if near else "")
            )


def _check_hydra(override: Override) -> None:
    """Raises ConfigError for a bad value of a key of Hydra's own."""
    key, value = override.key_or_group, override.value()
    if override.is_sweep_override():
        raise ConfigError(f"{short(override.input_line)}: must be one value: it is the same for all jobs of a sweep")
    if key.startswith(_SET_BY_HYDRA):
        raise ConfigError(f"{key}={shown(value)}: can't be set; hydra.run.dir and hydra.sweep.dir say where runs go")
    if key in ("hydra.launcher", "hydra.sweeper") and not isinstance(value, dict):
        raise ConfigError(f"{key}={shown(value)}: must be keys with values; {key.replace('.', '/')}=NAME chooses one")
    hint = _HINTS.get(key) or _declared(key)
    interpolated = isinstance(value, str) and "${" in value
    if hint is Any or (interpolated and hint is not Mapping[str, Any] and key != "hydra.mode"):
        return
    if value == "???":
        raise ConfigError(f"{key}=???: this key has no default, give it a value")
    if isinstance(value, int | float) and str in (hint, *get_args(hint)):  # hydra.run.dir=2024
        value = value if bool in get_args(hint) else str(value)
    checked(key, value, hint, {"empty": True})
    if key in _RULES:
        _RULES[key](key, value)


def _declared(key: str) -> Any:
    """The type that Hydra declares for a key of its own, Any where it has none. Raises ConfigError if there is none."""
    kind: Any = HydraConf
    for name in key.split(".")[1:]:
        if not dataclasses.is_dataclass(kind):
            return Any  # within a mapping
        hints = _hints(kind)
        if name not in hints:
            near = difflib.get_close_matches(name, hints, 1, 0.6)
            meant = key.replace(f".{name}", f".{near[0]}", 1) if near else ""
            raise ConfigError(f"{key}: there is no such key" + (f"; did you mean {meant}?" if meant else ""))
        kind = hints[name]
    return _translated(kind)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _translated(kind: Any) -> Any:
    """A type of Hydra's structured config as ``keys.checked`` takes it."""
    if dataclasses.is_dataclass(kind) or get_origin(kind) is dict:
        return Mapping[str, Any]
    if get_origin(kind) is list:
        return tuple[(get_args(kind)[0], ...)]  # pyright: ignore[reportInvalidTypeArguments]
    if get_origin(kind) in (Union, types.UnionType):
        return Union[tuple(None if each is type(None) else _translated(each) for each in get_args(kind))]  # noqa: UP007
    members: Any = kind
    return Literal[tuple(members.__members__)] if isinstance(kind, type) and issubclass(kind, Enum) else members


def _check_place(key: str, value: Any) -> None:
    if not (value is not None and is_path(str(value))) or value == "???":
        raise ConfigError(f"{key}={shown(value)}: must be the name of a directory")


def _check_directory(key: str, value: Any) -> None:
    text = str(value)
    if not is_path(text):
        raise ConfigError(f"{key}={shown(value)}: must be {A_DIRECTORY}")
    if reason := obstacle(Path(text)):
        raise ConfigError(f"{key}={shown(value)}: must be a directory that can be written, {reason}")


def _check_file_name(key: str, value: Any) -> None:
    if not is_path(str(value)) or "/" in str(value) or len(str(value)) > 100:
        raise ConfigError(f"{key}={shown(value)}: must be a file's name of 1 to 100 characters, without /")


def _check_subdirectory(key: str, value: Any) -> None:
    if value is not None:
        _check_place(key, value)


def _check_environment(key: str, value: Any) -> None:
    for name in value:
        if name not in os.environ:
            raise ConfigError(f"{key}={shown(value)}: {short(name)} is not set in the environment")


def _check_format(key: str, value: Any) -> None:
    try:
        logging.Formatter(value)
    except ValueError:
        raise ConfigError(f"{key}={shown(value)}: must be a format of Python's logging, as %(message)s") from None


def _check_batch(key: str, value: Any) -> None:
    checked(key, value, int | None, {"least": 1, "most": 10**9})


def _check_table(key: str, value: Any) -> None:
    if value is not None and not os.path.isfile(value):
        raise ConfigError(f"{key}={shown(value)}: must be the path of a CSV of finished runs")


_WHO = bool | str | tuple[str, ...]
# What Hydra leaves open, but not the code that reads it.
_HINTS: dict[str, Any] = {
    "hydra.verbose": _WHO,
    "hydra.callbacks.refuse": Mapping[str, Any],
    "hydra.job_logging.formatters": Mapping[str, Any],
    "hydra.job_logging.formatters.simple": Mapping[str, Any],
    "hydra.job_logging.formatters.simple.format": str,
    "hydra.sweeper.max_batch_size": int | None,
    "hydra.sweeper.params": Mapping[str, Any] | None,
    "hydra.sweeper.best_lr": str | None,
}
_RULES = {
    "hydra.run.dir": _check_directory,
    "hydra.sweep.dir": _check_directory,
    "hydra.sweep.subdir": _check_place,
    "hydra.output_subdir": _check_subdirectory,
    "hydra.job.name": _check_file_name,
    "hydra.job.env_copy": _check_environment,
    "hydra.job_logging.formatters.simple.format": _check_format,
    "hydra.sweeper.max_batch_size": _check_batch,
    "hydra.sweeper.best_lr": _check_table,
}


def _count(override: Override, folders: Sequence[Path] | None) -> int:
    """How many jobs an override makes of one. Raises ConfigError for none, or a range without an end."""
    if not override.is_sweep_override():
        return 1
    value, line = override.value(), short(override.input_line)
    if isinstance(value, Glob):
        count = len(value.filter(_names(override.key_or_group, folders))) if folders else 1
    elif isinstance(value, RangeSweep):
        try:
            bounds = [float(each or 0) for each in (value.start, value.stop, value.step)]
        except OverflowError:
            bounds = [math.inf]
        if not (all(map(math.isfinite, bounds)) and bounds[-1]):
            raise ConfigError(f"{line}: must be range(START,STOP,STEP) of finite numbers, STEP not 0")
        start, stop, step = bounds
        jobs = (stop - start) / step
        if jobs > MOST_JOBS:
            raise ConfigError(f"{line}: must be at most {MOST_JOBS} jobs, not {jobs:.10g}")
        count = max(0, math.ceil(jobs))
    elif override.is_interval_sweep():  # for sweepers that draw from it; the grid refuses it itself
        return 1
    else:
        count = sum(1 for _ in override.sweep_iterator())
    if not count:
        raise ConfigError(no_jobs(line))
    return count


def no_jobs(line: str) -> str:
    """Why a sweep over no value is refused."""
    hint = "; quote a pattern: glob('[1-4]')" if "glob([" in line else ""
    return f"{line}: matches no value, so the sweep has no jobs{hint}"
