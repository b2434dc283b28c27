"""Which jobs of a sweep need no more training. Nothing here imports torch, so a launcher can check jobs quickly."""

from __future__ import annotations

from fractal_ifs.config.run import Job
from fractal_ifs.results import finished_runs
from fractal_ifs.results.finished_runs import KeptRun
from fractal_ifs.runs.finished import finished
from fractal_ifs.runs.records import RunRecord, read_record


def finished_or_kept(job: Job) -> RunRecord | KeptRun | None:
    """The record of a job that needs no more training, or its result in the table that its key ``kept`` names.

    None where the job is still to be trained. Raises ConfigError where another config was trained in its directory.
    """
    record = finished(job)
    if record is None and job.directory is not None and not job.config.overwrite:
        return None if read_record(job.directory) else finished_runs.find(job.config)
    return record
