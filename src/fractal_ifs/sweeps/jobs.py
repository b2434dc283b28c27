"""The jobs of a sweep: each composed by Hydra, typed and checked, before the first one starts."""

import contextlib
import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import filter_overrides
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fractal_ifs.config.command import composed_folders
from fractal_ifs.config.compose import accepted, resolved
from fractal_ifs.config.data import ImageData
from fractal_ifs.config.fast_compose import OF_A_JOB, Composer, Lent
from fractal_ifs.config.machine import obstacle, on_this_machine
from fractal_ifs.config.messages import one_line
from fractal_ifs.config.own_files import fault
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.errors import ConfigError, counted, message
from fractal_ifs.files import opened_in_place
from fractal_ifs.runs.finished import under_way
from fractal_ifs.sweeps.driver import report_failure
from fractal_ifs.sweeps.finished import Ended, finished_or_kept
from fractal_ifs.sweeps.other_names import found_there

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


@dataclass(frozen=True)
class Composed:
    """A job of a sweep."""

    job: Job
    values: dict[str, Any]  # the job's keys as plain values
    hydra: dict[str, Any]  # Hydra's node as plain values, unresolved
    name: str  # hydra.job.name
    sweep_directory: Path  # where hydra.sweep.dir says that its sweep is. A swept key may be part of that
    output_subdir: str | None  # hydra.output_subdir
    chdir: bool  # hydra.job.chdir
    environment: dict[str, str]  # the variables that hydra.job.env_set sets
    compose: Callable[[], DictConfig] = field(repr=False)

    @property
    def whole(self) -> DictConfig:
        """All that Hydra composed, its node ``hydra`` included, anew: some ten times the size of all the rest."""
        config = self.compose()
        _placed(config, self.hydra["job"]["num"], self.job.directory)
        return config


def _placed(config: DictConfig, number: int, directory: Path | None = None) -> tuple[Path, Path]:
    """The directories of a sweep and of its job ``number``, or as given. Writes number and directory into the config,
    as Hydra's launchers do.
    """
    sweep, job, runtime = config.hydra.sweep, config.hydra.job, config.hydra.runtime
    with read_write(config.hydra), open_dict(config.hydra), current(config):
        job.id, job.num = str(number), number
        own = directory or Path(sweep.dir, str(sweep.subdir)).absolute()
        runtime.output_dir = str(own)
        return Path(sweep.dir), own


def _read(lent: Lent, number: int, accept: Callable[[dict[str, Any]], RunConfig], compose: Any) -> Composed:
    """The job of a config."""
    config, hydra = lent.config, lent.config.hydra
    sweep_directory, directory = _placed(config, number)
    with current(config):
        values = resolved(config)
        return Composed(
            Job(accept(values), directory),
            values,
            hydra=lent.of_job(),
            name=str(hydra.job.name),
            sweep_directory=sweep_directory,
            output_subdir=None if hydra.output_subdir is None else str(hydra.output_subdir),
            chdir=bool(hydra.job.chdir),
            environment={str(name): str(value) for name, value in (hydra.job.env_set or {}).items()},
            compose=compose,
        )


def check_here(config: RunConfig) -> None:
    """Raises ConfigError where the engine that is asked for, or what ``trainer=auto`` comes to, isn't for this machine.

    Others aren't looked at: to find out what there is takes an import of torch.
    """
    if config.engine in ("native", "cuda") or config.trainer.accelerator == "auto":
        from fractal_ifs.engines.choice import check_engine

        check_engine(on_this_machine(Job(config, None)).config)


class BatchFunction(ABC):
    """What Hydra's launcher calls once for all jobs of a batch, in Python's sweeps."""

    @abstractmethod
    def __call__(self, composed: Sequence[Composed]) -> dict[int, Any]:
        """Train them. Returns how each ended, by its number."""


Texts = dict[tuple[str, Any], str]  # of parts that jobs share: by names, and the parts' identity or their repr


def save_hydra(each: Composed, texts: Texts) -> None:
    """Write what Hydra writes of a job, below ``hydra.output_subdir``: it can be identified before it has begun.

    ``texts``: those of earlier jobs, to which this one's are added. As parts go by their identity, who holds the texts
    holds these jobs too.
    """
    if each.job.directory is None or each.output_subdir is None:
        return
    folder = each.job.directory / each.output_subdir
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[str] = []
    for name, part in each.hydra.items():
        if (text := texts.get((name, id(part)))) is None:
            text = yaml_of({"hydra": {name: part}}).removeprefix("hydra:\n")
        if name not in OF_A_JOB:
            texts[name, id(part)] = text
        parts.append(text)
    values: list[str] = []
    for name, part in each.values.items():
        key = name, repr(part)
        if key not in texts:
            texts[key] = yaml_of({name: part})
        values.append(texts[key])
    written = {
        "config": "".join(values),
        "hydra": "hydra:\n" + "".join(parts),
        "overrides": yaml_of(each.hydra["overrides"]["task"]),
    }
    # Not by files.write, which takes twice as long for each job. The same command writes them again, and a run that has
    # begun doesn't rest on them.
    for name, text in written.items():
        with open(opened_in_place(folder / f"{name}.yaml", os.O_WRONLY), "w", encoding="utf-8") as file:
            file.truncate()
            file.write(text)


def begin_jobs(composed: Sequence[Composed], ended: dict[int, Ended]) -> None:
    """Write what Hydra writes of the jobs that are still to train. One whose directory can't be made has failed."""
    texts: Texts = {}
    for number, each in enumerate(composed):
        if number not in ended and each.job.directory is not None:
            try:
                save_hydra(each, texts)
            except OSError as error:
                reason = obstacle(each.job.directory) or message(error)
                ended[number] = wrong = OSError(error.errno, f"must be a directory that can be written: {reason}")
                report_failure(each.job, wrong)


_FASTEST: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_FASTEST):
    """PyYAML's, which is ten times as fast in C, with quotes around all that OmegaConf would read as no text."""


def _text(dumper: Any, value: str) -> Any:
    quoted = value.lower() in ("y", "yes", "n", "no", "true", "false", "on", "off")
    with contextlib.suppress(ValueError):
        float(value)
        quoted = True
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="'" if quoted else None)


_Dumper.add_representer(str, _text)


def yaml_of(content: Any) -> str:
    """Plain values as OmegaConf writes them."""
    return yaml.dump(content, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)


def compose_all(
    context: HydraContext,
    master: DictConfig,
    jobs: Sequence[Sequence[str]],
    first: int = 0,
    here: bool = True,
    numbered: bool = True,
) -> list[Composed]:
    """Compose and check the config of every job.

    Args:
        master: the config of the whole sweep.
        jobs: the overrides of each job.
        first: the number of the first job.
        here: as in ``config.compose.accepted``.
        numbered: whether jobs will have these numbers. Where not, and directories are named by them, nothing is said of
            what lies there.

    Raises a ConfigError that names all invalid jobs. Two jobs with the same directory are invalid, too.
    """
    configs: list[Composed] = []
    refused: dict[str, list[str]] = {}  # for each reason, the jobs
    good = set[str]()  # the words of the others
    compose = Composer(context.config_loader, master)
    own = composed_folders(master)
    accept = partial(accepted, here=here, folders=own)
    places = numbered or not _by_number(master)
    shared = set(jobs[0]).intersection(*jobs) if len(jobs) > 1 else set[str]()
    before = set[tuple[str, ...]]()  # the words of the jobs so far
    taken: dict[Path, tuple[str, str]] = {}  # the words and the fingerprint of a directory's job
    of_images: dict[str, str] = {}  # the words of the jobs on images, by fingerprint
    for number, overrides in enumerate(jobs):
        words = " ".join(word for word in filter_overrides(overrides) if word not in shared)
        twice = tuple(overrides) in before
        before.add(tuple(overrides))
        try:
            each = _read(compose.lend(overrides), first + number, accept, partial(compose, overrides))
            job, directory = each.job, each.job.directory
            assert directory is not None
            below = Path(os.path.relpath(directory, each.sweep_directory.absolute()))
            if ".." in below.parts:
                raise ConfigError(f"hydra.sweep.subdir={below}: must be a directory below that of the sweep")
            if any(part.startswith(".") for part in below.parts):
                raise ConfigError(f"hydra.sweep.subdir={below}: must not be hidden, or no table finds these runs")
            if places and directory in taken:
                other, its = taken[directory]
                if twice:
                    raise ConfigError(f"the sweep has a job twice: {' '.join(filter_overrides(overrides))}")
                why = "" if its != job.config.fingerprint else ", as no key in which they differ is part of its name"
                raise ConfigError(
                    f"hydra.sweep.subdir: {directory} is that of {other} too{why}; on the command line "
                    "hydra.sweep.subdir='${hydra.job.num}' names jobs by their numbers"
                )
            taken[directory] = words, job.config.fingerprint
            known = finished_or_kept(job) if places else None  # raises where the directory is another config's
            if isinstance(job.config.data, ImageData) and known is None and not under_way(job):
                same = of_images.setdefault(job.config.fingerprint, words)
                if same != words and _only_of_fractals(same, words):
                    raise ConfigError(
                        f"data={job.config.data.name}: reads no fractal and no curve, so {same} is the same job"
                    )
            if known is None and here:
                check_here(job.config)
            configs.append(each)
            good.update(overrides)
        except ConfigError as error:
            refused.setdefault(str(error), []).append(words)
        except Exception as error:
            refused.setdefault(fault(overrides, own) or one_line(error, overrides), []).append(words)
    if refused:
        raise ConfigError(_told(refused, len(jobs), _without(master, jobs, good)))
    return configs


def _only_of_fractals(one: str, other: str) -> bool:
    """Whether the words of two jobs differ in the fractal and the curve alone."""
    differing = set(one.split()) ^ set(other.split())
    return all(re.match(r"(fractal|curve)\b", word) for word in differing)


def where_they_lie(composed: Sequence[Composed]) -> list[Composed]:
    """The jobs, with the directories that their sweep has of the same runs by other names. Logs how many these are."""
    found = found_there([each.job for each in composed], [each.sweep_directory for each in composed])
    if found:
        log.info("%s there by another name, the first %s", counted(len(found), "run"), found[min(found)])
    return [_moved(each, found[number]) if number in found else each for number, each in enumerate(composed)]


def _moved(each: Composed, directory: Path) -> Composed:
    hydra = {**each.hydra, "runtime": {**each.hydra["runtime"], "output_dir": str(directory)}}
    return replace(each, job=each.job._replace(directory=directory), hydra=hydra)


def _by_number(master: DictConfig) -> bool:
    """Whether the directories of a sweep's jobs are named by their numbers."""
    sweep: Any = OmegaConf.to_container(master.hydra.sweep, resolve=False)
    return re.search(r"hydra\.job\.(num|id)\b", f"{sweep['dir']} {sweep['subdir']}") is not None


def _without(master: DictConfig, jobs: Sequence[Sequence[str]], good: set[str]) -> str:
    """How a sweep over all choices of a group, ``GROUP=glob(*)``, leaves out those of which no job is good.

    ``good``: the words of the good jobs. Empty where nothing can be left out so.
    """
    bad = {word for words in jobs for word in words} - good if good else set[str]()
    words: Any = OmegaConf.to_container(master.hydra.overrides.task, resolve=False)
    for word in words:
        group, _, value = word.partition("=")
        names = sorted(each.partition("=")[2] for each in bad if each.startswith(f"{group}="))
        if value == "glob(*)" and names:
            exclude = names[0] if len(names) == 1 else f"[{','.join(names)}]"
            return f"{group}=glob(*,exclude={exclude}) leaves {'it' if len(names) == 1 else 'these'} out"
    return ""


def _told(refused: dict[str, list[str]], count: int, hint: str) -> str:
    """Which of ``count`` jobs are refused: each reason once, in a line of its own; and what helps, if that is known."""
    if count == 1:
        return next(iter(refused))

    def line(reason: str, words: Sequence[str]) -> str:
        if len(words) > 1:
            return f"{reason} ({len(words)} of {count} jobs{words[0] and f', the first {words[0]}'})"
        named = not words[0] or reason.startswith(f"{words[0]}:")
        return reason if named else f"{words[0]}: {reason}"

    lines = [line(reason, words) for reason, words in refused.items()]
    number = sum(map(len, refused.values()))
    if len(lines) == 1:
        return f"{lines[0]}; {hint}" if hint else lines[0]
    return "\n  ".join([f"{number} of {count} jobs are refused", *lines, *([hint] if hint else [])])
