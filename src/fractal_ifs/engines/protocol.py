"""What every engine has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from fractal_ifs.data.labelled import Labelled
from fractal_ifs.runs.run import Run
from fractal_ifs.runs.versions import ComputedBy

# How signals stop an engine: the numbers of those that have arrived. The list is empty at first. When one arrives
# (Ctrl-C, a preemption), its handler appends its number (``training.signals.deferred``). Engines look at the list
# before every step. Once it isn't empty they do no further step and return as usual, without an exception, so all runs
# are between two steps.
Signals = list[int]


class Measurement(NamedTuple):
    """The result of a network on a set."""

    accuracy: float  # share of the set that is classified correctly; f(x) = 0 counts as wrong
    loss: float  # mean over the set


class Engine(Protocol):
    """Trains runs. Holds no state that a checkpoint would need.

    Attributes:
        computed_by: what records and checkpoints say of it.
    """

    computed_by: ComputedBy

    def saturated(self, runs: Sequence[Run], waiting: int) -> bool:
        """Whether these runs are enough to work on, while ``waiting`` more could be added. Here: each trains alone."""
        return True

    def advance(self, runs: Sequence[Run], steps: Sequence[int], stop: Signals) -> list[float]:
        """Train each run for at most its number of ``steps``, or fewer if ``stop`` says so.

        Moves each ``run.step``. Returns each ``run.loss_sum`` plus the batch losses of these steps, NaN or infinite if
        the run diverged.
        """
        ...

    def reached(self, run: Run) -> int:
        """The step that a run has come to, also in the middle of ``advance``. Another thread may ask, to show it.

        Here: ``advance`` moves ``run.step`` with every step.
        """
        return run.step

    def evaluate(self, runs: Sequence[Run], sets: Sequence[Labelled]) -> list[Measurement]:
        """Measure the network of each run on the set in its place, which isn't empty. A run may be there repeatedly."""
        ...
