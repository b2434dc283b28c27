"""Figures of any sweep: its number against the key in its columns, and its learning curves by group.

A panel is for each choice of the keys in rows but one, a line for each value of that one, as far as there is room.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fractal_ifs.errors import short
from fractal_ifs.plotting.style import (
    Output,
    columns_of,
    drawing,
    literal,
    thousands,
    write_figure,
)
from fractal_ifs.report import levels
from fractal_ifs.report.panels import (
    MOST_PANELS,
    all_numbers,
    carried_on,
    flat,
    grid_of,
    lines_of,
    looks_of,
    lr_of,
    named,
    over_seeds,
    series_of,
)
from fractal_ifs.results.measured import measures_of
from fractal_ifs.results.numbers import mean_of
from fractal_ifs.results.pivot import Entry, Pivot, in_no_mean, title
from fractal_ifs.results.values import by_value
from fractal_ifs.runs.records import Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 8  # of a panel
LONG_NAME = 28  # letters of a name in a legend; longer ones stand below the panels
LONG_POINT = 40  # letters of a name on an axis; longer ones are cut
MOST_POINTS = 16  # names on an axis
MOST_NAMES, CUT = 16, 80  # of a legend along training, and the letters of a name in any


def write_figures(table: Pivot, directory: Path, output: Output = Output()) -> list[Path]:  # noqa: B008 (it is frozen)
    """Write the figures of a table: its numbers, and along training every measure, of levels all in one figure.

    Returns the files of the first format.
    """
    with drawing():
        made = {"sweep": against(table, output), "along_levels": levels.learning(table, output)}
        for name in measures(table):
            if not levels.level_of(name):
                made[f"along_{name}"] = learning(table, name, output)
        found = {name: figure for name, figure in made.items() if figure is not None}
        return [write_figure(figure, directory, name, output) for name, figure in found.items()]


class Panel(NamedTuple):
    """The cells of a panel."""

    title: str
    lines: Mapping[str, Mapping[str, Entry]]  # by the name of a line, then by the value of the key in columns


def panels(table: Pivot) -> list[Panel]:
    """The cells of a table as panels, lines and points: the lines are of the key with the most values, up to eight."""
    sizes = {name: len({key[i] for key in table.entries}) for i, name in enumerate(table.rows)}
    of_lines = [name for name, size in sizes.items() if size <= MOST_LINES]
    line_key = max(of_lines, key=lambda name: (sizes[name], list(table.rows).index(name)), default="")
    found: dict[str, dict[str, Mapping[str, Entry]]] = {}
    for key, line in table.entries.items():
        named = {name: f"{name} {value}" for name, value in zip(table.rows, key, strict=True)}
        one = len(table.entries) <= MOST_LINES  # one panel has room for all
        outer = [] if one else [text for name, text in named.items() if name != line_key]
        inner = [text for name, text in named.items() if one or name == line_key]
        found.setdefault(", ".join(outer), {})[", ".join(inner)] = line
    return [Panel(*item) for item in found.items()]


def against(table: Pivot, output: Output) -> Figure | None:
    """The table's number against the key in its columns. None where there is one cell alone, or no cell has a number.

    Points are joined where the key's values are numbers. A point is the mean over seeds, its bar one standard
    deviation to each side. Hollow: runs that have not ended. The points of one value stand side by side, so that no bar
    hides another.
    """
    if len(table.cells) < 2 or all(cell.mean is None for cell in table.cells):
        return None
    every = found = panels(table)
    key, points = table.column, table.columns
    if key is None:  # one key alone varies: its values are the points
        key, points = table.rows[0] if len(table.rows) == 1 else None, [", ".join(k) for k in table.entries]
        of_points = {"": {", ".join(k): line[""] for k, line in table.entries.items() if "" in line}}
        every = found = [Panel("", of_points)]
    found = found[:MOST_PANELS]
    figure, axes_of = grid_of(len(found), output)
    place = _places(points)
    joined = "-" if all_numbers(points) else ""
    looks = looks_of([name for panel in every for name in panel.lines])
    # On a scale a point stands at its value, unless bars would hide each other.
    apart = not _on_a_scale(points) or any(cell.sd for cell in table.cells)
    beside = dict(zip(looks, _side_by_side(points, place, len(looks), apart), strict=True))
    for panel, axes in zip(found, flat(axes_of), strict=False):
        for name, cells in panel.lines.items():
            look = looks[name]
            points_of = [(place[value], cell.mean, cell) for value, cell in cells.items() if cell.mean is not None]
            drawn = sorted(((beside[name](at), mean, cell) for at, mean, cell in points_of), key=lambda p: p[0])
            x, y = [at for at, _, _ in drawn], [mean for _, mean, _ in drawn]
            bars = [cell.sd or 0 for *_, cell in drawn]
            axes.errorbar(
                x, y, bars if any(bars) else None, color=look.color, marker=look.marker, ls=joined, ms=5, lw=1.5,
                capsize=3, label=literal(name) or None,
            )  # fmt: skip
            hollow = [(at, mean) for at, mean, cell in drawn if not cell.ended]
            axes.plot(
                [at for at, _ in hollow], [v for _, v in hollow], look.marker, color=look.color, mfc="white", ms=5
            )
        _mark(axes, points, place)
        axes.set_xlabel(literal(key or ""))
        axes.set_title(literal(panel.title))
    for first, *_ in axes_of:
        first.set_ylabel(literal(table.number.axis))
    _stretch(flat(axes_of)[0], [cell.mean for cell in table.cells if cell.mean])
    _legend(figure, axes_of, [literal(name) for name in looks], output)
    figure.suptitle(_title(table, every), fontsize=10)
    return figure


def learning(table: Pivot, measure: str, output: Output) -> Figure | None:
    """A measure along training, a panel for each row of the table and a line for each of its columns.

    Beside the test accuracy stands the training accuracy, dashed and hollow, where it was measured. A line is the mean
    over the seeds of the cell's learning rate, its band from their least to their largest. The legend has that rate
    where it was chosen. None where no run has two measurements.
    """
    cell_of = {(key, value): cell for key, line in table.entries.items() for value, cell in line.items()}
    rows = {
        key: {value: series_of(cell, measure) for value, cell in line.items()} for key, line in table.entries.items()
    }
    rows = {key: {v: s for v, s in line.items() if len(s) > 1} for key, line in rows.items()}
    rows = {key: line for key, line in rows.items() if line}
    if not rows:
        return None
    if table.column is None and len(rows) <= MOST_LINES:
        names = {key: ", ".join(named(table, key)) for key in rows}
        cell_of = {((), name): cell_of[key, ""] for key, name in names.items()}
        rows = {(): {names[key]: line[""] for key, line in rows.items()}}
        values: Sequence[Any] = list(rows[()])
    else:
        values = [value for value in table.columns if any(value in line for line in rows.values())]
    of, values = len(values), values[:: -(-len(values) // MOST_NAMES)]
    rows = {key: {value: line[value] for value in values if value in line} for key, line in rows.items()}
    shown = [(key, line) for key, line in rows.items() if line][:MOST_PANELS]
    figure, axes_of = grid_of(len(shown), output)
    looks = dict(zip(values, lines_of(values), strict=True))
    labels = {
        value: ", ".join([f"{table.column} {value}" if table.column else str(value), *lr_of(cells)]).removeprefix(", ")
        for value in values
        if (cells := [cell_of[key, value] for key, line in shown if value in line])
    }
    trained = False
    for (key, line), axes in zip(shown, flat(axes_of), strict=False):
        for value, series in line.items():
            steps = list(series)
            low, mean, high = ([f(series[step]) for step in steps] for f in (min, mean_of, max))
            look = looks[value]
            style: dict[str, Any] = {"color": look.color, "marker": look.marker, "ms": 4}
            every = max(1, len(steps) // 8)
            axes.plot(steps, mean, markevery=every, lw=1.5, label=literal(labels[value]), **style)
            axes.fill_between(steps, low, high, color=look.color, alpha=0.15, lw=0)
            if measure == "test_acc" and (train := series_of(cell_of[key, value], "train_acc")):
                trained = True
                means = [mean_of(seeds) for seeds in train.values()]
                axes.plot(list(train), means, "--", markevery=max(1, len(train) // 8), lw=1, mfc="white", **style)
        axes.set_title(literal(", ".join(named(table, key))))
        axes.set_xlabel("optimizer steps")
        axes.xaxis.set_major_formatter(thousands)
    name = " ".join({"acc": "accuracy"}.get(word, word) for word in measure.split("_"))
    for first, *_ in axes_of:
        first.set_ylabel(literal(name))
    _legend(figure, axes_of, [literal(label) for label in labels.values()], output)
    over = over_seeds(max(map(len, series.values())) for _, line in shown for series in line.values())
    ended = carried_on((cell_of[key, value] for key, line in shown for value in line), measure)
    more = f" (the first {len(shown)} of {len(rows)} rows)" if len(shown) < len(rows) else ""
    more += f" ({len(values)} of {of} values of {table.column})" if len(values) < of else ""
    figure.suptitle(
        f"{name.capitalize()} along training"
        + (f": mean over {over}, band from least to largest" if over else "")
        + (f"; dashed: training accuracy{', its mean alone' if over else ''}" if trained else "")
        + ended
        + more,
        fontsize=10,
    )
    return figure


def measures(table: Pivot) -> list[str]:
    """The measures that some of a table's runs have, ``test_acc`` first."""
    names = dict.fromkeys(name for cell in table.cells for run in cell.runs for name in measures_of(run))
    return sorted(names, key=lambda name: (name != "test_acc", name))


def _title(table: Pivot, found: Sequence[Panel]) -> str:
    text = title(table)
    if over := over_seeds(cell.n for cell in table.cells if cell.n > 1):
        text += f"; bars: ±1 standard deviation over {over}"
    pruned = any(run["status"] == Status.PRUNED for cell in table.cells for run in cell.group)
    if table.over_lr and (most := max(cell.compared if pruned else cell.lrs for cell in table.cells)) > 1:
        text += f"; each at the best of up to {most} learning rates"
    text += "; others were pruned at rungs" if pruned else ""
    if any(cell.mean is not None and not cell.ended for cell in table.cells):
        text += "; hollow: not ended"
    if apart := in_no_mean(table):
        text += f"; in no mean: {apart}"
    return text + (f" (the first {MOST_PANELS} of {len(found)} panels)" if len(found) > MOST_PANELS else "")


def _places(points: Sequence[Any]) -> dict[Any, float]:
    """Where the values of a key stand on the axis: numbers at their place, other values and pairs side by side."""
    if _on_a_scale(points):
        return {value: float(value) for value in points}
    return {value: float(i) for i, value in enumerate(sorted(points, key=by_value))}


def _side_by_side(
    points: Sequence[Any], place: Mapping[Any, float], lines: int, apart: bool
) -> list[Callable[[float], float]]:
    """Where the points of each line stand about a value's place: on a scale within a fifth of the least distance.

    ``apart``: whether lines stand apart at all.
    """
    if not apart:
        return [lambda at: at] * lines
    scale, within = _scale(points, place), 0.2 if _on_a_scale(points) else 0.4
    at = sorted(map(scale.forward, place.values()))
    step = within * min((b - a for a, b in itertools.pairwise(at)), default=1) / lines
    shifts = [step * (number - (lines - 1) / 2) for number in range(lines)]
    return [lambda at, shift=shift: scale.back(scale.forward(at) + shift) for shift in shifts]


class _Scale(NamedTuple):
    """How an axis has its numbers: ``symlog`` is logarithmic from ``least`` on, and has a decade's room for 0."""

    kind: str
    least: float = 1.0

    def forward(self, at: float) -> float:
        """A number's place on the axis, in decades."""
        if self.kind == "linear":
            return at
        return at / self.least if self.kind == "symlog" and at <= self.least else 1 + math.log10(at / self.least)

    def back(self, place: float) -> float:
        """The number at a place."""
        if self.kind == "linear":
            return place
        return self.least * (place if self.kind == "symlog" and place <= 1 else 10 ** (place - 1))


def _scale(points: Sequence[Any], place: Mapping[Any, float]) -> _Scale:
    """The axis of a key's values: logarithmic where they span a factor of 8, and beside a 0 where most are small."""
    numbers = sorted(place.values())
    positive = [number for number in numbers if number > 0]
    if not _on_a_scale(points) or numbers[0] < 0 or positive[-1] < 8 * positive[0]:
        return _Scale("linear")
    if numbers[0] > 0:
        return _Scale("log", positive[0])
    return _Scale("symlog" if positive[(len(positive) - 1) // 2] <= positive[-1] / 4 else "linear", positive[0])


def _on_a_scale(points: Sequence[Any]) -> bool:
    """Whether the values of a key stand at their place as numbers: not if two are one number, as 0 and 00 of a text."""
    return len(points) > 2 and all_numbers(points) and len(set(map(float, points))) == len(points)


def _mark(axes: Axes, points: Sequence[Any], place: Mapping[Any, float]) -> None:
    """Name the values on their axis: each, or as many as there is room for."""
    scale = _scale(points, place)
    if scale.kind != "linear":
        axes.set_xscale(scale.kind, **({"linthresh": scale.least, "linscale": 0.9} if scale.kind == "symlog" else {}))
    if not _on_a_scale(points):
        axes.set_xlim(min(place.values()) - 0.4, max(place.values()) + 0.4)
    elif len(points) > MOST_POINTS:
        return  # numbers between them say as much
    named = sorted(points, key=lambda value: place[value])[:: -(-len(points) // MOST_POINTS)]
    axes.minorticks_off()
    names = [literal(name) for name in _told_apart([_name(value, _on_a_scale(points)) for value in named], LONG_POINT)]
    long = sum(map(len, names)) > 36
    at = [place[value] for value in named]
    axes.set_xticks(at, names, rotation=30 if long else 0, ha="right" if long else "center")


def _name(value: Any, on_a_scale: bool) -> str:
    """What stands at a value on an axis: of a number with many digits the first, as its place has the others."""
    return f"{float(value):.3g}" if on_a_scale and len(str(value)) > 8 else str(value)


def _told_apart(names: Sequence[str], length: int) -> list[str]:
    """Names cut to so many letters: at the end, or where they would be the same then, in the middle, or numbered."""
    head = length // 3
    cut = [short(name, length) for name in names]
    if len({*cut}) < len({*names}):
        cut = [
            short(f"{name[:head]}...{name[head + 3 - length :]}" if len(name) > length else name, length)
            for name in names
        ]
    if len({*cut}) < len({*names}):
        cut = [short(f"{number}: {name}", length) for number, name in enumerate(names, 1)]
    return cut


def _stretch(axes: Axes, values: Sequence[float]) -> None:
    """Make the axis of the panels' numbers logarithmic where these span a factor of 100, and linear around 0.

    Where none is negative it begins at 0, though a bar may go on.
    """
    sizes = sorted(map(abs, values))
    if sizes and sizes[-1] >= 100 * sizes[0]:
        axes.set_yscale("symlog", linthresh=10 ** math.floor(math.log10(max(sizes[0], sizes[-1] / 1e3))))
        axes.minorticks_off()
        if min(values) > 0:
            axes.set_ylim(bottom=0)


def _legend(figure: Figure, axes_of: Sequence[Sequence[Axes]], order: Sequence[str], output: Output) -> None:
    """One legend for all panels: beside them, below where there is little room or a name is long.

    ``order``: of their names.
    """
    found = {text: line for axes in flat(axes_of) for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    if not found:
        return
    names = [name for name in order if name in found]
    longest = max(map(len, names))
    labels = _told_apart(names, CUT)
    if figure.get_figwidth() >= 5 and longest <= LONG_NAME:
        figure.legend([found[name] for name in names], labels, loc="outside right center", fontsize=output.font or 8)
        return
    columns = (2 if longest <= LONG_NAME else 1) if output.width is None else columns_of(names, output, 2)
    figure.set_figheight(figure.get_figheight() + 0.18 * -(-len(names) // columns))
    figure.legend(
        [found[name] for name in names], labels, loc="outside lower center", fontsize=output.font or 8, ncols=columns
    )
