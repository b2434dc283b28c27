"""An interval, from which a sweeper as Optuna's draws values, in Python."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
        both = math.isfinite(self.low) and math.isfinite(self.high)
        if not (both and self.low < self.high and not (self.log and self.low <= 0)):
            least = "0 < low < high" if self.log else "low < high"
            raise ConfigError(f"{self!r}: must have finite numbers {least}")

    def __str__(self) -> str:
        """As the command line has it."""
        low, high = (each if isinstance(each, int) else float(each) for each in (self.low, self.high))
        text = f"interval({low!r},{high!r})"
        return f"tag(log,{text})" if self.log else text
