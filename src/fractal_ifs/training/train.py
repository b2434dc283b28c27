"""Trains jobs of one group in this process, and saves their runs on an interrupt."""

import signal
import threading
import warnings
from collections.abc import Callable, Sequence

import torch

from fractal_ifs.config.machine import cores
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.engines.arithmetic import multiplying
from fractal_ifs.engines.choice import choose, create
from fractal_ifs.runs import ddp
from fractal_ifs.runs.run import Run
from fractal_ifs.training.rounds import SweepRounds


def process_threads(config: RunConfig) -> int:
    """How many threads PyTorch uses on a CPU: ``trainer.threads`` for a CNN, else one.

    It never depends on the machine's cores, because the number of threads changes the order of sums, and so the bits.
    """
    return config.trainer.threads if config.model.name == "cnn" else 1


def train(
    jobs: Sequence[Job],
    threads: int = 0,
    stack: int = 0,
    report: Callable[[SweepRounds], None] | None = None,
    follow: Callable[[SweepRounds], None] | None = None,
) -> list[Run | Exception]:
    """Train jobs of one group (see ``grouping.groups_of``). Returns each job's Run, or the exception it failed with.

    Args:
        jobs: in the order in which they begin, each with its ``source``: see ``runs.longer.with_sources``.
        threads: threads of the native engine; 0: one for each core.
        stack: largest number of runs in a stack of the torch engine; 0: it decides.
        report: called after each round.
        follow: called before the first, with what says at any time how far the jobs are: its ``standing``.

    Raises KeyboardInterrupt on an interrupt, once every active run has a checkpoint and a record that says interrupted.
    """
    trainer = jobs[0].config.trainer
    name = choose(jobs[0].config).engine
    if name == "lightning":
        from fractal_ifs.training.lightning import rounds_of

        rounds = rounds_of(jobs, report)
    else:
        rounds = SweepRounds(jobs, create(name, threads or cores(), trainer, stack), report)
    threads_before = torch.get_num_threads()
    if trainer.accelerator == "cpu":  # the native engine has threads of its own; its measures are torch's
        torch.set_num_threads(process_threads(jobs[0].config))
    if follow:
        follow(rounds)
    try:
        # Whatever this process has asked for: in steps, measures, and the inputs of later layers.
        with multiplying(trainer.tf32), warnings.catch_warnings():
            # A gradient in another layout than its view of the run's vector is right, if a little slower.
            warnings.filterwarnings("ignore", message=".*gradient layout")
            # Torch 2.11 advises the newer of its two ways to ask for TF32, see ``engines.arithmetic``.
            warnings.filterwarnings("ignore", message="Please use the new API settings to control TF32")
            _train(rounds)
    finally:
        torch.set_num_threads(threads_before)
    return [rounds.ended[number] for number in range(len(jobs))]


def _train(rounds: SweepRounds) -> None:
    """Train all, or save what there is and raise KeyboardInterrupt, or the error that ended it."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        rounds.train_all()
    except (KeyboardInterrupt, SystemExit):  # a Trainer turns SIGINT into SystemExit: save the runs first
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)  # which a Trainer ignores after the first one
        rounds.interrupt()
        raise KeyboardInterrupt from None
    except Exception:  # of none of the runs alone: all go on from here
        if not ddp.together():  # where the other processes of the run may wait for this one
            rounds.interrupt()
        raise
