"""Trains the jobs of a sweep rung by rung, and prunes those that do worst.

What is decided at a rung follows from the histories up to it. So a sweep that was killed decides the same when it goes
on, and one that has ended finds nothing to do. A run that goes on does so from its checkpoint, with the bits of a run
that never paused: its config has all of its steps.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fractal_ifs.config.run import Job
from fractal_ifs.errors import Damaged, Refused, counted
from fractal_ifs.files import remove_abandoned
from fractal_ifs.runs import locks
from fractal_ifs.runs.history import Evaluation, read_history
from fractal_ifs.runs.longer import with_sources
from fractal_ifs.runs.records import RESULT, RunRecord, Status, note, stored, write_record
from fractal_ifs.sweeps.driver import report_failure
from fractal_ifs.sweeps.finished import Ended
from fractal_ifs.sweeps.rungs import Halving
from fractal_ifs.sweeps.sweep import train_unfinished

log = logging.getLogger(__name__)

AT_REST = (Status.PAUSED, Status.PRUNED, Status.INTERRUPTED)  # of a record that has not ended, and says how far it is


def train_by_halving(
    jobs: Sequence[Job], ended: Mapping[int, Ended], keys: Halving, executor: str, stack: int
) -> list[Ended]:
    """Train the jobs of a sweep as ``keys`` say, all that are at one rung together.

    A job that fails holds up its cell, where nothing is decided until the same command has trained it.

    Args:
        ended: the finished jobs, by their numbers, and those that can't begin.
        executor, stack: as in ``sweeps.sweep.train_jobs``.

    Returns how each job ended; one that was pruned with its record.
    """
    jobs = with_sources(jobs)
    outcomes: dict[int, Ended] = dict(ended)
    cells = keys.cells([job.config for job in jobs])
    rung = 0
    while cells:
        rung += 1
        asked = {number: _asked(jobs[number], len(cell), keys, rung) for cell in cells for number in cell}
        going_on = [
            number for number in asked if not (_ended(outcomes.get(number)) or isinstance(ended.get(number), Exception))
        ]
        resting = {number: found for number in going_on if (found := _at_rest(asked[number]))}
        outcomes |= {number: found.record for number, found in resting.items()}
        todo = [number for number in going_on if number not in resting]
        if todo:
            trained = train_unfinished([asked[number] for number in todo], executor, stack)
            outcomes |= dict(zip(todo, trained, strict=True))
        competing = [cell for cell in cells if asked[cell[0]].pause is not None]
        cells: list[list[int]] = []
        tied = 0
        for cell in competing:
            values: dict[int, float] = {}
            for number in cell:
                value = _value(asked[number], resting.get(number) or outcomes[number], keys)
                if isinstance(value, Exception):
                    outcomes[number] = value
                else:
                    values[number] = value
            if len(values) < len(cell):
                continue
            # Of equals those go on that come first in the grid.
            order = sorted(cell, key=values.__getitem__, reverse=True)
            best = order[: -(-len(cell) // keys.eta)]
            tied += values[best[-1]] == values[order[len(best)]] if len(best) < len(cell) else 0
            cells.append(sorted(best))
            for number in set(cell).difference(best):
                outcomes[number] = _prune(asked[number], outcomes[number], rung, keys)
        if tied:
            log.info("rung %d: in %s, of equals those went on that come first", rung, counted(tied, "cell"))
        if competing:
            log.info("rung %d: %d of %s go on", rung, sum(map(len, cells)), counted(sum(map(len, competing)), "run"))
    return [outcomes[number] for number in range(len(jobs))]


def _ended(outcome: Ended | None) -> bool:
    return isinstance(outcome, RunRecord) and outcome.status.ended


def _asked(job: Job, competitors: int, keys: Halving, rung: int) -> Job:
    """The job up to a rung, or to its end where none competes. ``overwrite`` discards before the first rung."""
    config = job.config if rung == 1 else dataclasses.replace(job.config, overwrite=False)
    return job._replace(config=config, pause=keys.rung(config, rung) if competitors > 1 else None)


class _Resting(NamedTuple):
    """A job that has reached its pause, and that nobody trains."""

    record: RunRecord
    rows: list[Evaluation]


def _at_rest(job: Job) -> _Resting | None:
    """What a job has on disk, if it has reached its pause."""
    assert job.directory is not None
    found = None if job.pause is None or job.config.overwrite else stored(job.directory)
    if found is None or found.record.status not in AT_REST:
        return None
    try:
        rows = read_history(job.directory)
    except (OSError, Damaged):  # its checkpoint has it, and writes it anew
        return None
    return _Resting(found.record, rows) if any(row.step == job.pause for row in rows) else None


def _value(job: Job, outcome: Ended | _Resting, keys: Halving) -> float | Exception:
    """What a run is compared by at its pause, or why it can't be. One that has diverged is worse than any other."""
    assert job.directory is not None
    assert job.pause is not None
    if isinstance(outcome, Exception):
        return outcome
    try:
        rows = outcome.rows if isinstance(outcome, _Resting) else read_history(job.directory)
        rows = [row for row in rows if 0 < row.step <= job.pause]
        if not rows:
            raise Damaged(f"{job.directory}: its history has no measurement up to step {job.pause}")
        if not rows[-1].finite:
            return -1.0
        values = [value for row in rows if (value := row.value(job.config.objective)) is not None]
        if len(values) < len(rows):  # to compare it by some of its measurements would favour another
            raise Damaged(
                f"{job.directory}: its history lacks {job.config.objective} at some measurement up to step "
                f"{job.pause}; overwrite=true trains it again"
            )
    except (OSError, Damaged) as error:
        report_failure(job, error)
        return error
    return max(values) if keys.by == "best" else values[-1]


def _prune(job: Job, outcome: Ended, rung: int, keys: Halving) -> Ended:
    """Write into a run's record that it was pruned, where, and by what number.

    One that has ended by itself, or is pruned there already, stays.
    """
    assert job.directory is not None
    where = f"rung {rung} at step {job.pause}"
    if not isinstance(outcome, RunRecord) or outcome.status.ended:
        return outcome
    if (outcome.stopped or "").partition(",")[0] == where:  # earlier versions said no more
        return outcome
    told = f"{where}, by the {keys.by} {job.config.objective}"
    try:
        lock = locks.of_directory(job.directory, "run")
    except (OSError, Refused) as error:  # as where another process trains it
        report_failure(job, error)
        return error
    try:
        if lock.held:
            remove_abandoned(job.directory, (RESULT,))  # of one who was killed at the same
        found = stored(job.directory)
        if found is None or found.record.status.ended:
            return outcome
        record = dataclasses.replace(found.record, status=Status.PRUNED, stopped=told)
        write_record(job.directory, record, found.digests)
        note(job.directory, f"pruned: {told}")
        return record
    except (OSError, Refused) as error:  # as on a full disk
        report_failure(job, error)
        return error
    finally:
        lock.release()
