"""The status of sweeps again and again: ``fractal-ifs status DIR --watch``, on any machine that sees the files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fractal_ifs.errors import Damaged
from fractal_ifs.runs.history import read_history
from fractal_ifs.runs.records import Status
from fractal_ifs.sweeps.clock import clock
from fractal_ifs.sweeps.status import DAMAGED, NOT_UNDERSTOOD, shown, status_and_running

STEPS = ("steps", "steps_asked", "slurm")  # of ``status``: what isn't a count of runs
ENDED = {Status.FINISHED, Status.DIVERGED, Status.FAILED, Status.STOPPED, Status.PRUNED, DAMAGED, NOT_UNDERSTOOD}


def watch(paths: Sequence[Path], seconds: float) -> str | None:
    """Show the status of sweeps every so many seconds, until all runs have ended. Ctrl-C ends it.

    In a terminal it is drawn in its place, with the runs in training. Elsewhere what has changed is printed.

    Returns the last status where that isn't on the screen yet. Raises ConfigError where there is no run.
    """
    console = Console(markup=False, highlight=False)
    looks = [_Look(path) for path in paths]
    if not console.is_terminal or console.is_dumb_terminal:
        before = ""
        while True:
            text = "\n".join(look.text() for look in looks)
            if text != before:
                print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
            if all(look.ended for look in looks):
                return None
            before = text
            time.sleep(seconds)
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False) as live:
        while True:
            room = console.size.height - 2
            lines = "\n".join(look.text() for look in looks).split("\n")
            lines += [line for look in looks for line in look.running]
            live.update(Text("\n".join(lines[:room]), no_wrap=True, overflow="ellipsis"), refresh=True)
            if all(look.ended for look in looks):
                break
            time.sleep(seconds)
    return "\n".join(look.text() for look in looks)


class _Look:
    """A directory of runs, looked at from time to time."""

    def __init__(self, path: Path):
        self.path, self.begun = path, time.monotonic()
        self.first: int | None = None  # the steps at the first look
        self.ended = False
        self.running: list[str] = []  # a line for each run in training

    def text(self) -> str:
        """The status now, with the steps a second since the first look and the time that is left at that rate."""
        counts, running = status_and_running(self.path)
        self.running = [_line(self.path, directory) for directory in running]
        self.ended = ENDED.issuperset(key for key in counts if key not in STEPS)
        done, now = counts["steps"], time.monotonic()
        if self.first is None:
            self.first, self.begun = done, now
        text, more = shown(self.path, counts), done - self.first
        if self.ended or more <= 0:
            return text
        rate = more / (now - self.begun)
        head, *rest = text.split("\n")
        left = clock((counts["steps_asked"] - done) / rate)
        return "\n".join([f"{head}; {rate:,.0f} steps/s; {left} left", *rest])


def _line(path: Path, directory: Path) -> str:
    """A run in training, as far as its history goes."""
    name = directory.relative_to(path)
    try:
        rows: Sequence[Any] = read_history(directory)
    except (FileNotFoundError, Damaged):
        rows = ()
    if not rows:
        return f"  {name}: no measurement yet"
    best = max(row.test_acc for row in rows)
    return f"  {name}: step {rows[-1].step:,}, loss {rows[-1].train_loss:.4f}, best {best:.4f}"
