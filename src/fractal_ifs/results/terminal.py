"""The table of a sweep for a terminal, in parts that are no wider than it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fractal_ifs.results.pivot import Pivot, grid


def folded(found: Pivot, title: str, console: Console) -> Iterator[Text | Table]:
    """The title, and the table in parts: as many columns beside the rows' names as there is room for."""
    yield Text(title, style="italic")
    head, lines = grid(found)
    beside = len(found.rows)
    at = beside
    while at < len(head):
        end = at + 1
        part = _part(head, lines, beside, at, end)
        while end < len(head) and _fits(wider := _part(head, lines, beside, at, end + 1), console):
            part, end = wider, end + 1
        yield part
        at = end


def _fits(part: Table, console: Console) -> bool:
    return console.measure(part, options=console.options.update(width=10_000)).maximum <= console.width


def _part(head: Sequence[str], lines: Sequence[Sequence[str]], beside: int, at: int, end: int) -> Table:
    """The table of the columns ``at`` to ``end``, beside the names of the rows."""
    out = Table()
    for name in (*head[:beside], *head[at:end]):
        out.add_column(Text(name), justify="right")  # a Text: a value in brackets is no colour
    for line in lines:
        out.add_row(*map(Text, (*line[:beside], *line[at:end])))
    return out
