"""A sweep that Python asks for: planned as ``train -m`` plans it, trained and kept the same, its table returned.

Hydra's session, and the words that name the sweep, are borrowed while it is planned; training leaves both to the
process's owner, whose logging, signals and streams stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from fractal_ifs.config.compose import check_own, literal
from fractal_ifs.config.machine import check_writable
from fractal_ifs.config.messages import one_line
from fractal_ifs.config.names import sweep_name
from fractal_ifs.config.run import Job
from fractal_ifs.config.session import VERSION_BASE, borrowed
from fractal_ifs.config.words import quoted
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.files import CONF, write
from fractal_ifs.runs.failure import failure
from fractal_ifs.runs.records import RunRecord
from fractal_ifs.sweeps.driver import driving
from fractal_ifs.sweeps.finished import Ended, finished_jobs
from fractal_ifs.sweeps.halving import train_by_halving
from fractal_ifs.sweeps.jobs import Composed, compose_all, save_hydra
from fractal_ifs.sweeps.rungs import Halving
from fractal_ifs.sweeps.sweep import train_unfinished
from fractal_ifs.sweeps.table import table_of, write_table

if TYPE_CHECKING:
    import pandas as pd

UNNAMED = "${fractal_ifs.sweep_name:}"  # the key ``sweep`` in conf/config.yaml
Executor = Literal["inline", "local"]
# The grid's jobs, as words, and how they are pruned: from the sweeper's keys, Hydra's context, the config of the sweep,
# and its words.
Grid = Callable[[Mapping[str, Any], HydraContext, Any, Sequence[str]], tuple[list[list[str]], Halving | None]]


class Plan(NamedTuple):
    """A sweep whose jobs are checked."""

    directory: Path
    composed: list[Composed]
    multirun: str  # the content of multirun.yaml
    halving: Halving | None = None


def plan(directory: Path | None, keywords: Mapping[str, Any], grid: Grid) -> Plan:
    """Compose and check all jobs. Raises ConfigError that names all that are invalid. Writes nothing."""
    if len(list(_swept(keywords.get("sweep")))) > 1:
        raise ConfigError(f"sweep={short(keywords['sweep'])}: must be one name: the jobs of a call are one sweep")
    words = [_word(key.replace("__", "."), value) for key, value in keywords.items()]
    with borrowed(), initialize_config_dir(str(CONF), **VERSION_BASE):
        try:
            check_own(words, sweeper=True)
            loader = GlobalHydra.instance().config_loader()
            own = [] if directory is None else [f"hydra.sweep.dir={quoted(str(directory.absolute()))}"]
            if "sweep" not in keywords and "experiment" not in keywords:  # an experiment may name its sweep
                words.append(f"sweep={quoted(sweep_name(words))}")
            master = loader.load_configuration("config", [*words, *own], run_mode=RunMode.MULTIRUN)
            plain: Any = OmegaConf.to_container(master)
            if plain["sweep"] == UNNAMED:
                words.append(f"sweep={quoted(sweep_name(words))}")
                master = loader.load_configuration("config", [*words, *own], run_mode=RunMode.MULTIRUN)
            _check_hydra(master)
            keys: Any = OmegaConf.to_container(master.hydra.sweeper)
            del keys["_target_"]
            context = HydraContext(loader, None)  # pyright: ignore[reportArgumentType]  (callbacks: nobody calls any)
            jobs, halving = grid(keys, context, master, [word for word in words if not _of_sweeper(word)])
            composed = compose_all(context, master, jobs)
            if halving and composed:
                halving.check([each.job.config for each in composed])
            for each in composed:
                _check_hydra(each.whole)
        except Exception as error:
            raise error if isinstance(error, ConfigError) else ConfigError(one_line(error, words)) from None
        if not composed:
            raise ConfigError("the sweep has no jobs")
        directories = list(dict.fromkeys(each.sweep_directory.absolute() for each in composed))
        if len(directories) > 1:
            raise ConfigError(
                f"hydra.sweep.dir: must be the same for all jobs, not {directories[0]} and {directories[1]}"
            )
        return Plan(directories[0], composed, OmegaConf.to_yaml(master), halving)


def results(planned: Plan, executor: Executor) -> pd.DataFrame:
    """Train what isn't finished, and return the table of all jobs, as ``fractal_ifs.sweep`` does."""
    jobs = [each.job for each in planned.composed]
    check_writable(planned.directory)
    with driving(planned.directory):
        try:
            ended = finished_jobs(jobs)
            todo = [number for number in range(len(jobs)) if number not in ended]
            write(planned.directory / "multirun.yaml", planned.multirun.encode())
            for number in todo:
                save_hydra(planned.composed[number])
            if planned.halving and todo:
                ended = dict(enumerate(train_by_halving(jobs, ended, planned.halving, executor, 0)))
            elif todo:
                trained = train_unfinished([jobs[number] for number in todo], executor, 0)
                ended |= dict(zip(todo, trained, strict=True))
        finally:
            write_table(planned.directory)  # where it can't be written, that is logged
    found = [(job.directory, _record(job, ended[number])) for number, job in enumerate(jobs)]
    table = table_of(((where, record) for where, record in found if where), None)
    table.attrs["directory"] = str(planned.directory)
    return table


def _check_hydra(config: DictConfig) -> None:
    """Raises ConfigError where an experiment sets what only the command line does."""
    hydra = config.hydra
    for group, ours in (("hydra/sweeper", ("checked", "halving")), ("hydra/launcher", ("fused",))):
        if (choice := hydra.runtime.choices.get(group)) not in ours:
            known = " or ".join(ours)
            raise ConfigError(f"{group}={choice}: must be {known} from Python; the command line, train -m, has it")
    given = {
        "hydra.job.chdir=true": bool(hydra.job.chdir),
        **{f"hydra.job.env_set.{short(name)}": True for name in hydra.job.env_set},
        **{f"hydra.callbacks.{short(name)}": True for name in hydra.callbacks if name != "refuse"},
    }
    for key in (key for key, is_given in given.items() if is_given):
        raise ConfigError(f"{key}: can't be given from Python, whose process it would change; train -m has it")


def _record(job: Job, ended: Ended) -> RunRecord:
    """How a job ended, as a record."""
    if isinstance(ended, RunRecord):
        return ended
    if isinstance(ended, Exception):
        return failure(job.config, ended)
    return RunRecord.of(job.config, **ended._asdict())


def _word(key: str, value: Any) -> str:
    """A keyword as a word of ``train -m``. A list is swept, a tuple is the value of a key that is a list."""
    if key == "hydra.sweeper":
        return f"hydra/sweeper={literal(value)}"
    if key == "hydra.searchpath" or _of_sweeper(key):
        return f"{key}={literal(value)}"
    values = list(_swept(value))
    if not values:
        raise ConfigError(f"{key}=[]: stands for no jobs")
    for each in values:
        if isinstance(each, str) and each.startswith("~"):
            raise ConfigError(f"{key}={short(each)}: ~ can't stand here, write $HOME")
    return f"{key}={','.join(map(literal, values))}"


def _of_sweeper(word: str) -> bool:
    return word.startswith(("hydra/sweeper=", "hydra.sweeper."))


def _swept(value: Any) -> Iterator[Any]:
    if hasattr(value, "tolist"):  # an array of numpy's, a pandas Series, a tensor
        value = value.tolist()
    if isinstance(value, (list, range)):
        yield from value
    else:
        yield value
