"""A sweep as one Slurm job array, submitted by submitit. Each task of the array trains a share of the sweep's jobs.

The machines share the runs' directories, and only these decide how a run ended: Slurm is asked just what is waiting and
running (``squeue``). So accounting (``sacct``) isn't needed, and a task that Slurm calls completed has done nothing
until its runs have records.
"""

import contextlib
import io
import json
import logging
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from fractal_ifs import streams
from fractal_ifs.config.environment import slurm_restarts
from fractal_ifs.config.run import Job
from fractal_ifs.errors import ConfigError, FailedElsewhere, counted
from fractal_ifs.extras import require
from fractal_ifs.files import write
from fractal_ifs.results.finished_runs import Keeper
from fractal_ifs.runs.records import RunRecord, Status, read_record, version
from fractal_ifs.runs.versions import PACKAGE, commit_line
from fractal_ifs.sweeps.driver import report_failure
from fractal_ifs.sweeps.finished import Ended, finished_or_kept
from fractal_ifs.sweeps.slurm_queue import active_tasks, follow, last_state, submitted_tasks
from fractal_ifs.sweeps.slurm_settings import SlurmSettings
from fractal_ifs.sweeps.sweep import train_jobs
from fractal_ifs.training import signals
from fractal_ifs.training.grouping import groups_of

log = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds in which a network file system shows the records of all runs that have ended


class SlurmTask:
    """A task of the array, which submitit pickles. It trains its jobs, and trains what is left when it is requeued."""

    def __init__(self, jobs: Sequence[Job], settings: SlurmSettings):
        self.jobs, self.settings = list(jobs), settings

    def __call__(self) -> None:
        streams.outlast()
        logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", force=True)
        restarts = slurm_restarts()
        # Only the driver writes the table ``kept``. With ``overwrite`` a run starts anew once, not at each requeue.
        keys = {"kept": ""} | ({"overwrite": False} if restarts else {})
        jobs = [job._replace(config=replace(job.config, **keys)) for job in self.jobs]
        warned = []

        def warn(*_: Any) -> None:
            """The time limit or a preemption is near: do what SIGTERM does at this moment."""
            warned.append(True)
            signal.raise_signal(signal.SIGTERM)

        try:
            with signals.ending(at_once=False):  # SIGTERM comes from scancel, or before Slurm itself requeues
                signal.signal(signal.SIGUSR2, warn)
                train_jobs(jobs, "local", self.settings.stack)
        except KeyboardInterrupt:
            if warned and restarts < self.settings.requeues:
                array, task = (os.environ.get(f"SLURM_ARRAY_{name}") for name in ("JOB_ID", "TASK_ID"))
                name = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
                log.info("requeued, %d of %d times", restarts + 1, self.settings.requeues)
                subprocess.run(["scontrol", "requeue", name], check=True)
            elif warned:
                log.error("not requeued: that was done %d times; the sweep's command goes on", restarts)
            sys.exit("interrupted")


def deal(groups: Sequence[Sequence[int]], tasks: int) -> list[list[int]]:
    """Share out the jobs of all groups among the tasks in turn, group after group.

    So every task gets runs of every shape and length, and the numbers of jobs of two tasks differ by at most one.
    Tasks without jobs are left out.
    """
    hands: list[list[int]] = [[] for _ in range(tasks)]
    for place, number in enumerate(number for group in groups for number in group):
        hands[place % tasks].append(number)
    return [hand for hand in hands if hand]


def train_in_slurm(
    jobs: Sequence[Job], ended: Mapping[int, Ended], directories: Sequence[Path], settings: SlurmSettings
) -> list[Ended | None]:
    """Submit the jobs that are neither finished nor submitted already, and wait for them if ``settings.wait``.

    Args:
        ended: the finished jobs, by their numbers.
        directories: of the sweeps to which the jobs belong, in most cases one. Each has a folder ``slurm``, which says
            what tasks its runs are in. Slurm's logs and a copy of the code go into the first one's.

    Returns how each job ended, or None where it wasn't waited for. Raises ConfigError where there is no Slurm, or it
    refuses the array.
    """
    results = [ended.get(number) for number in range(len(jobs))]
    keeper = Keeper(jobs)
    todo = [number for number, record in enumerate(results) if record is None]
    directory = directories[0]
    there = submitted_tasks(*directories)
    waiting = active_tasks(there)
    if waiting is None:
        raise ConfigError("hydra/launcher=slurm: Slurm doesn't answer (squeue)")
    taken = {run: task for task in waiting for run in there[task]}
    # Runs may have ended since ``ended`` was read. A run writes its record before its task leaves the queue, so a run
    # that the queue doesn't hold and that has no record now is to be trained.
    for number in todo:
        if jobs[number].directory not in taken:
            results[number] = finished_or_kept(jobs[number])
    if more := sum(results[number] is not None for number in todo):
        log.info("%s finished already: skipped", counted(more, "more job"))
    todo = [number for number in todo if results[number] is None]
    new = [number for number in todo if jobs[number].directory not in taken]
    if len(new) < len(todo):
        log.info("%s in Slurm's hands already", counted(len(todo) - len(new), "job"))
    before = {number: version(jobs[number].directory) for number in new}
    if new:
        if not waiting:
            remove_snapshots(directory / "slurm")
        groups = [[new[n] for n in numbers] for numbers in groups_of([jobs[n] for n in new])]
        hands = [[jobs[n] for n in hand] for hand in deal(groups, settings.tasks)]
        names = submit(hands, directories, settings)
        tasks = counted(len(names), "Slurm task")
        log.info("%s in %s of job %s", counted(len(new), "job"), tasks, names[0].split("_")[0])
    every = submitted_tasks(*directories)
    tasks = {task: runs for task, runs in every.items() if runs and (task in waiting or task not in there)}
    if not settings.wait:
        log.info("not waited for: `python -m fractal_ifs.report status %s`", directory)
        return results
    try:
        follow(tasks)
    except KeyboardInterrupt:
        names = " ".join(sorted({task.split("_")[0] for task in tasks}))
        log.warning("the Slurm jobs go on; `scancel %s` ends them, the same command waits for them again", names)
        raise
    patience = time.monotonic() + PATIENCE
    task_of, state_of = {run: task for task, runs in tasks.items() for run in runs}, cache(last_state)

    def lost(job: Job) -> str:
        task = task_of.get(job.directory or directory, "?")
        logs = directory / "slurm" / f"{task}_0_log.err"
        return f"its Slurm job {task} ended before it did{state_of(task)}, see {logs}"

    for number in todo:
        outcome = results[number] = _outcome(jobs[number], patience, before.get(number), lost)
        if isinstance(outcome, Exception):
            report_failure(jobs[number], outcome)
    ended_here = {job.directory: found for job, found in zip(jobs, results, strict=True) if job.directory}
    keeper.add({where: found for where, found in ended_here.items() if isinstance(found, RunRecord)})
    return results


def _outcome(
    job: Job, deadline: float, before: tuple[int, int] | None, lost: Callable[[Job], str]
) -> RunRecord | Exception:
    """How a job ended that Slurm no longer has. Until the deadline its record may still appear.

    Args:
        before: the version of the record that was there when the job was submitted, which isn't of this attempt.
        lost: what is told of a job without a record.
    """
    assert job.directory is not None
    while True:
        record = read_record(job.directory) if before is None or version(job.directory) != before else None
        if record and record.fingerprint not in job.config.fingerprints:
            record = None
        if record and record.status.ended:
            return record
        if record and record.status == Status.FAILED:
            return FailedElsewhere(record.error)
        if time.monotonic() > deadline:
            break
        deadline = min(deadline, time.monotonic() + 2) if record else deadline
        time.sleep(0.5)
    return FailedElsewhere(lost(job))


def submit(hands: Sequence[Sequence[Job]], directories: Sequence[Path], settings: SlurmSettings) -> list[str]:
    """Submit one array with a task for each share of the jobs. Returns the tasks' names in Slurm, ``123_0``, ....

    ``directories``: as of ``train_in_slurm``. Raises ConfigError where submitit is not installed, or Slurm refuses.
    """
    require("slurm")
    import submitit

    directory = directories[0]
    folder = directory.absolute() / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    code = snapshot(folder)
    asked = {
        "job_name": directory.name[:40],
        "time": settings.time,
        "cpus_per_task": settings.cpus,
        "gpus_per_node": settings.gpus or None,
        "mem": None if settings.memory is None else f"{int(1024 * settings.memory)}M",
        "partition": settings.partition,
        "account": settings.account,
        "constraint": settings.constraint,
        "array_parallelism": settings.array_parallelism,
        "signal_delay_s": settings.warning,
        "setup": [*settings.setup, f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}"],
        "srun_args": [f"--cpus-per-task={settings.cpus}"],  # since 22.05, srun doesn't take this over from sbatch
        "additional_parameters": {"requeue": True, **settings.more},
    }
    try:
        executor = submitit.SlurmExecutor(folder)
        executor.update_parameters(**{key: value for key, value in asked.items() if value is not None})
        with contextlib.redirect_stderr(io.StringIO()), executor.batch():  # submitit prints what it raises besides
            found = [executor.submit(SlurmTask(hand, settings)) for hand in hands]
    except Exception as error:
        text = str(error.__cause__ or error) if not isinstance(error, RuntimeError) else str(error)
        reason = " ".join(line.strip() for line in text.splitlines() if line.strip())
        raise ConfigError(f"hydra/launcher=slurm: can't submit: {reason}") from None
    names = [job.job_id for job in found]
    runs = {name: [job.directory for job in hand if job.directory] for name, hand in zip(names, hands, strict=True)}
    for each in directories:
        own = {name: [str(run) for run in some if each in run.parents] for name, some in runs.items()}
        if each != directory:  # that of the first names all tasks: they run from the code that lies there
            own = {name: some for name, some in own.items() if some}
        (each / "slurm").mkdir(parents=True, exist_ok=True)
        write(each / "slurm" / f"{names[0].split('_')[0]}.json", json.dumps(own, indent=1).encode())
    return names


def snapshot(folder: Path) -> Path:
    """Copy this package as it is now, for tasks that start later. Returns the copy's directory.

    It is made anew each time, under a name that nobody can foresee, and is its owner's alone: a directory of the code
    that lies in a received sweep is not run.
    """
    code = Path(tempfile.mkdtemp(prefix="code-", dir=folder))
    try:
        shutil.copytree(PACKAGE, code / "fractal_ifs", ignore=shutil.ignore_patterns("__pycache__"))
        (code / "fractal_ifs" / "commit").write_text(commit_line(), encoding="utf-8")
    except BaseException:
        shutil.rmtree(code, ignore_errors=True)
        raise
    return code


def remove_snapshots(folder: Path) -> None:
    """Remove what ``snapshot`` made. For when Slurm has no task of the sweep any more, because tasks run from there."""
    for path in folder.glob("code-*"):
        with contextlib.suppress(OSError):
            found = path.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if ours and stat.S_IMODE(found.st_mode) == 0o700:  # as mkdtemp makes it
                shutil.rmtree(path)
