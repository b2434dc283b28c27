"""How a sweep stands: ``python -m fractal_ifs.report status DIR``; who trains, locks and Slurm's queue tell."""

import os
from pathlib import Path
from typing import Any

from fractal_ifs.errors import ConfigError
from fractal_ifs.runs import locks
from fractal_ifs.runs.checkpoints import CHECKPOINTS
from fractal_ifs.runs.records import (
    BEGUN,
    HISTORY,
    LOG,
    RESULT,
    Status,
    read_begun,
    read_composed,
    read_record,
    walk,
)
from fractal_ifs.sweeps import slurm

QUEUED, WAITING = "queued", "waiting"  # besides those of ``Status``: not begun, and a driver will, or nobody


def status(path: Path) -> dict[str, Any]:
    """Counts of the runs at or below a directory, by state.

    ``queued``: not begun, and a driver or Slurm will; ``running``: a process trains it now; ``interrupted``: begun, and
    nobody trains it, whoever killed it; ``waiting``: not begun, and nobody will before the command is given again;
    ``finished``, ``diverged``, ``failed``: as in its record. Besides, ``steps`` done of ``steps_asked`` in all, and
    ``slurm``: a line for each state and reason that Slurm gives tasks of this sweep.
    Raises ConfigError where there is no run.
    """
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no such directory")
    tasks: dict[str, list[Path]] = {}
    for folder, below, _ in os.walk(path):
        if "slurm" in below:
            tasks |= slurm.submitted(Path(folder))
    queue = slurm.active(tasks) or {}
    in_slurm = {run: queue[task][0] for task, runs in tasks.items() if task in queue for run in runs}
    counts: dict[str, int] = {}
    done = asked = 0
    for directory, names in walk(path):
        found = _run(directory, names, in_slurm.get(directory.absolute()))
        if found is not None:
            state, steps, wanted = found
            counts[state] = counts.get(state, 0) + 1
            done, asked = done + steps, asked + wanted
    if not counts:
        raise ConfigError(f"{path}: there is no run in this directory; give one that a sweep wrote, as multirun/NAME")
    states = list(queue.values())
    lines = [f"{states.count(pair)} Slurm tasks {pair[0].lower()} ({pair[1]})" for pair in sorted(set(states))]
    return {**counts, "steps": done, "steps_asked": asked, "slurm": lines}


def _run(directory: Path, names: set[str], in_slurm: str | None) -> tuple[str, int, int] | None:
    """State, steps done and steps asked for of one run; None where it is none."""
    record = read_record(directory) if RESULT in names else None
    begun = read_begun(directory)
    config = record.config if record else begun.config if begun else read_composed(directory)
    if config is None:
        return None
    asked = config.steps_in_all
    steps = (record.steps if record else None) or _last_step(directory)
    if record and record.status.ended:
        return record.status, asked, asked
    if locks.held(directory) or (in_slurm == "RUNNING" and BEGUN in names):
        return Status.RUNNING, steps, asked
    if record and record.status == Status.FAILED and not in_slurm:
        return Status.FAILED, steps, asked
    if in_slurm or locks.held(directory.parent):
        return QUEUED, steps, asked
    half = record or names & {BEGUN, HISTORY, *CHECKPOINTS, LOG}
    return (Status.INTERRUPTED if half else WAITING), steps, asked


def _last_step(directory: Path) -> int:
    try:
        last = (directory / HISTORY).read_text().splitlines()[-1].split(",")[0]
    except (OSError, IndexError):
        return 0
    return int(last) if last.isdigit() else 0


def show(path: Path) -> str:
    """``multirun/NAME: 24 runs: 20 finished, 4 running; 21,000,000 of 24,000,000 steps (87.5%)``."""
    counts = status(path)
    done, asked, lines = counts.pop("steps"), counts.pop("steps_asked"), counts.pop("slurm")
    runs = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    head = f"{path}: {sum(counts.values())} runs: {runs}; {done:,} of {asked:,} steps ({done / max(asked, 1):.1%})"
    return "\n".join([head, *(f"  {line}" for line in lines)])
