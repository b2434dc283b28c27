"""Launchers and a sweeper for Hydra's multirun: ``hydra/launcher=fused`` and ``hydra/launcher=slurm``.

All jobs are checked before the first one starts, and are trained together. Each job leaves what it leaves with Hydra's
basic launcher: its directory, its ``.hydra``, its log, its return value.
"""

import contextlib
import copy
import itertools
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log, env_override, filter_overrides, setup_globals
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from fractal_ifs.config.compose import accepted, parse, resolved
from fractal_ifs.config.fast_compose import Composer
from fractal_ifs.config.keys import Group, key
from fractal_ifs.config.machine import check_writable
from fractal_ifs.config.messages import one_line
from fractal_ifs.config.run import Job
from fractal_ifs.config.words import CHOICES, as_typed
from fractal_ifs.errors import ConfigError, message
from fractal_ifs.files import write
from fractal_ifs.sweeps.driver import JobsFailed, driving, swept
from fractal_ifs.sweeps.finished import Ended, finished_jobs, finished_or_kept
from fractal_ifs.sweeps.slurm_settings import Settings

log = logging.getLogger(__name__)


@contextlib.contextmanager
def current(config: DictConfig) -> Iterator[None]:
    """Let ``${hydra:...}`` refer to this job's config."""
    before = HydraConfig.instance().cfg
    # not by set_config, which would copy it and takes 10 ms a job
    HydraConfig.instance().cfg = config  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def output_directory(config: DictConfig, number: int) -> Path:
    """The directory of job ``number`` of a sweep. Also writes both into the job's config, as Hydra's launchers do."""
    with read_write(config.hydra), open_dict(config.hydra), current(config):
        config.hydra.job.id = str(number)
        config.hydra.job.num = number
        directory = Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir)).absolute()
        config.hydra.runtime.output_dir = str(directory)
    return directory


class Composed(NamedTuple):
    """A job of a sweep."""

    whole: DictConfig  # all that Hydra composed, with its own node ``hydra``
    values: dict[str, Any]  # the job's keys as plain values
    job: Job

    @property
    def environment(self) -> dict[str, str]:
        """The variables that ``hydra.job.env_set`` sets."""
        if not (variables := self.whole.hydra.job.env_set):
            return {}
        with current(self.whole):
            return {str(name): str(value) for name, value in variables.items()}


def compose_all(
    context: HydraContext, master: DictConfig, jobs: Sequence[Sequence[str]], first: int = 0, here: bool = True
) -> list[Composed]:
    """Compose and check the config of every job.

    Args:
        master: the config of the whole sweep.
        jobs: the overrides of each job.
        first: the number of the first job.
        here: as in ``config.compose.accepted``.

    Raises a ConfigError that names all invalid jobs. Two jobs with the same directory are invalid, too.
    """
    configs: list[Composed] = []
    refused: list[str] = []
    compose = Composer(context.config_loader, master)
    taken: dict[Path, str] = {}
    for number, overrides in enumerate(jobs):
        words = " ".join(filter_overrides(overrides))
        try:
            config = compose(overrides)
            values = resolved(config)
            directory = output_directory(config, first + number)
            job = Job(accepted(values, here), directory)
            if directory in taken:
                raise ConfigError(f"hydra.sweep.subdir: {directory} is that of {taken[directory]} too")
            taken[directory] = words
            finished_or_kept(job)  # raises where the directory is another config's
            configs.append(Composed(config, values, job))
        except Exception as error:
            reason = str(error) if isinstance(error, ConfigError) else one_line(error)
            refused.append(f"{words}: {reason}")
    if refused:
        listed = "\n  ".join(refused)
        raise ConfigError(
            refused[0] if len(refused) == 1 else f"{len(refused)} of {len(jobs)} jobs are refused\n  {listed}"
        )
    return configs


class Refuse(Callback):
    """Refuses a single run before Hydra writes anything into its directory."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """End the process with one line if the config is invalid, or the directory is another config's."""
        HydraConfig.instance().set_config(config)  # for ${hydra:...}
        try:
            _check_single(config)
            finished_or_kept(Job(parse(config), Path(str(config.hydra.run.dir)).absolute()))
        except ConfigError as error:
            sys.exit(f"error: {error}")


def _check_single(config: DictConfig) -> None:
    """Raises ConfigError if a command without -m chooses what only a sweep has: Hydra would ignore it."""
    chosen = config.hydra.runtime.choices
    for group, known in (("hydra/launcher", ("fused", "basic")), ("hydra/sweeper", ("checked", "basic"))):
        if (choice := chosen.get(group)) not in known:
            raise ConfigError(f"{group}={choice}: is for a sweep: add -m")
    grid = OmegaConf.select(config, "hydra.sweeper.params")
    if grid or str(config.hydra.mode).endswith("MULTIRUN"):
        name = f"experiment={chosen.experiment}" if chosen.get("experiment") else "hydra.sweeper.params"
        raise ConfigError(f"{name}: is a sweep: add -m")


class CheckedSweeper(Sweeper):
    """The grid of all values, as Hydra's own sweeper has it. Every job of a batch is checked before the batch begins.

    Args:
        max_batch_size: how many jobs are given to the launcher at a time; None: all.
        params: words of the grid, below those of the command line.
        best_lr: a table of finished runs (``results.finished_runs``). Every job then gets the learning rate that is
            best for its cell in this table, whatever the grid says. Jobs that become the same are trained once.
    """

    def __init__(
        self, max_batch_size: int | None = None, params: dict[str, str] | None = None, best_lr: str | None = None
    ):
        self.keys = Grid(max_batch_size=max_batch_size, params=params, best_lr=best_lr)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives a sweeper before ``sweep``."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run the sweep. Raises ConfigError, and JobsFailed where a job fails."""
        assert self.config is not None
        directory = Path(str(self.config.hydra.sweep.dir))
        jobs = self._jobs(arguments)
        size = self.keys.max_batch_size or len(jobs)
        if directory not in swept:
            swept.append(directory)
        returns: list[Sequence[JobReturn]] = []
        try:
            for first in range(0, len(jobs), size):
                returns.append(self._launch(jobs[first : first + size], first, directory))
                for job in returns[-1]:
                    _ = job.return_value  # raises the exception that the job failed with
        except (ConfigError, HydraException, OmegaConfBaseException):
            raise
        except Exception as error:
            raise JobsFailed(message(error)) from error
        return returns

    def _launch(self, batch: list[list[str]], first: int, directory: Path) -> Sequence[JobReturn]:
        assert self.config is not None
        assert self.launcher is not None
        if isinstance(self.launcher, FusedLauncher):
            self.launcher.check(batch, first)
        else:
            self.validate_batch_is_legal(batch)
        if not first:
            directory.mkdir(parents=True, exist_ok=True)
            write(directory / "multirun.yaml", OmegaConf.to_yaml(self.config).encode())
        return self.launcher.launch(batch, initial_job_idx=first)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Check a batch for other launchers. Raises ConfigError."""
        assert self.hydra_context is not None
        assert self.config is not None
        compose_all(self.hydra_context, self.config, batch)

    def _jobs(self, arguments: Sequence[str]) -> list[list[str]]:
        """The words of every job of the grid. Raises ConfigError if there is none."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        words = [*(f"{name}={value}" for name, value in (self.keys.params or {}).items()), *arguments]
        choices = {override.get_key_element(): _choices(override) for override in parser.parse_overrides(words)}
        jobs = [list(job) for job in itertools.product(*choices.values())]
        return self._with_best_lr(jobs) if self.keys.best_lr else jobs

    def _with_best_lr(self, jobs: Sequence[Sequence[str]]) -> list[list[str]]:
        from fractal_ifs.results.best_lr import BestLr

        assert self.hydra_context is not None
        assert self.config is not None
        best = BestLr(Path(str(self.keys.best_lr)))
        compose = Composer(self.hydra_context.config_loader, self.config)
        found = []
        for others in dict.fromkeys(tuple(word for word in job if not word.startswith("lr=")) for job in jobs):
            if (lr := best.of(parse(compose(others)))) is None:
                words = " ".join(filter_overrides(others))
                raise ConfigError(f"hydra.sweeper.best_lr={self.keys.best_lr}: has no run of {words}")
            found.append([*others, f"lr={lr!r}"])
        return found


def _choices(override: Override) -> list[str]:
    """The words that an override of a grid stands for, one per value. Raises ConfigError if there is none."""
    name, word = override.get_key_element(), str(override.input_line)
    if not override.is_sweep_override():
        same = override.key_or_group in CHOICES or isinstance(override.value(), str)
        return [word if same else f"{name}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise ConfigError(f"{word}: the grid needs separate values; an interval needs a sweeper that draws from it")
    found = [f"{name}={as_typed(override.key_or_group, text)}" for text in override.sweep_string_iterator()]
    if not found:
        hint = "; quote a pattern: glob('[1-4]')" if "glob([" in word else ""
        raise ConfigError(f"{word}: matches no value, so the sweep has no jobs{hint}")
    return found


@dataclass(frozen=True, kw_only=True)
class Grid(Group):
    """The keys of conf/hydra/sweeper/checked.yaml."""

    PREFIX: ClassVar[str] = "hydra.sweeper."

    max_batch_size: int | None = key("jobs that are launched at a time; null: all", least=1)
    params: Mapping[str, Any] | None = key("words of the grid, below those of the command line")
    best_lr: str | None = key("a CSV of finished runs: of the learning rates only the best there, cell by cell")


@dataclass(frozen=True, kw_only=True)
class Packing(Group):
    """The keys of conf/hydra/launcher/fused.yaml."""

    PREFIX: ClassVar[str] = "hydra.launcher."

    executor: Literal["inline", "local"] = key("this process, or where the engine needs it one per GPU or core")
    stack: int = key("networks of one shape in a program of the stacked engine; 0: chosen for the machine", least=0)


class FusedLauncher(Launcher):
    """Trains the jobs of a sweep together, group by group; the keys are those of ``Packing``."""

    here = True  # whether jobs run on this machine

    def __init__(self, executor: str = "local", stack: int = 0):
        self.packing = Packing(executor=executor, stack=stack)  # pyright: ignore[reportArgumentType]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives a launcher before ``launch``."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.checked: tuple[Sequence[Sequence[str]], list[Composed]] | None = None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check all jobs, then train them. Returns how each ended, as Hydra expects it.

        Raises ConfigError that names all invalid jobs, and Busy where another process drives this sweep.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if self.checked is None or self.checked[0] is not job_overrides:  # another sweeper than ours
            self.check(job_overrides, initial_job_idx)
        assert self.checked is not None
        (_, composed), self.checked = self.checked, None
        sweep_dir = Path(str(self.config.hydra.sweep.dir))
        check_writable(sweep_dir)
        if sweep_dir not in swept:
            swept.append(sweep_dir)
        with driving(sweep_dir), env_override(composed[0].environment):
            return self._train(composed, sweep_dir)

    def check(self, batch: Sequence[Sequence[str]], first: int) -> None:
        """Compose and check the jobs that ``launch`` will be given. Raises ConfigError that names all invalid ones."""
        composed = compose_all(self.hydra_context, self.config, batch, first, self.here)
        if not composed:
            raise ConfigError("the sweep has no jobs")
        if self.config.hydra.job.chdir:
            raise ConfigError(
                "hydra.job.chdir=true: must be false where jobs train together; hydra/launcher=basic has it"
            )
        for each in composed:
            for name, value in sorted(each.environment.items() ^ composed[0].environment.items()):
                raise ConfigError(
                    f"hydra.job.env_set.{name}={value}: must be the same for all jobs, which train together; "
                    "hydra/launcher=basic trains them one by one"
                )
        self.checked = batch, composed

    def _train(self, composed: Sequence[Composed], sweep_dir: Path) -> Sequence[JobReturn]:
        jobs = [each.job for each in composed]
        log.info("%d jobs in %s", len(jobs), sweep_dir)
        ended = finished_jobs(jobs)  # raises for another config before anything is written
        returns = [self._job(each) for each in composed]
        for number, (ret, job) in enumerate(zip(returns, jobs, strict=True)):
            if number not in ended and job.directory:
                self._save(ret, job.directory)
        listeners = [self._listeners_of_a_job() for _ in returns]
        for ret, heard in zip(returns, listeners, strict=True):
            self._call_back(ret, heard, "on_job_start", task_function=self.task_function)
        with self._job_logging():
            trained = self._results(jobs, ended, sweep_dir) if len(ended) < len(jobs) else ended
        for number, ret in enumerate(returns):
            result = trained[number]
            failed = isinstance(result, Exception)
            ret.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
            ret.return_value = result if failed or result is None else result.best_test_acc
        for ret, heard in zip(returns, listeners, strict=True):
            self._call_back(ret, heard, "on_job_end", job_return=ret)
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
        logs: Any = OmegaConf.to_container(self.config.hydra.job_logging)
        handlers = logs.get("handlers") or {}
        to_files = {name for name, handler in handlers.items() if "filename" in handler}
        logs["handlers"] = {name: handler for name, handler in handlers.items() if name not in to_files}
        for logger in (logs.get("root"), *(logs.get("loggers") or {}).values()):
            if logger and "handlers" in logger:
                logger["handlers"] = [name for name in logger["handlers"] if name not in to_files]
        configure_log(DictConfig(logs), self.config.hydra.verbose)
        try:
            yield
        finally:
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)

    def _results(self, jobs: Sequence[Job], ended: dict[int, Ended], sweep_dir: Path) -> Any:
        """How each job ended, by its number, or None where it wasn't waited for; some have ``ended`` already."""
        from fractal_ifs.sweeps.sweep import train_unfinished

        todo = [number for number in range(len(jobs)) if number not in ended]
        packing = self.packing
        trained = train_unfinished([jobs[number] for number in todo], packing.executor, packing.stack, together=True)
        return ended | dict(zip(todo, trained, strict=True))

    @staticmethod
    def _job(each: Composed) -> JobReturn:
        """What Hydra expects of a job, which has its config in two parts.

        This takes the whole config apart. To keep it beside its parts would double the memory of a sweep.
        """
        ret = JobReturn()
        ret.overrides = list(each.whole.hydra.overrides.task)
        ret.cfg = OmegaConf.create(each.values)
        with flag_override(each.whole, ["struct", "readonly"], False):
            for key in each.values:
                del each.whole[key]
        ret.hydra_cfg = each.whole
        ret.working_dir = str(Path.cwd())
        ret.task_name = each.whole.hydra.job.name
        return ret

    @staticmethod
    def _save(ret: JobReturn, directory: Path) -> None:
        """Write what Hydra writes of a job, below ``hydra.output_subdir``."""
        assert ret.hydra_cfg is not None
        if (subdir := ret.hydra_cfg.hydra.output_subdir) is None:
            return
        written = {"config": ret.cfg, "hydra": ret.hydra_cfg, "overrides": list(ret.overrides or [])}
        (directory / subdir).mkdir(parents=True, exist_ok=True)
        for name, content in written.items():
            (directory / subdir / f"{name}.yaml").write_text(OmegaConf.to_yaml(content), encoding="utf-8")


class SlurmLauncher(FusedLauncher):
    """Trains the jobs of a sweep as the tasks of one Slurm job array."""

    here = False

    def __init__(self, **keys: Any):
        plain: Any = OmegaConf.to_container(OmegaConf.create(keys), resolve=True)
        self.settings = Settings.parse(plain)

    def check(self, batch: Sequence[Sequence[str]], first: int) -> None:
        """As of ``FusedLauncher``. Raises ConfigError too where callbacks would hear of no job's end."""
        if not self.settings.wait and (hearing := self._listeners()):
            raise ConfigError(
                f"hydra.launcher.wait=false: must be true with hydra.callbacks.{hearing[0]}, which hears of jobs' ends"
            )
        super().check(batch, first)

    def _results(self, jobs: Sequence[Job], ended: dict[int, Ended], sweep_dir: Path) -> Any:
        from fractal_ifs.sweeps import slurm

        return slurm.train_in_slurm(jobs, ended, sweep_dir.absolute(), self.settings)
