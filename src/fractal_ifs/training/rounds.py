"""Lightning trains a *set* of runs: each of its batches is a round, in which an engine advances every run in memory.

A single run is a set of one. Runs enter as others end, so that memory holds a window of them however long the sweep.
"""

import json
import logging
import os
import signal
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from fractal_ifs import engines
from fractal_ifs.config.schema import Job
from fractal_ifs.runs import ddp, records
from fractal_ifs.runs.layerwise import LayerwiseRun
from fractal_ifs.runs.locks import Busy, Lock
from fractal_ifs.runs.run import Run, keys_of
from fractal_ifs.training import signals
from fractal_ifs.training.loggers import FINISH_SECONDS, Wandb, finish_all, new_id

log = logging.getLogger(__name__)
for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)

CHECKPOINT_SECONDS = float(os.environ.get("FRACTAL_IFS_CHECKPOINT_SECONDS", "30"))
INTERRUPT_SECONDS = FINISH_SECONDS + 1  # for W&B to end its runs where we were interrupted


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
        if self.active:
            with signals.deferred() as stop:
                try:
                    self._round(stop)
                except Exception as error:  # whose fault it is can't be told: all in training end
                    for number in list(self.active):
                        self._lose(number, error)
            self._keep()
        if self.report:
            self.report(self)

    def _round(self, stop: list) -> None:
        """Steps, their losses, measurements and W&B's rows: cut apart, they would not go on to the same bits."""
        numbers, runs = list(self.active), [run for run, _ in self.active.values()]
        before = [run.step for run in runs]
        begun = time.perf_counter()
        sums = self.engine.advance(runs, [run.steps_to_event() for run in runs], stop)
        costs = [(run.step - was) * run.params.numel() for run, was in zip(runs, before, strict=True)]
        advanced = time.perf_counter()
        for run, was, total, cost in zip(runs, before, sums, costs, strict=True):
            run.advanced(run.step - was, total, (advanced - begun) * cost / (sum(costs) or 1))
            self.steps_done += run.step - was
        self._evaluate(numbers)
        for run, cost in zip(runs, costs, strict=True):
            run.seconds += (time.perf_counter() - advanced) * cost / (sum(costs) or 1)

    def _keep(self) -> None:
        """Records of the runs that have ended, and checkpoints."""
        for number, (run, _) in list(self.active.items()):
            try:
                if run.done:
                    self._end(number)
                elif time.monotonic() - run.checkpointed > CHECKPOINT_SECONDS:
                    run.save()
            except Exception as error:  # a full disk, a directory that was taken away: the others don't suffer
                self._lose(number, error)

    def _admit(self) -> None:
        while self.waiting:
            if self.active and self.engine.full([run for run, _ in self.active.values()], len(self.waiting)):
                return
            number = self.waiting.popleft()
            try:
                run = begin(self.jobs[number], self.device, self.engine)
                ddp.same_start(run)
                run.wandb_id = run.wandb_id or new_id(run.config, run.directory)
                write_begun(run)  # before W&B begins, which takes a second in which it may be killed
                wandb = Wandb(run.config, run.directory, run.wandb_id)
                self.active[number] = (run, wandb)
                if run.done:  # killed between its last checkpoint and its result
                    self._end(number)
            except Exception as error:
                if number in self.active:
                    self._lose(number, error)
                    continue
                self.ended[number] = error
                fail(self.jobs[number], error)
                if not isinstance(error, Busy):
                    Wandb(self.jobs[number].config, self.jobs[number].directory).finish("failed")

    def _evaluate(self, numbers: Sequence[int]) -> None:
        """Measure the runs that are due, those that have moved since their last measurement."""
        due = [number for number in numbers if self.active[number][0].loss_steps and self.active[number][0].due]
        for number, measured in zip(due, self.engine.evaluate([self.active[n][0] for n in due]), strict=True):
            run, wandb = self.active[number]
            wandb.log(run.evaluated(*measured), run.best_test_acc)

    def _end(self, number: int) -> None:
        run, wandb = self.active[number]
        self._save_end(run)
        del self.active[number]
        self.ended[number] = run
        wandb.finish(run.status, summary(run))

    def _save_end(self, run: Run) -> None:
        run.save()
        note(
            run.directory, f"{run.status} at step {run.step}, best test accuracy {run.best_test_acc} at {run.best_step}"
        )
        if run.lock:
            run.lock.release()

    def _lose(self, number: int, error: Exception) -> None:
        """A run has failed: its last checkpoint stays, and the same command goes on from there."""
        run, wandb = self.active.pop(number)
        run.status = "failed"
        self.ended[number] = error
        fail(self.jobs[number], error, run.record())
        if run.lock:
            run.lock.release()
        wandb.finish(run.status, summary(run))

    def interrupt(self) -> None:
        """Keep what every active run has done so far, a measurement that is due included: going on won't repeat it."""
        self._evaluate(list(self.active))
        for run, _ in self.active.values():
            if not run.done:
                run.status = "interrupted"
            try:
                self._save_end(run)
            except OSError as error:
                log.error("%s: %s; its checkpoint before this one stays", run.directory, error)
        endings = [(wandb, run.status, summary(run)) for run, wandb in self.active.values()]
        if not finish_all(endings, INTERRUPT_SECONDS):
            log.warning("W&B is not done with what it has: `wandb sync` sends it later")


class _Rounds:
    """Lightning's "batches": rounds for as long as there are runs to train."""

    def __init__(self, training: Training):
        self.training = training

    def __iter__(self) -> Iterator[int]:
        while self.training.waiting or self.training.active:
            yield 0


def begin(job: Job, device: Any, engine: Any) -> Run:
    """The run of a job, from its checkpoint where it has one. Raises Busy where another process trains it."""
    kind = LayerwiseRun if job.config["training"] == "layerwise" else Run
    if job.directory is None:
        run = kind(job.config, None, device)
        run.engine, run.isa = engine.name, engine.isa
        return run
    job.directory.mkdir(parents=True, exist_ok=True)
    lock = Lock(job.directory, "run")
    try:
        if job.config["overwrite"]:
            for name in ("result.json", "history.csv", records.BEGUN, *records.CHECKPOINTS):
                (job.directory / name).unlink(missing_ok=True)
        run = kind(job.config, job.directory, device)
        run.lock, run.engine, run.isa = lock, engine.name, engine.isa
        run.wandb_id = records.read_begun(job.directory).get("wandb_id")
        if (torn := job.directory / "result.json").exists() and records.read_result(job.directory) is None:
            log.warning("%s can't be read: the run goes on from its last checkpoint", torn)
        state = records.read_checkpoint(job.directory)
        if state is not None:
            records.check_same(job, state["fingerprint"], records.read_begun(job.directory).get("config", {}))
            there = {**state.get("versions", {}), **({"isa": state["isa"]} if state.get("isa") else {})}
            if changed := records.other_versions(there, {"isa": run.isa}):
                text = f"goes on from a checkpoint of other versions ({changed}): perhaps not bit for bit"
                log.warning("%s: %s", job.directory, text)
                note(job.directory, text)
            run.restore(state)
        note(job.directory, f"training from step {run.step} to {run.steps}")
        return run
    except BaseException:
        lock.release()
        raise


def write_begun(run: Run) -> None:
    """What this run is, for who finds it without a record: killed, or in training."""
    if run.directory is not None:
        begun = {"fingerprint": run.record()["fingerprint"], "wandb_id": run.wandb_id, "config": run.config}
        records.write(run.directory / records.BEGUN, json.dumps(begun).encode())


def summary(run: Run) -> dict[str, Any]:
    """What W&B shows of a run that has ended."""
    return {"best_test_acc": run.best_test_acc, "best_step": run.best_step}


def note(directory: Path | None, text: str) -> None:
    """A line in the log of a run's directory, where Hydra's launchers keep it."""
    if directory is not None:
        with open(directory / "train.log", "a", encoding="utf-8") as file:
            file.write(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}\n")


def fail(job: Job, error: Exception, record: Mapping[str, Any] | None = None) -> None:
    """Leave a record of a run that failed, and its traceback in the directory's log, as far as they can be written."""
    log.debug("failed", exc_info=error)
    if job.directory is None or isinstance(error, Busy):  # a busy directory is another's
        return
    try:
        job.directory.mkdir(parents=True, exist_ok=True)
        records.write_result(job.directory, {**(record or {}), **failure(job, error)})
        note(job.directory, "failed\n" + "".join(traceback.format_exception(error)))
    except OSError as second:
        log.error("%s: that it failed can't be written there either (%s)", job.directory, second.strerror)


def failure(job: Job, error: Exception) -> dict[str, Any]:
    """The record of a run that failed."""
    keys = {"status": "failed", **keys_of(job.config), **records.versions(), "error": records.message(error)}
    return {**keys, "config": job.config}


def process_threads(config: Mapping[str, Any]) -> int:
    """PyTorch's threads on CPUs: ``trainer.threads`` for a CNN, else one.

    Never the machine's cores: the sums' order, and so the bits, must not depend on them.
    """
    return config["trainer"].get("threads", 1) if config["model"]["name"] == "cnn" else 1


def train(
    jobs: Sequence[Job],
    threads: int = 0,
    stack: int = 0,
    report: Callable[[Training], None] | None = None,
    together: bool = False,
) -> list[Run | Exception]:
    """Train jobs that share engine, trainer and (in the torch engine) shape; returns each job's Run or its exception.

    ``together``: they are of a sweep, and have the same bits however many of it are left to train.
    KeyboardInterrupt is raised again once every active run is checkpointed and its record says interrupted.
    """
    trainer = jobs[0].config["trainer"]
    name, _ = engines.choose(jobs[0].config)
    engine = engines.create(name, threads or cores(), trainer, stack, together)
    module = Training(jobs, engine, report)
    threads_before = torch.get_num_threads()
    if name != "native" and trainer["accelerator"] == "cpu":
        torch.set_num_threads(process_threads(jobs[0].config))
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore",
            message=".*configure_optimizers|.*GPU available|.*isinstance.treespec|.*gradient layout|.*many workers"
            "|.*`srun` command",
        )
        shell = pl.Trainer(
            accelerator=trainer["accelerator"],
            devices=1,  # of several, each has a process, see ``ddp``
            precision=trainer["precision"],
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[LightningEnvironment()],  # whatever Slurm's variables say: our launcher has started us
        )
        handler = signal.getsignal(signal.SIGINT)
        try:
            shell.fit(module)
        except (KeyboardInterrupt, SystemExit):  # Lightning ends the process on SIGINT: keep the runs first
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, handler)  # Lightning ignores it from the first on
            module.interrupt()
            raise KeyboardInterrupt from None
        finally:
            torch.set_num_threads(threads_before)
    return [module.ended[number] for number in range(len(jobs))]


def group(jobs: Sequence[Job]) -> list[list[int]]:
    """Which jobs can train together: all of the native engine's; of the torch engine's, those of one shape; of
    the conv engine's, each alone.

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
        elif name == "conv":
            key += (number,)  # convolutions over a run axis are no faster than one network after the other
        groups.setdefault(key, []).append(number)
    ordered = [sorted(numbers, key=lambda n: -cost(jobs[n].config)) for numbers in groups.values()]
    return sorted(ordered, key=lambda numbers: -sum(cost(jobs[n].config) for n in numbers))


def dimension(config: dict[str, Any]) -> int:
    from fractal_ifs.fractals.ifs import AffineIFS

    return AffineIFS.from_config({k: v for k, v in config["fractal"].items() if k != "depth"}).d


def cost(config: dict[str, Any]) -> float:
    """Multiplications of a run, to order runs by."""
    if config["model"]["name"] == "cnn":
        from fractal_ifs.networks.convnet import multiplications

        return config["steps"] * config["batch_size"] * float(multiplications(config["depth"], config["width"]))
    return config["steps"] * config["batch_size"] * (config["depth"] * config["width"] ** 2 + 1000)


def cores() -> int:
    """The processor cores that this process may use: those it is bound to, and of these as many as Slurm gave it."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(bound, int(os.environ.get("SLURM_CPUS_PER_TASK", bound)))
