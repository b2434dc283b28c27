"""Values as they come from a YAML file or the command line: numbers, fractions such as "2/3", named configs.

Whatever is wrong is a `ConfigError` of one line that names the key, the value and what is allowed.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from fractal_ifs.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf"


def short(value: object, length: int = 60) -> str:
    """The value as it appears in a message: on one line, not too long."""
    text = " ".join(str(value).split())
    return text if len(text) <= length else text[: length - 3] + "..."


def number(value: object, key: str) -> float:
    """A finite number: 0.5, "0.5", or a fraction "2/3"."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str | np.integer | np.floating):
            raise ValueError
        if isinstance(value, str) and "/" in value:
            numerator, denominator = value.split("/")
            result = float(numerator) / float(denominator)
        else:
            result = float(value)
        if not math.isfinite(result):
            raise ValueError
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ConfigError(f"{key}={short(value)}: must be a number, such as 0.25 or 1/4") from None
    return result


def whole(value: object, key: str, least: int, most: int | None = None) -> int:
    """A whole number in least..most; 5.0 and "5" are whole, 5.5 and True are not."""
    allowed = f"a whole number >= {least}" + ("" if most is None else f" and <= {most}")
    try:
        result = number(value, key)
    except ConfigError:
        result = math.nan
    if not (result == result and result == int(result) and result >= least and (most is None or result <= most)):
        raise ConfigError(f"{key}={short(value)}: must be {allowed}")
    return value if isinstance(value, int) else int(result)


def is_list(value: object) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)


def vector(value: object, key: str, length: int | None = None) -> np.ndarray:
    """A list of numbers, as float64 (length,); a lone number is a list of one."""
    entries = list(value) if is_list(value) else [value]  # type: ignore[call-overload]
    if length is not None and len(entries) != length:
        raise ConfigError(f"{key}={short(value)}: must have {length} numbers, has {len(entries)}")
    if not entries:
        raise ConfigError(f"{key}={short(value)}: must have at least one number")
    return np.array([number(entry, f"{key}[{i}]") for i, entry in enumerate(entries)])


def plain(config: Mapping[str, Any], group: str, allowed: Iterable[str]) -> dict[str, Any]:
    """The config as a plain dict: interpolations resolved, nulls dropped; unknown or missing keys are refused."""
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(config, Mapping):
        raise ConfigError(f"{group}={short(config)}: must be a mapping of keys to values")
    allowed = list(allowed)
    for key in config:
        if key not in allowed:
            raise ConfigError(f"{group}.{key}: unknown key; {nearest(str(key), allowed)}")
    if isinstance(config, DictConfig):
        missing = sorted(str(key) for key in config if OmegaConf.is_missing(config, key))
        if missing:
            raise ConfigError(f"{group}.{missing[0]}=???: must be given")
        try:
            config = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        except OmegaConfBaseException as error:
            raise ConfigError(f"{group}: {short(str(error).splitlines()[0], 200)}") from None
    return {str(key): value for key, value in config.items() if value is not None}


def nearest(name: str, known: Sequence[str]) -> str:
    """What to say after an unknown name: the nearest ones, or all of them."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return "nearest: " + ", ".join(close) if close else "known: " + ", ".join(known)


def names(group: str) -> list[str]:
    """The names a config group offers: ["cantor", "cantor2d", ...] for "fractal"."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def load_group(group: str, name: object, keys: Mapping[str, Any]) -> Mapping[str, Any]:
    """conf/<group>/<name>.yaml with `keys` written over it; `name` may be the path of a YAML file."""
    from omegaconf import DictConfig, OmegaConf
    from yaml import YAMLError

    own = str(name).endswith((".yaml", ".yml"))
    path = Path(str(name)) if own else CONF / group / f"{name}.yaml"
    if not own and str(name) not in names(group):
        raise ConfigError(f"{group}={short(name)}: unknown; {nearest(str(name), names(group))}")
    try:
        config = OmegaConf.load(path)
    except OSError as error:
        raise ConfigError(f"{group}={short(name)}: cannot be read ({error.strerror})") from None
    except YAMLError as error:
        raise ConfigError(f"{group}={short(name)}: is not YAML ({short(error)})") from None
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{group}={short(name)}: must be a mapping of keys to values")
    for key, value in keys.items():
        config[key] = value
    return cast("Mapping[str, Any]", config)
