"""Runs the rounds under a Lightning Trainer, which sets up devices and precision, and saves runs on an interrupt."""

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Sequence

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from fractal_ifs.config.machine import cores
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.config.trainer import Trainer
from fractal_ifs.engines.choice import choose, create
from fractal_ifs.runs.run import Run
from fractal_ifs.training.lightning import LightningEngine, LightningRounds
from fractal_ifs.training.lightning_parts import check_parts
from fractal_ifs.training.rounds import SweepRounds

for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)


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
) -> list[Run | Exception]:
    """Train jobs of one group (see ``grouping.groups_of``). Returns each job's Run, or the exception it failed with.

    Args:
        jobs: in the order in which they begin, each with its ``source``: see ``runs.longer.with_sources``.
        threads: threads of the native engine; 0: one for each core.
        stack: largest number of runs in a stack of the torch engine; 0: it decides.
        report: called after each round, for the progress line.

    Raises KeyboardInterrupt on an interrupt, once every active run has a checkpoint and a record that says interrupted.
    """
    trainer = jobs[0].config.trainer
    name = choose(jobs[0].config).engine
    if name == "lightning":
        check_parts(jobs)
        rounds = LightningRounds(jobs, LightningEngine(jobs[0].config), report)
    else:
        rounds = SweepRounds(jobs, create(name, threads or cores(), trainer, stack), report)
    threads_before = torch.get_num_threads()
    if trainer.accelerator == "cpu":  # the native engine has threads of its own; its measures are torch's
        torch.set_num_threads(process_threads(jobs[0].config))
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore",
            message=".*configure_optimizers|.*GPU available|.*isinstance.treespec|.*gradient layout|.*many workers"
            "|.*`srun` command|.*logging interval",
        )
        handler = signal.getsignal(signal.SIGINT)
        try:
            if isinstance(rounds, LightningRounds):
                rounds.train_all()
            else:
                _shell(trainer).fit(rounds)
        except (KeyboardInterrupt, SystemExit):  # Lightning turns SIGINT into SystemExit: save the runs first
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, handler)  # Lightning ignores SIGINT after the first one
            rounds.interrupt()
            raise KeyboardInterrupt from None
        finally:
            torch.set_num_threads(threads_before)
    return [rounds.ended[number] for number in range(len(jobs))]


def _shell(trainer: Trainer) -> pl.Trainer:
    """The Lightning Trainer that rounds run under."""
    return pl.Trainer(
        accelerator=trainer.accelerator,
        devices=1,  # with several devices, each has its own process: see ``runs.ddp``
        precision=trainer.precision,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[LightningEnvironment()],  # ignore Slurm's variables: our own launcher starts the processes
    )
