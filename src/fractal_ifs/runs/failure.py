"""The record that a failed run leaves. Only ``versions`` imports torch, when a record is made."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import traceback

from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.errors import Damaged, Refused, message, short
from fractal_ifs.runs.history import read_history
from fractal_ifs.runs.records import RunRecord, Status, note, stored, write_record
from fractal_ifs.runs.versions import versions

log = logging.getLogger(__name__)


def failure(config: RunConfig, error: BaseException, so_far: RunRecord | None = None) -> RunRecord:
    """The record of a failed run. ``so_far`` is its record at the time of the error, if training had begun."""
    why = {"error": short(message(error), 1000), **versions()._asdict()}
    if so_far is not None:
        return dataclasses.replace(so_far, status=Status.FAILED, **why)
    return RunRecord.of(config, Status.FAILED, **why)


def fail(job: Job, error: Exception, so_far: RunRecord | None = None) -> RunRecord:
    """Write the record of a failed run, and its traceback to the log, if the disk allows. Returns the record.

    A directory that was refused is left as it is: another process may write there, or the files may still be of use.
    So is the record of a run that has ended, where the disk failed only after it was written.
    """
    log.debug("failed", exc_info=error)
    record = failure(job.config, error, so_far)
    if job.directory is None or isinstance(error, Refused):
        return record
    if so_far is None:  # how far another process has come, which died
        with contextlib.suppress(OSError, Damaged):
            if rows := read_history(job.directory):
                record = dataclasses.replace(record, steps=rows[-1].step)
    try:
        job.directory.mkdir(parents=True, exist_ok=True)
        if not ((there := stored(job.directory)) and there.record.status.ended):
            write_record(job.directory, record)
        note(job.directory, "failed", "".join(traceback.format_exception(error)))
    except OSError as second:
        log.error("%s: that it failed can't be written there either (%s)", job.directory, second.strerror)
    return record
