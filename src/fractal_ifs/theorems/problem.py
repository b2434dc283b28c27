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
    """An IFS, its depth n, a margin and a curve; `settings` are the keys of conf/theory.yaml that one statement
    reads.
    """

    ifs: CubeIFS
    n: int
    gamma: float
    curve: ApproximationCurve
    points: int
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    train: Trainer = train  # how networks are trained beside a theorem; the entry point may know a faster way

    @property
    def law(self) -> np.ndarray:
        """(n + 1,): the probabilities of a negative of level 1..n, then of a positive."""
        return self.curve.level_probabilities(self.n)

    @property
    def P(self) -> np.ndarray:
        """(n + 1,): the approximation curve."""
        return self.curve.P(self.n)

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


@dataclass(frozen=True)
class Check:
    """One line of the table: a statement in one setting, its bound, what was measured, and whether it holds.

    `holds` is None where the statement asserts nothing in this setting (vacuous, or a quantity given for comparison).
    """

    statement: str
    setting: str
    bound: str
    measured: str
    holds: bool | None
    values: dict[str, Any] = field(default_factory=dict)
