"""What Slurm says of the tasks of a sweep: which it still has, what they wait for, and how they ended."""

import getpass
import json
import logging
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from fractal_ifs.errors import reason, short
from fractal_ifs.files import read

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 26  # of a file that names the runs of an array
POLL = (1.0, 15.0)  # seconds between two looks at the queue: at first, and at most
PENDING_SECONDS = 10.0  # a task that is pending for longer than this is named, with the reason

HINTS = {
    "PartitionConfig": "no node of this partition is like that: ask for fewer cpus or gpus, or less memory",
    "Resources": "it waits for nodes to be free, or asks for more than any node has (see `sinfo -N -l`)",
    "PartitionTimeLimit": "the partition allows less time: hydra.launcher.time",
    "BadConstraints": "no node satisfies hydra.launcher.constraint, cpus, gpus and memory together",
    "ReqNodeNotAvail": "the nodes it may use are down or reserved",
    "BeginTime": "Slurm holds back what was requeued for two minutes",
}


def submitted_tasks(*directories: Path) -> dict[str, list[Path]]:
    """The directories of the runs of each Slurm task that was submitted for some sweeps, oldest task first."""
    found: dict[str, list[Path]] = {}
    for path in sorted((path for each in directories for path in (each / "slurm").glob("*.json")), key=_time):
        try:
            for task, runs in _tasks(json.loads(read(path, MOST_BYTES))).items():
                found.setdefault(task, []).extend(runs)
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s can't be read: %s", short(path, 200), reason(error))
    return found


def _time(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _tasks(content: Any) -> dict[str, list[Path]]:
    """The content of a file that ``slurm.submit`` wrote. Raises ValueError for anything else."""
    if not isinstance(content, dict):
        raise ValueError("it has no tasks")
    for task, runs in content.items():
        if not (isinstance(runs, list) and all(isinstance(run, str) for run in runs)):
            raise ValueError(f"{short(task)} can't be right")
    return {task: [Path(run) for run in runs] for task, runs in content.items()}


def active_tasks(tasks: dict[str, list[Path]]) -> dict[str, tuple[str, str]] | None:
    """The state (``PENDING``, ``RUNNING``, ...) and the reason of those of these tasks that Slurm still has.

    None where Slurm doesn't answer.
    """
    if not tasks:
        return {}
    command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i|%T|%r"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode:
        return None
    lines = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 2]
    return {name: (state, reason) for name, state, reason in lines if name in tasks}


def follow(tasks: dict[str, list[Path]]) -> None:
    """Wait until Slurm has none of these tasks any more. Logs changes, and why tasks are pending."""
    pause, absent, said, begun = POLL[0], 0, "", time.monotonic()
    pending: set[str] = set()
    while absent < 2:  # while a task is being requeued, Slurm may have no state for it
        found = active_tasks(tasks)
        if found is None:
            if said != "silent":
                log.warning("Slurm doesn't answer (squeue): asking on")
            said = "silent"
        else:
            absent = absent + 1 if not found else 0
            states = [state for state, _ in found.values()]
            text = ", ".join(f"{states.count(state)} {state.lower()}" for state in sorted(set(states)))
            if text and text != said:
                log.info("Slurm tasks: %s", text)
            said = text
            reasons = {reason for state, reason in found.values() if state == "PENDING"} - {"None", "JobArrayTaskLimit"}
            if time.monotonic() - begun > PENDING_SECONDS and not reasons <= pending:
                for reason in sorted(reasons - pending):
                    log.warning("Slurm tasks are pending: %s%s", reason, _hint(reason))
                pending |= reasons
        time.sleep(pause if absent == 0 else POLL[0])
        pause = min(pause * 1.3, POLL[1])


def _hint(reason: str) -> str:
    return next((f" ({hint})" for name, hint in HINTS.items() if reason.startswith(name)), "")


def last_state(task: str) -> str:
    """How a task ended, as Slurm says: `` (timeout)``. Empty if it has forgotten: without accounting, after minutes."""
    try:
        done = subprocess.run(["scontrol", "show", "job", "-o", task], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.search(r"JobState=(\S+) Reason=(\S+)", done.stdout)
    return f" ({match[1].lower()}{'' if match[2] == 'None' else ', ' + match[2]})" if match else ""
