"""The table of a sweep for a terminal, in parts that are no wider than it. Nothing is cut: what is too long folds."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from fractal_ifs.results.pivot import Pivot, grid


def show(table: RenderableType, legend: Sequence[str], console: Console) -> None:
    """Print a table and the lines below it."""
    console.print(table, *legend, sep="\n", highlight=False, markup=False)


def as_text(table: RenderableType, legend: Sequence[str], width: int) -> str:
    """A table and the lines below it as plain text of so many columns."""
    file = io.StringIO()
    show(table, legend, Console(file=file, width=width, color_system=None))
    return file.getvalue()


@dataclass(frozen=True)
class Folded:
    """The title, and the table in parts: as many columns beside the rows' names as there is room for."""

    table: Pivot
    title: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text | Table]:
        yield Text(self.title, style="italic")
        head, lines = grid(self.table)
        beside = len(self.table.rows)
        at = beside
        while at < len(head):
            end = at + 1
            part = _part(head, lines, beside, at, end)
            if not _fits(part, console, options):
                part = _narrow(head, lines, beside, at, options.max_width)
            while end < len(head) and _fits(wider := _part(head, lines, beside, at, end + 1), console, options):
                part, end = wider, end + 1
            yield part
            at = end


def _fits(part: Table, console: Console, options: ConsoleOptions) -> bool:
    return console.measure(part, options=options.update(width=10_000)).maximum <= options.max_width


def _part(
    head: Sequence[str], lines: Sequence[Sequence[str]], beside: int, at: int, end: int, most: Sequence[int] = ()
) -> Table:
    """The table of the columns ``at`` to ``end``, beside the names of the rows that have something there.

    ``most``: letters of each column.
    """
    out = Table()
    for place, name in enumerate((*head[:beside], *head[at:end])):  # a Text: a value in brackets is no colour
        out.add_column(Text(name), justify="right", overflow="fold", max_width=most[place] if most else None)
    for line in (line for line in lines if any(line[at:end])):
        out.add_row(*map(Text, (*line[:beside], *line[at:end])))
    return out


def _narrow(head: Sequence[str], lines: Sequence[Sequence[str]], beside: int, at: int, width: int) -> Table:
    """The part of one column that is too wide: a key is above its value, and no word is broken if there is room."""
    names = [re.sub(r"=|\.(?=[A-Za-z_])", "\\g<0>\n", name) for name in head]
    columns = [[line[place] for line in (names, *lines)] for place in (*range(beside), at)]
    words = [max((cell_len(word) for text in column for word in text.split()), default=0) for column in columns]
    room = width - sum(words) - 3 * len(words) - 1  # what lines and blanks between columns leave
    most = [*words[:-1], words[-1] + room] if room >= 0 else ()
    return _part(names, lines, beside, at, at + 1, most)
