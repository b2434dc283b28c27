"""What every engine offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from fractal_ifs.runs.run import Run


class Measurement(NamedTuple):
    """A network measured on its run's test set."""

    test_acc: float  # share of points that are right; f(x) = 0 is wrong
    test_loss: float  # mean over the points


class Engine(Protocol):
    """Something that trains runs. It holds no state that a checkpoint would need."""

    @property
    def name(self) -> str:
        """As in records."""
        ...

    @property
    def isa(self) -> str | None:
        """The instruction set that its bits depend on."""
        ...

    @property
    def build(self) -> str | None:
        """The compiler and the flags that its bits depend on."""
        ...

    def saturated(self, runs: Sequence[Run], waiting: int) -> bool:
        """Whether it has enough to do with these runs, where so many more are waiting."""
        ...

    def advance(self, runs: Sequence[Run], steps: Sequence[int], stop: list[Any]) -> list[float]:
        """Advance each run by at most so many steps; by fewer once a signal has put something into the list ``stop``.

        Moves ``run.step``, and returns for each run the sum of its batch losses: NaN or infinite where it diverged.
        """
        ...

    def evaluate(self, runs: Sequence[Run]) -> list[Measurement]:
        """Each run's network on its test set."""
        ...
