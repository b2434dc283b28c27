"""Trains the jobs of a sweep, or one job, on this machine. Finished jobs are skipped, the rest go group by group."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence

from fractal_ifs.config.machine import on_this_machine
from fractal_ifs.config.run import Job
from fractal_ifs.data.images import check_images
from fractal_ifs.engines.choice import check_engine, choose
from fractal_ifs.results.finished_runs import Keeper
from fractal_ifs.runs.longer import with_sources
from fractal_ifs.runs.records import RunRecord, understood, version
from fractal_ifs.runs.run import Run
from fractal_ifs.sweeps.driver import report_failure
from fractal_ifs.sweeps.executors import execute
from fractal_ifs.sweeps.finished import Ended, check_own_code, finished_jobs
from fractal_ifs.sweeps.progress import Progress
from fractal_ifs.sweeps.work import Outcome
from fractal_ifs.training.rounds import SweepRounds

log = logging.getLogger(__name__)

KEEP_SECONDS = 60.0  # between two writings of the tables ``kept`` while a group trains


def train_jobs(jobs: Sequence[Job], executor: str = "inline", stack: int = 0) -> list[Ended]:
    """Train the jobs that are not finished. Returns how each job ended, in their order.

    Args:
        executor, stack: the keys of conf/hydra/launcher/fused.yaml. ``executor`` is ``auto``, ``inline`` or ``local``.

    Raises ConfigError where another config was trained in a job's directory, or its images are missing.
    """
    ended = finished_jobs(jobs)
    todo = [number for number in range(len(jobs)) if number not in ended]
    if todo:
        trained = train_unfinished([jobs[number] for number in todo], executor, stack)
        ended |= dict(zip(todo, trained, strict=True))
    return [ended[number] for number in range(len(jobs))]


def ready(jobs: Sequence[Job]) -> list[Job]:
    """The jobs as this machine trains them, each with its ``source``.

    Raises ConfigError for what can't be trained here: an engine that doesn't train a job, missing images, a user's own
    network, loss or measure that doesn't do what it should.
    """
    jobs = with_sources([on_this_machine(job) for job in jobs])
    check_own_code(jobs)
    for job in jobs:
        check_engine(job.config)
    check_images(job.config for job in jobs)
    return jobs


def train_unfinished(jobs: Sequence[Job], executor: str, stack: int) -> list[Outcome]:
    """Train jobs that ``finished_jobs`` doesn't have. Arguments, result and errors are those of ``train_jobs``.

    Raises ConfigError too, as ``ready`` does.
    """
    outcomes: dict[int, Outcome] = {}
    keeper = Keeper(jobs)
    jobs = ready(jobs)
    for reason in sorted({str(choose(job.config).reason) for job in jobs} - {"None"}):
        log.info("engine=torch: %s", reason)
    progress = Progress(jobs)

    def report(rounds: SweepRounds) -> None:
        if keeper.lacks and time.monotonic() - keeper.looked > KEEP_SECONDS:
            lacking, runs = set(keeper.lacking), (run for run in rounds.ended.values() if isinstance(run, Run))
            keeper.add({run.directory: run.record() for run in runs if run.directory in lacking})

    before = {job.directory: version(job.directory) for job in jobs if job.config.overwrite}
    try:
        with contextlib.closing(execute(jobs, executor, stack, report, progress.told)) as groups:
            for numbers, found in groups:
                for number, outcome in zip(numbers, found, strict=True):
                    outcomes[number] = outcome
                    if isinstance(outcome, Exception):
                        report_failure(jobs[number], outcome)
                records = [outcome for outcome in found if isinstance(outcome, RunRecord)]
                progress.group_ended(
                    numbers,
                    failed=len(numbers) - sum(record.status.well for record in records),
                    best=max((b for record in records if (b := record.best_test_acc) is not None), default=None),
                )
                ended = zip((jobs[number].directory for number in numbers), found, strict=True)
                keeper.add({where: record for where, record in ended if where and isinstance(record, RunRecord)})
    finally:
        progress.close()
        trained = [where for where in keeper.lacking if where not in before or version(where) != before[where]]
        keeper.add({where: record for where in trained if (record := understood(where))})
    return [outcomes[number] for number in range(len(jobs))]
