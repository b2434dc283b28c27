"""How the words of a command are read where Hydra's grammar refuses what a user means.

``curve=1`` chooses conf/curve/1.yaml, ``steps=1e5`` is 100000, and ``sweep=1e5`` and ``sweep=größe`` are text.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import get_origin, get_type_hints

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException

from fractal_ifs.config.command import own_folders
from fractal_ifs.config.lightning import trainer_flags
from fractal_ifs.config.run import GROUPS, KINDS, RunConfig
from fractal_ifs.errors import ConfigError, Refused, short
from fractal_ifs.files import CONF, read_yaml

Parse = Callable[[OverridesParser, list[str]], list[Override]]

CHOICES = (*GROUPS, "budget", "protocol", "experiment")  # a choice of a file
SEVERAL = ("callbacks", "logger")  # groups of which a run may have several, [a,b]
_HINTS = {f"{kind.PREFIX}{name}": hint for kind in KINDS for name, hint in get_type_hints(kind).items()}
COUNTS = tuple(key for key, hint in _HINTS.items() if hint is int)
# Keys that are lists, and how deep. Loggers are too, since runs that differ in these alone are the same. Callbacks may
# be swept.
LISTS = {key: 1 for key, hint in _HINTS.items() if get_origin(hint) is tuple} | {
    **{"curve.weights": 1, "curve.mass": 1, "curve.P": 1, "logger": 1},
    **{"fractal.offsets": 2, "fractal.base": 2, "fractal.maps": 1},  # of mappings
}
TEXTS = (
    *(field.name for field in fields(RunConfig) if _HINTS[field.name] is str),
    *("data.dir", "data.url", "logger.project", "logger.entity", "logger.group", "logger.notes"),
    *("run", "out"),  # of plot: directories as the shell completes them
)


def read(parse: Parse, parser: OverridesParser, words: Sequence[str]) -> list[Override]:
    """The overrides of some words, by Hydra's own ``parse``. They keep the words as they were typed.

    A key of a group whose choices are swept, by a word or by an experiment's grid, is a sweep of one value: a sweep's
    own config, which is of none of its jobs, may have another choice, without the key.

    Raises ConfigError where a choice of a file isn't a name, and HydraException as Hydra does.
    """
    found = [_read(parse, parser, word) for word in words]
    if not any(map(_group, found)):
        return found
    chosen = {each.key_or_group: each.is_sweep_override() for each in found if each.key_or_group in CHOICES}
    swept = {group for group, several in chosen.items() if several} | (_of_experiments(found, words) - chosen.keys())
    return [_swept(parse, parser, each) if _group(each) in swept else each for each in found]


def _of_experiments(overrides: Sequence[Override], words: Sequence[str]) -> set[str]:
    """The keys in the grids of the experiments that some words name."""
    keys = set[str]()
    for override in overrides:
        if override.key_or_group != "experiment" or override.is_sweep_override() or override.is_delete():
            continue
        value = override.value()
        for name in value if isinstance(value, list) else [value]:
            for folder in (CONF, *own_folders(words)):
                path = folder / "experiment" / f"{name}.yaml"
                if re.fullmatch(r"[\w.+-]+", str(name)) and path.is_file():
                    keys |= _grid_of(path)
    return keys


def _grid_of(path: Path) -> set[str]:
    """The keys of the grid in an experiment's file. None of one that can't be read, which Hydra tells."""
    try:
        return {str(key) for key in yaml.safe_load(read_yaml(path))["hydra"]["sweeper"]["params"]}
    except (OSError, Refused, ValueError, LookupError, TypeError, yaml.YAMLError):
        return set()


def _group(override: Override) -> str:
    """The group of a plain key, ``optimizer`` of ``optimizer.momentum=.9``. Empty for any other word."""
    plain = override.type == OverrideType.CHANGE and not override.package and not override.is_sweep_override()
    group, dot, _ = override.key_or_group.partition(".")
    return group if plain and dot else ""


def _swept(parse: Parse, parser: OverridesParser, override: Override) -> Override:
    key, value = override.get_key_element(), override.get_value_element_as_str()
    return _with(parse, parser, f"{key}=choice({value})", str(override.input_line))


def _is_flag(key: str) -> bool:
    """Whether a key is a flag of Lightning's Trainer besides the keys of conf/trainer."""
    group, _, name = key.partition(".")
    return group == "trainer" and key not in _HINTS and name.split(".")[0] in (*trainer_flags(), "ckpt_path")


def as_typed(key: str, text: str) -> str:
    """A value of a sweep, ``text``, as it stands in a job's words: of a whole number its digits alone."""
    if key not in COUNTS:
        return text
    return str(int(float(text))) if text.endswith(".0") else str(int(text)) if text.isdecimal() else text


def _read(parse: Parse, parser: OverridesParser, word: str) -> Override:
    key, _, text = word.partition("=")
    try:
        [override] = parse(parser, [word])
    except HydraException:
        if key.lstrip("+") not in TEXTS or not text or text[0] in "~'\"":
            raise
        return _quoted(parse, parser, key, text)
    key, value = override.key_or_group, override.value()
    if not key:
        raise ConfigError(f"{short(word)}: must be KEY=VALUE")
    if key in CHOICES:
        if type(value) is int:
            return _quoted(parse, parser, override.get_key_element(), str(value), word)
        if key in SEVERAL and isinstance(value, list):
            return override
        if not override.is_delete() and (value is None or isinstance(value, (bool, float, list, dict))):
            several = f"; a sweep takes several, {key}=NAME,NAME" if isinstance(value, list) else ""
            raise ConfigError(f"{short(word)}: must be one name; without {key}=NAME its default holds{several}")
        if isinstance(value, str) and ".." in value.split("/"):  # files of other places are not those of a group
            raise ConfigError(f"{short(word)}: must be the name of a file of {key}/")
    elif override.type == OverrideType.CHANGE and _is_flag(key):
        return _with(parse, parser, f"++{word}", word)  # conf/ doesn't have it
    elif key in COUNTS and isinstance(value, float) and value.is_integer():
        return _with(parse, parser, f"{override.get_key_element()}={int(value)}", word)
    elif key in TEXTS and isinstance(value, (bool, int, float)):
        return _quoted(parse, parser, override.get_key_element(), text, word)
    return override


def quoted(text: str) -> str:
    """Text as Hydra's grammar takes it, whatever is in it. Backslashes count before a quote and at the end alone."""
    return "'" + re.sub(r"(\\+)(?='|$)", r"\1\1", text).replace("'", "\\'") + "'"


def _quoted(parse: Parse, parser: OverridesParser, key: str, text: str, word: str | None = None) -> Override:
    """The override ``key=text`` whose value is text, whatever Hydra would make of it."""
    return _with(parse, parser, f"{key}={quoted(text)}", word or f"{key}={text}")


def _with(parse: Parse, parser: OverridesParser, read_as: str, word: str) -> Override:
    """The override that ``read_as`` gives, with the word that the user typed in its place."""
    [override] = parse(parser, [read_as])
    override.input_line = word
    return override
