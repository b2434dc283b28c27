"""What a statement is checked on, and what a check says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.theorems.cube import CubeIFS
from fractal_ifs.theorems.learn import Trainer, train


@dataclass(frozen=True)
class Problem:
    """A distribution D_n, and how much is spent on checking a statement on it."""

    ifs: CubeIFS
    n: int
    gamma: float  # the margin of Assumption 3, in the user's unit
    curve: ApproximationCurve
    points: int  # how many points a constructed network is tried on
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)  # the statement's own keys of conf/theory.yaml
    train: Trainer = train  # how networks are trained, for comparison; `learn.fastest` may know a faster way

    @property
    def law(self) -> np.ndarray:
        """(n + 1,): the probabilities of a negative of level 1..n, then of a positive."""
        return self.curve.level_probabilities(self.n)

    @property
    def P(self) -> np.ndarray:
        """(n + 1,): the approximation curve."""
        return self.curve.P(self.n)

    def rng(self) -> np.random.Generator:
        """A new generator of the problem's seed: always the same numbers."""
        return np.random.default_rng(self.seed)


@dataclass(frozen=True)
class Check:
    """A line of the table: a statement in one setting, its bound, what was measured, and whether the statement holds.

    `holds` is None where the statement asserts nothing (its hypothesis fails, or a number is there to be compared).
    """

    statement: str
    setting: str
    bound: str
    measured: str
    holds: bool | None
    values: dict[str, Any] = field(default_factory=dict)  # the numbers behind the texts
