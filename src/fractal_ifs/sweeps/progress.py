"""How far a sweep or a single run is, while it trains: in a terminal as it goes, elsewhere a line from time to time.

A thread shows it, by the clock: training waits neither for it nor for whoever reads it.
"""

from __future__ import annotations

import contextlib
import logging
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fractal_ifs.config import environment
from fractal_ifs.config.run import Job
from fractal_ifs.runs.records import keys_of
from fractal_ifs.sweeps.clock import clock
from fractal_ifs.training import signals
from fractal_ifs.training.grouping import step_cost
from fractal_ifs.training.rounds import SweepRounds
from fractal_ifs.training.standing import Running, Standing

if TYPE_CHECKING:
    from rich.live import Live

log = logging.getLogger(__name__)

EVERY = 0.5  # seconds between two looks
FIRST, RAREST = 10.0, 600.0  # seconds to the first line of a log, and most between two
ROOM = (60, 12)  # columns and lines of a terminal that a table needs


class Progress:
    """Shows how far jobs are, from its creation until ``close``.

    Args:
        jobs: those that are to be trained.
        stream: where it is shown. None: standard error, or by logging where that isn't a terminal.
        mode: as ``environment.progress`` says. None: what that is.
    """

    def __init__(self, jobs: Sequence[Job], stream: Any = None, mode: str | None = None):
        self.jobs, self.logged = list(jobs), stream is None
        self.stream = stream or sys.stderr
        self.mode = mode or environment.progress()
        self.begun = time.monotonic()
        self.next_line = FIRST
        self.waiting = set(range(len(self.jobs)))  # the jobs of groups that have not begun
        self.groups: dict[tuple[int, ...], SweepRounds | Standing] = {}  # in training, by the numbers of their jobs
        self.past = Standing()  # of the groups that have ended
        self.lock = threading.Lock()
        self.live, self.restore = self._live(), contextlib.ExitStack()
        self.keys = _varied(self.jobs) if self.live else {}
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True, name="progress")
        if self.mode != "off":
            with signals.held_back():  # the main thread shall get them
                self.thread.start()

    def told(self, numbers: Sequence[int], group: SweepRounds | Standing) -> None:
        """Follow a group: by itself, or by what a worker process has told last."""
        with self.lock:
            if (key := tuple(numbers)) not in self.groups:
                self.waiting.difference_update(numbers)
            self.groups[key] = group

    def group_ended(self, numbers: Sequence[int], failed: int, best: float | None) -> None:
        """Count a group that has ended: how many of its jobs have failed or diverged, the best accuracy of any."""
        with self.lock:
            last = _standing(self.groups.pop(tuple(numbers), Standing()))
            self.waiting.difference_update(numbers)
            self.past = _together([self.past, last._replace(running=(), ended=len(numbers), failed=failed, best=best)])
            self.past = self.past._replace(left=0.0)

    def standing(self) -> tuple[Standing, list[tuple[Job, Running]]]:
        """How far all jobs are, and those in training."""
        with self.lock:
            groups = {numbers: _standing(group) for numbers, group in self.groups.items()}
            left = sum(self.jobs[n].steps * step_cost(self.jobs[n].config) for n in self.waiting)
            whole = _together([self.past, *groups.values(), Standing(left=left)])
        return whole, [(self.jobs[numbers[r.number]], r) for numbers, each in groups.items() for r in each.running]

    def text(self) -> str:
        """One line: jobs, steps a second, the time that is left if work goes on at its rate so far, the best so far."""
        whole, running = self.standing()
        seconds = max(time.monotonic() - self.begun, 1e-9)
        if len(self.jobs) == 1 and running:
            run = running[0][1]
            loss = "" if run.loss is None else f", loss {run.loss:.4f}"
            parts = [f"step {run.step:,} of {run.steps:,}{loss}"]
        else:
            done = f"{whole.ended - whole.failed} of {len(self.jobs)} jobs done"
            parts = [f"{done}, {len(running)} running, {whole.failed} failed"]
        parts.append(f"{whole.steps / seconds:,.0f} steps/s")
        if whole.work:
            parts.append(f"{clock(whole.left * seconds / whole.work)} left")
        if whole.best is not None:
            parts.append(f"best {whole.best:.4f}")
        return "; ".join(parts)

    def close(self) -> None:
        """Remove what a terminal shows. A stream that takes nothing isn't waited for."""
        self.closed.set()
        if self.thread.is_alive():
            self.thread.join(2)
        if self.live and self.live.is_started and not held_up(self.stream):
            self.live.stop()
        self.restore.close()

    def _live(self) -> Live | None:
        """What draws in a terminal; None elsewhere."""
        if self.mode not in ("auto", "table", "line") or not self.stream.isatty():
            return None
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self.stream, markup=False, highlight=False)
        if console.is_dumb_terminal or not console.is_terminal:
            return None
        return Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)

    def _look(self) -> None:
        """What the thread does."""
        while not self.closed.wait(EVERY):
            try:
                self._show()
            except Exception as error:  # whatever it is, training goes on
                log.debug("progress", exc_info=error)

    def _show(self) -> None:
        if self.live:
            if not held_up(self.stream):
                if not self.live.is_started:
                    self.live.start()
                    self.live.console.show_cursor()  # a killed process couldn't
                    self.restore.enter_context(_above(self.live))
                self.live.update(self._drawn(self.live), refresh=True)
            return
        seconds = time.monotonic() - self.begun
        if seconds < self.next_line:
            return
        self.next_line = seconds + min(2 * seconds, RAREST)
        if not self.logged or not (log.isEnabledFor(logging.INFO) and log.hasHandlers()):
            if not held_up(self.stream):
                print(self.text(), file=self.stream, flush=True)
        elif not any(held_up(handler.stream) for handler in _stream_handlers()):
            log.info("%s", self.text())

    def _drawn(self, live: Live) -> Any:
        """A line, and above it the runs in training where there is room for them."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        width, height = live.console.size
        small = self.mode == "auto" and (width < ROOM[0] or height < ROOM[1])
        text = Text(self.text(), no_wrap=True, overflow="ellipsis")
        if self.mode == "line" or len(self.jobs) == 1 or small:
            return text
        _, running = self.standing()
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in (*self.keys, "step", "of", "loss", "best"):
            table.add_column(Text(name), justify="right", no_wrap=True)
        for job, run in running[: max(1, height - 5)]:
            loss, best = ("" if value is None else f"{value:.4f}" for value in (run.loss, run.best))
            keys = (Text(values[id(job)]) for values in self.keys.values())
            table.add_row(*keys, f"{run.step:,}", f"{run.steps:,}", loss, best)
        more = len(running) - table.row_count
        return Group(table, *([Text(f"and {more} more")] if more > 0 else []), text)


def _standing(group: SweepRounds | Standing) -> Standing:
    return group if isinstance(group, Standing) else group.standing()


def _together(parts: Sequence[Standing]) -> Standing:
    return Standing(
        (),
        sum(part.ended for part in parts),
        sum(part.failed for part in parts),
        max((part.best for part in parts if part.best is not None), default=None),
        sum(part.steps for part in parts),
        sum(part.work for part in parts),
        sum(part.left for part in parts),
    )


def _varied(jobs: Sequence[Job]) -> dict[str, dict[int, str]]:
    """The keys in which jobs differ, each with its value as text by the id of the job."""
    found = {id(job): {key: str(value) for key, value in keys_of(job.config).items()} for job in jobs}
    names = [name for name in next(iter(found.values()), {}) if name != "fingerprint"]
    by_key = {name: {number: keys.get(name, "") for number, keys in found.items()} for name in names}
    return {name: values for name, values in by_key.items() if len(set(values.values())) > 1}


def held_up(stream: Any) -> bool:
    """Whether a stream takes nothing now: a terminal after Ctrl-S or without a connection, a pipe that nobody reads."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return not select.select([], [stream], [], 0)[1]
    return False


def _stream_handlers() -> list[logging.StreamHandler[Any]]:
    return [each for each in logging.getLogger().handlers if isinstance(each, logging.StreamHandler)]


@contextlib.contextmanager
def _above(live: Live) -> Iterator[None]:
    """Within: what is logged to the terminal comes above what is drawn there, not in the middle of it."""
    from rich.file_proxy import FileProxy

    changed: list[Callable[[], Any]] = []
    for handler in _stream_handlers():
        before = handler.stream
        if getattr(before, "isatty", bool)():
            handler.setStream(FileProxy(live.console, before))
            changed.append(lambda handler=handler, before=before: handler.setStream(before))
    try:
        yield
    finally:
        for undo in changed:
            undo()
