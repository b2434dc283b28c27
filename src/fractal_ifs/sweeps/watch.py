"""The status of sweeps again and again: ``fractal-ifs status DIR --watch``, on any machine that sees the files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

from fractal_ifs.errors import Damaged
from fractal_ifs.runs.history import best_row, read_history
from fractal_ifs.runs.records import Status, read_begun
from fractal_ifs.sweeps.bars import Bars
from fractal_ifs.sweeps.clock import clock
from fractal_ifs.sweeps.status import DAMAGED, NOT_UNDERSTOOD, SweepStatus, shown, status

ENDED = {Status.FINISHED, Status.DIVERGED, Status.FAILED, Status.STOPPED, Status.PRUNED, DAMAGED, NOT_UNDERSTOOD}


def watch(paths: Sequence[Path], seconds: float) -> str | None:
    """Show the status of sweeps every so many seconds, until all runs have ended. Ctrl-C ends it.

    In a terminal it is drawn in its place, with the runs in training. Elsewhere what has changed is printed.

    Returns the last status where that isn't on the screen yet. Raises ConfigError where there is no run.
    """
    screen = Console(markup=False, highlight=False)
    bars = Bars(screen, lambda: _drawn(bars, looks))
    looks = [_Look(path, bars) for path in paths]
    before = ""
    with bars if screen.is_interactive else contextlib.nullcontext():
        while True:
            text = "\n".join(look.text() for look in looks)
            bars.refresh()
            if not screen.is_interactive and text != before:
                print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
            if all(look.ended for look in looks):
                return text if screen.is_interactive else None
            before = text
            time.sleep(seconds)


def _drawn(bars: Bars, looks: Sequence[_Look]) -> Iterator[RenderableType]:
    """Each directory's status and bar, then of the runs in training as many as there is room for."""
    room = bars.screen.height - 2
    for look, task in zip(looks, bars.tasks, strict=True):
        lines = shown(look.path, look.found, bars.screen.width).split("\n") if look.found else ()
        yield from (Text(line, no_wrap=True, overflow="ellipsis") for line in lines)
        yield bars.row(task)
        room -= 1 + len(lines)
    running = [line for look in looks for line in look.running]
    yield from (Text(line, no_wrap=True, overflow="ellipsis") for line in running[: max(0, room)])


class _Look:
    """A directory of runs, looked at from time to time."""

    def __init__(self, path: Path, bars: Bars):
        self.path, self.bars, self.task = path, bars, bars.add_task("", texts={"done": ""})
        self.news: list[tuple[int, float]] = []  # steps and times of the looks that found other steps: told seldom
        self.ended = False
        self.found: SweepStatus | None = None
        self.running: list[str] = []  # a line for each run in training

    def text(self) -> str:
        """The status now, with the steps a second and the time that is left at that rate."""
        self.found = found = status(self.path)
        self.running = [_line(self.path, directory) for directory in found.running]
        self.ended = ENDED.issuperset(found.states)
        done, asked, now = found.steps, found.steps_asked, time.monotonic()
        if not self.news or done != self.news[-1][0]:
            self.news.append((done, now))
        texts = {"done": found.done}
        if not self.ended and (rate := self._rate(now)):
            texts |= {"rate": f"{rate:,.0f} steps/s", "left": f"{clock((asked - done) / rate)} left"}
        self.bars.update(self.task, completed=done, total=max(asked, 1), texts=texts)
        head, *rest = shown(self.path, found).split("\n")
        return "\n".join(["; ".join([head, *list(texts.values())[1:]]), *rest])

    def _rate(self, now: float) -> float | None:
        """The steps a second between the first news and the last; None after a silence that is long beside the others.

        What the first look finds is no news: it may be long ago that it was told.
        """
        if len(self.news) < 3:
            return None
        (first, begun), (last, at) = self.news[1], self.news[-1]
        longest = max(later - earlier for (_, earlier), (_, later) in pairwise(self.news))
        return (last - first) / (at - begun) if last > first and now - at <= 5 * longest else None


def _line(path: Path, directory: Path) -> str:
    """A run in training, as far as its history goes."""
    name = directory.relative_to(path)
    try:
        rows = read_history(directory)
    except (FileNotFoundError, Damaged):
        rows = []
    if not rows:
        return f"  {name}: no measurement yet"
    begun = read_begun(directory)
    best = best_row(rows, begun.config.counts_from) if begun else None
    so_far = f", best {best.test_acc:.4f}" if best else ""
    return f"  {name}: step {rows[-1].step:,}, loss {rows[-1].train_loss:.4f}{so_far}"
