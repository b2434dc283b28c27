"""A fractal distribution in one figure: the sets K_0..K_n, samples, and the approximation curves P(j)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from fractal_ifs.fractals.distribution import FractalDistribution
from fractal_ifs.plotting.sets import draw_sets, frame, shown_levels
from fractal_ifs.plotting.style import BLUE, INK, MARKERS, ORANGE, Output, literal, plain_axes

CURVE_COLORS = LinearSegmentedColormap.from_list("curves", ["#2a9d8f", "#5b4b8a", "#c2185b"])  # from coarse to fine


def draw_distributions(
    laws: Sequence[FractalDistribution],
    points: int = 10_000,
    seed: int = 0,
    window: np.ndarray | None = None,
    output: Output = Output(),  # noqa: B008 (it is frozen)
) -> Figure:
    """K_0..K_n, then a panel of samples for each distribution, then P(j), as in Figures 1 to 3 of the paper.

    Args:
        laws: distributions on one fractal of d <= 3, which differ in their curves.
        points: samples in a panel.
        seed: of the samples.
        window: (4,) x0, x1, y0, y1, or (2,) x0, x1 for d = 1: samples are drawn from this part alone. None: all of K_0.
        output: much narrower than the picture would be, it has its panels below each other.
    """
    ifs, n = laws[0].ifs, laws[0].depth
    per_row = min(3, len(laws))
    rows = -(-len(laws) // per_row)
    side = {1: 4.6, 2: 3.7, 3: 4.2}[ifs.d]
    below = {1: 3.2, 2: 4.1, 3: 4.3}[ifs.d]
    width = side * per_row + 3.6
    levels = shown_levels(ifs, n)
    above = 0.34 * len(levels) + 0.7 if ifs.d == 1 else width / max(len(levels), 5) + 0.35
    if output.width is not None and output.width < 0.7 * width:
        return _in_a_column(laws, points, seed, window, output.width, output.font or 8)
    figure = Figure(figsize=(width, above + below * rows + 0.4), layout="constrained")
    figure.suptitle(_title(laws[0], levels), fontsize=14, color=INK)
    top, bottom = figure.subfigures(2, 1, height_ratios=[above, below * rows], squeeze=False)[:, 0]
    draw_sets(top, ifs, levels)
    samples, curves = bottom.subfigures(1, 2, width_ratios=[side * per_row, 3.6], squeeze=False)[0]
    _draw_samples(samples, laws, per_row, points, seed, window)
    _draw_curves(curves.add_subplot(), laws, 2 * output.font if output.font and len(laws) == 1 else None)
    where = "outside lower center"
    figure.legend(
        handles=colour_handles(n, laws[0].d), loc=where, ncols=2 if width > 11 else 1, fontsize=9, frameon=False
    )
    return figure


def _in_a_column(
    laws: Sequence[FractalDistribution],
    points: int,
    seed: int,
    window: np.ndarray | None,
    width: float,
    font: float,
) -> Figure:
    """The same for a column of a paper, ``width`` inches wide: as many panels beside each other as are legible."""
    ifs, n = laws[0].ifs, laws[0].depth
    levels = shown_levels(ifs, n)
    line = font / 72 * 1.3  # the height of a line of letters, in inches
    sets = max(1, min(len(levels), int(width / max(0.9, 6 * line))))
    per_row = max(1, min(3, len(laws), int(width / max(1.5, 8 * line))))
    above = 0.25 * len(levels) + line if ifs.d == 1 else -(-len(levels) // sets) * (width / sets + 3 * line)
    middle = -(-len(laws) // per_row) * (min(width / per_row, 3) + 3 * line)
    under = 1.5 + 4 * line
    figure = Figure(figsize=(width, above + middle + under + 6 * line), layout="constrained")
    figure.suptitle(_title(laws[0], levels), color=INK)
    top, samples, curves = figure.subfigures(3, 1, height_ratios=[above, middle, under], squeeze=False)[:, 0]
    draw_sets(top, ifs, levels, sets)
    _draw_samples(samples, laws, per_row, points, seed, window)
    axes = curves.add_subplot()
    _draw_curves(axes, laws, 2 * font if len(laws) == 1 else None)
    if len(laws) > 1:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.legend(handles=colour_handles(n, laws[0].d), loc="outside lower center", frameon=False)
    for text in figure.findobj(Text):
        text.set_fontsize(font)  # pyright: ignore[reportAttributeAccessIssue]
    for axes in figure.axes:
        axes.tick_params(labelsize=font)
    return figure


def _title(law: FractalDistribution, levels: Sequence[int]) -> str:
    missing = (
        f"   ($K_{{{levels[-1] + 1}}}$ and finer have too many cells to be drawn)" if levels[-1] < law.depth else ""
    )
    return f"{literal(law.ifs.name)}, depth {law.depth}{missing}"


def _draw_samples(
    parent: SubFigure,
    laws: Sequence[FractalDistribution],
    per_row: int,
    points: int,
    seed: int,
    window: np.ndarray | None,
) -> None:
    """A panel of samples for each distribution."""
    ifs = laws[0].ifs
    for i, (law, color) in enumerate(zip(laws, _colours_of(laws), strict=True)):
        place = (-(-len(laws) // per_row), per_row, i + 1)
        axes = parent.add_subplot(*place, projection="3d") if ifs.d == 3 else parent.add_subplot(*place)
        x, y, level = (part.numpy() for part in _sample_in(law, points, seed, window))
        _DRAW_SAMPLES[ifs.d](axes, law, x, y, level)
        frame(axes, ifs, window)
        axes.set_title(
            f"curve {literal(law.curve.name)}, {len(x):,} points", color=color, fontsize=12, fontweight="bold"
        )


def _colours_of(laws: Sequence[FractalDistribution]) -> list[Any]:
    return [CURVE_COLORS(i / max(1, len(laws) - 1)) for i in range(len(laws))]


def colour_handles(n: int, d: int) -> list[Any]:
    """What a legend says of blue and orange. In space the sets are drawn without the places of negatives."""
    said = {
        BLUE: f"positive: in $K_{{{n}}}$ (above: what is left, $K_j$)",
        ORANGE: "negative: left out" + (" (above: where those of level j lie)" if d < 3 else ""),
    }
    return [Line2D([], [], marker="o", ls="", color=color, label=text) for color, text in said.items()]


def _sample_in(law: FractalDistribution, points: int, seed: int, window: np.ndarray | None) -> Sequence[torch.Tensor]:
    """The first samples that fall into the window: x, y and level. Only the first two million samples are searched."""
    if window is None:
        return law.sample(points, seed)
    lo, hi = torch.as_tensor(window[::2]), torch.as_tensor(window[1::2])
    parts = []
    for start in range(0, 2_000_000, 100_000):
        sample = law.sample(100_000, seed, start=start)
        inside = ((sample.x >= lo) & (sample.x <= hi)).all(1)
        parts.append([part[inside] for part in sample])
        if sum(len(part[1]) for part in parts) >= points:
            break
    return [torch.cat(columns)[:points] for columns in zip(*parts, strict=True)]


def _samples_on_a_line(axes: Axes, law: FractalDistribution, x: np.ndarray, y: np.ndarray, level: np.ndarray) -> None:
    """A lane for each level of the negatives, with the coarsest on top, and one for the positives."""
    height = np.random.default_rng(0).uniform(-0.36, 0.36, len(x))
    axes.scatter(x[:, 0], height - level, c=_colors(y), s=_size(len(x)), linewidths=0, rasterized=True)
    axes.set_yticks(-np.arange(1, law.depth + 2), [f"level {j}" for j in range(1, law.depth + 1)] + ["positive"])
    axes.set_ylim(-law.depth - 1.6, -0.4)


def _samples_in_the_plane(axes: Axes, _: FractalDistribution, x: np.ndarray, y: np.ndarray, __: np.ndarray) -> None:
    axes.scatter(*x.T, c=_colors(y), s=_size(len(x)), linewidths=0, rasterized=True)


def _samples_in_space(axes: Any, _: FractalDistribution, x: np.ndarray, y: np.ndarray, __: np.ndarray) -> None:
    style = {"s": _size(len(x)), "linewidths": 0, "depthshade": False, "rasterized": True}
    axes.scatter(*x[y < 0].T, c=ORANGE, alpha=0.35, **style)
    axes.scatter(*x[y > 0].T, c=BLUE, **style)


_DRAW_SAMPLES: dict[int, Callable[..., None]] = {1: _samples_on_a_line, 2: _samples_in_the_plane, 3: _samples_in_space}


def _colors(y: np.ndarray) -> np.ndarray:
    return np.where(y > 0, BLUE, ORANGE)


def _size(points: int) -> float:
    """The area of a dot: smaller where there are more."""
    return float(np.clip(20_000 / max(points, 1), 0.4, 12))  # a window may have none


def _draw_curves(axes: Axes, laws: Sequence[FractalDistribution], pad: float | None = None) -> None:
    """P(j) by level. ``pad``: points below the title, where the numbers of one curve need them."""
    n = laws[0].depth
    for i, (law, color) in enumerate(zip(laws, _colours_of(laws), strict=True)):
        label, marker = f"curve {literal(law.curve.name)}", MARKERS[i % len(MARKERS)]
        axes.plot(range(n + 1), law.approximation_curve(), marker=marker, color=color, lw=2, ms=5, label=label)
    if len(laws) == 1:
        P = laws[0].approximation_curve()
        for j, p in enumerate(P):
            if j == 0 or p - P[j - 1] > 0.003:
                axes.annotate(
                    f"{p:.3f}", (j, p), (-9, 7), textcoords="offset points", ha="center", fontsize=8, color=INK
                )
    else:
        axes.legend(frameon=False, loc="upper left")
    axes.set(xlim=(-0.6, n + 0.3), ylim=(0.48, 1.04), xlabel="level j", ylabel="P(j)")
    axes.set_title("the accuracy that resolving $K_j$ allows", fontsize=11, pad=pad)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain_axes(axes)
