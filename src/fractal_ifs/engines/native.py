"""The native engine: runs of any shapes side by side, each on one thread, in that core's cache for a whole chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fractal_ifs.engines import cpp
from fractal_ifs.engines.protocol import Measurement
from fractal_ifs.runs.run import Run

FLOPS_PER_SECOND = 1e11  # of a core, about


class NativeEngine:
    """Trains fully connected networks in float32 on ``threads`` cores."""

    name = "native"

    def __init__(self, threads: int):
        self.threads, self.isa, self.build = threads, cpp.isa(), cpp.build()

    def saturated(self, runs: Sequence[Run], waiting: int) -> bool:
        """Every thread has work for about a second of a round, and for as long as the largest run takes.

        So tiny networks come by eights, and of large ones, whose rounds take seconds, the first end hours before the
        last. Several threads take one more of these, for a round of what is learned takes half as long as of what is
        not. When there are too few left for another turn, all train, so that no thread is idle at the end.
        """
        work = [6.0 * run.params.numel() * run.config.batch_size * run.config.eval_every for run in runs]
        last = len(runs) + waiting < 2 * self.threads
        enough = max(self.threads * FLOPS_PER_SECOND, (self.threads + (self.threads > 1)) * max(work))
        return len(runs) >= 8 * self.threads or (not last and sum(work) >= enough)

    def advance(self, runs: Sequence[Run], steps: Sequence[int], stop: list[Any]) -> list[float]:
        """As of ``Engine``: every run by the steps asked for."""
        tasks = [
            cpp.Task(
                **_network(run),
                x=run.data.x_train,
                y=run.data.y_train,
                exp_avg=run.exp_avg,
                exp_avg_sq=run.exp_avg_sq,
                shuffle_seed=run.shuffle_seed,
                step=run.step,
                steps=count,
                batch_size=run.config.batch_size,
                lr=run.config.lr,
                optimizer=run.config.optimizer,
            )
            for run, count in zip(runs, steps, strict=True)
        ]
        cpp.advance(tasks, self.threads, stop)
        for run, task in zip(runs, tasks, strict=True):
            run.step = task.step
        return [task.loss_sum for task in tasks]

    def evaluate(self, runs: Sequence[Run]) -> list[Measurement]:
        """As of ``Engine``."""
        tests = [cpp.Evaluation(**_network(run), x=run.data.x_test, y=run.data.y_test) for run in runs]
        found = cpp.evaluate(tests, self.threads)
        return [Measurement(right / len(test.y), loss) for (right, loss), test in zip(found, tests, strict=True)]


def _network(run: Run) -> dict[str, Any]:
    model = run.model
    shape = {"d": model.d, "width": model.width, "depth": model.depth, "sum_last": model.sum_last}
    return {"params": run.params, "loss": run.config.loss, **shape}
