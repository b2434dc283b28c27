"""How far a sweep is: ``python -m fractal_ifs.report status DIR``. ``sweeps.watch`` shows it again and again.

Locks in the runs' directories and Slurm's queue show which runs are in training.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError, Damaged, Refused, counted
from fractal_ifs.results.rows import kept_rows
from fractal_ifs.runs import locks
from fractal_ifs.runs.checkpoints import CHECKPOINTS
from fractal_ifs.runs.history import read_history
from fractal_ifs.runs.records import (
    BEGUN,
    HISTORY,
    LOG,
    RESULT,
    SWEEP,
    RunRecord,
    Status,
    asked_of,
    directories,
    of_run_or_sweep,
    read_stored,
)
from fractal_ifs.sweeps.slurm_queue import active_tasks, submitted_tasks

log = logging.getLogger(__name__)

# States besides those of ``Status``; the first two are of runs that have not begun.
QUEUED, WAITING, DAMAGED, NOT_UNDERSTOOD = "queued", "waiting", "damaged", "not understood"
KEPT = "kept"


class SweepStatus(NamedTuple):
    """How far the runs below a directory are."""

    states: dict[str, int]  # how many runs there are of each state; the states are those of ``status``
    steps: int  # done by all runs together
    steps_asked: int  # by all together
    slurm: list[str]  # a line for each state and reason that Slurm gives for tasks of this sweep
    running: list[Path]  # the directories of the runs in training

    @property
    def done(self) -> str:
        """How much of the steps is done: ``87.5%``."""
        return f"{self.steps / max(self.steps_asked, 1):.1%}"


def status(path: Path) -> SweepStatus:
    """How far the runs at or below a directory are.

    The states are:

    - ``queued``: not begun; a driver or Slurm will begin it.
    - ``waiting``: not begun; nobody will begin it until the command is given again.
    - ``running``: a process trains it now.
    - ``interrupted``: begun, and no process trains it now.
    - ``finished``, ``diverged``, ``failed``: as its record says.
    - ``stopped``, ``pruned``: as its record says; its steps are then all that are asked for.
    - ``paused``: at a rung of a sweep that hasn't decided yet whether it goes on.
    - ``damaged``: its record isn't as it was written. The same command writes it anew from the checkpoint, or refuses.
    - ``kept``: in the table of finished runs that the sweep's key ``kept`` names, and with a record in no directory.
    - ``not understood``: its record is of a later version. No command of this version changes it.

    Raises ConfigError where there is no run.
    """
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no such directory" + (", it is a file" if path.exists() else ""))
    there = list(directories(path, log.warning))
    tasks: dict[str, list[Path]] = {}
    for folder in (directory for directory, names in there if "slurm" in names):
        for task, runs in submitted_tasks(folder).items():  # one may have runs of several sweeps
            if runs:
                tasks.setdefault(task, []).extend(runs)
    queue = active_tasks(tasks) or {}
    in_slurm = {run.resolve(): queue[task][0] for task, runs in tasks.items() if task in queue for run in runs}
    counts: dict[str, int] = {}
    running: list[Path] = []
    done = asked = 0
    kept: dict[Path, dict[str, int]] = {}  # the steps of the runs that each sweep has from a table, by fingerprint
    for directory, names in there:
        if not of_run_or_sweep(names):
            continue
        if SWEEP in names and (rows := kept_rows(directory)):
            kept[directory] = {row["fingerprint"]: _steps(row) for row in rows}
        run = _read(directory, names)
        if run.config is None and not run.unread:
            continue
        state, steps, wanted = _state(directory, names, run, in_slurm.get(directory.resolve()) if in_slurm else None)
        name = run.config.fingerprint if run.config else ""
        tables = [kept[sweep] for sweep in kept.keys() & {directory, *directory.parents} if name in kept[sweep]]
        if tables and state in (WAITING, Status.INTERRUPTED):  # nothing is left to do: a table has it
            continue
        for rows in tables:
            del rows[name]
        counts[state] = counts.get(state, 0) + 1
        running += [directory] if state == Status.RUNNING else []
        done, asked = done + steps, asked + wanted
    if of_tables := [steps for runs in kept.values() for steps in runs.values()]:
        counts[KEPT] = len(of_tables)
        done, asked = done + sum(of_tables), asked + sum(of_tables)
    if not counts:
        raise ConfigError(f"{path}: there is no run in this directory; give one that a sweep wrote, as multirun/NAME")
    states = list(queue.values())
    lines = [
        f"{counted(states.count(pair), 'Slurm task')} {pair[0].lower()} ({pair[1]})" for pair in sorted(set(states))
    ]
    return SweepStatus(counts, done, asked, lines, running)


class _Read(NamedTuple):
    """What a directory says of its run. Neither config nor ``unread``: it is not a run's."""

    record: RunRecord | None
    unread: str | None  # the state of a run whose record can't be read
    config: RunConfig | None


def _read(directory: Path, names: set[str]) -> _Read:
    record, unread = None, None
    if RESULT in names:
        try:
            record = read_stored(directory).record
        except FileNotFoundError:
            pass
        except Refused as error:
            unread = DAMAGED if isinstance(error, Damaged) else NOT_UNDERSTOOD
            log.warning("%s", error)
    return _Read(record, unread, record.config if record else asked_of(directory))


def _state(directory: Path, names: set[str], run: _Read, in_slurm: str | None) -> tuple[str, int, int]:
    """The state, the steps done and the steps asked for of a run."""
    record, unread, config = run
    if config is None:
        assert unread
        return unread, 0, 0
    asked = config.steps_in_all
    if record and record.status == Status.STOPPED:
        return record.status, record.steps or 0, record.steps or 0
    if record and record.status.ended:
        return record.status, asked, asked
    steps = _last_step(directory)
    if record and steps <= (record.steps or 0):
        steps = record.steps or 0
    else:  # it went on since, so its record says no more how it is
        record = None
    if locks.trained(directory) or (in_slurm == "RUNNING" and BEGUN in names):
        return Status.RUNNING, steps, asked
    if record and record.status == Status.PRUNED:
        return record.status, steps, steps
    if record and record.status == Status.PAUSED:
        return record.status, steps, asked
    if record and record.status == Status.FAILED and not in_slurm:
        return Status.FAILED, steps, asked
    if unread:
        return unread, steps, asked
    sweep = next((above for above in directory.parents if (above / SWEEP).exists()), directory.parent)
    if in_slurm or locks.trained(sweep):
        return QUEUED, steps, asked
    half = record or names & {BEGUN, HISTORY, *CHECKPOINTS, LOG}
    return (Status.INTERRUPTED if half else WAITING), steps, asked


def _steps(row: Mapping[str, Any]) -> int:
    """The steps of a run of a table, of all its layers: those that it made, unless it diverged before."""
    made, asked = int(row["steps"] or 0), int(row["steps_asked"])
    return made if row["status"] == Status.STOPPED else max(made, asked)


def _last_step(directory: Path) -> int:
    try:
        rows = read_history(directory)
    except (FileNotFoundError, Damaged):
        return 0
    return rows[-1].step if rows else 0


def show(path: Path) -> str:
    """The status as text: ``multirun/NAME: 24 runs: 20 finished, 4 running; 21,000,000 of 24,000,000 steps (87.5%)``.

    Raises ConfigError where there is no run.
    """
    return shown(path, status(path))


def shown(path: Path, found: SweepStatus, columns: float = math.inf) -> str:
    """What ``status`` has found, as text; in fewer columns than it needs without what matters least."""
    runs = ", ".join(f"{n} {state}" for state, n in sorted(found.states.items()))
    every = f"{path}: {counted(sum(found.states.values()), 'run')}: {runs}"
    steps = f"{found.steps:,} of {found.steps_asked:,} steps"
    heads = [f"{every}; {steps} ({found.done})", f"{every}; {steps}", every]
    heads += [f"{path}: {runs}", f"{path.name or path}: {runs}"]
    head = next((each for each in heads if len(each) <= columns), heads[-1])
    return "\n".join([head, *(f"  {line}" for line in found.slurm)])
