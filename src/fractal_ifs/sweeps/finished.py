"""Which jobs of a sweep need no more training. Nothing here imports torch, so a launcher can check jobs quickly."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fractal_ifs.config.machine import check_outside
from fractal_ifs.config.run import Job
from fractal_ifs.results import finished_runs
from fractal_ifs.results.finished_runs import Keeper, KeptRun
from fractal_ifs.runs.finished import finished
from fractal_ifs.runs.records import RunRecord, read_record
from fractal_ifs.runs.versions import bits_rest_on, differences

log = logging.getLogger(__name__)

Ended = RunRecord | KeptRun | Exception  # a job's record, its result in its table, or the exception it failed with


def finished_or_kept(job: Job) -> RunRecord | KeptRun | None:
    """The record of a job that needs no more training, or its result in the table that its key ``kept`` names.

    None where the job is still to be trained. Raises ConfigError where another config was trained in its directory, or
    what it needs besides its config isn't there.
    """
    record = finished(job)
    if record is None or job.config.kept:
        check_outside(job.config)
    if record is None and job.directory is not None and not job.config.overwrite:
        return None if read_record(job.directory) else finished_runs.find(job.config)
    return record


def finished_jobs(jobs: Sequence[Job]) -> dict[int, Ended]:
    """The jobs that need no more training, by their numbers. Logs how many, and adds them to their tables of kept runs.

    Raises ConfigError where another config was trained in a job's directory.
    """
    Keeper(jobs).add()
    results: dict[int, Ended] = {number: ended for number, job in enumerate(jobs) if (ended := finished_or_kept(job))}
    if results:
        log.info("%d of %d jobs are finished already: skipped", len(results), len(jobs))
        records = [record for record in results.values() if isinstance(record, RunRecord)]
        for changed in sorted({differences(record, bits_rest_on()) for record in records} - {""}):
            log.warning("of these, some were trained by other versions: %s", changed)
    return results
