"""Which levels are learned first: the accuracies on the positives and on the negatives of each level, in one figure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fractal_ifs.config.data import FractalData
from fractal_ifs.data.points import levels_of_test
from fractal_ifs.plotting.style import Output, literal, ordered, thousands
from fractal_ifs.report.panels import (
    MOST_PANELS,
    carried,
    carried_on,
    flat,
    grid_of,
    lr_of,
    named,
    over_seeds,
    series_of,
)
from fractal_ifs.results.measured import config_of, measures_of
from fractal_ifs.results.numbers import mean_of
from fractal_ifs.results.pivot import Entry, Pivot, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 100  # test points of a level whose accuracy is noise: a standard error of up to .05
MOST_POINTS = 1_000_000  # larger test sets aren't drawn again to count their levels
POSITIVE = "acc_positive"


def level_of(measure: str) -> str | None:
    """What a measure's accuracy is of: ``positives``, or ``level 3``. None where it is no part of ``levels``."""
    found = re.fullmatch(r"acc_level_([1-9]\d*)", measure)
    return "positives" if measure == POSITIVE else f"level {found[1]}" if found else None


def learning(table: Pivot, output: Output) -> Figure | None:
    """The accuracies of all levels along training, a panel for each cell. None where no run has two measurements.

    A line is the mean over the seeds of the cell's learning rate, which the panel's title has where it was chosen.
    Grey and dashed: a level of fewer than 100 test points. Dotted: which share of all test points is answered with
    "negative", which tells a level that was learned from a network that answers so everywhere.
    """
    cells = [
        (", ".join([*named(table, key), *([f"{table.column} {value}"] if table.column else []), *lr_of([cell])]), cell)
        for key, line in table.entries.items()
        for value, cell in line.items()
        if len(series_of(cell, POSITIVE)) > 1
    ]
    if not cells:
        return None
    shown = cells[:MOST_PANELS]
    figure, axes_of = grid_of(len(shown), output, least=3)  # a legend below each
    for (title, cell), axes in zip(shown, flat(axes_of), strict=False):
        _draw(axes, cell, output)
        axes.set_title(literal(title))
        axes.set_xlabel("optimizer steps")
        axes.xaxis.set_major_formatter(thousands)
    deepest = max(len(axes.get_legend_handles_labels()[0]) for axes in flat(axes_of))
    figure.set_figheight(figure.get_figheight() + 0.17 * deepest * len(axes_of))
    for first, *_ in axes_of:
        first.set_ylabel("accuracy")
    over = over_seeds(max(map(len, series_of(cell, POSITIVE).values())) for _, cell in shown)
    mean = f", mean over {over}{carried_on((cell for _, cell in shown), POSITIVE)}" if over else ""
    more = f" (the first {MOST_PANELS} of {len(cells)} cells)" if len(cells) > MOST_PANELS else ""
    figure.suptitle(
        f"Accuracy on the positives and on the negatives of each level{mean}{more}. "
        "Answering always “negative” has 1 on every level and 0 on the positives",
        fontsize=10,
    )
    return figure


def _counted(points: float) -> str:
    """A mean number of points, with a decimal where it is small and not whole: 0.5."""
    return f"{points:,.0f}" if points >= 10 or points == round(points) else f"{points:.1f}"


def _draw(axes: Axes, cell: Entry, output: Output) -> None:
    counts = [points_of(run) for run in cell.runs]
    points = _mean_points(counts)
    n = max((level for level in points if level), default=0) or 20  # unknown: of runs whose config is lost
    names = {0: POSITIVE} | {level: f"acc_level_{level}" for level in range(1, n + 1)}
    series = {level: series_of(cell, name) for level, name in names.items()}
    series = {level: found for level, found in series.items() if found}
    looks = ordered(max(series, default=0) + 1)
    for level, found in series.items():
        few = level > 0 and 0 < points.get(level, 0) < FEW
        label = (level_of(names[level]) or "") + (f", {_counted(points[level])} points" if level in points else "")
        steps = list(found)
        axes.plot(
            steps, [mean_of(values) for values in found.values()], "--" if few else "-",
            color="#999999" if few else "black" if not level else looks[level].color, marker=looks[level].marker,
            markevery=max(1, len(steps) // 8), ms=4, lw=1.2 if few else 2.2 if not level else 1.5,
            label=f"{label}: few" if few else label,
        )  # fmt: skip
    share: dict[int, float] = {}
    if points:
        shares = [_negatives(run, of_run) for run, of_run in zip(cell.runs, counts, strict=True)]
        if all(shares):
            found = carried((list(each), list(each.values())) for each in shares)
            share = {step: mean_of(values) for step, values in found.items()}
    if share:
        axes.plot(
            list(share),
            list(share.values()),
            ":",
            color="#666666",
            lw=1.5,
            label="share of answers “negative”",
        )
    font, small = output.font or 9, output.font or 7.5
    below = 7.5 + max(3.5, 0.45 * font) + 2.3 * font  # points that the axis takes with its names
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=below / small, fontsize=small)


def _negatives(run: Run, points: dict[int, int]) -> dict[int, float]:
    """The share of a run's test points that are answered with "negative", by the step."""
    measured = measures_of(run)
    series = {level: measured.get(f"acc_level_{level}" if level else POSITIVE) for level in points}
    values = {level: dict(zip(*found, strict=True)) for level, found in series.items() if found}
    steps = set.intersection(*map(set, values.values())) if len(values) == len(points) else set[int]()
    right = {step: {level: at[step] * points[level] for level, at in values.items()} for step in sorted(steps)}
    positives = points.get(0, 0)  # a small test set may have none
    return {step: (sum(r.values()) - 2 * r.get(0, 0) + positives) / sum(points.values()) for step, r in right.items()}


def _mean_points(counts: Sequence[dict[int, int]]) -> dict[int, float]:
    """How many test points a run has of each level, on average. Empty where one of the runs doesn't tell."""
    if not all(counts):
        return {}
    return {level: sum(each.get(level, 0) for each in counts) / len(counts) for level in sorted(set().union(*counts))}


def points_of(run: Run) -> dict[int, int]:
    """How many test points a run has of each level, and as 0 of positives. Empty where it isn't known here."""
    config = config_of(run)
    if config is None or not isinstance(config.data, FractalData) or config.data.test_size > MOST_POINTS:
        return {}
    counts = Counter(levels_of_test(config.fractal, config.curve, config.data, config.seed).tolist())
    return {0 if level > config.fractal.depth else level: number for level, number in sorted(counts.items())}
