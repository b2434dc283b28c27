"""Trains a set of runs in rounds, in each of which an engine advances every active run.

A single run is a set of one. New runs begin as others end, so memory holds only some of a long sweep at a time.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch

from fractal_ifs.config.environment import checkpoint_seconds
from fractal_ifs.config.run import Job
from fractal_ifs.engines.protocol import Engine, Signals
from fractal_ifs.errors import Refused
from fractal_ifs.measures.take import take
from fractal_ifs.runs import ddp, locks
from fractal_ifs.runs.begin import begin
from fractal_ifs.runs.failure import fail
from fractal_ifs.runs.history import Summary
from fractal_ifs.runs.records import Status, note
from fractal_ifs.runs.run import Run
from fractal_ifs.training import signals, wandb_run
from fractal_ifs.training.grouping import step_cost
from fractal_ifs.training.standing import Running, Standing
from fractal_ifs.training.wandb_run import WandbRun, finish_all, new_id

log = logging.getLogger(__name__)
CHECKPOINT_SECONDS = checkpoint_seconds()
SAVING = 4  # runs that wait for the disk at a time, each in a thread


class SweepRounds:
    """Trains jobs to their end. ``ended`` then holds each job's Run, or the exception that it failed with.

    Args:
        jobs: in the order in which they begin. For the torch engine they must have one shape.
        engine: one of ``fractal_ifs.engines``.
        report: called with this module after each round.
    """

    def __init__(self, jobs: Sequence[Job], engine: Engine, report: Callable[["SweepRounds"], None] | None = None):
        self.jobs, self.engine, self.report = list(jobs), engine, report
        gpu = self.jobs[0].config.trainer.accelerator == "gpu"
        self.device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
        self.waiting = deque(range(len(self.jobs)))
        work = [job.steps * step_cost(job.config) for job in reversed(self.jobs)]
        self.work_of_last = list(accumulate(work, initial=0))  # of the last 0, 1, 2, ... jobs together
        self.active: dict[int, tuple[Run, WandbRun]] = {}  # by the job's number, like ``ended``
        self.ended: dict[int, Run | Exception] = {}
        self.first: dict[int, int] = {}  # the steps that were done when a run began here, by the job's number
        self.past = Standing()  # of the runs that have ended
        self.most = locks.runs_at_a_time()
        self.told = set[str]()  # the measures that failed in one of them

    def train_all(self) -> None:
        """Train all jobs to their end. A signal ends this between two steps, by KeyboardInterrupt."""
        while self.waiting or self.active:
            self.round()
        wandb_run.wait()  # it may be behind

    def round(self) -> None:
        """Train every active run up to its next evaluation, or as far as the engine takes it."""
        self._admit()
        signals.heed()
        if self.active:
            with signals.deferred() as stop:
                self._train(stop)
            self._keep()
        if self.report:
            self.report(self)

    def standing(self) -> Standing:
        """How far the jobs are. Another thread may ask at any time."""
        past, running = self.past, list(self.active.items())
        best = [run.best_so_far for _, (run, _) in running if run.best_so_far is not None]
        best += [] if past.best is None else [past.best]
        steps, work = past.steps, past.work
        left = self.work_of_last[len(self.waiting)]
        found: list[Running] = []
        for number, (run, _) in running:
            job, at = self.jobs[number], run.steps_before + self.engine.reached(run)
            done = at - self.first.get(number, at)
            steps, work = steps + done, work + done * step_cost(job.config)
            left += max(0, job.steps - at) * step_cost(job.config)
            loss = run.history[-1].train_loss if run.history else None
            found.append(Running(number, at, job.steps, loss, run.best_so_far))
        return Standing(tuple(found), past.ended, past.failed, max(best, default=None), steps, work, left)

    def _past(self, number: int, run: Run | None, well: bool) -> None:
        """Count a job that has ended."""
        past, job = self.past, self.jobs[number]
        done = run.steps_before + run.step - self.first.get(number, 0) if run else 0
        best = [] if past.best is None else [past.best]
        best += [run.best_so_far] if run and run.best_so_far is not None else []
        self.past = past._replace(
            ended=past.ended + 1,
            failed=past.failed + (not well),
            best=max(best, default=None),
            steps=past.steps + done,
            work=past.work + done * step_cost(job.config),
        )

    def _train(self, stop: Signals) -> None:
        try:
            self._round(stop)
        except Exception as error:  # it may come from any of the active runs, so all of them fail
            for number in list(self.active):
                self._lose(number, error)

    def _round(self, stop: Signals) -> None:
        """Steps, losses and measurements. No signal may come between them, or a run's bits would change."""
        numbers, runs = list(self.active), [run for run, _ in self.active.values()]
        before = [run.step for run in runs]
        begun = time.perf_counter()
        sums = self.engine.advance(runs, [run.steps_to_event() for run in runs], stop)
        costs = [(run.step - was) * run.params.numel() for run, was in zip(runs, before, strict=True)]
        advanced = time.perf_counter()
        for run, was, total, cost in zip(runs, before, sums, costs, strict=True):
            run.advanced(run.step - was, total, (advanced - begun) * cost / (sum(costs) or 1))
        self._evaluate(numbers)
        for run, cost in zip(runs, costs, strict=True):
            run.seconds += (time.perf_counter() - advanced) * cost / (sum(costs) or 1)

    def _keep(self) -> None:
        """Write the records of runs that have ended, and the checkpoints of others from time to time."""
        self._end([number for number, (run, _) in self.active.items() if run.done])
        now = time.monotonic()
        late = [number for number, (run, _) in self.active.items() if now - run.checkpointed > CHECKPOINT_SECONDS]
        with signals.deferred() as stop:
            failed = self._side_by_side(late, Run.save, stop)
            for number, error in failed.items():
                self._lose(number, error)

    def _admit(self) -> None:
        """Begin waiting jobs until the engine has enough to do."""
        while self.waiting:
            runs = [run for run, _ in self.active.values()]
            if runs and (len(runs) >= self.most or self.engine.saturated(runs, len(self.waiting))):
                return
            # Where many are still ending in W&B no more are begun. Those in training don't wait for that.
            if not wandb_run.wait(runs=wandb_run.ENDING, seconds=0 if self.active else float("inf")):
                return
            number = self.waiting.popleft()
            try:
                self.active[number] = run, _ = self._begun(number)
                other = run.config.trainer.ckpt_path  # has the network that it begins with
                if run.config.measure_start and run.at_start and not (run.history or other):
                    self._measure([number])
                if run.done:  # it was killed between its last checkpoint and its result
                    self._end([number])
            except Exception as error:
                if number in self.active:
                    self._lose(number, error)
                    continue
                self.ended[number] = error
                self._past(number, None, well=False)
                fail(self.jobs[number], error)
                if not isinstance(error, Refused):  # its W&B run may be another process's, or go on later
                    WandbRun(self.jobs[number].config, self.jobs[number].directory).finish(Status.FAILED)

    def _begun(self, number: int) -> tuple[Run, WandbRun]:
        run = begin(self.jobs[number], self.device, self.engine.computed_by)
        try:
            ddp.same_start(run)
            run.told = self.told
            run.wandb_id = run.wandb_id or new_id(run.config, run.directory)
            run.write_begun()
            self.first[number] = run.steps_before + run.step
            return run, WandbRun(run.config, run.directory, run.wandb_id, run.history)
        except BaseException:  # else a notebook's next attempt would find its own lock
            run.unlock()
            raise

    def _evaluate(self, numbers: Sequence[int]) -> None:
        """Measure the runs whose next evaluation is due, if they have moved since the last one."""
        self._measure([n for n in numbers if self.active[n][0].loss_steps and self.active[n][0].due])

    def _measure(self, numbers: Sequence[int]) -> None:
        for number, found in zip(numbers, take([self.active[n][0] for n in numbers], self.engine), strict=True):
            run, wandb = self.active[number]
            run.evaluated(*found)
            wandb.log()

    def _end(self, numbers: Sequence[int]) -> None:
        """End runs that are done."""
        with signals.deferred():
            failed = self._side_by_side(numbers, self._save_end)
            for number in numbers:
                if number in failed:
                    self._lose(number, failed[number])
                    continue
                run, wandb = self.active.pop(number)
                self.ended[number] = run
                self._past(number, run, run.status.well)
                wandb.finish(run.status, summary(run))

    def _side_by_side(
        self, numbers: Sequence[int], save: Callable[[Run], None], stop: Sequence[int] = ()
    ) -> dict[int, Exception]:
        """Save runs until ``stop``. ``SAVING`` of them wait for the disk at a time, which takes as long as for one.

        Returns the errors of those that failed: a full disk or a lost directory ends this run only.
        """
        waiting, failed = deque(numbers), dict[int, Exception]()

        def some() -> None:
            with contextlib.suppress(IndexError):
                while not stop:
                    number = waiting.popleft()
                    try:
                        save(self.active[number][0])
                    except Exception as error:
                        failed[number] = error

        helpers = [threading.Thread(target=some) for _ in numbers[1:SAVING]]
        with contextlib.suppress(RuntimeError):  # no memory for another thread: those that there are do it all
            for helper in helpers:
                helper.start()
        some()
        for helper in helpers:
            if helper.ident:
                helper.join()
        return failed

    def _save_end(self, run: Run) -> None:
        run.save()
        note(
            run.directory,
            f"{run.status} at step {run.steps_before + run.step}, best test accuracy {run.best_test_acc} "
            f"at {run.best_step}",
        )
        run.unlock()

    def _lose(self, number: int, error: Exception) -> None:
        """End a run that has failed. Its last checkpoint stays, so the same command can go on from there."""
        run, wandb = self.active.pop(number)
        run.status = Status.FAILED
        self.ended[number] = error
        self._past(number, run, well=False)
        fail(self.jobs[number], error, run.record())
        run.unlock()
        wandb.finish(run.status, summary(run))

    def interrupt(self) -> None:
        """Save every active run as interrupted. Measures first where that is due, because a later start won't."""
        self._evaluate(list(self.active))
        for run, _ in self.active.values():
            if not run.done:
                run.status = Status.INTERRUPTED
        for number, error in self._side_by_side(list(self.active), self._save_end).items():
            run, _ = self.active[number]
            log.error("%s: %s; its checkpoint before this one stays", run.directory, error)
            run.unlock()
        endings = [(wandb, run.status, summary(run)) for run, wandb in self.active.values()]
        if not finish_all(endings):
            log.warning("W&B didn't take all that it was given: a run logs what it lacks when it goes on")


def summary(run: Run) -> dict[str, float]:
    """The W&B summary of a run that has ended."""
    more = {"final_test_acc": run.record().final_test_acc, **Summary.of(run.history, run.steps_before)._asdict()}
    found = {name: value for name, value in more.items() if value is not None}
    return {"best_test_acc": run.best_test_acc, "best_step": run.best_step, **found}
