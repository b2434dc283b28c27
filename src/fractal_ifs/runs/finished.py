"""Whether a job is already finished, or its directory belongs to another run. Nothing here imports torch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from fractal_ifs.config.run import Job, RunConfig, placement
from fractal_ifs.config.schedule import Decay
from fractal_ifs.errors import Refused, short
from fractal_ifs.runs import locks
from fractal_ifs.runs.checkpoints import CHECKPOINTS
from fractal_ifs.runs.records import BEGUN, LOG, Stored, read_begun, stored

# What a run or Hydra writes in place, and so through links.
IN_PLACE = (locks.NAME, LOG, ".hydra", *(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")))


def finished(job: Job) -> Stored | None:
    """The result of a job that needs no more training, or None. Raises Refused if another config's run is there."""
    if job.directory is None:
        return None
    there = None if job.config.overwrite else stored(job.directory)
    if there is not None:
        check_same(job, there.record.fingerprint, there.record.config)
        if there.record.status.ended:
            return there
        check_validation(job, there.record.val_points)
    for name in IN_PLACE:
        if (job.directory / name).is_symlink():
            raise Refused(f"{job.directory / name}: a link, which would be written through; remove it")
    if there is not None or job.config.overwrite:
        return None
    if under_way(job) and (begun := read_begun(job.directory)):  # killed before it had a record
        check_same(job, begun.config.fingerprint, begun.config)
    return None


def under_way(job: Job) -> bool:
    """Whether a job goes on from a checkpoint of its own."""
    there = job.directory is not None and any((job.directory / name).exists() for name in CHECKPOINTS)
    return there and not job.config.overwrite


def remove_left(directory: Path) -> None:
    """Remove what a run that was killed after its record, at its very end, left besides; if that can't be, it stays."""
    with contextlib.suppress(OSError, Refused):
        (directory / BEGUN).unlink(missing_ok=True)
        if (directory / locks.NAME).exists() and not locks.trained(directory):
            locks.of_directory(directory, "run").release()


def check_same(job: Job, fingerprint: str, there: RunConfig | None) -> None:
    """Raises Refused, with the keys that differ, if the job's directory holds a run of another config.

    ``fingerprint`` is the stored one; ``there`` is the stored config, if it is known.
    """
    if fingerprint not in job.config.fingerprints:
        differing = there and (
            difference(there.plain(), job.config.plain(), skip=placement())
            or difference(there.identity(), job.config.identity())  # a key that counts beside another, as data.val_size
        )
        if fingerprint == job.config.by_test:
            differing = "whose callbacks had the test accuracy as val_acc"
        which = f" ({differing})" if differing else ""
        choice = "another directory (hydra.run.dir, in a sweep sweep=) leaves that alone, overwrite=true replaces it"
        fewer = there and there.steps < job.config.steps and but_for_steps(there) == but_for_steps(job.config)
        if fewer and why_not_longer(job.config) is None:
            choice += f"; in another, continue_from={job.directory} goes on with it"
        raise Refused(f"{job.directory}: holds a run of another config{which}; {choice}")


def but_for_steps(config: RunConfig) -> str:
    """What runs have in common that differ in nothing but steps."""
    return json.dumps({**config.identity(), "steps": None}, sort_keys=True)


def why_not_longer(config: RunConfig) -> str | None:
    """Why no run of fewer steps is the beginning of this one. None where it is."""
    if config.training == "layerwise":
        return "training=layerwise: each layer has its own steps"
    if isinstance(config.schedule, Decay):
        return f"schedule={config.schedule.name}: its learning rates depend on steps"
    return None


def check_validation(job: Job, points: int | None) -> None:
    """Raises Refused for a run that has measured val_acc on so many points, and would go on with another number."""
    size = job.config.data.val_size
    if points is not None and "val_acc" in job.config.measures and size != points:
        raise Refused(
            f"data.val_size={size}: must be {points}, on which val_acc of {job.directory or job.source} was measured "
            "so far; overwrite=true trains it again"
        )


def difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "", skip: Collection[str] = ()) -> str:
    """``lr=0.001 there, 0.01 asked`` for every key that differs but for those of ``skip``. ``prefix``: of a group."""
    parts: list[str] = []
    for name in sorted({*old, *new}):
        full = f"{prefix}{name}"
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            parts.append(difference(cast(dict[str, Any], a), cast(dict[str, Any], b), f"{full}.", skip))
        elif a != b and full not in skip:
            parts.append(f"{full}={short(cast(object, a), 200)} there, {short(cast(object, b), 200)} asked")
    return ", ".join(part for part in parts if part)
