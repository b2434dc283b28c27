"""Fractals and curves by name: the files of conf/fractal and conf/curve, or a YAML file of one's own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from fractal_ifs.errors import ConfigError
from fractal_ifs.files import CONF
from fractal_ifs.fractals.numbers import is_list, short

MISSING = "???"  # what a file says for a value that its user must give


def names(group: str) -> list[str]:
    """The names that a group of configs offers: ["cantor", "cantor2d", ...] for "fractal"."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def read(group: str, name: object, keys: Mapping[str, Any]) -> dict[str, Any]:
    """conf/<group>/<name>.yaml, with `keys` in place of its own; `name` may be the path of a YAML file.

    Raises ConfigError where there is no such file, or where it isn't a mapping.
    """
    own = str(name).endswith((".yaml", ".yml"))
    path = Path(str(name)) if own else CONF / group / f"{name}.yaml"
    if not own and str(name) not in names(group):
        raise ConfigError(f"{group}={short(name)}: unknown; {nearest(str(name), names(group))}")
    try:
        config = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{group}={short(name)}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{group}={short(name)}: is not YAML ({short(error)})") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{group}={short(name)}: must be a mapping of keys to values")
    return {**config, **keys}


def checked(config: Any, group: str, allowed: Iterable[str]) -> dict[str, Any]:
    """The keys of a config that aren't null, an OmegaConf's made plain: its interpolations resolved.

    Raises ConfigError for a key that isn't allowed, one that is missing ("???"), or what can't be resolved.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(f"{group}={short(config)}: must be a mapping of keys to values")
    config = cast("Mapping[str, Any]", config)
    allowed = list(allowed)
    keys = [str(key) for key in config]
    for key in keys:
        if key not in allowed:
            raise ConfigError(f"{group}.{key}: unknown key; {nearest(key, allowed)}")
    values = {key: _value(config, key, group) for key in keys}
    return {key: value for key, value in values.items() if value is not None}


def name_of(keys: Mapping[str, Any], group: str) -> str | None:
    """The `name` of a fractal or a curve as text, None where it has none. Raises ConfigError for what is no name."""
    name = keys.get("name")
    if name is None:
        return None
    text = str(name)
    if not isinstance(name, str | int | float) or isinstance(name, bool) or not text.isprintable() or len(text) > 100:
        raise ConfigError(f"{group}.name={short(name)}: must be text of at most 100 characters")
    return text


def nearest(name: str, known: Sequence[str]) -> str:
    """What to say after an unknown name: the known ones near it, or all."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return "nearest: " + ", ".join(close) if close else "known: " + ", ".join(known)


def _value(config: Mapping[str, Any], key: str, group: str) -> Any:
    try:
        value = plain(config[key])
        missing = isinstance(value, str) and value == MISSING
    except Exception as error:  # OmegaConf's, known by name: this package works without it
        if not _omegaconf(error):
            raise
        missing = type(error).__name__ == "MissingMandatoryValue"
        if not missing:
            raise ConfigError(f"{group}: {short(str(error).splitlines()[0], 200)}") from None
        value = None
    if missing:
        raise ConfigError(f"{group}.{key}={MISSING}: must be given")
    return value


def plain(value: Any) -> Any:
    """An OmegaConf's node as a dict or list; anything else as it is."""
    if not _omegaconf(value):
        return value
    if isinstance(value, Mapping):
        node = cast("Mapping[str, Any]", value)
        return {key: plain(node[key]) for key in node}
    return [plain(entry) for entry in value] if is_list(value) else value


def _omegaconf(value: object) -> bool:
    return type(value).__module__.startswith("omegaconf")
