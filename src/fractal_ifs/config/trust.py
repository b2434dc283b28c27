"""What files of a user's own may ask for, checked before Hydra makes anything of them.

A directory of fractals or curves may come from anywhere: its files are data, and set their own group alone. Experiments
and whole configs are as powerful as a command line. Even they can't make Hydra or Python's logging call anything but
callbacks, launchers, sweepers, handlers, formatters and filters.
"""

import logging
import os
import re
from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fractal_ifs.config.command import composed_folders, own_folders, own_places, split
from fractal_ifs.config.leaves import leaves
from fractal_ifs.config.own_files import load
from fractal_ifs.config.run import GROUPS, NAMED, placement
from fractal_ifs.config.session import VERSION_BASE
from fractal_ifs.config.words import SEVERAL
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.files import CONF

GLOBAL = ("budget", "protocol")  # groups whose files set a run's own keys
SAMPLERS = ("optuna", "ax", "nevergrad")  # the packages of the sweepers that have parts of their own
MOST_FOLDERS = 10_000  # below a group

_PLACE = re.compile(r"(dir|path|root|file|filename|location|\.name|\.version)$")  # keys that may be parts of a path
_CALLED = re.compile(r"hydra\.(callbacks|launcher|sweeper|job_logging|hydra_logging)\b")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")


def check_trust(config_name: str, arguments: Sequence[str]) -> None:
    """Check the files of a user's own that a command leads to.

    Args:
        config_name: of the command, conf/NAME.yaml.
        arguments: of the command, with the long names of options.

    Raises ConfigError, and what Hydra raises where it can't compose the config.
    """
    options, words = split(arguments)
    given = dict(options)  # of several, Hydra takes the last
    base = given.get("--config-path", str(CONF))
    if not (given.keys() & {"--config-path", "--config-name"} or own_places(arguments)):
        return
    if not os.path.isabs(base):  # Hydra would look for it within this package
        raise ConfigError(f"--config-path={short(base)}: must be the absolute path of a directory")
    for folder in own_folders(arguments):  # at once, for files that Hydra would answer with a riddle
        check_groups(folder)
    with initialize_config_dir(base, **VERSION_BASE):
        loader: Any = GlobalHydra.instance().config_loader()
        path = loader.get_search_path()
        if "--config-dir" in given:
            path.prepend("command-line", given["--config-dir"], "schema")  # which must stay the last
        name = given.get("--config-name", config_name)
        configs = [
            type(loader)(path).load_configuration(name, each, RunMode.MULTIRUN, False, False)
            for each in _experiments_apart(words)
        ]
    folders = {folder.resolve() for config in configs for folder in composed_folders(config)} - {CONF.resolve()}
    for folder in sorted(folders):
        check_groups(folder)
    for config in configs:
        check_calls(config, folders)


def _experiments_apart(words: list[str]) -> Iterator[list[str]]:
    """The words of a command, with each experiment alone where it sweeps several: Hydra composes each for its jobs."""
    for word, override in zip(words, OverridesParser.create().parse_overrides(words), strict=True):
        if override.key_or_group == "experiment" and override.is_sweep_override():
            others = [other for other in words if other != word]
            for name in override.sweep_string_iterator():
                yield [*others, f"experiment={name}"]
            return
    yield words


def check_groups(folder: Path) -> None:
    """Raises ConfigError for a file of a group, below a directory, that sets more than the group."""
    for group in (*GROUPS, *GLOBAL):
        for path in _files(folder / group):
            try:
                text, content = load(path)
            except ConfigError:  # Hydra might read it
                raise
            except Exception:  # nobody can: it is told where it is chosen
                continue
            if isinstance(content, DictConfig) and (more := _more_than(group, text, content)):
                raise ConfigError(f"{path}: {more}: a file of {group}/ may set {group} alone")
            if group in SEVERAL and isinstance(content, DictConfig) and (place := _elsewhere(content)):
                raise ConfigError(
                    f"{path}: {place}: a file of {group}/ may name a place in the run's directory alone; "
                    "another is given on the command line"
                )


def _elsewhere(content: DictConfig) -> str | None:
    """What of a callback or logger could be written outside the run's directory; a reference could lead anywhere."""
    for key, value in leaves(cast(dict[str, Any], OmegaConf.to_container(content))).items():
        if not isinstance(value, str) or "." not in key or not _PLACE.search(key):
            continue
        if "${" in value or value[:1] in ("/", "~") or ".." in Path(value).parts:
            return f"{key}={short(value)}"
    return None


def _files(folder: Path) -> Iterator[Path]:
    """The files below a directory that Hydra can read, also through links to directories; of each directory once."""
    seen = set[tuple[int, int]]()
    for place, folders, names in os.walk(folder, followlinks=True):
        found = os.stat(place)
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        if len(seen) > MOST_FOLDERS:
            raise ConfigError(f"{folder}: must have at most {MOST_FOLDERS} directories in it, with those linked to")
        folders.sort()
        yield from (Path(place, name) for name in sorted(names) if name.endswith(".yaml"))


def _more_than(group: str, text: str, content: DictConfig) -> str | None:
    """What a file of a group sets or chooses besides the group; of ``GLOBAL``, besides what can change a result."""
    headers = [re.match(r"[\s#]*@\s*package\b(.*)", line) for line in text.splitlines()]  # lines as Hydra sees them
    packages = [header[1].strip() for header in headers if header]
    plain = cast(dict[str, Any], OmegaConf.to_container(content))
    if group in GLOBAL and packages == ["_global_"]:
        for key in leaves({name: value for name, value in plain.items() if name != "defaults"}):
            first, last = key.split(".")[0], key.split(".")[-1]
            calls = first in ("hydra", "callbacks", "logger") or last == "_target_"
            if calls or key in placement() or (key in GROUPS and key not in NAMED):
                return key
    elif wrong := [package for package in packages if package != group]:
        return f"# @package {wrong[0]}"
    defaults: Any = plain.get("defaults")
    for item in cast(list[Any], defaults) if isinstance(defaults, list) else ():  # Hydra takes nothing else
        pairs = cast(dict[Any, Any], item).items() if isinstance(item, dict) else ((item, None),)
        for chosen, value in pairs:
            values = cast(list[Any], value) if isinstance(value, list) else [value]
            if not re.fullmatch(r"(optional )?[\w-]+", str(chosen)):
                return f"defaults: {short(chosen)}"
            if wrong := [each for each in values if not re.fullmatch(r"[\w-]+(/[\w-]+)*", str(each))]:
                return f"defaults: {short(chosen)}: {short(wrong[0])}"
    return None


def check_calls(config: DictConfig, folders: Collection[Path]) -> None:
    """Raises ConfigError where a composed config would make Hydra or logging call anything else than it should.

    Nor may what is called lie in ``folders``, the user's own.
    """
    for key, text in _texts(OmegaConf.to_container(config), ""):
        if found := re.search(r"oc\.(decode|create)|\$\{[^:{}]*\$\{", text):  # a text may become anything
            raise ConfigError(f"{key}: {found[0]} can't stand in files of your own")
    kinds: list[tuple[str, tuple[type, ...]]] = [
        (r"hydra\.callbacks\.[^.]+\._target_", (Callback,)),
        (r"hydra\.launcher\._target_", (Launcher,)),
        (r"hydra\.sweeper\._target_", (Sweeper,)),
        (r"hydra\.(job|hydra)_logging\.\w+\.[^.]+\.(class|\(\))", (logging.Handler, logging.Formatter, logging.Filter)),
    ]
    for key, target in _targets(config.hydra, "hydra"):
        allowed = next((kind for pattern, kind in kinds if re.fullmatch(pattern, key)), None)
        found = _located(str(target), folders)
        if allowed and isinstance(found, type) and issubclass(found, allowed):
            continue
        of_a_sampler = isinstance(found, type) and found.__module__.partition(".")[0] in SAMPLERS
        if key.startswith("hydra.sweeper.") and not allowed and of_a_sampler:
            continue
        names = " or ".join(f"{kind.__module__}.{kind.__name__}" for kind in allowed or ())
        raise ConfigError(f"{key}={short(target)}: must be {f'a class of {names}' if names else 'left out'}")


def _texts(node: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """All texts of plain values, by the full names of their keys."""
    if isinstance(node, str):
        yield prefix, node
    elif isinstance(node, dict | list):
        values: Any = cast(Any, node)
        pairs: Any = values.items() if isinstance(node, dict) else enumerate(values)
        for key, value in pairs:
            yield from _texts(value, f"{prefix}.{key}".lstrip("."))


def _targets(node: Any, prefix: str) -> Iterator[tuple[str, object]]:
    """Every key that names what is to be called, with its value. What a key refers to is looked at too.

    Raises ConfigError for what can't be looked at now, and might name something later.
    """
    is_list = isinstance(node, list | ListConfig)
    values: Any = node
    for key in range(len(values)) if is_list else list(values):
        full = f"{prefix}.{key}"
        try:
            value: Any = values[key]
        except OmegaConfBaseException:
            plain: Any = OmegaConf.to_container(values)
            value = plain[key]
            if _CALLED.match(full) and not re.fullmatch(r"([^$]|\$\{hydra[.:][\w.]+\})*", str(value)):
                raise ConfigError(f"{full}={short(value)}: can't be resolved before the command begins") from None
            value = None
        if isinstance(value, dict | list | DictConfig | ListConfig):
            yield from _targets(value, full)
        elif key in ("_target_", "()") or (key in ("class", "queue", "listener") and "_logging." in full):
            is_reference = isinstance(values, DictConfig) and OmegaConf.is_interpolation(values, key)
            yield full, "${...}" if is_reference else value  # what it refers to may change
        elif value and (full == "hydra.sweeper.custom_search_space" or _is_reference(full, value)):
            yield full, value


def _is_reference(key: str, value: object) -> bool:
    """Whether logging would import a value, other than the standard streams."""
    return "_logging." in key and str(value).startswith("ext://") and value not in _STREAMS


def _located(target: str, folders: Collection[Path]) -> object:
    """The class or function of a dotted name outside of some directories, None if there is no such."""
    module, _, name = target.rpartition(".")
    parts = module.split(".")
    try:
        for number in range(1, len(parts) + 1):  # a package is looked at before it is imported for what is in it
            spec = find_spec(".".join(parts[:number]))
            places = (spec.origin, *(spec.submodule_search_locations or ())) if spec else ()
            own = [Path(place).resolve() for place in places if place and os.path.isabs(place)]
            if any(place.is_relative_to(folder) for place in own for folder in folders):
                return None
        return getattr(import_module(module), name, None)
    except (Exception, SystemExit):  # a module may raise anything as it is imported
        return None
