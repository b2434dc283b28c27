"""Lightning's shell around the rounds: devices, precision, and what an interrupt leaves."""

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
from fractal_ifs.engines.choice import choose, create
from fractal_ifs.runs.run import Run
from fractal_ifs.training.rounds import SweepRounds

for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)


def process_threads(config: RunConfig) -> int:
    """PyTorch's threads on CPUs: ``trainer.threads`` for a CNN, else one.

    Never the machine's cores: the sums' order, and so the bits, must not depend on them.
    """
    return config.trainer.threads if config.model.name == "cnn" else 1


def train(
    jobs: Sequence[Job],
    threads: int = 0,
    stack: int = 0,
    report: Callable[[SweepRounds], None] | None = None,
    together: bool = False,
) -> list[Run | Exception]:
    """Train jobs that share engine, trainer and (in the torch engine) shape; returns each job's Run or its exception.

    ``together``: they are of a sweep, and have the same bits however many of it are left to train.
    KeyboardInterrupt is raised again once every active run is checkpointed and its record says interrupted.
    """
    trainer = jobs[0].config.trainer
    name = choose(jobs[0].config).engine
    engine = create(name, threads or cores(), trainer, stack, together)
    rounds = SweepRounds(jobs, engine, report)
    threads_before = torch.get_num_threads()
    if name != "native" and trainer.accelerator == "cpu":
        torch.set_num_threads(process_threads(jobs[0].config))
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore",
            message=".*configure_optimizers|.*GPU available|.*isinstance.treespec|.*gradient layout|.*many workers"
            "|.*`srun` command",
        )
        shell = pl.Trainer(
            accelerator=trainer.accelerator,
            devices=1,  # of several, each has a process, see ``ddp``
            precision=trainer.precision,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[LightningEnvironment()],  # whatever Slurm's variables say: our launcher has started us
        )
        handler = signal.getsignal(signal.SIGINT)
        try:
            shell.fit(rounds)
        except (KeyboardInterrupt, SystemExit):  # Lightning ends the process on SIGINT: keep the runs first
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, handler)  # Lightning ignores it from the first on
            rounds.interrupt()
            raise KeyboardInterrupt from None
        finally:
            torch.set_num_threads(threads_before)
    return [rounds.ended[number] for number in range(len(jobs))]
