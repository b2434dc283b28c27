"""What files of a user's own may ask for, checked before Hydra makes anything of them.

A directory of fractals or curves may come from anywhere: its files are data, and set their own group alone. Experiments
and whole configs are as powerful as a command line. Even they can't make Hydra or Python's logging call anything but
callbacks, launchers, sweepers, handlers, formatters and filters.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fractal_ifs.config.own_folders import own_folders
from fractal_ifs.config.run import GROUPS, placement
from fractal_ifs.config.session import VERSION_BASE
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.files import CONF

GLOBAL = ("budget", "protocol")  # groups whose files set a run's own keys
SAMPLERS = ("optuna", "ax", "nevergrad")  # the packages of the sweepers that have parts of their own


def check_trust(config_name: str, arguments: Sequence[str]) -> None:
    """Check the files of a user's own that a command leads to.

    Args:
        config_name: of the command, conf/NAME.yaml.
        arguments: of the command, with the long names of options.

    Raises ConfigError, and what Hydra raises where it can't compose the config.
    """
    options = [word for word in arguments if word.startswith("--config-")]
    words = [word for word in arguments if not word.startswith("-")]
    if not options and not any("searchpath" in word for word in words):
        return
    for folder in own_folders(arguments):  # at once, for files that Hydra would answer with a riddle
        check_groups(folder)
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        loader: Any = GlobalHydra.instance().config_loader()
        path = loader.get_search_path()
        for option in options:
            name, _, value = option.partition("=")
            if name == "--config-dir":
                path.prepend("command-line", value, "schema")  # which must stay the last
            elif name == "--config-name":
                config_name = value
        config = type(loader)(path).load_configuration(config_name, words, RunMode.MULTIRUN, False, False)
    for source in config.hydra.runtime.config_sources:
        if source.schema == "file" and Path(source.path) != CONF:
            check_groups(Path(source.path))
    check_calls(config)


def check_groups(folder: Path) -> None:
    """Raises ConfigError for a file of a group, below a directory, that sets more than the group."""
    for group in (*GROUPS, *GLOBAL):
        for path in sorted((folder / group).glob("**/*.yaml")):
            try:
                text, content = path.read_text("utf-8"), OmegaConf.load(path)
            except (OSError, ValueError, YAMLError, OmegaConfBaseException):
                continue  # told where it is chosen
            if isinstance(content, DictConfig) and (more := _more_than(group, text, content)):
                raise ConfigError(f"{path}: {more}: a file of {group}/ may set {group} alone")


def _more_than(group: str, text: str, content: DictConfig) -> str | None:
    """What a file of a group sets or chooses besides the group; of ``GLOBAL``, besides what can change a result."""
    packages = [line.strip() for line in re.findall(r"^[\s#]*@\s*package\b(.*)$", text, re.MULTILINE)]
    if group in GLOBAL and packages == ["_global_"]:
        if wrong := [key for key in map(str, content) if key == "hydra" or key in placement()]:
            return wrong[0]
    elif wrong := [package for package in packages if package != group]:
        return f"# @package {wrong[0]}"
    plain = cast(dict[str, Any], OmegaConf.to_container(content))
    for item in plain.get("defaults") or ():
        for chosen in cast(dict[Any, Any], item) if isinstance(item, dict) else (item,):
            if not re.fullmatch(r"(optional )?[\w-]+", str(chosen)):
                return f"defaults: {short(chosen)}"
    return None


def check_calls(config: DictConfig) -> None:
    """Raises ConfigError where a composed config would make Hydra or logging call anything else than it should."""
    kinds: list[tuple[str, tuple[type, ...]]] = [
        (r"hydra\.callbacks\.[^.]+\._target_", (Callback,)),
        (r"hydra\.launcher\._target_", (Launcher,)),
        (r"hydra\.sweeper\._target_", (Sweeper,)),
        (r"hydra\.(job|hydra)_logging\.\w+\.[^.]+\.(class|\(\))", (logging.Handler, logging.Formatter, logging.Filter)),
    ]
    for key, target in _targets(config.hydra, "hydra"):
        allowed = next((kind for pattern, kind in kinds if re.fullmatch(pattern, key)), None)
        found = _located(target)
        if allowed and isinstance(found, type) and issubclass(found, allowed):
            continue
        of_a_sampler = isinstance(found, type) and found.__module__.partition(".")[0] in SAMPLERS
        if key.startswith("hydra.sweeper.") and not allowed and of_a_sampler:
            continue
        names = " or ".join(f"{kind.__module__}.{kind.__name__}" for kind in allowed or ())
        raise ConfigError(f"{key}={short(target)}: must be {f'a class of {names}' if names else 'left out'}")


def _targets(node: Any, prefix: str) -> Iterator[tuple[str, object]]:
    """Every key that names what is to be called, with its value. What a key refers to is looked at too."""
    is_list = isinstance(node, list | ListConfig)
    values: Any = node
    for key in range(len(values)) if is_list else list(values):
        full = f"{prefix}.{key}"
        try:
            value: Any = values[key]
        except OmegaConfBaseException:  # Hydra can't use it either
            value = None
        if isinstance(value, dict | list | DictConfig | ListConfig):
            yield from _targets(value, full)
        elif key in ("_target_", "()") or (key == "class" and "_logging." in full):
            yield full, value


def _located(target: object) -> object:
    """The class or function of a dotted name, None if there is no such."""
    module, _, name = str(target).rpartition(".")
    try:
        return getattr(import_module(module), name, None)
    except (ImportError, ValueError):
        return None
