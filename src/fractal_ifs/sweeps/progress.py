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
from typing import Any

from rich.console import Console, RenderableType
from rich.file_proxy import FileProxy
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fractal_ifs.config import environment
from fractal_ifs.config.run import Job
from fractal_ifs.results.varied import KEYS, differing
from fractal_ifs.runs.records import keys_of
from fractal_ifs.sweeps.bars import Bars
from fractal_ifs.sweeps.clock import clock
from fractal_ifs.sweeps.table import inner_of
from fractal_ifs.training import signals
from fractal_ifs.training.grouping import step_cost
from fractal_ifs.training.rounds import SweepRounds
from fractal_ifs.training.standing import Running, Standing

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
        self.bars, self.restore = self._bars(), contextlib.ExitStack()
        self.keys = _varied(self.jobs) if self.bars else {}
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

    def texts(self) -> dict[str, str]:
        """Jobs, steps a second, the time that is left if work goes on at its rate so far, the best so far."""
        whole, running = self.standing()
        seconds = max(time.monotonic() - self.begun, 1e-9)
        if len(self.jobs) == 1 and running:
            run = running[0][1]
            texts = {"done": f"step {run.step:,} of {run.steps:,}"}
            texts |= {} if run.loss is None else {"loss": f"loss {run.loss:.4f}"}
        else:
            texts = {"done": f"{whole.ended - whole.failed} of {len(self.jobs)} jobs done"}
            texts |= {"running": f"{len(running)} running", "failed": f"{whole.failed} failed"}
        texts["rate"] = f"{whole.steps / seconds:,.0f} steps/s"
        if whole.work:  # rich's own rate begins anew whenever a job that ends early makes the whole smaller
            texts["left"] = f"{clock(whole.left * seconds / whole.work)} left"
        if whole.best is not None:
            texts["best"] = f"best {whole.best:.4f}"
        return texts

    def line(self) -> str:
        """All of ``texts`` in a line."""
        return "; ".join(self.texts().values())

    def close(self) -> None:
        """Remove what a terminal shows. A stream that takes nothing isn't waited for."""
        self.closed.set()
        if self.thread.is_alive():
            self.thread.join(2)
        if self.bars and self.bars.live.is_started and not held_up(self.stream):
            self.bars.stop()
        self.restore.close()

    def _bars(self) -> Bars | None:
        """What draws in a terminal; None elsewhere."""
        if self.mode not in ("auto", "table", "line") or not self.stream.isatty():
            return None
        bars = Bars(Console(file=self.stream, markup=False, highlight=False), self._drawn)
        return bars if bars.screen.is_interactive else None

    def _look(self) -> None:
        """What the thread does."""
        while not self.closed.wait(EVERY):
            try:
                self._show()
            except Exception as error:  # whatever it is, training goes on
                log.debug("progress", exc_info=error)

    def _show(self) -> None:
        if self.bars:
            if not held_up(self.stream):
                if not self.bars.live.is_started:
                    self.bars.start()
                    self.bars.screen.show_cursor()  # a killed process couldn't
                    self.bars.add_task("", total=1.0, texts=self.texts())
                    self.restore.enter_context(_above(self.bars.screen))
                whole, _ = self.standing()
                share = whole.work / max(whole.work + whole.left, 1e-9)
                self.bars.update(self.bars.task_ids[0], completed=share, texts=self.texts(), refresh=True)
            return
        seconds = time.monotonic() - self.begun
        if seconds < self.next_line:
            return
        self.next_line = seconds + min(2 * seconds, RAREST)
        if not self.logged or not (log.isEnabledFor(logging.INFO) and log.hasHandlers()):
            if not held_up(self.stream):
                print(self.line(), file=self.stream, flush=True)
        elif not any(held_up(handler.stream) for handler in _stream_handlers()):
            log.info("%s", self.line())

    def _drawn(self) -> Iterator[RenderableType]:
        """A bar, and above it the runs in training where there is room for them."""
        assert self.bars
        width, height = self.bars.screen.size
        small = self.mode == "auto" and (width < ROOM[0] or height < ROOM[1])
        if not (self.mode == "line" or len(self.jobs) == 1 or small):
            yield from self._runs(height - 5)
        yield self.bars.row(self.bars.tasks[0])

    def _runs(self, most: int) -> Iterator[RenderableType]:
        """A table of the runs in training, of so many lines."""
        _, running = self.standing()
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in (*self.keys, "", "step", "of", "loss", "best"):  # the bar, without a name, gives way to the others
            table.add_column(Text(name), justify="right", no_wrap=name != "", max_width=None if name else 10)
        for job, run in running[: max(1, most)]:
            loss, best = ("" if value is None else f"{value:.4f}" for value in (run.loss, run.best))
            keys = (Text(values[id(job)]) for values in self.keys.values())
            bar = ProgressBar(run.steps, run.step)
            table.add_row(*keys, bar, f"{run.step:,}", f"{run.steps:,}", loss, best)
        yield table
        if more := len(running) - table.row_count:
            yield Text(f"and {more} more")


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
    """The keys in which jobs differ, each with its value as text by the id of the job.

    Of groups, those that don't follow from the others: the maps of a fractal follow from its name.
    """
    of_all = [keys_of(job.config) | inner_of(job.config) for job in jobs]
    names = dict.fromkeys(name for keys in of_all for name in keys if name not in ("fingerprint", "steps_asked"))
    values = {name: [str(keys.get(name, "")) for keys in of_all] for name in names}
    found = differing(values, [name for name in names if name not in KEYS])
    return {name: dict(zip(map(id, jobs), values[name], strict=True)) for name in found}


def held_up(stream: Any) -> bool:
    """Whether a stream takes nothing now: a terminal after Ctrl-S or without a connection, a pipe that nobody reads."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return not select.select([], [stream], [], 0)[1]
    return False


def _stream_handlers() -> list[logging.StreamHandler[Any]]:
    return [each for each in logging.getLogger().handlers if isinstance(each, logging.StreamHandler)]


@contextlib.contextmanager
def _above(screen: Console) -> Iterator[None]:
    """Within: what is logged to the terminal comes above what is drawn there, not in the middle of it."""
    changed: list[Callable[[], Any]] = []
    for handler in _stream_handlers():
        before = handler.stream
        if getattr(before, "isatty", bool)():
            handler.setStream(FileProxy(screen, before))
            changed.append(lambda handler=handler, before=before: handler.setStream(before))
    try:
        yield
    finally:
        for undo in changed:
            undo()
