"""An interval, from which a sweeper as Optuna's draws values, in Python."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real

from fractal_ifs.errors import ConfigError


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high``, both included; whole numbers where both are whole: ``Interval(1e-4, 1e-2, log=True)``.

    ``log``: draw so that each power of ten is equally likely. Raises ConfigError where nothing lies between them.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self):
        ends = (self.low, self.high)
        numbers = not any(isinstance(each, bool) or not isinstance(each, Real) for each in ends)
        if not (numbers and _finite(*ends) and self.low < self.high and not (self.log and self.low <= 0)):
            least = "0 < low < high" if self.log else "low < high"
            raise ConfigError(f"{self!r}: must have finite numbers {least}")
        if self.log not in (True, False):
            raise ConfigError(f"{self!r}: log must be True or False")

    def __str__(self) -> str:
        """As the command line has it, where ends are whole numbers only within ``int()``."""
        ends = (self.low, self.high)
        if all(isinstance(each, Integral) for each in ends):
            text = "int(interval({},{}))".format(*map(int, ends))
        else:
            text = "interval({!r},{!r})".format(*map(float, ends))
        return f"tag(log,{text})" if self.log else text


def _finite(*numbers: float) -> bool:
    try:
        return all(map(math.isfinite, numbers))
    except OverflowError:  # a whole number beyond all floats
        return False
