"""What this process drives: the sweeps whose tables it shows at its end, and their jobs that failed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from fractal_ifs.config.run import Job
from fractal_ifs.errors import counted, message, short
from fractal_ifs.files import remove_abandoned
from fractal_ifs.results.finished_runs import KeptRun
from fractal_ifs.runs import locks
from fractal_ifs.runs.failure import failure
from fractal_ifs.runs.locks import Busy
from fractal_ifs.runs.records import LOG, SWEEP, TABLE, RunRecord

log = logging.getLogger(__name__)

# Of the command that this process runs:
swept: list[Path] = []  # the directories of its sweeps
failed: dict[Path, RunRecord] = {}  # the record of each job that failed, by the job's directory
kept: dict[Path, KeptRun] = {}  # of each job that its table of finished runs has, by the directory it would have
unsaid: set[Path] = set()  # those whose error was logged nowhere


def begin_command() -> None:
    """Forget the sweeps of a command before, in the same process."""
    swept.clear()
    failed.clear()
    kept.clear()
    unsaid.clear()


class JobsFailed(Exception):
    """Some jobs of a sweep failed; the others are finished."""


@contextlib.contextmanager
def driving(directory: Path) -> Iterator[None]:
    """Lock a sweep's directory, so that no second process drives the sweep. Raises Busy where one does."""
    lock = locks.of_directory(directory, "sweep")
    try:
        if lock.held:
            remove_abandoned(directory, (TABLE, SWEEP))
        yield
    finally:
        lock.release()


def report_failure(job: Job, error: Exception) -> None:
    """Log that a job failed, and keep its record for the end and for the table."""
    log.error("%s: %s: %s", "busy" if isinstance(error, Busy) else "failed", job.directory, message(error))
    if job.directory is not None and not isinstance(error, Busy):
        failed[job.directory.absolute()] = failure(job.config, error)
        if log.disabled or not log.isEnabledFor(logging.ERROR):  # as hydra/job_logging=disabled has it
            unsaid.add(job.directory.absolute())


def show_failed() -> None:
    """Print the place of every job that failed, and of its log; and why, where that wasn't logged when it did."""
    if failed:
        print(f"{counted(len(failed), 'job')} failed; the same command trains these again:")
        for directory, record in failed.items():
            why = f": {record.error}" if directory in unsaid else ""
            print(f"  {directory}{why}" + (f" (see {directory / LOG})" if (directory / LOG).exists() else ""))


def was_said(error: BaseException | None) -> bool:
    """Whether an error is that of a job, which was logged when it failed."""
    return error is not None and short(message(error), 1000) in {record.error for record in failed.values()}
