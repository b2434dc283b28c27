"""The native engine: runs of any shapes side by side, each on one thread, in the cache of its core."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fractal_ifs.config.optimizer import Adam, Sgd
from fractal_ifs.data.labelled import Labelled
from fractal_ifs.engines import cpp
from fractal_ifs.engines.protocol import Engine, Measurement, Signals
from fractal_ifs.engines.steps import BETAS, EPS, learning_rates, shares
from fractal_ifs.runs.run import Run
from fractal_ifs.runs.versions import ComputedBy

FLOPS_PER_SECOND = 1e11  # what one core does, roughly
CHUNK = 1_000_000  # largest number of steps at a time of a run that has numbers for each


class NativeEngine(Engine):
    """Trains fully connected networks in float32 on ``threads`` threads."""

    def __init__(self, threads: int):
        self.threads, self.computed_by = threads, ComputedBy(cpp.isa(), cpp.build(), engine="native")
        self._tasks: dict[int, cpp.Training] = {}  # of ``advance``, by the id of the run

    def saturated(self, runs: Sequence[Run], waiting: int) -> bool:
        """Whether the threads have work for about a second, and for as long as the largest run takes.

        So eight tiny networks per thread train together, but of large networks, whose rounds take seconds, only about
        one per thread; then the first of them end early. With several threads one more is taken, because a network
        that has learned its data takes half the time of one that hasn't. When few runs are left, all of them train,
        so that no thread is idle at the end.
        """
        work = [6.0 * run.params.numel() * run.config.batch_size * run.config.eval_every for run in runs]
        last = len(runs) + waiting < 2 * self.threads
        enough = max(self.threads * FLOPS_PER_SECOND, (self.threads + (self.threads > 1)) * max(work))
        return len(runs) >= 8 * self.threads or (not last and sum(work) >= enough)

    def advance(self, runs: Sequence[Run], steps: Sequence[int], stop: Signals) -> list[float]:
        """Advance each run by its ``steps``, unless ``stop`` ends them, as ``Engine`` says.

        Runs with a schedule or an average are advanced by at most ``CHUNK``.
        """
        steps = [count if _alike(run) else min(count, CHUNK) for run, count in zip(runs, steps, strict=True)]
        self._tasks = tasks = {
            id(run): _task(run, count)
            for run, count in zip(runs, steps, strict=True)
            if run.params.isfinite().all()  # else interrupted after it had diverged: nothing is left to compute
        }
        cpp.advance(list(tasks.values()), self.threads, stop)
        sums: list[float] = []
        for run, count in zip(runs, steps, strict=True):
            task = tasks.get(id(run))
            run.step = task.step if task else run.step + count
            sums.append(run.loss_sum + (task.loss_sum if task else math.nan))
        self._tasks = {}
        return sums

    def reached(self, run: Run) -> int:
        """The step that a run has come to, as ``Engine`` says: a sixteenth of a round at most behind."""
        task = self._tasks.get(id(run))
        return task.step if task else run.step

    def evaluate(self, runs: Sequence[Run], sets: Sequence[Labelled]) -> list[Measurement]:
        """Measure each run, as ``Engine`` says."""
        pairs = zip(runs, sets, strict=True)
        tests = [cpp.Measuring(run.measured, **_network(run), x=there.x, y=there.y) for run, there in pairs]
        found = cpp.evaluate(tests, self.threads)
        return [Measurement(right / len(test.y), loss) for (right, loss), test in zip(found, tests, strict=True)]


def _alike(run: Run) -> bool:
    """Whether all steps of a run have the same numbers."""
    return learning_rates(run.config, 0, 0) is None and run.average is None


def _task(run: Run, count: int) -> cpp.Training:
    """The next ``count`` steps of a run."""
    config, optimizer = run.config, run.config.optimizer
    adam = isinstance(optimizer, Adam)
    return cpp.Training(
        run.params,
        **_network(run),
        x=run.data.x_train,
        y=run.data.y_train,
        exp_avg=run.exp_avg,
        exp_avg_sq=run.exp_avg_sq,
        shuffle_seed=run.shuffle_seed,
        step=run.step,
        steps=count,
        batch_size=config.batch_size,
        lr=config.lr,
        optimizer=optimizer.name,
        betas=optimizer.betas if adam else BETAS,
        eps=optimizer.eps if adam else EPS,
        momentum=optimizer.momentum if isinstance(optimizer, Sgd) else 0.0,
        nesterov=isinstance(optimizer, Sgd) and optimizer.nesterov,
        weight_decay=optimizer.weight_decay,
        clip=optimizer.clip,
        rates=learning_rates(config, run.step, count),
        average=run.average,
        shares=shares(optimizer, run.step, count),
    )


def _network(run: Run) -> dict[str, Any]:
    model = run.model
    shape = {"d": model.d, "width": model.width, "depth": model.depth, "sum_last": model.sum_last}
    return {"loss": run.config.loss.name, **shape}
