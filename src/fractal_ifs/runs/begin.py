"""Turns a job into a run, which goes on from its checkpoint, if it has one, with the same bits."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from fractal_ifs.config.run import Job
from fractal_ifs.runs.checkpoints import CHECKPOINTS, read_checkpoint
from fractal_ifs.runs.finished import check_same
from fractal_ifs.runs.layerwise import LayerwiseRun
from fractal_ifs.runs.locks import Lock
from fractal_ifs.runs.records import BEGUN, HISTORY, RESULT, note, read_begun, read_record
from fractal_ifs.runs.run import Run
from fractal_ifs.runs.versions import bits_rest_on, differences

log = logging.getLogger(__name__)


def begin(job: Job, device: str | torch.device, engine: str, isa: str | None, native_build: str | None) -> Run:
    """Lock the job's directory and make its run, from its checkpoint if it has one.

    ``engine``, ``isa`` and ``native_build`` name the engine that will train it, as in ``engines.protocol.Engine``.
    Raises Busy if another process trains there, ConfigError if the directory holds another config's run.
    """
    kind = LayerwiseRun if job.config.training == "layerwise" else Run
    lock = None
    if job.directory is not None:
        job.directory.mkdir(parents=True, exist_ok=True)
        lock = Lock(job.directory, "run")
    try:
        if job.directory is not None and job.config.overwrite:
            for name in (RESULT, HISTORY, BEGUN, *CHECKPOINTS):
                (job.directory / name).unlink(missing_ok=True)
        run = kind(job.config, job.directory, device)
        run.lock, run.engine, run.isa, run.native_build = lock, engine, isa, native_build
        if job.directory is not None:
            _go_on(run, job, job.directory)
        return run
    except BaseException:
        if lock:
            lock.release()
        raise


def _go_on(run: Run, job: Job, directory: Path) -> None:
    """Restore the run from the checkpoint in its directory, if there is one."""
    begun = read_begun(directory)
    run.wandb_id = begun.wandb_id if begun else None
    record = read_record(directory)
    if (directory / RESULT).exists() and record is None:
        log.warning("%s can't be read: the run goes on from its last checkpoint", directory / RESULT)
    state = read_checkpoint(directory)
    if state is not None:
        stored = begun or record
        check_same(job, state["fingerprint"], stored.config if stored else None)
        there = {**state.get("versions", {}), "isa": state.get("isa"), "native_build": state.get("native_build")}
        if changed := differences(there, bits_rest_on(run.isa, run.native_build)):
            text = f"goes on from a checkpoint of other versions ({changed}): perhaps not bit for bit"
            log.warning("%s: %s", directory, text)
            note(directory, text)
        run.restore(state)
    note(directory, f"training from step {run.step} to {run.config.steps}")
