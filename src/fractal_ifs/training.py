"""Lightning trains a *set* of runs: each of its batches is a round, in which an engine advances every run in memory.

A single run is a set of one. Runs enter as others end, so that memory holds a window of them however long the sweep.
"""

import json
import logging
import os
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from fractal_ifs import engines, records
from fractal_ifs.config import Job
from fractal_ifs.loggers import Wandb
from fractal_ifs.runs import Run, keys_of

log = logging.getLogger(__name__)
for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)

CHECKPOINT_SECONDS = 30.0


class Training(pl.LightningModule):
    """Advances jobs to their end. ``ended`` holds each job's Run, or the exception that it failed with.

    Args:
        jobs: in the order in which they begin; of one shape for the torch engine, of any for the native one.
        engine: of ``fractal_ifs.engines``.
        report: called after each round with this module, for the progress line.
    """

    def __init__(self, jobs: Sequence[Job], engine: Any, report: Callable[["Training"], None] | None = None):
        super().__init__()
        self.automatic_optimization = False
        self.jobs, self.engine, self.report = list(jobs), engine, report
        self.waiting = deque(range(len(self.jobs)))
        self.active: dict[int, tuple[Run, Wandb]] = {}
        self.ended: dict[int, Run | Exception] = {}
        self.steps_done = 0

    def configure_optimizers(self) -> None:
        """The engines hold the optimizers: one per run, all advanced at once."""

    def train_dataloader(self) -> Iterator[int]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Rounds(self)  # pyright: ignore[reportReturnType]

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One round: every active run goes on to its next evaluation, or as far as the engine moves it."""
        self._admit()
        if not self.active:
            return
        numbers, runs = list(self.active), [run for run, _ in self.active.values()]
        before = [run.step for run in runs]
        begun = time.perf_counter()
        sums = self.engine.advance(runs, [run.steps_to_event() for run in runs])
        costs = [(run.step - was) * run.params.numel() for run, was in zip(runs, before, strict=True)]
        advanced = time.perf_counter()
        for run, was, total, cost in zip(runs, before, sums, costs, strict=True):
            run.advanced(run.step - was, total, (advanced - begun) * cost / sum(costs))
            self.steps_done += run.step - was
        self._evaluate(numbers)
        for run, cost in zip(runs, costs, strict=True):
            run.seconds += (time.perf_counter() - advanced) * cost / sum(costs)
        for number, run in zip(numbers, runs, strict=True):
            if run.done:
                self._end(number)
            elif time.monotonic() - run.checkpointed > CHECKPOINT_SECONDS:
                run.save()
        if self.report:
            self.report(self)

    def _admit(self) -> None:
        while self.waiting:
            if self.active:
                run, _ = next(iter(self.active.values()))
                if len(self.active) >= self.engine.window(run):
                    return
            number = self.waiting.popleft()
            try:
                run = begin(self.jobs[number], self.device)
                run.engine, run.isa = self.engine.name, self.engine.isa
                if run.done:  # killed between its last checkpoint and its result
                    run.save(checkpoint=False)
                    self.ended[number] = run
                else:
                    self.active[number] = (run, Wandb(run))
            except Exception as error:
                self.ended[number] = error
                fail(self.jobs[number], error)

    def _evaluate(self, numbers: Sequence[int]) -> None:
        """Measure the runs that are due, those that have moved since their last measurement."""
        due = [number for number in numbers if self.active[number][0].loss_steps and self.active[number][0].due]
        for number, measured in zip(due, self.engine.evaluate([self.active[n][0] for n in due]), strict=True):
            run, wandb = self.active[number]
            wandb.log(run.evaluated(*measured), run.best_test_acc)

    def _end(self, number: int) -> None:
        run, wandb = self.active.pop(number)
        run.save()
        note(
            run.directory, f"{run.status} at step {run.step}, best test accuracy {run.best_test_acc} at {run.best_step}"
        )
        wandb.finish(run)
        self.ended[number] = run

    def interrupt(self) -> None:
        """Keep what every active run has done so far, a measurement that is due included: going on won't repeat it."""
        self._evaluate(list(self.active))
        for number, (run, _) in list(self.active.items()):
            if not run.done:
                run.status = "interrupted"
            self._end(number)


class _Rounds:
    """Lightning's "batches": rounds for as long as there are runs to train."""

    def __init__(self, training: Training):
        self.training = training

    def __iter__(self) -> Iterator[int]:
        while self.training.waiting or self.training.active:
            yield 0


def begin(job: Job, device: Any = "cpu") -> Run:
    """The run of a job, from its checkpoint where it has one of the same config."""
    run = Run(job.config, job.directory, device)
    if job.directory is not None:
        job.directory.mkdir(parents=True, exist_ok=True)
        state = None if job.config["overwrite"] else records.read_checkpoint(job.directory)
        if state is not None and state["fingerprint"] == run.record()["fingerprint"]:
            run.restore(state)
        note(job.directory, f"training from step {run.step} to {run.steps}")
    return run


def note(directory: Path | None, text: str) -> None:
    """A line in the log of a run's directory, where Hydra's launchers keep it."""
    if directory is not None:
        with open(directory / "train.log", "a", encoding="utf-8") as file:
            file.write(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}\n")


def fail(job: Job, error: Exception) -> None:
    """Leave a record of a run that failed, and its traceback in the directory's log."""
    log.debug("failed", exc_info=error)
    if job.directory is not None:
        job.directory.mkdir(parents=True, exist_ok=True)
        note(job.directory, "failed\n" + "".join(traceback.format_exception(error)))
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        record = {"status": "failed", **keys_of(job.config), **records.versions(), "error": message}
        records.write_result(job.directory, {**record, "config": job.config})


def train(
    jobs: Sequence[Job], threads: int = 0, stack: int = 0, report: Callable[[Training], None] | None = None
) -> list[Run | Exception]:
    """Train jobs that share engine, trainer and (in the torch engine) shape; returns each job's Run or its exception.

    KeyboardInterrupt is raised again once every active run is checkpointed and its record says interrupted.
    """
    trainer = jobs[0].config["trainer"]
    name, _ = engines.choose(jobs[0].config)
    engine = engines.create(name, threads or cores(), trainer, stack)
    module = Training(jobs, engine, report)
    threads_before = torch.get_num_threads()
    if name == "torch" and trainer["accelerator"] == "cpu":
        torch.set_num_threads(1)  # the sums' order, and so the bits, must not depend on the machine's cores
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore",
            message=".*configure_optimizers|.*GPU available|.*isinstance.treespec|.*gradient layout|.*many workers"
            "|.*`srun` command",
        )
        shell = pl.Trainer(
            accelerator=trainer["accelerator"],
            devices=trainer["devices"],
            strategy=trainer["strategy"],
            precision=trainer["precision"],
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            shell.fit(module)
        except (KeyboardInterrupt, SystemExit):  # Lightning ends the process on SIGINT: keep the runs first
            module.interrupt()
            raise KeyboardInterrupt from None
        finally:
            torch.set_num_threads(threads_before)
    return [module.ended[number] for number in range(len(jobs))]


def group(jobs: Sequence[Job]) -> list[list[int]]:
    """Which jobs can train together: all of the native engine's; of the torch engine's, those of one shape.

    Groups, and the runs within, come largest first.
    """
    groups: dict[tuple, list[int]] = {}
    for number, job in enumerate(jobs):
        c = job.config
        name, _ = engines.choose(c)
        key: tuple = (name, json.dumps(c["trainer"], sort_keys=True))
        if name == "torch":
            shape = (c["depth"], c["width"], c["batch_size"], c["loss"], c["optimizer"])
            key += (*shape, c["model"]["name"], c["model"].get("sum_last"), dimension(c))
        groups.setdefault(key, []).append(number)
    ordered = [sorted(numbers, key=lambda n: -cost(jobs[n].config)) for numbers in groups.values()]
    return sorted(ordered, key=lambda numbers: -sum(cost(jobs[n].config) for n in numbers))


def dimension(config: dict[str, Any]) -> int:
    from fractal_ifs.ifs import AffineIFS

    return AffineIFS.from_config({k: v for k, v in config["fractal"].items() if k != "depth"}).d


def cost(config: dict[str, Any]) -> float:
    """Multiplications of a run, to order runs by."""
    return config["steps"] * config["batch_size"] * (config["depth"] * config["width"] ** 2 + 1000)


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
