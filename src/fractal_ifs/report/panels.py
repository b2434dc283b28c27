"""The panels of a figure and their lines: how they stand and look, what they are called, and the measures in them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fractal_ifs.plotting.style import Line, Output, lines, ordered, panels_of
from fractal_ifs.results.measured import measures_of
from fractal_ifs.results.pivot import Entry, Pivot
from fractal_ifs.results.values import by_value, number_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 12
CARRIED = "; where a run wasn't measured its last value counts"


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
    """The values of a cell's runs at each step, as ``carried`` has them."""
    return carried(series for run in cell.runs if (series := measures_of(run).get(measure)))


def carried(series: Iterable[tuple[Sequence[int], Sequence[float]]]) -> dict[int, list[float]]:
    """The values of all runs at each step. Where a run wasn't measured, as after its end, its last value counts.

    Else a mean would fall where the best seed stops. The first step is the first at which all have a value.

    Args:
        series: the steps in their order and the values of each run; not empty.
    """
    every = list(series)
    first = max((steps[0] for steps, _ in every), default=0)
    at = sorted({step for steps, _ in every for step in steps if step >= first})
    return {step: [values[bisect_right(steps, step) - 1] for steps, values in every] for step in at}


def carried_on(cells: Iterable[Entry], measure: str) -> str:
    """What a title says of ``carried``. Empty where the runs of each cell are measured at the same steps."""
    every = ({tuple(series.steps) for run in cell.runs if (series := measures_of(run).get(measure))} for cell in cells)
    return CARRIED if any(len(steps) > 1 for steps in every) else ""


def named(table: Pivot, key: Sequence[str]) -> list[str]:
    """The keys of a row with their values: ``curve 1``. Without those that its runs don't have."""
    return [f"{name} {value}" for name, value in zip(table.rows, key, strict=False) if value != "-"]


def lr_of(cells: Sequence[Entry]) -> list[str]:
    """The learning rates of some cells, from the least to the largest. Empty where none was chosen among several."""
    rates = sorted({cell.lr for cell in cells if cell.lr is not None})
    return [f"lr={_range(rates)}"] if rates and any(cell.lrs > 1 for cell in cells) else []


def over_seeds(numbers: Iterable[int]) -> str:
    """Of how many seeds means are: ``n=2–3 seeds``. Empty where each is of one."""
    found = sorted(set(numbers))
    return f"n={_range(found)} seeds" if found and found[-1] > 1 else ""


def _range(values: Sequence[float]) -> str:
    """The least and the largest of sorted numbers."""
    return "–".join(dict.fromkeys(f"{value:g}" for value in (values[0], values[-1])))


def looks_of(names: Iterable[str]) -> dict[str, Line]:
    """The look of each line, the same in all panels, in the order of ``in_order``."""
    names = in_order(names)
    return dict(zip(names, lines_of([name.rpartition(" ")[2] for name in names]), strict=True))


def in_order(names: Iterable[str]) -> list[str]:
    """The names of lines, key by key, each by its values: ``depth 2, lr 0.1`` before ``depth 10, lr 0``."""
    return sorted(set(names), key=lambda name: [_by_value(part) for part in name.split(", ")])


def _by_value(part: str) -> tuple[str, tuple[bool, float, str]]:
    key, _, value = part.rpartition(" ")
    return key, by_value(value)


def lines_of(values: Sequence[Any]) -> list[Line]:
    """The looks of lines: in the order of their values where these are numbers."""
    return (ordered if len(values) > 2 and all_numbers(values) else lines)(len(values))


def all_numbers(values: Iterable[Any]) -> bool:
    """Whether the values of a key are numbers, or texts of numbers."""
    return all(number_of(str(value)) is not None for value in values)
