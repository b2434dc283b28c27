"""Launchers and a sweeper for Hydra's multirun: ``hydra/launcher=fused`` and ``hydra/launcher=slurm``.

All jobs are checked before the first one starts, and are trained together. Each job leaves what it leaves with Hydra's
basic launcher: its directory, its ``.hydra``, its log, its return value.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, _save_config, configure_log, filter_overrides, setup_globals
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from fractal_ifs.config.compose import accepted, parse, register, resolved
from fractal_ifs.config.fast_compose import Composer
from fractal_ifs.config.keys import Group, key
from fractal_ifs.config.machine import check_writable
from fractal_ifs.config.messages import one_line
from fractal_ifs.config.run import Job
from fractal_ifs.errors import ConfigError, message
from fractal_ifs.sweeps.driver import JobsFailed, driving, swept
from fractal_ifs.sweeps.finished import Ended, finished_jobs, finished_or_kept
from fractal_ifs.sweeps.slurm_settings import Settings

log = logging.getLogger(__name__)


register()  # here, because the worker processes of other launchers import this module with Hydra's plugins


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
            finished_or_kept(Job(parse(config), Path(str(config.hydra.run.dir)).absolute()))
        except ConfigError as error:
            sys.exit(f"error: {error}")


class CheckedSweeper(BasicSweeper):
    """Hydra's grid sweeper, with a check of each batch that names every invalid job.

    Args:
        best_lr: a table of finished runs (``results.finished_runs``). Every job then gets the learning rate that is
            best for its cell in this table, whatever the grid says. Jobs that become the same are trained once.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None = None, best_lr: str | None = None):
        super().__init__(max_batch_size, params)
        self.best_lr = best_lr

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        """The overrides of the next jobs. Raises ConfigError where ``best_lr`` has no run of a job's cell."""
        batch = super().get_job_batch()
        if not self.best_lr:
            return batch
        from fractal_ifs.results.best_lr import BestLr

        assert self.hydra_context is not None
        assert self.config is not None
        best = BestLr(Path(self.best_lr))
        compose = Composer(self.hydra_context.config_loader, self.config)
        without_lr = dict.fromkeys(tuple(o for o in overrides if not o.startswith("lr=")) for overrides in batch)
        jobs = []
        for others in without_lr:
            if (lr := best.of(parse(compose(others)))) is None:
                words = " ".join(filter_overrides(others))
                raise ConfigError(f"hydra.sweeper.best_lr={self.best_lr}: has no run of {words}")
            jobs.append([*others, f"lr={lr!r}"])
        return jobs

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep. Raises JobsFailed where jobs fail under a launcher that stops at the first failure."""
        assert self.config is not None
        if (directory := Path(str(self.config.hydra.sweep.dir))) not in swept:
            swept.append(directory)
        try:
            return super().sweep(arguments)
        except (ConfigError, HydraException, OmegaConfBaseException):
            raise
        except Exception as error:
            raise JobsFailed(message(error)) from error

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Check a batch for other launchers; the fused one checks its jobs itself. Raises ConfigError."""
        if not isinstance(self.launcher, FusedLauncher):
            assert self.hydra_context is not None
            assert self.config is not None
            elsewhere = str(self.config.hydra.launcher.get("_target_")).endswith("SlurmLauncher")
            compose_all(self.hydra_context, self.config, batch, here=not elsewhere)


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

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check all jobs, then train them. Returns how each ended, as Hydra expects it.

        Raises ConfigError that names all invalid jobs, and Busy where another process drives this sweep.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        sweep_dir = Path(str(self.config.hydra.sweep.dir))
        check_writable(sweep_dir)
        if sweep_dir not in swept:
            swept.append(sweep_dir)
        composed = compose_all(self.hydra_context, self.config, job_overrides, initial_job_idx, self.here)
        with driving(sweep_dir):
            return self._train(composed, sweep_dir)

    def _train(self, composed: Sequence[Composed], sweep_dir: Path) -> Sequence[JobReturn]:
        jobs = [each.job for each in composed]
        log.info("%d jobs in %s", len(jobs), sweep_dir)
        ended = finished_jobs(jobs)  # raises for another config before anything is written
        returns = [self._job(each) for each in composed]
        for number, (ret, job) in enumerate(zip(returns, jobs, strict=True)):
            if number not in ended and job.directory:
                self._save(ret, job.directory)
        results = self._results(jobs, ended, sweep_dir) if len(ended) < len(jobs) else ended
        for number, ret in enumerate(returns):
            result = results[number]
            failed = isinstance(result, Exception)
            ret.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
            ret.return_value = result if failed or result is None else result.best_test_acc
        return returns

    def _results(self, jobs: Sequence[Job], ended: dict[int, Ended], sweep_dir: Path) -> Any:
        """How each job ended, by its number, or None where it wasn't waited for; some have ``ended`` already."""
        from fractal_ifs.sweeps.sweep import train_unfinished

        todo = [number for number in range(len(jobs)) if number not in ended]
        packing = self.packing
        trained = train_unfinished([jobs[number] for number in todo], packing.executor, packing.stack)
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
        hydra_output = directory / ".hydra"
        _save_config(ret.cfg, "config.yaml", hydra_output)  # type: ignore[arg-type]
        _save_config(ret.hydra_cfg, "hydra.yaml", hydra_output)  # type: ignore[arg-type]
        _save_config(OmegaConf.create(list(ret.overrides or [])), "overrides.yaml", hydra_output)  # type: ignore[arg-type]


class SlurmLauncher(FusedLauncher):
    """Trains the jobs of a sweep as the tasks of one Slurm job array."""

    here = False

    def __init__(self, **keys: Any):
        plain: Any = OmegaConf.to_container(OmegaConf.create(keys), resolve=True)
        self.settings = Settings.parse(plain)

    def _results(self, jobs: Sequence[Job], ended: dict[int, Ended], sweep_dir: Path) -> Any:
        from fractal_ifs.sweeps import slurm

        return slurm.train_in_slurm(jobs, ended, sweep_dir.absolute(), self.settings)
