"""Where groups of runs train: ``inline``, in this process, or ``local``, in worker processes, by default one per GPU
or core.

The native engine has its own threads and always trains inline. On CPUs the torch engine uses one thread per process:
two threads in each of two processes are ten times slower than one in each. CNNs have several processes on each GPU: a
single one can't launch their kernels as fast as the GPU computes them.
"""

import contextlib
import logging
import multiprocessing
import os
import queue
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any, NamedTuple

import torch

from fractal_ifs import streams
from fractal_ifs.config.machine import cnns_of_a_gpu, cores, gpus
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.engines.choice import choose
from fractal_ifs.errors import FailedElsewhere, message
from fractal_ifs.runs import ddp
from fractal_ifs.runs.failure import fail
from fractal_ifs.runs.records import RunRecord, read_record
from fractal_ifs.runs.run import Run
from fractal_ifs.training import signals
from fractal_ifs.training.grouping import groups_of
from fractal_ifs.training.rounds import SweepRounds
from fractal_ifs.training.standing import Standing
from fractal_ifs.training.train import process_threads, train

log = logging.getLogger(__name__)

Outcome = RunRecord | Exception  # a job's record, or the exception that it failed with

ENDING_SECONDS = 20.0  # how long an interrupted worker may take to end
TELLING_SECONDS = 1.0  # between two times that a worker tells how far it is
FULL = "out of memory"  # what an error of a GPU says that has no memory left


def execute(
    jobs: Sequence[Job],
    executor: str,
    stack: int,
    report: Callable[[SweepRounds], None],
    told: Callable[[Sequence[int], SweepRounds | Standing], None],
) -> Iterator[tuple[list[int], list[Outcome]]]:
    """Train jobs in groups that one engine can hold, the largest group first.

    Args:
        executor, stack: as in ``sweeps.sweep.train_jobs``.
        report: called after every round of training in this process.
        told: called with the numbers of jobs that train together, when they begin, with what says how far they are; of
            those in another process with how far they are, again and again.

    Yields the numbers and the outcomes of jobs, as they end.
    """
    groups = groups_of(jobs)
    parallel: dict[int, list[list[int]]] = {}  # by how many workers may train such groups
    for numbers in groups:
        config = jobs[numbers[0]].config
        name = choose(config).engine
        if config.trainer.devices > 1:
            for number in numbers:
                yield [number], [_on_devices(jobs[number], number, told)]
            continue
        workers = processes(config)
        if executor == "inline" or name == "native" or workers == 1 or len(jobs) == 1:
            yield numbers, train_group([jobs[n] for n in numbers], stack, report, partial(told, numbers))
        else:
            parallel.setdefault(workers, []).extend(shares(numbers, workers))
    for workers, groups in parallel.items():
        yield from _local(jobs, groups, min(workers, len(groups)), stack, told)


def shares(numbers: list[int], workers: int) -> list[list[int]]:
    """Share out a group among the workers so that each gets runs of every length. Empty shares are left out."""
    return [share for worker in range(workers) if (share := numbers[worker::workers])]


def processes(config: RunConfig) -> int:
    """How many worker processes a group gets that isn't of the native engine: ``workers``, or one per GPU or per core.

    On CPUs there are fewer where each process has several threads, on GPUs more for CNNs.
    """
    if config.trainer.accelerator == "cpu":
        return config.workers or max(1, cores() // process_threads(config))
    return config.workers or len(gpus()) * (cnns_of_a_gpu(config) if choose(config).engine == "conv" else 1)


def train_group(
    jobs: Sequence[Job],
    stack: int,
    report: Callable[[SweepRounds], None] | None = None,
    follow: Callable[[SweepRounds], None] | None = None,
) -> list[Outcome]:
    """Train a group of jobs in this process. Returns their outcomes, in order; arguments as in ``train``."""

    def after(rounds: SweepRounds) -> None:
        for run in rounds.ended.values():
            if isinstance(run, Run):
                run.let_go()
        if report:
            report(rounds)

    outcomes = train(jobs, jobs[0].config.workers, stack, after, follow)
    return [outcome if isinstance(outcome, Exception) else outcome.record() for outcome in outcomes]


class Said(NamedTuple):
    """What a worker has logged."""

    logger: str
    level: int
    text: str


class WorkerDied(RuntimeError):
    """A worker process ended before its jobs did."""


class GpuFailed(WorkerDied):
    """A GPU doesn't work, so a job couldn't be trained there. Its directory doesn't tell so yet."""


class Worker:
    """A process that trains one group of jobs after another.

    Args:
        device: the GPU that is this worker's own. None: it trains on the CPU.
        stack: as in ``execute``.
        rank: its place among several workers that train one run together. None: it trains alone.
    """

    def __init__(self, device: str | None, stack: int, rank: ddp.Rank | None = None):
        context = multiprocessing.get_context("spawn")
        self.device, self.numbers = device, []
        self.fault: str | None = None  # why its GPU can't be used any more
        self.crowded = False  # whether another worker of its GPU has been busy beside its group
        self.connection, self.theirs = context.Pipe()
        # The worker closes its end of this pipe when it is ready. Anything shared would need a /dev/shm that can be
        # written, and a killed worker would never release an Event's lock.
        self.ready, self.not_ready = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(self.theirs, self.not_ready, device, stack, rank))

    def begin(self, numbers: list[int], jobs: Sequence[Job]) -> None:
        """Send the worker a group. The first call starts its process: register the worker for clean-up before.

        Args:
            numbers: of the group's jobs in ``jobs``.
        """
        self.numbers = numbers
        if self.process.pid is None:
            resource_tracker.ensure_running()  # starting it unblocks the signals in this process
            with signals.held_back():  # a signal must not break its imports; it accepts signals when it is ready
                self.process.start()
            self.theirs.close()
            self.not_ready.close()
        with contextlib.suppress(OSError):  # it has died: ``end`` will notice
            self.connection.send([jobs[n] for n in numbers])

    def interrupt(self) -> None:
        """Tell the worker to checkpoint its runs and end. One that is still importing has no runs, and is killed."""
        if self.process.pid and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGTERM if self.ready.poll() else signal.SIGKILL)

    def join(self, jobs: Sequence[Job]) -> None:
        """Wait for the process to end, at most ``ENDING_SECONDS``, and log what it has logged meanwhile."""
        if self.process.pid:
            self.process.join(ENDING_SECONDS)
        with contextlib.suppress(EOFError, OSError):
            while self.connection.poll():
                self._next(jobs)

    def heard(self, jobs: Sequence[Job]) -> list[Outcome] | Standing | None:
        """What the worker tells next: the outcomes of its group, how far that is, or None for what is logged here.

        If its process has died, the outcomes are what it has left on disk. Where its GPU turned out not to work,
        ``fault`` says why, and the outcomes of what it couldn't train are errors.
        """
        try:
            told = self._next(jobs)
            if told is None or isinstance(told, Standing):
                return told
            outcomes, self.fault = told
            if self.fault and not outcomes:
                return [GpuFailed(f"GPU {self.device}: {self.fault}") for _ in self.numbers]
            return [FailedElsewhere(found) if isinstance(found, str) else found for found in outcomes]
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            return [_left(jobs[n], WorkerDied(f"its worker process {how}")) for n in self.numbers]

    def _next(self, jobs: Sequence[Job]) -> tuple[list[RunRecord | str], str | None] | Standing | None:
        """What the worker has sent next. What it has logged is logged here. Raises EOFError where nothing is left."""
        told = self.connection.recv()
        if not isinstance(told, Said):
            return told
        first, more = jobs[self.numbers[0]].directory, len(self.numbers) - 1
        who = f"{first.name if first else self.numbers[0]}{f' and {more} more' if more else ''}"
        logging.getLogger(told.logger).log(told.level, "%s: %s", who, told.text)
        return None


def _left(job: Job, error: WorkerDied) -> Outcome:
    """The outcome of a dead worker's job: its record if the job had ended, otherwise its failure."""
    record = None if job.directory is None else read_record(job.directory)
    if record and record.status.ended and record.fingerprint in job.config.fingerprints:
        return record
    fail(job, error)
    return error


def _local(
    jobs: Sequence[Job],
    groups: list[list[int]],
    count: int,
    stack: int,
    told: Callable[[Sequence[int], Standing], None],
) -> Iterator[tuple[list[int], list[Outcome]]]:
    """Train groups in ``count`` worker processes. If a worker dies, its jobs have failed and the others go on.

    On GPUs they are dealt out like cards. A GPU that doesn't work, or not any more, is left out: its other workers end
    what they train, if they can, and begin nothing. What it has lost goes on elsewhere, but for jobs that have begun on
    two such GPUs. Where a worker runs out of memory beside others of its GPU, they go on without it, and with its jobs;
    the last of them has the GPU to itself.
    """
    on_cpu = jobs[groups[0][0]].config.trainer.accelerator == "cpu"
    free: list[str | None] = [None] * count if on_cpu else list(islice(cycle(gpus()), count))
    waiting = deque(groups)
    busy: dict[Any, Worker] = {}
    out, moved = set[str | None](), set[int]()  # GPUs that are left out, and jobs that have begun on one

    def begin(worker: Worker) -> None:
        beside = [other for other in busy.values() if other.device == worker.device]
        for each in beside:
            each.crowded = len(beside) > 1
        worker.begin(waiting.popleft(), jobs)

    try:
        while waiting or busy:
            while waiting and free:
                worker = Worker(free.pop(0), stack)
                busy[worker.connection] = worker
                begin(worker)
            signals.heed()
            for connection in wait(list(busy)):
                worker = busy[connection]  # pyright: ignore[reportArgumentType]
                heard = worker.heard(jobs)
                if isinstance(heard, Standing):
                    told(worker.numbers, heard)
                if not isinstance(heard, list):
                    continue
                ended = dict(zip(worker.numbers, heard, strict=True))
                failed = [n for n, outcome in ended.items() if isinstance(outcome, Exception)]
                begun = {n for n in failed if not isinstance(ended[n], GpuFailed)}
                full = worker.fault is not None and FULL in worker.fault
                if worker.fault and not (full and begun and not worker.crowded):  # alone, its jobs are too large
                    busy.pop(worker.connection).connection.close()
                    lost = failed
                    if full and worker.crowded:
                        log.warning("GPU %s has a worker less: %s", worker.device, worker.fault)
                        on_others = (out, free, [other.device for other in busy.values()])
                        if not any(worker.device in devices for devices in on_others):
                            free.append(worker.device)
                    else:
                        if worker.device not in out:
                            log.warning("GPU %s is left out: %s", worker.device, worker.fault)
                        out.add(worker.device)
                        free = [device for device in free if device not in out]
                        lost = [n for n in failed if n not in begun & moved]
                        moved |= begun  # what has broken two GPUs may be the cause
                    others = free or [other for other in busy.values() if other.device not in out]
                    if lost and others:
                        waiting.append(lost)
                        ended = {n: outcome for n, outcome in ended.items() if n not in lost}
                    if not others:
                        ended |= {n: GpuFailed(f"no GPU is left: {worker.fault}") for group in waiting for n in group}
                        waiting.clear()
                elif waiting and worker.device not in out and worker.process.is_alive():
                    yield worker.numbers, list(ended.values())
                    begin(worker)
                    continue
                else:
                    free += [worker.device] if worker.device not in out else []
                    busy.pop(worker.connection).connection.close()  # this ends the worker
                yield list(ended), [_recorded(jobs[n], outcome) for n, outcome in ended.items()]
    except KeyboardInterrupt:
        for worker in busy.values():
            worker.interrupt()
        for worker in busy.values():
            worker.join(jobs)
        raise


def _recorded(job: Job, outcome: Outcome) -> Outcome:
    """An outcome, whose job has a record of it if no process could write one."""
    return _left(job, outcome) if isinstance(outcome, GpuFailed) else outcome


def _on_devices(job: Job, number: int, told: Callable[[Sequence[int], Standing], None]) -> Outcome:
    """Train one run in a process per device. Only the first process writes to the run's directory."""
    count = job.config.trainer.devices
    devices = [None] * count if job.config.trainer.accelerator == "cpu" else gpus()[:count]
    with tempfile.TemporaryDirectory() as meeting:
        workers = [Worker(device, 0, ddp.Rank(r, count, f"{meeting}/ranks")) for r, device in enumerate(devices)]
        try:
            for worker in workers:
                worker.begin([0], [job if worker is workers[0] else job._replace(directory=None)])
            signals.heed()
            others = [worker.process.sentinel for worker in workers[1:]]
            while True:
                if workers[0].connection not in wait([workers[0].connection, *others]):
                    workers[0].process.kill()  # another has died, for which it would wait
                heard = workers[0].heard([job])
                if isinstance(heard, list):
                    return _recorded(job, heard[0])
                if heard:
                    told([number], heard)
        except KeyboardInterrupt:
            workers[0].interrupt()
            workers[0].join([job])
            raise
        finally:
            workers[0].connection.close()
            for worker in workers[1:]:  # these save nothing, and might wait forever for the first
                if worker.process.pid:
                    worker.process.kill()
                worker.join([job])


def _work(connection: Any, not_ready: Any, device: str | None, stack: int, rank: ddp.Rank | None = None) -> None:
    """The main function of a worker. It ends when its driver closes the connection, or ends.

    ``not_ready`` is closed once the worker accepts signals.
    """
    streams.outlast()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device  # before anything here uses CUDA
    os.environ.pop("WANDB_SERVICE", None)  # the driver's: a service of its own can be ended if it hangs
    for kind in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(kind, signal.SIG_IGN)  # warnings of a batch system, which sends them to all: the driver acts
    with contextlib.suppress(KeyboardInterrupt, EOFError, OSError), signals.ending(at_once=False):
        threading.Thread(target=_end_with_driver, daemon=True).start()
        if rank is not None and rank.number:
            for kind in signals.ENDING:
                signal.signal(kind, signal.SIG_IGN)  # its driver ends it, after the first rank has checkpointed
        not_ready.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.ENDING)
        with _Telling(connection) as telling:
            while True:
                jobs = connection.recv()
                outcomes: list[Outcome] = []
                if (fault := device and gpu_fault()) is None:
                    with ddp.joined(rank):
                        outcomes = train_group(jobs, stack, None, None if rank and rank.number else telling.follow)
                    failed = [message(found) for found in outcomes if isinstance(found, Exception)]
                    if device and failed:
                        fault = gpu_fault() or next((text for text in failed if FULL in text), None)
                # Exceptions are sent as text: some kinds can't be pickled, or not unpickled by the driver.
                telling.tell(([message(found) if isinstance(found, Exception) else found for found in outcomes], fault))


def gpu_fault() -> str | None:
    """Why this process's GPU doesn't work, in a line; None if it does."""
    try:
        torch.ones(1, device="cuda").sum().item()
    except (RuntimeError, AssertionError) as error:
        return message(error).splitlines()[0]
    return None


class _Telling(logging.Handler):
    """Tells a worker's driver what it logs, how far it is, and its outcomes.

    One thread sends all of them, because no signal interrupts it: half a message would spoil those that follow.
    """

    def __init__(self, connection: Any):
        super().__init__()
        self.connection, self.queue, self.rounds = connection, queue.SimpleQueue[Any](), None
        self.thread = threading.Thread(target=self._send, daemon=True)

    def follow(self, rounds: SweepRounds) -> None:
        """Tell from now on how far these rounds are."""
        self.rounds = rounds

    def tell(self, what: Any) -> None:
        """Tell the outcomes of the rounds, after which they are followed no more."""
        self.rounds = None
        self.queue.put(what)

    def emit(self, record: logging.LogRecord) -> None:
        """Tell what is logged. Called by ``logging``."""
        self.queue.put(Said(record.name, record.levelno, record.getMessage()))

    def __enter__(self) -> "_Telling":
        logging.getLogger("fractal_ifs").setLevel(logging.INFO)
        logging.getLogger().addHandler(self)
        with signals.held_back():
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
        self.queue.put(None)
        self.thread.join(ENDING_SECONDS / 4)  # nobody may be reading

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # the driver is gone
            while True:
                try:
                    what = self.queue.get(timeout=TELLING_SECONDS)
                except queue.Empty:
                    if (rounds := self.rounds) is None:
                        continue
                    what = rounds.standing()
                if what is None:
                    return
                self.connection.send(what)


def _end_with_driver() -> None:
    """End this worker when its driver is gone and can't tell it to. It checkpoints its runs first."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ENDING_SECONDS)
    os._exit(1)
