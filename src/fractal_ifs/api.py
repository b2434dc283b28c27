"""Training from Python and notebooks: one network by ``run``, a grid of them by ``sweep``.

Both take the keys and groups of the command line as keywords, with two underscores for a dot: ``fractal__depth=6``.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import torch
from torch import nn

from fractal_ifs.config.compose import compose
from fractal_ifs.config.keys import shown
from fractal_ifs.config.keywords import Lists, Values, signature
from fractal_ifs.config.logger import WandbLogger
from fractal_ifs.config.machine import check_writable
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.errors import ConfigError, counted, short
from fractal_ifs.results.finished_runs import Keeper
from fractal_ifs.runs.buffers import set_buffers
from fractal_ifs.runs.load import in_a_line, table_of
from fractal_ifs.runs.records import RunRecord
from fractal_ifs.sweeps.finished import stored_of, tell_lacking
from fractal_ifs.sweeps.from_python import Executor, trained
from fractal_ifs.sweeps.rungs import Halving
from fractal_ifs.sweeps.sweep import ready
from fractal_ifs.training.train import train

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd


class _Trained(NamedTuple):
    record: RunRecord
    model: nn.Module


class Result(_Trained):
    """What ``run`` returns: ``record, model = run(...)``.

    Attributes:
        record: as in result.json.
        model: the trained network.
        history: one row per evaluation, as of ``load``.
        best: the network as it was at ``record.best_test_acc``. None where nothing was measured.
    """

    history: pd.DataFrame
    best: nn.Module | None

    @property
    def config(self) -> RunConfig:
        """The run's config, as of ``load``."""
        return self.record.config

    def __repr__(self) -> str:
        """A line, as of ``load``."""
        return f"Result({in_a_line(self.record)}; history of {counted(len(self.history), 'row')})"


@overload
def run(directory: str | Path | None = None, **keywords: Unpack[Values]) -> Result: ...
@overload  # keys of one's own, as those of a network in a searchpath
def run(directory: str | Path | None = None, **keywords: Any) -> Result: ...
def run(directory: str | Path | None = None, **keywords: Any) -> Result:
    """Train one network: ``run(fractal="vicsek", curve=4, width=20, steps=20_000, fractal__depth=6)``.

    Args:
        directory: where the run writes its record, and logs if a ``logger`` is asked for. None: nothing is written.
        keywords: the keys and groups of the command line, with two underscores for a dot, as ``data__train_size=1000``.
            Choices of your own are found with ``hydra__searchpath=["mine"]``.

    Returns the record, as in result.json, and the trained module; the history is an attribute. A run that the table
    ``kept`` has is trained all the same, since no network is kept there. Raises ConfigError, or what the run failed
    with.
    """
    _check_directory(directory)
    config = compose(**_without_wandb(keywords))
    if config.kept and directory is None:
        raise ConfigError(f"kept={shown(config.kept)}: needs a directory, in which the run lies")
    if isinstance(config.logger, WandbLogger) and config.logger.mode != "disabled" and directory is None:
        raise ConfigError("logger=wandb: writes files: give the run a directory")
    if (devices := config.trainer.devices) > 1:
        raise ConfigError(
            f"trainer.devices={devices}: must be 1 in run(), which trains in this process; sweep() starts others"
        )
    [job] = ready([Job(config, None if directory is None else Path(directory))])
    if there := stored_of(job):
        tell_lacking([job], {0: there.record})
    if directory is not None:
        check_writable(Path(directory))
    [outcome] = train([job], threads=config.workers)
    if isinstance(outcome, Exception):
        raise outcome
    result = Result(outcome.record(), outcome.trained.eval())
    if job.directory is not None:
        Keeper([job]).add({job.directory: result.record})
    result.history, result.best = table_of(outcome.history), None
    if outcome.best_params is not None:
        result.best = copy.deepcopy(result.model)
        with torch.no_grad():
            nn.utils.vector_to_parameters(outcome.best_params, result.best.parameters())
        set_buffers(result.best, outcome.best_buffers)
    return result


@overload
def sweep(
    directory: str | Path | None = None, *, executor: Executor = "inline", **keywords: Unpack[Lists]
) -> pd.DataFrame: ...
@overload
def sweep(directory: str | Path | None = None, *, executor: Executor = "inline", **keywords: Any) -> pd.DataFrame: ...
def sweep(directory: str | Path | None = None, *, executor: Executor = "inline", **keywords: Any) -> pd.DataFrame:
    """Train a grid of networks, as ``train -m``: ``sweep(fractal=["vicsek", "carpet"], curve=range(1, 7), width=20)``.

    All jobs are checked before the first one starts. What is finished in the directory is not trained again: the same
    call goes on where it was interrupted, and more values join the sweep.

    Args:
        directory: of the sweep. None: ``multirun/NAME``, with the name that the command line would give it.
        executor: ``inline``: all in this process, but for runs on several devices. ``local``: where another engine than
            native trains, a process per core or GPU; a script needs ``if __name__ == "__main__":`` for that. ``auto``:
            ``local``, or ``inline`` where that is quicker.
        keywords: as of ``run``. A list, or a range or an array, is swept. The value of a key that is itself a list is a
            tuple or a list, ``measures=["train_acc", "levels"]``, and a list of these sweeps it.
            ``hydra__sweeper="halving"`` prunes the grid, with that sweeper's keys, as ``hydra__sweeper__over=["lr"]``;
            any other sweeper draws its jobs, as ``"optuna"`` with ``lr=Interval(1e-4, 1e-2, log=True)`` and
            ``hydra__sweeper__n_trials=40``.

    Returns a row per job of the grid, or of those that were drawn, with the columns of results.csv. A job that failed
    has a row that says so: ``status`` and ``error``. ``directory`` is each run's own, for ``load``; the sweep's is
    ``attrs["directory"]``. Raises ConfigError that names all invalid jobs, and Busy where another process drives the
    sweep.
    """
    _check_directory(directory)
    if executor not in (known := ("inline", "local", "auto")):
        raise ConfigError(f"executor={executor}: must be one of {', '.join(known)}")
    return trained(None if directory is None else Path(directory), _without_wandb(keywords), _grid, executor)


def _grid(keys: Any, context: Any, master: Any, words: Sequence[str]) -> tuple[list[list[str]], Halving | None]:
    """The words of each job of the grid that ``words`` and a composed config stand for, and how they are pruned."""
    from hydra_plugins.fractal_ifs_sweeper import CheckedSweeper, HalvingSweeper

    halving = master.hydra.runtime.choices["hydra/sweeper"] == "halving"
    sweeper = HalvingSweeper(**keys) if halving else CheckedSweeper(**keys)
    sweeper.hydra_context, sweeper.config = context, master
    return sweeper.jobs(words), sweeper.halving if isinstance(sweeper, HalvingSweeper) else None


def _check_directory(directory: Any) -> None:
    if not (directory is None or isinstance(directory, (str, os.PathLike))):
        raise ConfigError(f"directory={short(directory)}: must be a path; keys are keywords, width=8")
    if directory is not None and not _is_path(os.fspath(directory)):
        raise ConfigError(f"directory={short(ascii(os.fspath(directory)))}: must be the path of a directory")
    if isinstance(directory, str) and (key := re.match(r"([a-z_.]+)=", directory)):
        raise ConfigError(f"{directory}: would be a directory; keys are keywords, {key[1].replace('.', '__')}=...")


def _is_path(text: str) -> bool:
    try:
        names = os.fsencode(text).split(b"/")
    except UnicodeEncodeError:
        return False
    return bool(text.strip()) and not set(text) & set("\0\n\r") and all(len(name) < 256 for name in names)


def _without_wandb(keywords: dict[str, Any]) -> dict[str, Any]:
    """The keywords, with ``logger=none`` unless they say something of a logger."""
    return keywords if any(name.startswith("logger") for name in keywords) else {"logger": "none", **keywords}


# What a notebook completes. An attribute, because the function takes any keyword: networks have keys of their own.
run.__signature__ = signature(run, Values)  # pyright: ignore[reportFunctionMemberAccess]
sweep.__signature__ = signature(sweep, Lists)  # pyright: ignore[reportFunctionMemberAccess]
