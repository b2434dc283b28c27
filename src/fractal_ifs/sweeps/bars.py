"""Bars in a terminal, by ``rich.progress``: each with what there is room for beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column

LEAST = 10  # columns of the screen: the shortest bar
ORDER = ("left", "failed", "best", "rate", "bar", "loss", "running")  # in which they get what room there is
STYLES = {"left": "progress.remaining", "best": "bold"}


class Bars(Progress):
    """Draws in place, at every ``refresh``, what ``drawn`` gives: with ``row(task)`` among it for each bar.

    A task has the field ``texts``: what stands beside its bar, by name; the first of them before it.
    """

    def __init__(self, console: Console, drawn: Callable[[], Iterable[RenderableType]]):
        self.screen, self.drawn = console, drawn
        super().__init__(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """What rich draws."""
        return self.drawn() if self.tasks else ()

    def row(self, task: Task) -> RenderableType:
        """A task's bar, and as many of its texts as there is room for."""
        texts: Mapping[str, str] = task.fields["texts"]
        first, *others = texts
        needs = {name: len(texts[name]) + 2 for name in others} | {"bar": LEAST + 2}
        room = self.screen.width - len(texts[first])
        for name in ORDER:
            if needs.get(name, room) <= room:
                room -= needs.get(name, 0)
            else:
                del needs[name]
        columns: list[ProgressColumn] = [
            TextColumn(f"{' ' * (name != first)}{{task.fields[texts][{name}]}}", STYLES.get(name, ""), markup=False)
            for name in (first, *others)
            if name in (first, *needs)
        ]
        self.expand = "bar" in needs
        if self.expand:
            columns.insert(1, BarColumn(None, table_column=Column(ratio=1)))
        self.columns = tuple(columns)
        return self.make_tasks_table([task])
