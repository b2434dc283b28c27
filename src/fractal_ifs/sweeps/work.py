"""What a worker process does: it trains groups of jobs, and tells its driver their outcomes, and how far it is."""

import contextlib
import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch

from fractal_ifs import streams
from fractal_ifs.config.run import Job
from fractal_ifs.engines.fusing import says_out_of_memory
from fractal_ifs.errors import message
from fractal_ifs.runs import ddp
from fractal_ifs.runs.records import RunRecord
from fractal_ifs.runs.run import Run
from fractal_ifs.training import signals
from fractal_ifs.training.rounds import SweepRounds
from fractal_ifs.training.train import train

Outcome = RunRecord | Exception  # a job's record, or the exception that it failed with

ENDING_SECONDS = 20.0  # how long an interrupted worker may take to end
TELLING_SECONDS = 1.0  # between two times that a worker tells how far it is


def train_group(
    jobs: Sequence[Job],
    stack: int,
    report: Callable[[SweepRounds], None] | None = None,
    follow: Callable[[SweepRounds], None] | None = None,
) -> list[Outcome]:
    """Train a group of jobs in this process. Returns their outcomes, in order; arguments as in ``train``."""

    seen = 0  # how many of the rounds' jobs had ended, which may be very many

    def after(rounds: SweepRounds) -> None:
        nonlocal seen
        for run in islice(reversed(rounds.ended.values()), len(rounds.ended) - seen):
            if isinstance(run, Run):
                run.let_go()
        seen = len(rounds.ended)
        if report:
            report(rounds)

    outcomes = train(jobs, jobs[0].config.workers, stack, after, follow)
    return [outcome if isinstance(outcome, Exception) else outcome.record() for outcome in outcomes]


class Said(NamedTuple):
    """What a worker has logged."""

    logger: str
    level: int
    text: str


def work(connection: Any, not_ready: Any, device: str | None, stack: int, rank: ddp.Rank | None = None) -> None:
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
        with Telling(connection) as telling:
            while True:
                jobs = connection.recv()
                outcomes: list[Outcome] = []
                if (fault := device and gpu_fault()) is None:
                    with ddp.joined(rank):
                        outcomes = train_group(jobs, stack, None, None if rank and rank.number else telling.follow)
                    failed = [message(found) for found in outcomes if isinstance(found, Exception)]
                    if device and failed:
                        fault = gpu_fault() or next(filter(says_out_of_memory, failed), None)
                # Exceptions are sent as text: some kinds can't be pickled, or not unpickled by the driver.
                telling.tell(([message(found) if isinstance(found, Exception) else found for found in outcomes], fault))


def gpu_fault() -> str | None:
    """Why this process's GPU doesn't work, in a line; None if it does."""
    try:
        torch.ones(1, device="cuda").sum().item()
    except (RuntimeError, AssertionError) as error:
        return message(error).splitlines()[0]
    return None


class Telling(logging.Handler):
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
        try:
            self.queue.put(Said(record.name, record.levelno, record.getMessage()))
        except Exception:  # its arguments don't fit its text, which must harm nobody
            self.handleError(record)

    def __enter__(self) -> "Telling":
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
