"""Turns a job into a run, which goes on from its checkpoint, if it has one, with the same bits."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from fractal_ifs.config.data import ImageData
from fractal_ifs.config.run import Job
from fractal_ifs.errors import Damaged, Refused
from fractal_ifs.files import remove_abandoned, set_aside
from fractal_ifs.runs import locks, shapes
from fractal_ifs.runs.checkpoints import CHECKPOINTS, Checkpoint, read_whole
from fractal_ifs.runs.files import FILES
from fractal_ifs.runs.finished import check_same, check_validation
from fractal_ifs.runs.history import read_history, write_history
from fractal_ifs.runs.kernels import torch_kernels
from fractal_ifs.runs.layerwise import LayerwiseRun
from fractal_ifs.runs.longer import shorter
from fractal_ifs.runs.records import (
    HISTORY,
    RESULT,
    Begun,
    note,
    read_begun,
    read_record,
    read_stored,
    warn,
)
from fractal_ifs.runs.run import Run
from fractal_ifs.runs.sources import differ
from fractal_ifs.runs.versions import ComputedBy, bits_rest_on, differences

log = logging.getLogger(__name__)


def begin(job: Job, device: str | torch.device, computed_by: ComputedBy) -> Run:
    """Lock the job's directory and make its run, from its checkpoint if it has one.

    ``computed_by`` is that of the engine that will train it. Raises Busy if another process trains there, and
    Refused if the directory holds another config's run, or one that can't go on because its files are damaged. Then
    these are left as they are.
    """
    kind = LayerwiseRun if job.config.training == "layerwise" else Run
    lock = None
    if job.directory is not None:
        job.directory.mkdir(parents=True, exist_ok=True)
        lock = locks.of_directory(job.directory, "run")
    try:
        if job.directory is not None:
            if lock and lock.held:
                remove_abandoned(job.directory, FILES)
            if job.config.overwrite:
                _discard(job.directory)
        run = kind(job.config, job.directory, device)
        run.lock, run.computed_by, run.pause = lock, computed_by, job.pause
        of_torch = kind is LayerwiseRun or computed_by.engine not in ("native", "cuda")  # makes later layers' inputs
        if of_torch and run.params.device.type == "cpu":
            run.computed_by = computed_by._replace(torch_kernels=torch_kernels())
        if job.directory is not None:
            _go_on(run, job, job.directory)
        elif state := shorter(job, run.shape()):
            state["wandb_id"] = run.wandb_id
            check_validation(job, state.get("val_points"))
            run.restore(state)
        return run
    except BaseException:
        if lock:
            lock.release()
        raise


def _go_on(run: Run, job: Job, directory: Path) -> None:
    """Restore the run from the checkpoint in its directory, if there is one. Raises Refused."""
    begun = read_begun(directory)
    if begun and begun.config.fingerprint in job.config.fingerprints:  # its W&B run is of this config
        run.wandb_id = begun.wandb_id
    state, unusable = _newest(run, job, directory, begun)
    if damaged := _damage(directory, RESULT):
        if state is None:
            raise Damaged(f"{damaged}; there is no checkpoint to write it anew from. {_way_out(RESULT)}")
        unusable[RESULT] = damaged
    for name, why in unusable.items():
        _tell(directory, f"{why}: set aside as {set_aside(directory / name).name}")
    if state is None and (there := read_record(directory)) and there.status.ended:
        raise Refused(
            f"{directory}: its run has ended, and no checkpoint is left to take the network from; "
            "overwrite=true trains it anew"
        )
    if state is None and (state := shorter(job, run.shape())):
        state["wandb_id"] = run.wandb_id  # a W&B run of its own
    history = _damage(directory, HISTORY)
    for name in FILES:
        if _is_directory(directory / name):  # no file can be renamed to it
            set_aside(directory / name)
    if state is not None:
        before = state.get("versions", {}) | ComputedBy.of(state, ComputedBy(torch_kernels="unknown"))._asdict()
        here = bits_rest_on() | run.computed_by._asdict()
        here |= {name: run.versions.get(name) for name in ("model_source", "loss_source")}
        if changed := differences(before, here):
            warn(log, directory, f"goes on from a checkpoint of other versions ({changed}): perhaps not bit for bit")
        images = run.versions.get("data_source")
        run.restore(state)
        if not run.status.ended:
            if differ("data_source", was := before.get("data_source"), images):
                raise Refused(
                    f"{directory}: was begun on other images than are in data.dir={_place(job)} ({was} there, {images} "
                    "here): name their directory, or train it anew with overwrite=true"
                )
            check_validation(job, run.val_points)
            if differ("measure_source", was := before.get("measure_source"), now := run.versions.get("measure_source")):
                warn(log, directory, f"goes on with other sources of its measures ({was} there, {now} here)")
        elif there := begun or read_record(directory):  # nothing is measured any more: its record says how it was
            run.config = run.config.measured_as(there.config)
        if history:
            _tell(directory, f"{history}: written anew from the checkpoint")
            write_history(directory, run.history)
    end = job.pause or run.config.steps_in_all
    note(directory, f"training from step {run.steps_before + run.step} to {end}")


def _place(job: Job) -> str | None:
    return job.config.data.dir if isinstance(job.config.data, ImageData) else None


def _discard(directory: Path) -> None:
    """Remove the run in a directory. Raises OSError."""
    for name in FILES:
        if not _is_directory(directory / name):
            (directory / name).unlink(missing_ok=True)


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _tell(directory: Path, text: str) -> None:
    log.warning("%s", text)
    note(directory, text)


def _newest(run: Run, job: Job, directory: Path, begun: Begun | None) -> tuple[Checkpoint | None, dict[str, str]]:
    """The newest good checkpoint in a run's directory, None if there is none, and why newer ones can't be used.

    Raises Refused if one is of a later format, or if all are damaged or another config's.
    """
    shape, stored = run.shape(), begun or read_record(directory)
    unusable: dict[str, str] = {}
    another: Refused | None = None
    for name in CHECKPOINTS:
        path = directory / name
        try:
            state = read_whole(path, shape.most_bytes)
            try:
                check_same(job, state["fingerprint"], stored.config if stored else None)
            except Refused as error:
                another = error
                raise Damaged("it is of another config") from None
            shapes.check(state, shape)
            return state, unusable
        except FileNotFoundError:
            continue
        except Damaged as error:
            unusable[name] = f"{path} can't be used: {error}"
        except Refused as error:
            raise Refused(f"{path}: {error}") from None
    if another:
        raise another
    if unusable:
        reasons = "; ".join(unusable.values())
        raise Damaged(f"{reasons}. No checkpoint is left to go on from. {_way_out(*unusable)}")
    return None, unusable


def _damage(directory: Path, name: str) -> str | None:
    """Why a run's record or history can't be read; None if it can be, or there is none."""
    try:
        read_stored(directory) if name == RESULT else read_history(directory)
    except FileNotFoundError:
        return None
    except Damaged as error:
        return str(error)
    return None


def _way_out(*names: str) -> str:
    what = " and ".join(names)
    return f"Nothing is changed: put a good copy there, or remove {what} (or give overwrite=true) to train it anew"
