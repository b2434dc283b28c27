"""A sweep that Python asks for: planned as ``train -m`` plans it, trained and kept the same, its table returned.

Hydra's session, and the words that name the sweep, are borrowed while it is planned; training leaves both to the
process's owner, whose logging, signals and streams stay as they are.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fractal_ifs.config.compose import check_choice, check_own, literal
from fractal_ifs.config.interval import Interval
from fractal_ifs.config.machine import check_writable
from fractal_ifs.config.messages import one_line
from fractal_ifs.config.names import sweep_name
from fractal_ifs.config.plugins import check_plugin_keys
from fractal_ifs.config.run import Job
from fractal_ifs.config.session import VERSION_BASE, Loan, borrowed
from fractal_ifs.config.words import LISTS, quoted
from fractal_ifs.errors import ConfigError, message, short
from fractal_ifs.files import CONF, write
from fractal_ifs.runs.failure import failure
from fractal_ifs.runs.records import SWEEP, RunRecord, Status
from fractal_ifs.sweeps.driver import driving
from fractal_ifs.sweeps.finished import Ended, finished_jobs
from fractal_ifs.sweeps.halving import train_by_halving
from fractal_ifs.sweeps.jobs import BatchFunction, Composed, begin_jobs, compose_all, where_they_lie
from fractal_ifs.sweeps.rungs import Halving
from fractal_ifs.sweeps.sweep import train_unfinished
from fractal_ifs.sweeps.table import table_of, write_kept, write_table

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

UNNAMED = "${fractal_ifs.sweep_name:}"  # the key ``sweep`` in conf/config.yaml
Executor = Literal["inline", "local", "auto"]
# The grid's jobs, as words, and how they are pruned: from the sweeper's keys, Hydra's context, the config of the sweep,
# and its words.
Grid = Callable[[Mapping[str, Any], HydraContext, Any, Sequence[str]], tuple[list[list[str]], Halving | None]]


class Plan(NamedTuple):
    """A grid whose jobs are checked."""

    directory: Path
    composed: list[Composed]
    multirun: str  # the content of multirun.yaml
    halving: Halving | None = None
    batch: int | None = None  # jobs that train at a time, as the sweeper's key max_batch_size has it; None: all


class _Asked(NamedTuple):
    """A sweep as Hydra has composed it."""

    loan: Loan
    context: HydraContext
    master: Any
    words: list[str]  # as of train -m
    own: list[str]  # those that are no key of Hydra's

    @property
    def keys(self) -> dict[str, Any]:
        """Those of the sweeper."""
        keys: Any = OmegaConf.to_container(self.master.hydra.sweeper)
        del keys["_target_"]
        return keys


def trained(directory: Path | None, keywords: Mapping[str, Any], grid: Grid, executor: Executor) -> pd.DataFrame:
    """Train a sweep and return its table, as ``fractal_ifs.sweep`` does."""
    with _asked(directory, keywords) as asked:
        if asked.master.hydra.runtime.choices["hydra/sweeper"] in ("checked", "halving"):
            how: Plan | Search = _planned(asked, grid)
        else:
            how = Search(asked, executor)
            how.run()
    return how.table() if isinstance(how, Search) else results(how, executor)


@contextlib.contextmanager
def _asked(directory: Path | None, keywords: Mapping[str, Any]) -> Generator[_Asked]:
    """Compose a sweep's own config. Within, what Hydra raises is a ConfigError."""
    if len(list(_swept(keywords.get("sweep")))) > 1:
        raise ConfigError(f"sweep={short(keywords['sweep'])}: must be one name: the jobs of a call are one sweep")
    named = {key.replace("__", "."): value for key, value in keywords.items()}
    for key, value in named.items():
        check_choice(key, value)
    words = [_word(key, value) for key, value in named.items()]
    with borrowed(searching=True) as loan, initialize_config_dir(str(CONF), **VERSION_BASE):
        try:
            check_own(words, sweeper=True)
            check_plugin_keys(words, "fused", "checked")
            loader = GlobalHydra.instance().config_loader()
            own = [] if directory is None else [f"hydra.sweep.dir={quoted(str(directory.absolute()))}"]
            if "sweep" not in keywords and "experiment" not in keywords:  # an experiment may name its sweep
                words.append(f"sweep={quoted(sweep_name(words))}")
            master = loader.load_configuration("config", [*words, *own], run_mode=RunMode.MULTIRUN)
            plain: Any = OmegaConf.to_container(master)
            if plain["sweep"] == UNNAMED:
                words.append(f"sweep={quoted(sweep_name(words))}")
                master = loader.load_configuration("config", [*words, *own], run_mode=RunMode.MULTIRUN)
            hydra: Any = OmegaConf.to_container(master.hydra)
            _check_hydra(hydra, bool(master.hydra.job.chdir))
            context = HydraContext(loader, None)  # pyright: ignore[reportArgumentType]  (callbacks: nobody calls any)
            yield _Asked(loan, context, master, words, list(master.hydra.overrides.task))
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            raise ConfigError(one_line(error, words)) from None


def _planned(asked: _Asked, grid: Grid) -> Plan:
    words = [word for word in asked.words if not _of_sweeper(word)]
    jobs, halving = grid(asked.keys, asked.context, asked.master, words)
    composed = where_they_lie(compose_all(asked.context, asked.master, jobs))
    if halving and composed:
        halving.check([each.job.config for each in composed])
    for each in composed:
        _check_hydra(each.hydra, each.chdir)
    if not composed:
        raise ConfigError("the sweep has no jobs")
    batch = asked.keys.get("max_batch_size")  # which the sweeper has checked
    return Plan(_directory(composed), composed, OmegaConf.to_yaml(asked.master), halving, batch)


def _directory(composed: Sequence[Composed]) -> Path:
    directories = list(dict.fromkeys(each.sweep_directory.absolute() for each in composed))
    if len(directories) > 1:
        raise ConfigError(f"hydra.sweep.dir: must be the same for all jobs, not {directories[0]} and {directories[1]}")
    return directories[0]


def results(planned: Plan, executor: Executor) -> pd.DataFrame:
    """Train what isn't finished of a grid, and return the table of all jobs."""
    jobs = [each.job for each in planned.composed]
    check_writable(planned.directory)
    with driving(planned.directory):
        try:
            ended = _begun(planned.directory, planned.multirun, planned.composed)
            if planned.halving and len(ended) < len(jobs):
                ended = dict(enumerate(train_by_halving(jobs, ended, planned.halving, executor, 0)))
            else:
                ended = _all_trained(jobs, ended, executor, planned.batch)
        finally:
            write_table(planned.directory)  # where it can't be written, that is logged
    return _table(planned.directory, [(job, ended[number]) for number, job in enumerate(jobs)])


class Search(BatchFunction):
    """A sweep whose jobs a sweeper draws, batch by batch, from what those before them reached.

    Hydra's launcher calls it for each batch, and gets how its jobs ended, by their numbers.
    """

    def __init__(self, asked: _Asked, executor: Executor):
        self.asked = asked
        self.executor: Executor = executor
        self.directory: Path | None = None
        self.ended: dict[Path | None, tuple[Job, Ended]] = {}  # by their directories
        self.raised: Exception | None = None  # by the training itself
        self.stack = contextlib.ExitStack()

    def run(self) -> None:
        """Let the sweeper draw. A job that fails may end that; it is a row of the table then, as in a grid."""
        asked = self.asked
        make = Plugins.instance().instantiate_sweeper
        sweeper = make(hydra_context=asked.context, task_function=self, config=asked.master)
        try:
            with self.stack:
                sweeper.sweep(asked.own)
        except Exception as error:
            failures = [result for _, result in self.ended.values() if isinstance(result, Exception)]
            if error in failures or error.__cause__ in failures:
                log.warning("the search has ended with a job that failed; the same call goes on: %s", message(error))
            elif isinstance(error, ConfigError | HydraException | OmegaConfBaseException):
                raise
            elif self.raised is None:
                asks = (
                    " ".join(filter(_of_sweeper, asked.words))
                    or f"experiment={asked.master.hydra.runtime.choices.experiment}"
                )
                raise ConfigError(f"{asks}: can't be used ({short(message(error), 200)})") from error
        if not (self.ended or self.raised):
            raise ConfigError("the sweep has no jobs")

    def __call__(self, composed: Sequence[Composed]) -> dict[int, Ended]:
        """Train a batch, while Hydra is the process's owner's. The first batch locks the sweep's directory."""
        for each in composed:
            _check_hydra(each.hydra, each.chdir)
        directory = _directory(composed)
        if directory != (self.directory or directory):
            raise ConfigError(f"hydra.sweep.dir: must be the same for all jobs, not {self.directory} and {directory}")
        jobs = [each.job for each in composed]
        with self.asked.loan.interrupted():
            try:
                if self.directory is None:
                    check_writable(directory)
                    self.stack.enter_context(driving(directory))
                    self.stack.callback(write_table, directory)  # where it can't be written, that is logged
                    self.directory = directory
                ended = _begun(directory, OmegaConf.to_yaml(self.asked.master), composed)
                ended = _all_trained(jobs, ended, self.executor)
            except Exception as error:
                self.raised = error
                raise
        self.ended |= {job.directory: (job, ended[number]) for number, job in enumerate(jobs)}
        return ended

    def table(self) -> pd.DataFrame:
        """Of all jobs that were drawn. Raises what training has raised."""
        if self.raised is not None:
            raise self.raised
        return _table(self.directory, list(self.ended.values()))


def _begun(directory: Path, multirun: str, composed: Sequence[Composed]) -> dict[int, Ended]:
    """Write what Hydra writes of a sweep and of its jobs that are still to train. Returns how the others have ended."""
    ended = finished_jobs([each.job for each in composed])
    write(directory / SWEEP, multirun.encode())
    begin_jobs(composed, ended)
    if len(ended) < len(composed):
        write_kept(directory)
    return ended


def _all_trained(
    jobs: Sequence[Job], ended: dict[int, Ended], executor: Executor, batch: int | None = None
) -> dict[int, Ended]:
    """How all jobs have ended. Those that haven't are trained, ``batch`` of them at a time."""
    todo = [number for number in range(len(jobs)) if number not in ended]
    found, size = dict(ended), batch or len(todo)
    for some in (todo[first : first + size] for first in range(0, len(todo), size or 1)):
        found.update(zip(some, train_unfinished([jobs[n] for n in some], executor, 0), strict=True))
    return found


def _table(directory: Path | None, ended: Sequence[tuple[Job, Ended]]) -> pd.DataFrame:
    found = [(job.directory, _record(job, each)) for job, each in ended]
    table = table_of(((where, record) for where, record in found if where), None)
    table.attrs["directory"] = str(directory)
    if len(table) and set(table["status"]) == {Status.DIVERGED}:
        log.warning("%s diverged; try a smaller lr", "the run" if len(table) == 1 else f"all {len(table)} runs")
    return table


def _check_hydra(hydra: Mapping[str, Any], chdir: bool) -> None:
    """Raises ConfigError where an experiment sets, in Hydra's node, what only the command line does."""
    if (choice := hydra["runtime"]["choices"].get("hydra/launcher")) != "fused":
        raise ConfigError(f"hydra/launcher={choice}: must be fused from Python; the command line, train -m, has it")
    given = {
        "hydra.job.chdir=true": chdir,
        **{f"hydra.job.env_set.{short(name)}": True for name in hydra["job"]["env_set"]},
        **{f"hydra.callbacks.{short(name)}": True for name in hydra["callbacks"] if name != "refuse"},
    }
    for key in (key for key, is_given in given.items() if is_given):
        raise ConfigError(f"{key}: can't be given from Python, whose process it would change; train -m has it")


def _record(job: Job, ended: Ended) -> RunRecord:
    """How a job ended, as a record."""
    return failure(job.config, ended) if isinstance(ended, Exception) else ended


def _word(key: str, value: Any) -> str:
    """A keyword as a word of ``train -m``. A list is swept, a tuple is the value of a key that is a list.

    Of a key that we know to be a list, a list is the value too, and one of such lists or tuples is swept.
    """
    if key == "hydra.sweeper" or (key == "hydra.sweeper.sampler" and isinstance(value, str)):  # choices
        return f"{key.replace('.', '/')}={literal(value)}"
    if key == "hydra.searchpath" or _of_sweeper(key):
        return f"{key}={literal(value)}"
    values = list(_swept(value))
    several = isinstance(value.tolist() if hasattr(value, "tolist") else value, (list, range))
    if isinstance(value, (list, tuple)) and any(isinstance(each, Interval) for each in value):
        raise ConfigError(f"{key}={short(value)}: an Interval must stand alone, not in a list")
    named = key == "fractal.base" and all(isinstance(each, (str, Mapping)) for each in values)  # else vertices
    on_lines = LISTS.get(key) == 2 and all(isinstance(each, tuple) and _nested(each) == 1 for each in values)
    if several and _nested(values) <= LISTS.get(key, 0) and not named and not on_lines:
        values = [values]
    if not values:
        raise ConfigError(f"{key}=[]: stands for no jobs")
    for each in values:
        if isinstance(each, str) and each.startswith("~"):
            raise ConfigError(f"{key}={short(each)}: ~ can't stand here, write $HOME")
    return f"{key}={','.join(map(literal, values))}"


def _nested(value: Any) -> int:
    """How deep lists lie in each other: 0 for what is none."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, (list, tuple, range)):
        return 0
    return 1 + max((_nested(each) for each in cast(Sequence[Any], value)), default=0)


def _of_sweeper(word: str) -> bool:
    return word.startswith(("hydra/sweeper", "hydra.sweeper."))


def _swept(value: Any) -> Iterator[Any]:
    if hasattr(value, "tolist"):  # an array of numpy's, a pandas Series, a tensor
        value = value.tolist()
    if isinstance(value, (list, range)):
        yield from value
    else:
        yield value
