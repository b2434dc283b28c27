"""``continue_from=DIR``: a run begins from the end of a finished run that differs from it in nothing but fewer steps.

Its bits are those of a run from step 0, because the first steps of a run don't depend on how many follow. The finished
run is read and never changed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from fractal_ifs.config.machine import discarding
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.errors import ConfigError, Damaged, Refused, counted, reason, short
from fractal_ifs.runs import shapes
from fractal_ifs.runs.checkpoints import CHECKPOINTS, Checkpoint, read_whole
from fractal_ifs.runs.finished import but_for_steps, under_way, why_not_longer
from fractal_ifs.runs.records import find, note, understood
from fractal_ifs.runs.shapes import Shape
from fractal_ifs.runs.sources import differ, sources

log = logging.getLogger(__name__)


def with_sources(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, each with the directory of the run that it can begin from, of several the longest, or why it has none.

    Reads each directory of ``continue_from`` once, and logs for how many jobs it has a run. Jobs that know it by now
    stay as they are. Raises ConfigError where a directory has no finished run at all, and where a job would discard one
    that another begins from.
    """
    ended = {asked: _ended(Path(asked)) for asked in {j.config.continue_from for j in jobs if j.source is None} - {""}}
    for job in jobs:
        if not ended.get(asked := job.config.continue_from, True) and not under_way(job):
            raise ConfigError(f"continue_from={short(asked, 200)}: must be a directory with finished runs")
    found = [
        job._replace(source=_source(job.config, ended[asked]))
        if (asked := job.config.continue_from) and job.source is None
        else job
        for job in jobs
    ]
    discarded = {job.directory.resolve() for job in jobs if job.directory and job.config.overwrite} if ended else ()
    for job in found:
        if isinstance(job.source, Path) and job.source.resolve() in discarded:
            raise ConfigError(discarding(job.config, job.source))
    if ended:
        count = sum(isinstance(job.source, Path) for job in found)
        log.info("continue_from: %d of %s begin at the end of a run of fewer steps", count, counted(len(jobs), "job"))
    return found


def shorter(job: Job, shape: Shape) -> Checkpoint | None:
    """The checkpoint at the end of the run that a job begins from. None, with a line in the log, where it has none.

    Args:
        shape: of the job's own checkpoints.
    """
    if isinstance(job.source, Path):
        state, said = _end_of(job.source, job.config, shape)
    else:
        state, said = None, job.source
    if said is not None:
        note(job.directory, f"begins from step {state['step'] if state else 0}: {said}")
    return state


def _end_of(source: Path, config: RunConfig, shape: Shape) -> tuple[Checkpoint | None, str]:
    """The checkpoint of a run with fewer steps, and where it is; None, and why not."""
    there = understood(source)
    if there is None or but_for_steps(there.config) != but_for_steps(config):
        return None, f"the run in {source} is another one by now"
    if "val_acc" in config.measures and there.val_points is None:  # the best look is one of all
        return None, f"the run in {source} has no val_acc"
    reasons: list[str] = []
    for name in CHECKPOINTS:
        try:
            state = read_whole(source / name, shape.most_bytes)
            if state["fingerprint"] not in there.config.fingerprints:
                raise Damaged("it is of another config")
            shapes.check(state, shape)
            images = sources(config).get("data_source")
            if differ("data_source", state.get("versions", {}).get("data_source"), images):
                return None, f"the run in {source} was trained on other images than are in data.dir"
            return state, f"the end of {source}"
        except FileNotFoundError:
            reasons.append(f"{source / name} is missing")
        except Refused as error:
            reasons.append(f"{source / name}: {reason(error)}")
    return None, "; ".join(reasons)


def _source(config: RunConfig, ended: dict[str, list[tuple[int, Path]]]) -> Path | str:
    """The directory of the run that this one can begin from, or why there is none."""
    if why := why_not_longer(config):
        return why
    fewer = [pair for pair in ended.get(but_for_steps(config), []) if pair[0] < config.steps]
    if not fewer:
        return f"no finished run in {config.continue_from} differs in nothing but fewer steps"
    fitting = [pair for pair in fewer if pair[0] % config.eval_every == 0]
    if not fitting:
        return f"steps={max(fewer)[0]} measured at the end, between two of every eval_every={config.eval_every}"
    return max(fitting)[1]


def _ended(root: Path) -> dict[str, list[tuple[int, Path]]]:
    """The runs at or below a directory that have ended, as steps asked for and directory, by all their other keys."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for directory, record in find(root):
        if record.status.ended:
            found.setdefault(but_for_steps(record.config), []).append((record.config.steps, directory))
    return found
