"""Which jobs of a sweep need no more training. Nothing here imports torch, unless a finished run is to be mended."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from fractal_ifs.config.machine import check_outside
from fractal_ifs.config.run import Job
from fractal_ifs.engines.own_loss import check_loss
from fractal_ifs.errors import ConfigError
from fractal_ifs.measures.own import check_measures
from fractal_ifs.networks.own import check_network
from fractal_ifs.results import finished_runs
from fractal_ifs.results.finished_runs import Keeper, KeptRun
from fractal_ifs.runs.finished import finished, remove_left
from fractal_ifs.runs.history import mend_history
from fractal_ifs.runs.records import RunRecord, Status, Stored, read_record
from fractal_ifs.runs.sources import differ, sources
from fractal_ifs.runs.versions import bits_rest_on, differences
from fractal_ifs.sweeps import driver

log = logging.getLogger(__name__)

Ended = RunRecord | Exception  # a job's record, which may be that of its table, or the exception it failed with


def finished_or_kept(job: Job) -> RunRecord | None:
    """The record of a job that needs no more training, in its directory or the table that its key ``kept`` names.

    None where the job is still to be trained. Raises ConfigError where another config was trained in its directory, or
    its key ``kept`` names another file than a table of finished runs, or what it needs besides its config isn't there.
    """
    stored = stored_of(job)
    found = stored.record if stored else _kept(job)
    if found is None:
        check_own_code([job])
    return found


def check_own_code(jobs: Sequence[Job]) -> None:
    """Raises ConfigError where a class or a function of a user's own doesn't do what it should."""
    for job in jobs:
        check_network(job.config)
        check_loss(job.config)
        check_measures(job.config)
    if any(job.config.engine == "lightning" for job in jobs):
        from fractal_ifs.training.lightning_parts import check_parts

        check_parts(jobs)


def finished_jobs(jobs: Sequence[Job]) -> dict[int, Ended]:
    """The jobs that need no more training, by their numbers. Logs how many, and adds them to their tables of kept runs.

    The history.csv of a finished run that is damaged is written anew from its checkpoint, if it has one. Raises
    ConfigError as ``finished_or_kept`` does.
    """
    stored = {number: found for number, job in enumerate(jobs) if (found := stored_of(job))}
    records = {number: found.record for number, found in stored.items()}
    directories = {number: directory for number in stored if (directory := jobs[number].directory)}
    for number, directory in directories.items():
        mend_history(directory, stored[number])
        remove_left(directory)
    Keeper(jobs).add({directory: records[number] for number, directory in directories.items()})
    kept = {number: found for number, job in enumerate(jobs) if number not in stored and (found := _kept(job))}
    driver.kept.update({directory.absolute(): found for n, found in kept.items() if (directory := jobs[n].directory)})
    results: dict[int, Ended] = dict(sorted({**records, **kept}.items()))
    if results:
        log.info("%d of %d jobs are finished already: skipped", len(results), len(jobs))
        for changed in sorted({differences(record, bits_rest_on()) for record in records.values()} - {""}):
            log.warning("of these, some were trained by other versions: %s", changed)
        for table in sorted({str(jobs[number].config.kept) for number in kept}):
            count = sum(str(jobs[number].config.kept) == table for number in kept)
            log.info("%d of these are in kept=%s and have no directory here", count, table)
        tell_lacking(jobs, {**records, **kept})
        _tell_of_sources(jobs, {**records, **kept})
    return results


def _tell_of_sources(jobs: Sequence[Job], records: Mapping[int, RunRecord]) -> None:
    """Warn of finished runs of files that are others by now: of a network, loss or measure of one's own, of a
    checkpoint, or images."""
    texts = {
        "ckpt_source": "began from other files than are at trainer.ckpt_path now",
        "model_source": "were trained with another source of their model",
        "loss_source": "were trained with another source of their loss",
        "measure_source": "were measured by another source of their measures",
        "data_source": "were trained on other images than are in data.dir now",
    }
    known: dict[tuple[str, str], str | None] = {}
    now = {number: sources(jobs[number].config, known) for number in records}
    for name, text in texts.items():
        if other := sum(differ(name, record[name], now[number].get(name)) for number, record in records.items()):
            log.warning(
                "%d of these %s; overwrite=true trains them again, beside their rows in a kept table", other, text
            )


def best_of(job: Job, ended: RunRecord) -> float | None:
    """The best accuracy on the set that the job's key ``objective`` names, by which sweepers choose.

    0 of a run that diverged, whatever it had before: no sweeper should choose it. None where it wasn't measured.
    """
    if ended.status == Status.DIVERGED:
        return 0.0
    return ended.best_test_acc if job.config.objective == "test_acc" else ended.best_val_acc


def check_objective(job: Job, ended: RunRecord) -> None:
    """Raises ConfigError for a finished run that lacks what sweepers choose by: no other number stands in for it."""
    if best_of(job, ended) is None:
        where = job.config.kept if isinstance(ended, KeptRun) else job.directory
        raise ConfigError(
            f"objective={job.config.objective}: must have been measured, and the finished run in {where} has none; "
            "overwrite=true trains it again"
        )


def tell_lacking(jobs: Sequence[Job], records: Mapping[int, RunRecord]) -> None:
    """Log how many finished runs weren't measured as their jobs ask."""
    lacking = {n: _lacking(jobs[n], record) for n, record in records.items()}
    if names := sorted(set[str]().union(*lacking.values())):
        count = sum(map(bool, lacking.values()))
        log.info("%d of these lack measures=[%s]; overwrite=true trains them again", count, ",".join(names))
    points = {n: _val_points(record) for n, record in records.items() if "val_acc" in jobs[n].config.measures}
    if other := [found for n, found in points.items() if found not in (None, jobs[n].config.data.val_size)]:
        sizes = ",".join(map(str, sorted({found for found in other if found is not None})))
        log.info("%d of these have val_acc of data.val_size=%s; overwrite=true trains them again", len(other), sizes)


def _lacking(job: Job, record: RunRecord) -> set[str]:
    """The measures that a job asks for, and a finished run wasn't measured by."""
    asked = job.config.measures
    return record.lacking(asked) if isinstance(record, KeptRun) else set(asked) - {*record.config.measures}


def _val_points(record: RunRecord) -> int | None:
    """On how many points val_acc of a run was measured. A record of before doesn't say it, but its config does."""
    if record.best_val_acc is None:
        return None
    return record.config.data.val_size if record.val_points is None else record.val_points


def stored_of(job: Job) -> Stored | None:
    """The result in a job's own directory, if it needs no more training. Errors are those of ``finished_or_kept``."""
    finished_runs.check(job)
    stored = finished(job)
    if stored is None:
        check_outside(job.config, job.directory)
    else:
        check_objective(job, stored.record)
    return stored


def _kept(job: Job) -> KeptRun | None:
    """The result of an unfinished job in its table of kept runs. A run that has begun goes on instead."""
    if job.directory is None or job.config.overwrite or read_record(job.directory):
        return None
    found = finished_runs.find(job)
    if found is not None:
        check_objective(job, found)
    return found
