"""The panels of a figure of any sweep: how they stand, what they are called, and the measures in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fractal_ifs.plotting.style import Output, panels_of
from fractal_ifs.results.measured import measures_of
from fractal_ifs.results.pivot import Entry, Pivot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 12


def grid_of(panels: int, output: Output, least: float = 1.6) -> tuple[Figure, list[list[Axes]]]:
    """A figure with room for so many panels, and these by rows. In a column of a paper it has one or two beside.

    ``least``: inches that a panel needs.
    """
    from matplotlib.figure import Figure

    columns = panels_of(output, least, min(4, panels) if output.width is None else panels)
    rows = -(-panels // columns)
    size = (max(5.0, 3.3 * columns) + 1.6, 3.0 * rows + 0.5)
    if output.width is not None:
        size = (output.width, 0.75 * output.width / columns * rows + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    axes_of = [list(line) for line in figure.subplots(rows, columns, squeeze=False, sharey=True)]
    for axes in axes_of[-1][panels - (rows - 1) * columns :]:
        axes.set_visible(False)
    return figure, axes_of


def flat(axes_of: Sequence[Sequence[Axes]]) -> list[Axes]:
    """The panels, row by row."""
    return [axes for line in axes_of for axes in line]


def series_of(cell: Entry, measure: str) -> dict[int, list[float]]:
    """The values of a cell's runs at each step."""
    at: dict[int, list[float]] = {}
    for run in cell.runs:
        steps, values = measures_of(run).get(measure, ([], []))
        for step, value in zip(steps, values, strict=True):
            at.setdefault(step, []).append(value)
    return dict(sorted(at.items()))


def named(table: Pivot, key: Sequence[str]) -> list[str]:
    """The keys of a row with their values: ``curve 1``. Without those that its runs don't have."""
    return [f"{name} {value}" for name, value in zip(table.rows, key, strict=False) if value != "-"]


def mean_of(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return sum(values) / len(values)
