"""Trains the jobs of a sweep, or one job, on this machine. Finished jobs are skipped, the rest go group by group."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fractal_ifs.config.machine import on_this_machine
from fractal_ifs.config.run import Job
from fractal_ifs.data.images import check_images
from fractal_ifs.engines.choice import choose
from fractal_ifs.results.finished_runs import Keeper, KeptRun
from fractal_ifs.runs.records import RunRecord, Status
from fractal_ifs.runs.versions import bits_rest_on, differences
from fractal_ifs.sweeps.driver import report_failure
from fractal_ifs.sweeps.executors import execute
from fractal_ifs.sweeps.finished import finished_or_kept
from fractal_ifs.sweeps.progress import Progress
from fractal_ifs.training.rounds import SweepRounds

log = logging.getLogger(__name__)

Ended = RunRecord | KeptRun | Exception  # a job's record, its result in its table, or the exception it failed with


def train_jobs(jobs: Sequence[Job], executor: str = "inline", stack: int = 0, together: bool = False) -> list[Ended]:
    """Train the jobs that are not finished. Returns how each job ended, in their order.

    Args:
        executor, stack: the keys of conf/hydra/launcher/fused.yaml. ``executor`` is ``inline`` or ``local``.
        together: as in ``training.train``.

    Raises ConfigError where another config was trained in a job's directory, or its images are missing.
    """
    results: dict[int, Ended] = {number: ended for number, job in enumerate(jobs) if (ended := finished_or_kept(job))}
    todo = [number for number in range(len(jobs)) if number not in results]
    keeper = Keeper(jobs)
    keeper.add()
    if results:
        log.info("%d of %d jobs are finished already: skipped", len(results), len(jobs))
        records = [record for record in results.values() if isinstance(record, RunRecord)]
        for changed in sorted({differences(record, bits_rest_on()) for record in records} - {""}):
            log.warning("of these, some were trained by other versions: %s", changed)
    if todo:
        jobs = [on_this_machine(job) for job in jobs]
        for reason in sorted({str(choose(jobs[number].config).reason) for number in todo} - {"None"}):
            log.info("engine=torch: %s", reason)
        check_images(jobs[number].config for number in todo)
        progress = Progress(len(todo), sum(jobs[number].config.steps_in_all for number in todo))

        def report(rounds: SweepRounds) -> None:
            progress(rounds)
            keeper.add(every=60.0)

        try:
            for numbers, outcomes in execute([jobs[number] for number in todo], executor, stack, report, together):
                for number, outcome in zip(numbers, outcomes, strict=True):
                    results[todo[number]] = outcome
                    if isinstance(outcome, Exception):
                        report_failure(jobs[todo[number]], outcome)
                progress.group_ended(
                    sum(jobs[todo[number]].config.steps_in_all for number in numbers),
                    len(numbers),
                    sum(isinstance(o, Exception) or o.status != Status.FINISHED for o in outcomes),
                )
                keeper.add()
        finally:
            progress.close()
            keeper.add()
    return [results[number] for number in range(len(jobs))]
