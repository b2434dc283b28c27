"""Real processes of the command line, for tests and ``make torture``: started, watched, and killed at any moment."""

import contextlib
import csv
import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conftest import read_checkpoint

from fractal_ifs.runs import records

SMALL = ["depth=3", "eval_every=200", "data.train_size=1500", "data.test_size=300", "logger=none"]
CIRCUMSTANCES = ("seconds", "git_commit", "git_modified")  # of a record: what may differ between equal runs


def start(directory: Path, *overrides: str, code: str | None = None, **environment: str) -> subprocess.Popen:
    """``python -m fractal_ifs.train``, or ``code``, in a directory of its own, checkpointing after every round."""
    told = {"FRACTAL_IFS_CHECKPOINT_SECONDS": "0", "PYTHONUNBUFFERED": "1", **environment}
    return subprocess.Popen(
        [sys.executable, *(["-c", code] if code else ["-m", "fractal_ifs.train"]), *overrides],
        cwd=directory,
        env={
            **{k: v for k, v in os.environ.items() if k == "SLURM_CONF" or not k.startswith(("WANDB_", "SLURM_"))},
            **told,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def on_a_terminal(directory: Path, *words: str, ignore: Sequence[int] = ()) -> tuple[subprocess.Popen, int]:
    """The training command on a terminal of its own, and the terminal's other side; ``ignore``: signals."""
    ours, theirs = pty.openpty()

    def prepare() -> None:
        os.setsid()
        os.close(os.open(os.ttyname(0), os.O_RDWR))  # makes it the controlling terminal
        for kind in ignore:
            signal.signal(kind, signal.SIG_IGN)

    command = [sys.executable, "-m", "fractal_ifs.train", *words]
    process = subprocess.Popen(
        command,
        cwd=directory,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=prepare,
        env={**os.environ, "FRACTAL_IFS_CHECKPOINT_SECONDS": "0"},
    )
    os.close(theirs)
    return process, ours


def command(directory: Path, *overrides: str, **environment: str) -> tuple[int, str]:
    """The whole of it: exit status and all that it printed."""
    process = start(directory, *overrides, **environment)
    text, _ = process.communicate(timeout=300)
    return process.returncode, text


def wait_for(condition: Any, process: subprocess.Popen, seconds: float = 300) -> bool:
    """Until the condition is true (True) or the process has ended (False)."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing in {seconds} s")
        time.sleep(0.01)
    return True


def steps(directory: Path) -> dict[str, int]:
    """How far each run below a directory is by its history, by the name of its directory."""
    found = {}
    for path, _ in records.walk(directory):
        with contextlib.suppress(OSError, ValueError):
            found[path.name] = int((path / "history.csv").read_text().splitlines()[-1].split(",")[0])
    return found


def children(process: int) -> list[int]:
    """The worker processes of a driver."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            fields = stat.read_text().rpartition(")")[2].split()
            words = (stat.parent / "cmdline").read_bytes()
            if int(fields[1]) == process and b"spawn_main" in words:
                found.append(int(stat.parent.name))
    return found


def kill(process: subprocess.Popen) -> None:
    """SIGKILL to a driver alone: its workers find out by themselves."""
    workers = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "workers outlive their driver"
        time.sleep(0.05)


def results(directory: Path) -> dict[str, Any]:
    """All that a run or a sweep has found, bit for bit: per run a hash of its state, its history, its record."""
    found = {}
    for path, record in records.find(directory):
        state = read_checkpoint(path)
        assert state is not None
        digest = hashlib.sha256()
        for name in ("params", "exp_avg", "exp_avg_sq", "best_params"):
            if name in state:  # a run that has diverged at once has no best network
                digest.update(state[name].numpy().tobytes())
        with open(path / "history.csv", newline="") as file:
            history = [[v for k, v in row.items() if k != "seconds"] for row in csv.DictReader(file)]
        told = {k: v for k, v in record.items() if k not in (*CIRCUMSTANCES, "config")}
        found[str(path.relative_to(directory))] = (digest.hexdigest(), history, json.dumps(told, sort_keys=True))
    return found


def table(directory: Path) -> list[dict[str, str]]:
    """results.csv but for the circumstances."""
    with open(directory / "results.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in CIRCUMSTANCES} for row in csv.DictReader(file)]


def untouched(directory: Path) -> dict[str, int]:
    """When each result below a directory was written."""
    return {str(path): path.stat().st_mtime_ns for path in directory.rglob("result.json")}
