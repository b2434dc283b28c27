"""How Hydra composes a config from conf/, and how the typed ``RunConfig`` is made from it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf

from fractal_ifs.config.command import composed_folders, own_folders
from fractal_ifs.config.data import FractalData
from fractal_ifs.config.fractal import check_drawn
from fractal_ifs.config.interval import Interval
from fractal_ifs.config.lightning import check_packages
from fractal_ifs.config.machine import check_gpus, check_memory
from fractal_ifs.config.messages import one_line
from fractal_ifs.config.own_class import check_named
from fractal_ifs.config.own_files import check_seen
from fractal_ifs.config.run import GROUPS, NAMED, RunConfig
from fractal_ifs.config.session import VERSION_BASE, borrowed
from fractal_ifs.config.trust import check_groups
from fractal_ifs.config.words import quoted
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.files import CONF


def compose(**keywords: Any) -> RunConfig:
    """The checked config of some keywords, as on the command line: ``compose(fractal="vicsek", curve=4, width=20)``.

    Write a key with a dot as ``**{"fractal.depth": 6}`` or with two underscores, ``fractal__depth=6``.
    Choices of one's own are found with ``hydra__searchpath=["mine"]``. Raises ConfigError.
    """
    named = {key.replace("__", "."): value for key, value in keywords.items()}
    for key, value in named.items():
        if isinstance(value, str) and value.startswith("~"):
            raise ConfigError(f"{key}={value}: ~ can't stand here, write $HOME")
        check_choice(key, value)
    overrides = [f"{key}={literal(value)}" for key, value in named.items()]
    with borrowed(), initialize_config_dir(str(CONF), **VERSION_BASE):
        try:
            check_own(overrides)
            config = hydra_compose("config", overrides=overrides, return_hydra_config=True)
            if swept := [key for key in OmegaConf.select(config, "hydra.sweeper.params") or () if key not in named]:
                raise ConfigError(
                    f"experiment={named.get('experiment')}: is a sweep over {', '.join(swept)}: give each a value here"
                )
            values, folders = resolved(config), composed_folders(config)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(one_line(error, overrides).replace("add -m", "call sweep")) from None
    return accepted(values, folders=folders)


def check_choice(key: str, value: Any) -> None:
    """Raises ConfigError for a choice of a group that is no name, as a class, a mapping or a path of Python's."""
    several = cast(Sequence[Any], value) if isinstance(value, (list, tuple)) else [value]
    for each in several if key in GROUPS else ():
        if isinstance(each, (list, tuple)):
            check_choice(key, each)
        elif not (each is None or isinstance(each, (str, Real, range, Interval)) or hasattr(each, "tolist")) or (
            re.search(r"/.*\.ya?ml$", str(each))
        ):
            raise ConfigError(
                f"{key}={short(each)}: must be a name; one of your own is a file DIR/{key}/NAME.yaml, found with "
                'hydra__searchpath=["DIR"]'
            )


def check_own(words: Sequence[str], sweeper: bool = False) -> None:
    """Raises ConfigError for keys of Hydra's, where it only composes, and for files that set more than their group.

    ``sweeper``: those of a sweeper are allowed.
    """
    there = r"searchpath$|sweeper$|sweeper[./]" if sweeper else r"searchpath$"
    for key in (word.partition("=")[0] for word in words):
        if re.match(rf"\W*hydra[./](?!{there})", key):
            known = "hydra.searchpath and hydra.sweeper" if sweeper else "hydra.searchpath alone"
            raise ConfigError(f"{short(key)}: there is no such key here; of hydra's there is {known}")
    for folder in own_folders(words):
        check_groups(folder)
    check_seen(words)


def parse(config: DictConfig, here: bool = True) -> RunConfig:
    """The typed config of a composed one. Arguments and errors are those of ``accepted``."""
    folders = composed_folders(config) if "hydra" in config else ()
    return accepted(resolved(config), here, folders)


def accepted(values: Mapping[str, Any], here: bool = True, folders: Iterable[Path] = ()) -> RunConfig:
    """The typed config of plain values.

    ``here`` says that this machine will train the run, so it must have the GPUs that the run needs. ``folders`` are
    those that the values come from, whose files may not bring code (``own_class``).
    Raises ConfigError for a bad value. The message names the key, the value and what is allowed.
    """
    config = RunConfig.parse(values)
    if isinstance(config.data, FractalData):
        check_drawn(config.fractal, config.data.margin)
    for key, value in (config.leaves() if config.targets else {}).items():
        if key.startswith(("model.", "loss.")) and isinstance(value, str) and not value.isprintable():
            raise ConfigError(f"{key}={short(value)}: must be text that can be printed on one line")
    for key, target in config.targets.items():
        check_named(key, target, set(folders) - {CONF})
    check_packages(config.targets)
    check_memory(config)
    if here and config.trainer.accelerator == "gpu":
        check_gpus(config.trainer.devices)
    return config


def resolved(config: DictConfig) -> dict[str, Any]:
    """A composed config's own keys as plain values, without ``hydra``. Raises ConfigError if a value is missing."""
    values: dict[str, Any] = {}
    for name in config:
        key = str(name)
        if key != "hydra":
            value = MISSING if OmegaConf.is_missing(config, key) else config[key]
            values[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            if key in NAMED and isinstance(values[key], str):  # a file says ``optimizer: sgd`` in place of the choice
                values[key] = _chosen(config, key) or values[key]
    if (missing := _missing(values)) in GROUPS:
        raise ConfigError(f"~{missing}: every run needs one; {missing}=NAME chooses another")
    if missing:
        raise ConfigError(f"{missing}=???: this key has no default, give it a value")
    return values


def _chosen(config: DictConfig, group: str) -> str | None:
    """The choice of a group that a command's words make, which wins over files. None where they make none."""
    whole: Any = config if "hydra" in config else HydraConfig.instance().cfg
    words: Sequence[str] = whole.hydra.overrides.task if whole is not None else ()
    made = any(word.partition("=")[0] == group for word in words)
    return str(whole.hydra.runtime.choices[group]) if whole is not None and made else None


def _missing(values: Mapping[str, Any], prefix: str = "") -> str | None:
    """The first key without a value, in order of names."""
    for key in sorted(values, key=str):
        value = values[key]
        found = _missing(cast(dict[str, Any], value), f"{prefix}{key}.") if isinstance(value, dict) else None
        if found or value == MISSING:
            return found or f"{prefix}{key}"
    return None


def literal(value: Any) -> str:
    """A Python value as Hydra's command line takes it."""
    if hasattr(value, "tolist"):  # of numpy, pandas or torch
        value = value.tolist()
    if value is None:
        return "null"
    if isinstance(value, Interval):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        pairs = cast(Mapping[str, Any], value).items()
        return "{" + ",".join(f"{key}:{literal(each)}" for key, each in pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(literal, cast(Sequence[Any], value))) + "]"
    text = str(value)
    if isinstance(value, (int, float)) or re.fullmatch(r"[A-Za-z0-9_./+-]+", text):
        return text
    return quoted(text)
