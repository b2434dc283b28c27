"""The config groups ``fractal`` and ``curve``: the keys as written, and the IFS and the curve that they define.

Users add files to these groups, and values may be fractions ("2/3") or lists of any length. So a record holds the keys
as written, and ``AffineIFS`` and ``ApproximationCurve`` check them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.fractals.ifs import AffineIFS, depth_of

# Keys added to these groups after the first records, each with the value that all earlier runs had: see ``keys.key``.
LATER: dict[str, Any] = {}


@dataclass(frozen=True, eq=False)
class _Written:
    """A group that is compared and fingerprinted by its keys as written."""

    keys: Mapping[str, Any]

    def identity(self) -> dict[str, Any]:
        """The keys that belong to a run's fingerprint."""
        return {name: value for name, value in self.keys.items() if name not in LATER or value != LATER[name]}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.keys == other.keys

    def __hash__(self) -> int:
        return hash(json.dumps(self.keys, sort_keys=True))


@dataclass(frozen=True, eq=False)
class Fractal(_Written):
    """The group ``fractal``. ``ifs`` generates the fractal; ``depth`` is n, the number of levels of K_n (Section 2)."""

    ifs: AffineIFS
    depth: int

    @property
    def name(self) -> str | None:
        """The name given in its file, or None."""
        return self.keys.get("name")

    @classmethod
    def parse(cls, keys: Mapping[str, Any]) -> Fractal:
        """The group from its keys. Raises ConfigError."""
        return _fractal(json.dumps(keys))


@dataclass(frozen=True, eq=False)
class Curve(_Written):
    """The group ``curve``. ``curve`` is the approximation curve (Section 3.2)."""

    curve: ApproximationCurve

    @property
    def name(self) -> str:
        """The name given in its file: "1" to "6" are the paper's curves (Section 5)."""
        return str(self.keys.get("name"))

    @classmethod
    def parse(cls, keys: Mapping[str, Any]) -> Curve:
        """The group from its keys. Raises ConfigError."""
        return _curve(json.dumps(keys))


# Cached, because the many jobs of a sweep share a few fractals and curves.


@lru_cache(maxsize=4096)
def _fractal(text: str) -> Fractal:
    keys = json.loads(text)
    return Fractal(keys, AffineIFS.from_config(keys), depth_of(keys))


@lru_cache(maxsize=4096)
def _curve(text: str) -> Curve:
    keys = json.loads(text)
    return Curve(keys, ApproximationCurve.from_config(keys))


@lru_cache(maxsize=4096)
def check_distribution(fractal: Fractal, curve: Curve, margin: float) -> None:
    """Check that a fractal, a curve and a margin together define a distribution. Raises ConfigError."""
    fractal.ifs.check(fractal.depth, margin)
    curve.curve.level_probabilities(fractal.depth)
