"""The config groups ``fractal`` and ``curve``: the keys as written, and the IFS and the curve that they define.

Users add files to these groups, and values may be fractions ("2/3") or lists of any length. So a record holds the keys
as written, and ``AffineIFS`` and ``ApproximationCurve`` check them when they are first asked for: importing numpy takes
longer than refusing any other key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

from fractal_ifs import fractals  # whose names are imported when they are used
from fractal_ifs.config.keys import checked
from fractal_ifs.config.written import Written
from fractal_ifs.errors import ConfigError

# Keys added to these groups after the first records, each with the value that all earlier runs had: see ``keys.key``.
LATER: dict[str, Any] = {}


class _Group(Written):
    """One of the two groups."""

    def identity(self) -> dict[str, Any]:
        """The keys that belong to a run's fingerprint."""
        return {name: value for name, value in self.keys.items() if name not in LATER or value != LATER[name]}


class Fractal(_Group):
    """The group ``fractal``."""

    @classmethod
    def parse(cls, keys: Mapping[str, Any]) -> Fractal:
        """The group from its keys, which are checked when ``ifs`` or ``depth`` is first used."""
        return _fractal(json.dumps(keys))

    @property
    def name(self) -> str | None:
        """The name given in its file, or None."""
        return self.keys.get("name")

    @cached_property
    def ifs(self) -> fractals.AffineIFS:
        """The maps that generate the fractal (Section 2). Raises ConfigError."""
        return fractals.AffineIFS.from_config(self.keys)

    @cached_property
    def overlapping(self) -> bool:
        """Whether images overlap. False too for keys that define no fractal, which is told elsewhere."""
        try:
            return bool(self.ifs.separation().overlapping)
        except ConfigError:
            return False

    @property
    def depth(self) -> int:
        """n, the number of levels of K_n. Raises ConfigError unless it is written as a whole number >= 1."""
        depth = self.keys.get("depth", fractals.DEPTH)
        if type(depth) is not int:  # 5.0 would give the run another fingerprint
            raise ConfigError(f"fractal.depth={depth!r}: must be a whole number >= 1")
        return checked("fractal.depth", depth, int, {"least": 1})


class Curve(_Group):
    """The group ``curve``."""

    @classmethod
    def parse(cls, keys: Mapping[str, Any]) -> Curve:
        """The group from its keys, which are checked when ``curve`` is first used."""
        return _curve(json.dumps(keys))

    @property
    def name(self) -> str:
        """The name given in its file, "1" to "6" for the paper's curves (Section 5); else what it is, ``degree(2)``."""
        given = self.keys.get("name")
        return self.curve.name if given is None else str(given)

    @cached_property
    def curve(self) -> fractals.ApproximationCurve:
        """The approximation curve (Section 3.2). Raises ConfigError."""
        return fractals.ApproximationCurve.from_config(self.keys)


# Cached, because the many jobs of a sweep share a few fractals and curves.


@lru_cache(maxsize=4096)
def _fractal(text: str) -> Fractal:
    return Fractal(json.loads(text))


@lru_cache(maxsize=4096)
def _curve(text: str) -> Curve:
    return Curve(json.loads(text))


@lru_cache(maxsize=4096)
def check_distribution(fractal: Fractal, curve: Curve, margin: float) -> None:
    """Check that a fractal, a curve and a margin together define a distribution. Raises ConfigError."""
    fractal.ifs.check(fractal.depth, margin, key="data.margin")
    curve.curve.level_probabilities(fractal.depth)


@lru_cache(maxsize=4096)
def check_drawn(fractal: Fractal, margin: float) -> None:
    """Check that the points of a new run can be drawn: see ``AffineIFS.check_drawn``. Raises ConfigError."""
    fractal.ifs.check_drawn(fractal.depth, margin, key="data.margin")
