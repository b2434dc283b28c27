"""The keys of conf/hydra/sweeper/outward.yaml, and the rule by which a cell is searched. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fractal_ifs.config.keys import Group, key
from fractal_ifs.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Outward(Group):
    """The keys of conf/hydra/sweeper/outward.yaml."""

    PREFIX: ClassVar[str] = "hydra.sweeper."

    params: Mapping[str, Any] | None = key("words of the grid, below those of the command line")
    over: str = key(
        "the key whose numbers are a ladder; each choice of all others but seed is a cell with its own search"
    )
    start: float | None = key("the rung that a search begins at, or the nearest to it; null: the middle one")
    best_lr: str | None = key("a CSV of finished runs: a cell begins at the learning rate that is best for it there")


@dataclass
class LocalSearch:
    """The search of one cell for a value that is better than both of its neighbours on a ladder.

    It begins with a rung and its two neighbours. While the best so far lacks a neighbour that the ladder has, that one
    is asked for. So it ends at a local maximum, or at an end of the ladder, and never asks for a rung that is not next
    to one that was the best. Of equals the one nearest to the first rung counts as the best, and of two such the lower.

    Args:
        rungs: how many the ladder has.
        first: the number of the rung to begin at.
    """

    rungs: int
    first: int

    def __post_init__(self) -> None:
        self.values: dict[int, float] = {}  # of the rungs so far

    def found(self, rung: int, values: Sequence[float]) -> None:
        """What a rung's runs have reached, one for each seed: their mean counts.

        NaN is worse than anything, and so is 0, which a run returns that diverged, however good the other seeds are.
        """
        mean = sum(values) / len(values)
        self.values[rung] = -math.inf if math.isnan(mean) or 0 in values else mean

    @property
    def best(self) -> int:
        """The best rung so far."""
        return max(self.values, key=lambda rung: (self.values[rung], -abs(rung - self.first), -rung))

    def asked(self) -> list[int]:
        """The rungs to train next, in order; none once the search has ended."""
        centre = self.best if self.values else self.first
        near = range(max(0, centre - 1), min(self.rungs, centre + 2))
        return [rung for rung in near if rung not in self.values]

    @property
    def interior(self) -> bool:
        """Whether the best rung is none of the ladder's ends."""
        return 0 < self.best < self.rungs - 1


def ladder(name: str, words: Sequence[str]) -> list[str]:
    """The words ``lr=1e-3`` of a grid, by their numbers. Raises ConfigError for fewer than 3, and what is no number."""
    numbers: dict[float, str] = {}
    for word in words:
        text = word.partition("=")[2]
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(f"{name}={text}: must be a number with hydra/sweeper=outward and over={name}")
        numbers.setdefault(number, word)
    if len(numbers) < 3:
        raise ConfigError(
            f"hydra.sweeper.over={name}: needs at least 3 values of {name} to search among, as {name}=1e-4,1e-3,1e-2"
        )
    return [numbers[number] for number in sorted(numbers)]


def nearest(rungs: Sequence[str], value: float) -> int:
    """The number of the rung whose number is nearest to ``value``: by its quotient where all are positive."""
    numbers = [float(rung.partition("=")[2]) for rung in rungs]
    if min(*numbers, value) > 0:
        numbers, value = [math.log(number) for number in numbers], math.log(value)
    return min(range(len(numbers)), key=lambda rung: abs(numbers[rung] - value))
