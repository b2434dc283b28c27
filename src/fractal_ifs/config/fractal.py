"""The groups ``fractal`` and ``curve``: keys as they are written, and the IFS and the curve that they name.

Their values may be fractions ("2/3") and lists of any length, and their files are users' own; so a record holds the
keys as written, and ``AffineIFS`` and ``ApproximationCurve`` check them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.fractals.ifs import AffineIFS, depth_of

# Keys of these groups that came after the first records, and the value of all runs before: see ``keys.key``.
LATER: dict[str, Any] = {}


@dataclass(frozen=True, eq=False)
class Fractal:
    """The group ``fractal``. ``depth`` is n, the number of levels of K_n."""

    keys: Mapping[str, Any]
    ifs: AffineIFS
    depth: int

    @property
    def name(self) -> str | None:
        """The name that its file gives it."""
        return self.keys.get("name")

    @classmethod
    def parse(cls, keys: Mapping[str, Any]) -> Fractal:
        """Raises ConfigError."""
        return _fractal(json.dumps(keys))

    def identity(self) -> dict[str, Any]:
        """What of it is part of a run's fingerprint."""
        return _identity(self.keys)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fractal) and self.keys == other.keys

    def __hash__(self) -> int:
        return hash(json.dumps(self.keys, sort_keys=True))


@dataclass(frozen=True, eq=False)
class Curve:
    """The group ``curve``."""

    keys: Mapping[str, Any]
    curve: ApproximationCurve

    @property
    def name(self) -> str:
        """The name that its file gives it: "1" to "6" are the paper's."""
        return str(self.keys.get("name"))

    @classmethod
    def parse(cls, keys: Mapping[str, Any]) -> Curve:
        """Raises ConfigError."""
        return _curve(json.dumps(keys))

    def identity(self) -> dict[str, Any]:
        """What of it is part of a run's fingerprint."""
        return _identity(self.keys)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Curve) and self.keys == other.keys

    def __hash__(self) -> int:
        return hash(json.dumps(self.keys, sort_keys=True))


def _identity(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in keys.items() if name not in LATER or value != LATER[name]}


# The jobs of a sweep share few fractals and curves: each is made once.


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
    """Refuse a fractal, a curve and a margin that don't make a distribution. Raises ConfigError."""
    fractal.ifs.check(fractal.depth, margin)
    curve.curve.level_probabilities(fractal.depth)
