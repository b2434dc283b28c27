"""Launchers for Hydra's multirun: ``hydra/launcher=fused`` and ``hydra/launcher=slurm``.

All jobs are checked before the first one starts, and are trained together. Each job leaves what it leaves with Hydra's
basic launcher: its directory, its ``.hydra``, its log, its return value.
"""

import contextlib
import copy
import logging
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, env_override, setup_globals
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from fractal_ifs.config.compose import parse
from fractal_ifs.config.machine import check_writable
from fractal_ifs.config.messages import one_line
from fractal_ifs.config.run import Job
from fractal_ifs.config.session import JobFunction
from fractal_ifs.errors import ConfigError, counted, short
from fractal_ifs.extras import require
from fractal_ifs.files import write
from fractal_ifs.runs import locks
from fractal_ifs.runs.locks import Busy
from fractal_ifs.runs.records import SWEEP
from fractal_ifs.sweeps.driver import driving, kept, swept
from fractal_ifs.sweeps.finished import Ended, best_of, finished_jobs, finished_or_kept
from fractal_ifs.sweeps.jobs import (
    BatchFunction,
    Composed,
    begin_jobs,
    check_here,
    compose_all,
    current,
    where_they_lie,
)
from fractal_ifs.sweeps.packing import Packing
from fractal_ifs.sweeps.rungs import Halving
from fractal_ifs.sweeps.slurm_settings import SlurmSettings

log = logging.getLogger(__name__)

GOING_BY_RESULTS = ("outward", "optuna", "ax", "nevergrad")  # sweepers that need what jobs return


class Refuse(Callback):
    """Refuses a single run before Hydra writes anything into its directory."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """End the process with one line if the config is invalid, or the directory is another config's."""
        HydraConfig.instance().set_config(config)  # for ${hydra:...}
        try:
            _check_single(config)
            job = Job(parse(config), Path(str(config.hydra.run.dir)).absolute())
            if finished_or_kept(job) is None:
                check_here(job.config)
            assert job.directory is not None
            if locks.trained(job.directory):  # else Hydra would write there before the run finds the lock
                locks.of_directory(job.directory, "run").release()
        except (ConfigError, Busy) as error:
            sys.exit(f"error: {error}")
        except OmegaConfBaseException as error:
            words: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
            sys.exit(f"error: {one_line(error, words)}")


def _check_single(config: DictConfig) -> None:
    """Raises ConfigError if a command without -m chooses what only a sweep has: Hydra would ignore it."""
    chosen = config.hydra.runtime.choices
    for group, known in (("hydra/launcher", ("fused", "basic")), ("hydra/sweeper", ("checked", "basic"))):
        if (choice := chosen.get(group)) not in known:
            raise ConfigError(f"{group}={choice}: is for a sweep: add -m")
    for key in ("hydra.sweep.dir", "hydra.sweep.subdir"):
        check_place(config, key, "hydra.run.dir", "a single run lies in hydra.run.dir; -m makes a sweep")
    grid = OmegaConf.select(config, "hydra.sweeper.params")
    if grid or str(config.hydra.mode).endswith("MULTIRUN"):
        name = f"experiment={chosen.experiment}" if chosen.get("experiment") else "hydra.sweeper.params"
        raise ConfigError(f"{name}: is a sweep: add -m")


def check_place(config: DictConfig, key: str, right: str, why: str) -> None:
    """Raises ConfigError where a command says by ``key`` where its runs go, though ``right`` says that here."""
    words: Any = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
    asked = [word for word in words if word.lstrip("+").startswith(f"{key}=")]
    if asked and not any(word.startswith(f"{right}=") for word in words):
        raise ConfigError(f"{short(asked[-1])}: counts for nothing here: {why}")


class _Return(JobReturn):
    """How a job ended. Its configs are made when somebody asks for them, which is only a user's callback."""

    def __init__(self, composed: Composed):  # the fields of JobReturn have their defaults in the class
        self.composed = composed
        self.overrides = list(composed.hydra["overrides"]["task"])
        self.task_name = composed.name
        self.working_dir = str(Path.cwd())

    @cached_property
    def cfg(self) -> DictConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        return OmegaConf.create(self.composed.values)

    @cached_property
    def hydra_cfg(self) -> DictConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        whole = self.composed.whole
        with flag_override(whole, ["struct", "readonly"], False):
            for key in self.composed.values:
                del whole[key]
        return whole

    @property
    def return_value(self) -> Any:
        if error := failure_of(self):
            raise error
        return super().return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


def failure_of(job: JobReturn) -> Exception | None:
    """What a job failed with. Hydra, where it is asked for a value, prints a line about it besides."""
    return vars(job)["_return_value"] if job.status == JobStatus.FAILED else None


class FusedLauncher(Launcher):
    """Trains the jobs of a sweep together, group by group; the keys are those of ``Packing``."""

    here = True  # whether jobs run on this machine
    halving: Halving | None = None  # that of a sweeper which prunes

    def __init__(self, **keys: Any):
        self.packing = Packing.parse({"executor": "auto", "stack": 0} | keys)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives a launcher before ``launch``. Raises ConfigError in an application of another's."""
        if not isinstance(task_function, (JobFunction, BatchFunction)):
            raise ConfigError("hydra/launcher: must be basic here; ours trains jobs, and calls no function of yours")
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.checked: tuple[Sequence[Sequence[str]], list[Composed]] | None = None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check all jobs, then train them. Returns how each ended, as Hydra expects it.

        Raises ConfigError that names all invalid jobs, and Busy where another process drives this sweep.
        """
        if not isinstance(self.task_function, BatchFunction):
            setup_globals()
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if self.checked is None or self.checked[0] is not job_overrides:  # another sweeper than ours
            jobs = list(dict.fromkeys(map(tuple, job_overrides)))  # it may draw one twice
            self.check(jobs, initial_job_idx)
            if len(jobs) < len(job_overrides):
                returns = dict(zip(jobs, self.launch(jobs, initial_job_idx), strict=True))
                return [returns[tuple(words)] for words in job_overrides]
        assert self.checked is not None
        (_, composed), self.checked = self.checked, None
        composed = where_they_lie(composed)
        if isinstance(self.task_function, BatchFunction):  # from Python, whose process keeps its logging
            return self._ended([_Return(each) for each in composed], composed, self.task_function(composed))
        directories = list(dict.fromkeys(each.sweep_directory for each in composed))
        for directory in directories:
            check_writable(directory)
        swept.extend(directory for directory in directories if directory not in swept)
        with contextlib.ExitStack() as stack:
            for directory in directories:
                stack.enter_context(driving(directory))
            stack.enter_context(env_override(composed[0].environment))
            text = OmegaConf.to_yaml(self.config).encode()
            for sweep in directories:  # in a later batch those that it is the first to have jobs of
                if not initial_job_idx or not (sweep / SWEEP).exists():
                    write(sweep / SWEEP, text)
            return self._train(composed, directories)

    def check(self, batch: Sequence[Sequence[str]], first: int, numbered: bool = True) -> None:
        """Compose and check the jobs that ``launch`` will be given. Raises ConfigError that names all invalid ones.

        ``numbered``: as in ``sweeps.jobs.compose_all``.
        """
        composed = compose_all(self.hydra_context, self.config, batch, first, self.here, numbered)
        if not composed:
            raise ConfigError("the sweep has no jobs")
        if self.halving:
            self.halving.check([each.job.config for each in composed])
        check_place(self.config, "hydra.run.dir", "hydra.sweep.dir", "a sweep's runs lie below hydra.sweep.dir")
        for each in composed:
            if each.job.directory == each.sweep_directory.absolute():
                raise ConfigError("hydra.sweep.subdir: must be a directory below that of the sweep")
            if each.chdir:
                raise ConfigError(
                    "hydra.job.chdir=true: must be false where jobs train together; hydra/launcher=basic has it"
                )
            for name, value in sorted(each.environment.items() ^ composed[0].environment.items()):
                raise ConfigError(
                    f"hydra.job.env_set.{name}={value}: must be the same for all jobs, which train together; "
                    "hydra/launcher=basic trains them one by one"
                )
        self.checked, self.logs = (batch, composed), self._logs(composed)

    def _train(self, composed: Sequence[Composed], directories: Sequence[Path]) -> Sequence[JobReturn]:
        jobs = [each.job for each in composed]
        log.info("%s in %s", counted(len(jobs), "job"), ", ".join(map(str, directories)))
        ended = finished_jobs(jobs)  # raises for another config before anything is written
        begin_jobs(composed, ended)
        if len(ended) < len(jobs) and kept:
            from fractal_ifs.sweeps.table import write_kept  # with pandas, which takes a while

            for directory in directories:
                write_kept(directory)
        returns = [_Return(each) for each in composed]
        listeners = [self._listeners_of_a_job() for _ in returns]
        for ret, heard in zip(returns, listeners, strict=True):
            self._call_back(ret, heard, "on_job_start", task_function=self.task_function)
        with self._job_logging():
            trained = self._results(jobs, ended, directories) if len(ended) < len(jobs) else ended
        self._ended(returns, composed, trained)
        for ret, heard in zip(returns, listeners, strict=True):
            self._call_back(ret, heard, "on_job_end", job_return=ret)
        return returns

    @staticmethod
    def _ended(returns: Sequence[JobReturn], composed: Sequence[Composed], trained: Any) -> Sequence[JobReturn]:
        """What Hydra expects of jobs, by how they ended."""
        for number, ret in enumerate(returns):
            result = trained[number]
            failed = isinstance(result, Exception)
            ret.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
            ret.return_value = result if failed or result is None else best_of(composed[number].job, result)
        return returns

    def _listeners_of_a_job(self) -> Any:
        """A copy of each callback, which keeps what it notes at the job's start for its end. None: there is none."""
        if not self._listeners():
            return None
        own = copy.copy(self.hydra_context.callbacks)
        own.callbacks = [copy.copy(callback) for callback in own.callbacks]
        return own

    @staticmethod
    def _call_back(ret: JobReturn, heard: Any, moment: str, **more: Any) -> None:
        if heard is None:
            return
        assert ret.hydra_cfg is not None
        whole = DictConfig({**(ret.cfg or {}), "hydra": ret.hydra_cfg.hydra})
        with current(whole):
            getattr(heard, moment)(config=whole, **more)

    def _listeners(self) -> list[str]:
        """The names of the callbacks that a user has added."""
        return [str(name) for name in self.config.hydra.callbacks if name != "refuse"]

    @contextlib.contextmanager
    def _job_logging(self) -> Iterator[None]:
        """Log as ``hydra.job_logging`` says while jobs train, but not to files: every run writes its own train.log."""
        configure_log(self.logs, self.config.hydra.verbose)
        try:
            yield
        finally:
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)

    def _logs(self, composed: Sequence[Composed]) -> DictConfig:
        """``hydra.job_logging`` without its files. Raises ConfigError where it isn't the same for all jobs."""
        logs: Any = OmegaConf.to_container(self.config.hydra.job_logging)
        handlers = logs.get("handlers") or {}
        to_files = {name for name, handler in handlers.items() if "filename" in handler}
        logs["handlers"] = {name: handler for name, handler in handlers.items() if name not in to_files}
        for logger in (logs.get("root"), *(logs.get("loggers") or {}).values()):
            if logger and "handlers" in logger:
                logger["handlers"] = [name for name in logger["handlers"] if name not in to_files]
        if "${" not in str(logs):  # as it mostly is
            return DictConfig(logs)
        found: Any = None
        for each in composed:
            with current(whole := each.whole):
                resolved: Any = OmegaConf.to_container(DictConfig(logs, parent=whole.hydra), resolve=True)
            if resolved != (found := found or resolved):
                raise ConfigError(
                    "hydra.job_logging: must refer to what is the same for all jobs, which train together; "
                    "hydra/launcher=basic trains them one by one"
                )
        return DictConfig(found)

    def _results(self, jobs: Sequence[Job], ended: dict[int, Ended], directories: Sequence[Path]) -> Any:
        """How each job ended, by its number, or None where it wasn't waited for; some have ``ended`` already.

        ``directories``: those of the sweeps to which the jobs belong.
        """
        from fractal_ifs.sweeps.halving import train_by_halving
        from fractal_ifs.sweeps.sweep import train_unfinished

        packing = self.packing
        if self.halving:
            return train_by_halving(jobs, ended, self.halving, packing.executor, packing.stack)
        todo = [number for number in range(len(jobs)) if number not in ended]
        trained = train_unfinished([jobs[number] for number in todo], packing.executor, packing.stack)
        return ended | dict(zip(todo, trained, strict=True))


class SlurmLauncher(FusedLauncher):
    """Trains the jobs of a sweep as the tasks of one Slurm job array."""

    here = False

    def __init__(self, **keys: Any):
        plain: Any = OmegaConf.to_container(OmegaConf.create(keys), resolve=True)
        self.settings = SlurmSettings.parse(plain)

    def check(self, batch: Sequence[Sequence[str]], first: int, numbered: bool = True) -> None:
        """As of ``FusedLauncher``. Raises ConfigError too without submitit, or where callbacks would hear of no end."""
        require("slurm")
        if not self.settings.wait:
            sweeper = self.config.hydra.runtime.choices.get("hydra/sweeper")
            if hearing := self._listeners():
                told = f"hydra.callbacks.{hearing[0]}, which hears of jobs' ends"
            else:
                told = f"hydra/sweeper={sweeper}, which goes by how jobs ended" if sweeper in GOING_BY_RESULTS else ""
            if told:
                raise ConfigError(f"hydra.launcher.wait=false: must be true with {told}")
        super().check(batch, first, numbered)

    def _results(self, jobs: Sequence[Job], ended: dict[int, Ended], directories: Sequence[Path]) -> Any:
        from fractal_ifs.sweeps import slurm

        return slurm.train_in_slurm(jobs, ended, [each.absolute() for each in directories], self.settings)
