"""What a statement is checked on, and what a check says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from fractal_ifs.fractals.cube import CubeIFS
from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.theorems.keys import Section
from fractal_ifs.theorems.learn import Trainer, train

S = TypeVar("S", bound=Section, covariant=True)


@dataclass(frozen=True)
class Problem(Generic[S]):
    """A distribution D_n, and how much is spent on checking a statement on it."""

    ifs: CubeIFS
    n: int
    gamma: float  # the margin of Assumption 3, in the user's unit
    curve: ApproximationCurve
    points: int  # how many points a constructed network is tried on
    seed: int
    settings: S  # the statement's own keys
    train: Trainer = train  # how networks are trained, for comparison; `learn.fastest` may know a faster way
    drawn: dict[str, Any] = field(default_factory=dict)  # what `once` has computed, which theory.json keeps

    @property
    def law(self) -> np.ndarray:
        """(n + 1,): the probabilities of a negative of level 1..n, then of a positive."""
        return self.curve.level_probabilities(self.n)

    @property
    def P(self) -> np.ndarray:
        """(n + 1,): the approximation curve."""
        return self.curve.P(self.n)

    def once(self, name: str, compute: Callable[[], list[Any]]) -> list[Any]:
        """Plain numbers that only a picture has and that take long: computed once, however often it is drawn."""
        if name not in self.drawn:
            self.drawn[name] = compute()
        return self.drawn[name]

    def rng(self) -> np.random.Generator:
        """A new generator of the problem's seed: always the same numbers."""
        return np.random.default_rng(self.seed)


Why = Literal["vacuous", "unmet", "deeper", "compare"]

# Why a check says neither yes nor no, as the terminal explains it.
WHY: dict[Why, str] = {
    "vacuous": "the bound is no better than what is true without the statement, so the row can't fail",
    "unmet": "a hypothesis of the statement fails here, or isn't shown to hold",
    "deeper": "the construction has the error, with a layer more than printed",
    "compare": "a number beside those of the statement, which says nothing of it",
}


@dataclass(frozen=True)
class Check:
    """A line of the table: a statement in one setting, its bound, what was measured, and whether the statement holds.

    `holds` is None where nothing is asserted that could fail; then `why` says the reason, one of WHY.
    """

    statement: str
    setting: str
    bound: str
    measured: str
    holds: bool | None
    values: dict[str, Any] = field(default_factory=dict)  # the numbers behind the texts
    why: Why | None = None

    def __post_init__(self) -> None:
        assert (self.holds is None) == (self.why is not None), self


def judged(right: bool, why: Why | None = None) -> dict[str, Any]:
    """`holds` and `why` of a check: False where it is wrong, else None where `why` says that it asserts nothing."""
    return {"holds": None if right and why else right, "why": why if right else None}
