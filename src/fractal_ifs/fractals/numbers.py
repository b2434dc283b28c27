"""Numbers as they come from a YAML file or the command line: 0.5, "0.5", or a fraction such as "2/3".

Whatever is wrong is a `ConfigError` of one line that names the key, the value and what is allowed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from fractal_ifs.errors import ConfigError
from fractal_ifs.errors import short as short

Floats: TypeAlias = NDArray[np.float64]

DEEPEST = 10**6  # the largest n of K_n: there are lists with a number for each level


def number(value: object, key: str) -> float:
    """A finite number, from a number or a string. Raises ConfigError."""
    try:
        if isinstance(value, str) and "/" in value:
            numerator, denominator = value.split("/")
            result = float(numerator) / float(denominator)
        elif isinstance(value, bool) or not isinstance(value, Real | str):
            raise ValueError
        else:
            result = float(value)
        if not math.isfinite(result):
            raise ValueError
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ConfigError(f"{key}={short(value)}: must be a number, such as 0.25 or 1/4") from None
    return result


def whole(value: object, key: str, least: int, most: int | None = None) -> int:
    """A whole number from `least` to `most`: 5.0 and "5" are whole, 5.5 and True are not. Raises ConfigError."""
    allowed = f"a whole number >= {least}" + ("" if most is None else f" and <= {most}")
    try:
        result = _exactly(value, key)
    except ConfigError:
        result = math.nan
    if not (result == result and result == int(result) and result >= least and (most is None or result <= most)):
        raise ConfigError(f"{key}={short(value)}: must be {allowed}")
    return int(result)


def _exactly(value: object, key: str) -> int | float:
    """A whole number of any size as it is, of numpy's too and as text; anything else as of `number`."""
    if not isinstance(value, bool) and isinstance(value, Integral):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,400}", value):
        return int(value)
    return number(value, key)


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether the value is a list of some kind (an array too), and not a string."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)


def vector(value: object, key: str, length: int | None = None) -> Floats:
    """The numbers of a list, (length,); a lone number is a list of one. Raises ConfigError."""
    entries: list[Any] = list(value) if is_list(value) else [value]
    if length is not None and len(entries) != length:
        raise ConfigError(f"{key}={short(value)}: must have {length} numbers, has {len(entries)}")
    if not entries:
        raise ConfigError(f"{key}={short(value)}: must have at least one number")
    return np.array([number(entry, f"{key}[{i}]") for i, entry in enumerate(entries)])
