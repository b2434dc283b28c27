"""What is wrong in YAML files of a user's own, told with the file: Hydra often doesn't say in which one it is."""

import io
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.core.override_parser.types import Glob, Override, QuotedString
from omegaconf import DictConfig, OmegaConf

from fractal_ifs.config.command import own_folders, parsed, split
from fractal_ifs.errors import ConfigError, reason, short
from fractal_ifs.files import CONF, read_yaml

MOST_VALUES = 10_000  # of a sweep over a group's files: more of them than this are not looked at


def load(path: Path) -> tuple[str, Any]:
    """The text of a file of a user's own, and what OmegaConf makes of it.

    Raises as ``files.read_yaml`` does, and whatever YAML's or OmegaConf's own code raises for odd content.
    """
    text = read_yaml(path)
    return text, OmegaConf.load(io.StringIO(text))


def fault(words: Sequence[str], folders: Iterable[Path]) -> str | None:
    """The first file in some directories that a command's words lead to and Hydra can't use, and why, in one line.

    Those that are chosen are looked at first, then those in their lists of defaults.

    Args:
        words: with options in their long form.
    """
    folders = [folder for folder in folders if folder != CONF]
    files = list(_chosen(words, folders)) if folders else []
    for group, name in files:  # which grows
        if os.path.isfile(CONF / group / f"{name}.yaml"):  # the package's own come first
            continue
        for path in (folder / group / f"{name}.yaml" for folder in folders):
            if os.path.isfile(path):
                told, defaults = _looked_at(path)
                if told:
                    return told
                files += [each for item in defaults for each in _named(item, group) if each not in files]
    return None


def check_whole(words: Sequence[str]) -> None:
    """Raises ConfigError where ``--config-name`` is a file that can't be read, or lacks all keys but its own.

    Also where it isn't the one that Hydra would find: of two of one name that is the package's.
    """
    check_seen(words)
    options = split(words)[0]
    for name, value in ((name, value.removesuffix(".yaml")) for name, value in options):
        own = [path for folder in own_folders(words) if (path := folder / f"{value}.yaml").is_file()]
        hidden = own and (CONF / f"{value}.yaml").is_file() and "--config-path" not in dict(options)
        if name == "--config-name" and hidden:
            raise ConfigError(f"--config-name={value}: the package has one of that name, which wins; rename {own[0]}")
        files = [folder / f"{value}.yaml" for folder in (CONF, *own_folders(words))]
        path = next((path for path in files if name == "--config-name" and path.is_file()), None)
        if path and path.parent != CONF:
            told, defaults = _looked_at(path)
            if told or not defaults:
                told = told or f"{path}: must begin with defaults: [config, _self_], for theory with [theory, _self_]"
                raise ConfigError(told)


def check_seen(words: Sequence[str]) -> None:
    """Raises ConfigError for a choice that the package has too: Hydra would take that one, not the user's."""
    folders = [folder for folder in own_folders(words) if folder.resolve() != CONF.resolve()]
    for group, name in _chosen(words, folders) if folders else ():
        own = [path for folder in folders if (path := folder / group / f"{name}.yaml").is_file()]
        if own and group and (CONF / group / f"{name}.yaml").is_file():
            raise ConfigError(f"{group}={short(name)}: the package has one of that name, which wins; rename {own[0]}")


def _chosen(words: Sequence[str], folders: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """The files that words choose, each as its group and its name; the group of a whole config is ""."""
    options, overrides = split(words)
    yield from (("", value) for name, value in options if name == "--config-name")
    data = ["fractal"]  # the default
    for word in overrides:
        try:
            override = parsed(word)
        except ConfigError:  # told by itself
            continue
        if override and not override.is_delete():
            group = override.key_or_group
            if any(os.path.isdir(folder / group) for folder in folders):
                yield from ((group, name) for name in _names(override, folders))
            if group == "data":
                data = _names(override, folders)
    yield from (("protocol", name) for name in data)  # as conf/config.yaml has it: protocol: ${data}


def _names(override: Override, folders: Sequence[Path]) -> list[str]:
    value: Any = override.value()
    if isinstance(value, Glob):
        return value.filter(
            [path.stem for folder in folders for path in (folder / override.key_or_group).glob("*.yaml")]
        )
    if override.is_discrete_sweep():
        value = list(itertools.islice(override.sweep_iterator(), MOST_VALUES))
    values = cast(list[Any], value) if isinstance(value, list) else [value]
    return [each.text if isinstance(each, QuotedString) else str(each) for each in values]


def _named(item: Any, group: str) -> Iterator[tuple[str, str]]:
    """The files that an entry of a group's list of defaults names, as ``sub/NAME`` or ``override /GROUP: NAME``."""
    for key, value in cast(dict[str, Any], item).items() if isinstance(item, dict) else ((item, None),):
        place = str(key).split()[-1].partition("@")[0] if str(key).strip() else ""
        place = place.removeprefix("/") if place.startswith("/") or not group else f"{group}/{place}"
        if isinstance(item, dict):
            yield from ((place, str(each)) for each in (cast(list[Any], value) if isinstance(value, list) else [value]))
        else:
            yield place.rpartition("/")[0], place.rpartition("/")[2]


def _looked_at(path: Path) -> tuple[str | None, list[Any]]:
    """What is wrong with a file, None where nothing is; and its list of defaults."""
    try:
        text, content = load(path)
    except ConfigError as error:
        return str(error), []
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return f"{path}{line}: is not YAML ({short(error.problem, 200)})", []
    except (yaml.YAMLError, UnicodeDecodeError):
        return f"{path}: is not YAML, which is text in UTF-8", []
    except Exception as error:  # PyYAML raises anything where a tag, as !!int, stands before something else
        return f"{path}: can't be read ({reason(error)})", []
    if not isinstance(content, DictConfig):
        return f"{path}: must be keys with values", []
    if path.parent.name == "experiment" and not re.search(r"^#\s*@package\s+_global_\s*$", text, re.MULTILINE):
        return f"{path}: must begin with the line # @package _global_", []
    defaults: Any = cast(dict[str, Any], OmegaConf.to_container(content)).get("defaults", [])
    if not isinstance(defaults, list):
        return f"{path}: defaults must be a list", []
    for item in cast(list[Any], defaults):
        chosen = cast(dict[Any, Any], item) if isinstance(item, dict) else {item: None}
        for group, value in chosen.items():
            values = cast(list[Any], value) if isinstance(value, list) else [value]
            for each in (group, *values):
                if not (each is None or isinstance(each, str)):
                    told = f"{short(group)}: {short(each)} must be quoted in a list of defaults, '{short(each)}'"
                    return f"{path}: {told}", []
    return None, cast(list[Any], defaults)
