"""A progress line for a sweep or a single run. It is shown only in a terminal."""

import contextlib
import select
import sys
import time
from typing import Any

from fractal_ifs.training.rounds import SweepRounds


class Progress:
    """The progress line. Call the object after every round of training.

    Args:
        jobs: how many are to be trained.
        steps: of all these jobs together.
        stream: where the line is written. None: standard error.
    """

    def __init__(self, jobs: int, steps: int, stream: Any = None):
        self.jobs, self.steps = jobs, steps
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.begun = self.shown = time.monotonic()
        self.finished = self.failed = 0
        self.done_steps = 0  # of the groups that have ended

    def __call__(self, rounds: SweepRounds) -> None:
        now = time.monotonic()
        if not self.live or now - self.shown < 0.2 or self._held_up():
            return
        self.shown = now
        done = self.done_steps + rounds.steps_done
        rate = done / max(now - self.begun, 1e-9)
        left = max(0, self.steps - done - rounds.steps_spared) / rate if rate else 0.0
        ended = rounds.ended.values()
        failed = self.failed + sum(isinstance(e, Exception) or not e.status.well for e in ended)
        if self.jobs == 1 and rounds.active:
            run = next(iter(rounds.active.values()))[0]
            loss = f"{run.history[-1].train_loss:.4f}" if run.history else "-"
            text = f"step {run.step:,}/{run.pause or run.config.steps:,}  loss {loss}  best {run.best_test_acc:.4f}"
        else:
            done_jobs = self.finished + len(ended)
            text = f"{done_jobs}/{self.jobs} jobs done, {len(rounds.active)} running, {failed} failed"
        self.stream.write(f"\r{text}  {rate:,.0f} steps/s  {_clock(left)} left\x1b[K")
        self.stream.flush()

    def group_ended(self, training_steps: int, ended: int, failed: int) -> None:
        """Count a group that has ended: its steps, its jobs, and how many of these have failed or diverged."""
        self.done_steps += training_steps
        self.finished += ended
        self.failed += failed

    def close(self) -> None:
        """Remove the line."""
        if self.live and not self._held_up():
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def _held_up(self) -> bool:
        """Whether the terminal takes nothing now, because of Ctrl-S or a lost connection: training doesn't wait."""
        with contextlib.suppress(OSError, ValueError):
            return not select.select([], [self.stream], [], 0)[1]
        return False


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
