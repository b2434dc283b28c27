"""Sweepers for Hydra's multirun: ``checked``, a grid; ``halving``, which prunes it; ``outward``, a search in it."""

import itertools
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, filter_overrides
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fractal_ifs.config.compose import parse
from fractal_ifs.config.fast_compose import Composer
from fractal_ifs.config.machine import check_writable
from fractal_ifs.config.overrides import no_jobs
from fractal_ifs.config.words import CHOICES, as_typed
from fractal_ifs.errors import ConfigError, counted, message
from fractal_ifs.files import write
from fractal_ifs.runs.records import SWEEP
from fractal_ifs.sweeps.choices import where_they_count
from fractal_ifs.sweeps.driver import JobsFailed, swept, was_said
from fractal_ifs.sweeps.grid import Grid
from fractal_ifs.sweeps.jobs import compose_all
from fractal_ifs.sweeps.outward import LocalSearch, Outward, ladder, nearest
from fractal_ifs.sweeps.rungs import Halving
from hydra_plugins.fractal_ifs_launcher import FusedLauncher, failure_of

log = logging.getLogger(__name__)


class CheckedSweeper(Sweeper):
    """The grid of all values, as Hydra's own sweeper has it. Every job is checked before the first begins.

    The keys are those of ``Grid``. With ``best_lr``, a table of finished runs (``results.finished_runs``), every job
    gets the learning rate that is best for its cell in this table, whatever the grid says. Jobs that become the same
    are trained once.
    """

    def __init__(self, **keys: Any):
        self.keys = Grid.parse({"max_batch_size": None, "params": None, "best_lr": None} | keys)

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
        jobs = self.jobs(arguments)
        try:
            return self._launch_all(jobs, directory)
        except Exception as error:
            if isinstance(error, ConfigError | HydraException | OmegaConfBaseException) and not was_said(error):
                raise
            raise JobsFailed(message(error)) from error

    def _launch_all(self, jobs: list[list[str]], directory: Path) -> list[Sequence[JobReturn]]:
        """Launch the jobs, ``max_batch_size`` at a time. Raises the exception that a job failed with."""
        size = self.keys.max_batch_size or len(jobs)
        if size < len(jobs):
            self._check(jobs, 0)
        returns: list[Sequence[JobReturn]] = []
        for first in range(0, len(jobs), size):
            returns.append(self._launch(jobs[first : first + size], first, directory))
            for job in returns[-1]:
                if error := failure_of(job):
                    raise error
        return returns

    def _launch(self, batch: list[list[str]], first: int, directory: Path) -> Sequence[JobReturn]:
        assert self.config is not None
        assert self.launcher is not None
        self._check(batch, first)
        if directory not in swept:
            swept.append(directory)
        if not first:
            check_writable(directory)
            if not isinstance(self.launcher, FusedLauncher):  # which writes it once it has locked the sweep
                write(directory / SWEEP, OmegaConf.to_yaml(self.config).encode())
        return self.launcher.launch(batch, initial_job_idx=first)

    def _check(self, jobs: list[list[str]], first: int, numbered: bool = True) -> None:
        """Compose and check jobs, as ``sweeps.jobs.compose_all`` does."""
        if isinstance(self.launcher, FusedLauncher):
            return self.launcher.check(jobs, first, numbered)
        assert self.hydra_context is not None
        assert self.config is not None
        target = str(self.config.hydra.launcher.get("_target_"))
        here = not target.endswith("SlurmLauncher")  # as hydra-submitit-launcher calls its own
        compose_all(self.hydra_context, self.config, jobs, first, here, numbered)
        return None

    def jobs(self, arguments: Sequence[str]) -> list[list[str]]:
        """The words of every job of the grid, with those of an experiment. Raises ConfigError if there is none."""
        assert self.hydra_context is not None
        assert self.config is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        of_file, of_command = (
            {
                each.get_key_element().lstrip("+"): _choices(each)
                for word in words
                for each in parser.parse_overrides([word])
            }
            for words in ([f"{name}={value}" for name, value in (self.keys.params or {}).items()], arguments)
        )
        for word in (word for key, words in of_file.items() if key.startswith("hydra") and words[1:] for word in words):
            raise ConfigError(
                f"hydra.sweeper.params: {word}: must be one value: it is the same for all jobs of a sweep"
            )
        jobs = [list(job) for job in itertools.product(*(of_file | of_command).values())]
        theirs = [word for key, words in of_file.items() if key in CHOICES or key not in of_command for word in words]
        jobs = where_they_count(self.hydra_context.config_loader, self.config, jobs, theirs)
        if not self.keys.best_lr:
            return jobs
        if "lr" in of_command:
            log.warning("lr: is not used: hydra.sweeper.best_lr=%s has the learning rates", self.keys.best_lr)
        return self._with_best_lr(jobs)

    def _with_best_lr(self, jobs: Sequence[Sequence[str]]) -> list[list[str]]:
        from fractal_ifs.results.best_lr import BestLr

        assert self.hydra_context is not None
        assert self.config is not None
        best = BestLr(Path(str(self.keys.best_lr)))
        compose = Composer(self.hydra_context.config_loader, self.config)
        found = []
        for others in dict.fromkeys(tuple(word for word in job if not _sets(word, "lr")) for job in jobs):
            if (lr := best.of(parse(compose(others)))) is None:
                words = " ".join(filter_overrides(others))
                raise ConfigError(f"hydra.sweeper.best_lr={self.keys.best_lr}: has no run of {words}")
            found.append([*others, f"lr={lr!r}"])
        best.tell()
        return found


class HalvingSweeper(CheckedSweeper):
    """Successive halving over the same grid: all runs train to a rung, and only the best of each cell go on.

    The keys are those of ``Halving``. It needs a launcher that has all runs at once, and on this machine.
    """

    def __init__(self, **keys: Any):
        self.halving = Halving.parse({"params": None, "over": ["lr"], "eta": 2, "least": None, "by": "best"} | keys)
        super().__init__(params=self.halving.params)

    def _launch(self, batch: list[list[str]], first: int, directory: Path) -> Sequence[JobReturn]:
        if not (isinstance(self.launcher, FusedLauncher) and self.launcher.here):
            raise ConfigError("hydra/sweeper=halving: needs hydra/launcher=fused, which has all runs on this machine")
        self.launcher.halving = self.halving
        return super()._launch(batch, first, directory)


class OutwardSweeper(CheckedSweeper):
    """Of a grid only what it takes to find each cell's best value of one key, as ``LocalSearch`` says.

    The keys are those of ``Outward``. A cell is a choice of all keys but this one and the seed: its seeds search
    together, by their mean. The cells' searches go side by side, a rung or two of each at a time. Jobs of choices that
    lack the key are trained first. All of the grid is checked before the first job starts. What is decided follows from
    what jobs return, so the same command finds what is finished and goes on.
    """

    def __init__(self, **keys: Any):
        self.outward = Outward.parse({"params": None, "over": "lr", "start": None, "best_lr": None} | keys)
        super().__init__(params=self.outward.params)
        if self.outward.best_lr and self.outward.over != "lr":
            raise ConfigError(f"hydra.sweeper.best_lr={self.outward.best_lr}: goes with over=lr")

    def _launch_all(self, jobs: list[list[str]], directory: Path) -> list[Sequence[JobReturn]]:
        over = self.outward.over
        rungs = ladder(over, [word for job in jobs for word in job if _sets(word, over)])
        self._check(jobs, 0, numbered=False)
        cells: dict[tuple[str, ...], list[tuple[str, ...]]] = {}  # by their words, with the words of each seed's runs
        having, lacking = list[list[str]](), list[list[str]]()  # the key, as optimizer=adam lacks optimizer.momentum
        for job in jobs:
            (having if any(_sets(word, over) for word in job) else lacking).append(job)
        for words in dict.fromkeys(tuple(word for word in job if not _sets(word, over)) for job in having):
            cells.setdefault(tuple(word for word in words if not _sets(word, "seed")), []).append(words)
        firsts = self._firsts(rungs, list(cells))
        searches = {cell: LocalSearch(len(rungs), begin) for cell, begin in zip(cells, firsts, strict=True)}
        returns: list[Sequence[JobReturn]] = []
        failed: list[Exception] = []
        if lacking:
            returns.append(self._launch(lacking, 0, directory))
            failed += [value for job in returns[-1] if isinstance(value := _returned(job), Exception)]
        first = len(lacking)
        while asked := [(cell, rung) for cell, search in searches.items() for rung in search.asked()]:
            batch = [[*words, rungs[rung]] for cell, rung in asked for words in cells[cell]]
            returns.append(self._launch(batch, first, directory))
            first += len(batch)
            values = iter([_returned(job) for job in returns[-1]])
            for cell, rung in asked:
                of_cell = [next(values) for _ in cells[cell]]
                wrong = [value for value in of_cell if isinstance(value, Exception)]
                failed += wrong
                if wrong:
                    searches.pop(cell, None)  # it waits until the same command has trained that run
                elif cell in searches:  # no other of its runs has failed
                    searches[cell].found(rung, [value for value in of_cell if isinstance(value, float)])
            ended = sum(not search.asked() for search in searches.values())
            log.info("%s trained; %d of %d searches have ended", counted(first, "run"), ended, len(searches))
        of = counted(len(searches), "cell")
        for said, some in (
            (
                "at every %s that was tried a run diverged, in %d of %s, the first: %s",
                [cell for cell, search in searches.items() if math.isinf(search.values[search.best])],
            ),
            (
                "the best %s of %d of %s is at an end of the grid, the first: %s",
                [(*cell, rungs[search.best]) for cell, search in searches.items() if not search.interior],
            ),
        ):
            if some:
                log.warning(said, over, len(some), of, " ".join(filter_overrides(some[0])))
        if failed:
            raise failed[0]
        return returns

    def _firsts(self, rungs: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
        """The rung that each cell begins at."""
        keys = self.outward
        middle = (len(rungs) - 1) // 2 if keys.start is None else nearest(rungs, keys.start)
        if not keys.best_lr:
            return [middle] * len(cells)
        from fractal_ifs.results.best_lr import BestLr

        assert self.hydra_context is not None
        assert self.config is not None
        best = BestLr(Path(keys.best_lr))
        compose = Composer(self.hydra_context.config_loader, self.config)
        found = [best.of(parse(compose([*cell, rungs[middle]]))) for cell in cells]
        best.tell()
        return [middle if lr is None else nearest(rungs, lr) for lr in found]


def _sets(word: str, key: str) -> bool:
    """Whether a job's word sets this key: ``lr=1e-3``, or ``++lr=1e-3``."""
    return word.lstrip("+").partition("=")[0] == key


def _returned(job: JobReturn) -> float | Exception:
    """What a job has returned, or failed with. Raises ConfigError where nobody has waited for it."""
    if error := failure_of(job):
        return error
    if (value := job.return_value) is None:
        raise ConfigError("hydra/sweeper=outward: needs a launcher that waits for its jobs")
    return float(value)


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
        raise ConfigError(no_jobs(word))
    return found
