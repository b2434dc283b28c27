"""A worker process, as its driver sees it."""

import contextlib
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterable, Sequence
from multiprocessing import resource_tracker

from fractal_ifs.config.run import Job
from fractal_ifs.engines.fusing import says_out_of_memory
from fractal_ifs.errors import FailedElsewhere
from fractal_ifs.runs import ddp
from fractal_ifs.runs.failure import fail
from fractal_ifs.runs.records import RunRecord, read_record, version
from fractal_ifs.sweeps.work import ENDING_SECONDS, Outcome, Said, work
from fractal_ifs.training import signals
from fractal_ifs.training.standing import Standing


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
        self.before: dict[int, tuple[int, int] | None] = {}  # the versions of the records that the group found there
        self.fault: str | None = None  # why its GPU can't be used any more
        self.crowded = False  # whether another worker of its GPU has been busy beside its group
        self.connection, self.theirs = context.Pipe()
        # The worker closes its end of this pipe when it is ready. Anything shared would need a /dev/shm that can be
        # written, and a killed worker would never release an Event's lock.
        self.ready, self.not_ready = context.Pipe(duplex=False)
        self.process = context.Process(target=work, args=(self.theirs, self.not_ready, device, stack, rank))

    def begin(self, numbers: list[int], jobs: Sequence[Job]) -> None:
        """Send the worker a group. The first call starts its process: register the worker for clean-up before.

        Args:
            numbers: of the group's jobs in ``jobs``.
        """
        self.numbers, self.fault = numbers, None
        self.before = {n: version(jobs[n].directory) for n in numbers}
        if self.process.pid is None:
            resource_tracker.ensure_running()  # starting it unblocks the signals in this process
            with signals.held_back():  # a signal must not break its imports; it accepts signals when it is ready
                self.process.start()
            self.theirs.close()
            self.not_ready.close()
        with contextlib.suppress(OSError):  # it has died: ``end`` will notice
            self.connection.send([jobs[n] for n in numbers])

    @property
    def full(self) -> bool:
        """Whether its GPU has no memory left."""
        return self.fault is not None and says_out_of_memory(self.fault)

    def too_large(self, outcomes: Iterable[Outcome]) -> bool:
        """Whether it had the full GPU to itself, so that what failed once it had begun is too large for any."""
        begun = any(isinstance(found, Exception) and not isinstance(found, GpuFailed) for found in outcomes)
        return self.full and begun and not self.crowded

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
            return [left(jobs[n], WorkerDied(f"its worker process {how}"), self.before[n]) for n in self.numbers]

    def _next(self, jobs: Sequence[Job]) -> tuple[list[RunRecord | str], str | None] | Standing | None:
        """What the worker has sent next. What it has logged is logged here. Raises EOFError where nothing is left."""
        told = self.connection.recv()
        if not isinstance(told, Said):
            return told
        first, more = jobs[self.numbers[0]].directory, len(self.numbers) - 1
        who = f"{first.name if first else self.numbers[0]}{f' and {more} more' if more else ''}"
        logging.getLogger(told.logger).log(told.level, "%s: %s", who, told.text)
        return None


def left(job: Job, error: WorkerDied, before: tuple[int, int] | None = None) -> Outcome:
    """The outcome of a dead worker's job: its record if the job had ended, otherwise its failure.

    ``before`` is the version of the record that the worker found, which with ``overwrite=true`` is another attempt's.
    """
    # The job had not begun: a record there is an older one.
    never = job.config.overwrite and (isinstance(error, GpuFailed) or version(job.directory) == before)
    record = None if job.directory is None or never else read_record(job.directory)
    if record and record.status.ended and record.fingerprint in job.config.fingerprints:
        return record
    fail(job, error)
    return error


def recorded(job: Job, outcome: Outcome) -> Outcome:
    """An outcome, whose job has a record of it if no process could write one."""
    return left(job, outcome) if isinstance(outcome, GpuFailed) else outcome
