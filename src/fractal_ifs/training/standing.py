"""How far the runs are that train together. It is small, and the same from a worker process as from this one."""

from __future__ import annotations

from typing import NamedTuple


class Running(NamedTuple):
    """A run in training."""

    number: int  # its place in the group
    step: int  # of its last step, also in the middle of a round
    steps: int  # at which it ends
    loss: float | None  # mean batch loss up to the last evaluation; None before the first
    best: float | None  # test accuracy


class Standing(NamedTuple):
    """A group of jobs. ``work`` is in units of ``grouping.cost``, in which a wide network's step counts for more."""

    running: tuple[Running, ...] = ()
    ended: int = 0  # jobs, those that failed included
    failed: int = 0  # or diverged
    best: float | None = None  # test accuracy of any run so far
    steps: int = 0  # done here: without those before a checkpoint from which a run went on
    work: float = 0.0  # done here
    left: float = 0.0  # work still to do
