"""Figures, for scripts and notebooks: fractal distributions, and what a trained network has made of one.

Blue is positive (K_n), orange is negative, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LightSource, LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from fractal_ifs.fractals.convex import Box, Convex
from fractal_ifs.fractals.distribution import FractalDistribution
from fractal_ifs.fractals.ifs import AffineIFS
from fractal_ifs.fractals.membership import deepest
from fractal_ifs.runs.load import Finished

BLUE, ORANGE, INK, FAINT = "#1f77b4", "#ff7f0e", "#222222", "#d9d9d9"
PALE_BLUE, PALE_ORANGE = "#a9cbe6", "#ffd2a3"
CURVE_COLORS = LinearSegmentedColormap.from_list("curves", ["#2a9d8f", "#5b4b8a", "#c2185b"])  # from coarse to fine
MAX_CELLS = {1: 20_000, 2: 40_000, 3: 600}  # that a panel shows
MAX_PANELS = 9


def distributions(
    laws: Sequence[FractalDistribution], points: int = 10_000, seed: int = 0, window: np.ndarray | None = None
) -> Figure:
    """K_0..K_n, then a panel of samples for each distribution, then P(j): one fractal, several curves; d <= 3.

    `window`: (4,) x0, x1, y0, y1, or (2,) x0, x1 for d = 1, is the part that the samples are drawn from.
    """
    ifs, n = laws[0].ifs, laws[0].depth
    per_row = min(3, len(laws))
    rows = -(-len(laws) // per_row)
    side = {1: 4.6, 2: 3.7, 3: 4.2}[ifs.d]
    below = {1: 3.2, 2: 4.1, 3: 4.3}[ifs.d]
    width = side * per_row + 3.6
    shown = [j for j in range(n + 1) if ifs.r**j <= MAX_CELLS[ifs.d]][:MAX_PANELS]
    above = 0.34 * len(shown) + 0.7 if ifs.d == 1 else width / max(len(shown), 5) + 0.35
    figure = Figure(figsize=(width, above + below * rows + 0.4), layout="constrained")
    missing = f"   (K_{shown[-1] + 1} and finer have too many cells to be drawn)" if shown[-1] < n else ""
    figure.suptitle(f"{ifs.name}, depth {n}{missing}", fontsize=14, color=INK)
    top, bottom = figure.subfigures(2, 1, height_ratios=[above, below * rows], squeeze=False)[:, 0]
    _DRAW_SETS[ifs.d](top, ifs, shown)
    samples, curves = bottom.subfigures(1, 2, width_ratios=[side * per_row, 3.6], squeeze=False)[0]
    colors = [CURVE_COLORS(i / max(1, len(laws) - 1)) for i in range(len(laws))]
    for i, law in enumerate(laws):
        place = (rows, per_row, i + 1)
        axes = samples.add_subplot(*place, projection="3d") if ifs.d == 3 else samples.add_subplot(*place)
        x, y, level = (part.numpy() for part in _sample_in(law, points, seed, window))
        _DRAW_SAMPLES[ifs.d](axes, law, x, y, level)
        _frame(axes, ifs, window)
        axes.set_title(f"curve {law.curve.name}", color=colors[i], fontsize=12, fontweight="bold")
    _draw_curves(curves.add_subplot(), laws, colors)
    return figure


def network(run: Finished, window: np.ndarray | None = None, at: np.ndarray | None = None, pixels: int = 800) -> Figure:
    """The decision regions of a finished run's network over its fractal, and its test accuracy by step.

    For d > 2 the plane of x_1 and x_2 through `at`, the other d - 2 coordinates (default: a point of the fractal).
    """
    config, record = run.config, run.record
    law = FractalDistribution(config.fractal.ifs, config.curve.curve, config.fractal.depth)
    d = law.d
    figure = Figure(figsize=(11.2, 6.0), layout="constrained")
    accuracy = record.final_test_acc
    figure.suptitle(
        f"{record['fractal']} of depth {record['fractal_depth']}, curve {record['curve']}: "
        f"{record['depth']} hidden layers of {record['width']} units after {record['steps']:,} steps"
        + ("" if accuracy is None else f", test accuracy {accuracy:.4f}"),
        fontsize=13,
        color=INK,
    )
    left, right = figure.subfigures(1, 2, width_ratios=[6, 5.2], squeeze=False)[0]
    axes = left.add_subplot()
    if d == 1:
        _draw_function(axes, law, run.model, window, pixels)
    else:
        _draw_regions(axes, law, run.model, window, at, pixels)
    _draw_history(right.add_subplot(), run, law)
    return figure


# The sets K_0..K_n: what is left in blue, where the negatives of the level lie in orange.


def _cells(ifs: AffineIFS, corners: np.ndarray, j: int) -> np.ndarray:
    """The images (r^j, k, d) of corners (k, d) under all compositions of j maps."""
    matrices, offsets = ifs.maps(j)
    return corners @ matrices.transpose(0, 2, 1) + offsets[:, None]


def _outline(body: Convex) -> np.ndarray:
    """The corners of a set in the plane, in order around it."""
    if isinstance(body, Box):
        (x0, y0), (x1, y1) = body.lo, body.hi
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    return body.vertices


def _fill(axes: Axes, polygons: np.ndarray, color: str, **style: Any) -> None:
    """Polygons (p, k, 2). A hairline of their colour closes the seams between neighbours; tiny ones aren't snapped."""
    many = len(polygons) > 50
    style = {"linewidths": 0.15, "edgecolors": color, "rasterized": len(polygons) > 2000, "snap": not many, **style}
    axes.add_collection(PolyCollection(list(polygons), facecolors=color, **style))


def _sets_on_a_line(parent, ifs: AffineIFS, shown: Sequence[int]) -> None:
    axes = parent.add_subplot()
    corners = np.array([ifs.base.lo, ifs.base.hi])
    negatives = corners if ifs.negatives is None else np.array([ifs.negatives.lo, ifs.negatives.hi])

    def strips(corners: np.ndarray, cells: int, j: int) -> np.ndarray:
        ends = np.sort(_cells(ifs, corners, cells)[..., 0], axis=1)
        y = np.broadcast_to([-j - 0.3, -j - 0.3, -j + 0.3, -j + 0.3], (len(ends), 4))
        return np.stack([ends[:, [0, 1, 1, 0]], y], -1)

    finest = _three_pixels(parent, ifs, 1)
    for j in shown:
        if j and np.median(np.ptp(_cells(ifs, corners, j), axis=1)) > finest:
            _fill(axes, strips(negatives, j - 1, j), ORANGE)
        _fill(axes, strips(corners, j, j), BLUE)
    axes.set(xlim=(ifs.base.lo[0], ifs.base.hi[0]), ylim=(-shown[-1] - 0.5, 0.5))
    axes.set_yticks([-j for j in shown], [f"$K_{{{j}}}$" for j in shown])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _sets_in_the_plane(parent, ifs: AffineIFS, shown: Sequence[int]) -> None:
    corners = _outline(ifs.base)
    negatives = corners if ifs.negatives is None else _outline(ifs.negatives)
    finest = _three_pixels(parent, ifs, len(shown))
    for axes, j in zip(parent.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _fill(axes, corners[None], "white", edgecolors=FAINT, linewidths=0.6)
        cells = _cells(ifs, corners, j)
        if j and np.median(np.ptp(cells, axis=1)) > finest:
            _fill(axes, _cells(ifs, negatives, j - 1), ORANGE)
        _fill(axes, cells, BLUE)
        _frame(axes, ifs, None)
        axes.set_axis_off()
        axes.set_title(f"$K_{{{j}}}$", fontsize=12)


def _three_pixels(parent, ifs: AffineIFS, panels: int) -> float:
    """Where a cell is narrower than three pixels of a screen, two colours would blend to grey: blue has to do."""
    return float(np.max(ifs.base.hi - ifs.base.lo)) * 3 * panels / (150 * parent.figure.get_figwidth())


def _sets_in_space(parent, ifs: AffineIFS, shown: Sequence[int]) -> None:
    corners = ifs.base.vertices
    faces = _faces(ifs.base)
    for i, j in enumerate(shown):
        axes = parent.add_subplot(1, len(shown), i + 1, projection="3d")
        polygons = _cells(ifs, corners, j)[:, faces].reshape(-1, faces.shape[1], 3)
        light = LightSource(azdeg=-100, altdeg=45)
        axes.add_collection3d(Poly3DCollection(polygons, facecolors=BLUE, shade=True, lightsource=light, linewidths=0))
        _frame(axes, ifs, None)
        axes.set_axis_off()
        axes.set_title(f"$K_{{{j}}}$", fontsize=12)


def _faces(body: Convex) -> np.ndarray:
    """The faces of a solid, as rows of indices into its vertices, outwards: squares of a box, else triangles."""
    from scipy.spatial import ConvexHull

    if isinstance(body, Box):
        return np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    return ConvexHull(body.vertices).simplices


# Samples.


def _sample_in(law: FractalDistribution, points: int, seed: int, window: np.ndarray | None):
    """The first `points` samples that fall into the window, or those among the first two million."""
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


def _colors(y: np.ndarray) -> np.ndarray:
    return np.where(y > 0, BLUE, ORANGE)


def _samples_on_a_line(axes, law: FractalDistribution, x: np.ndarray, y: np.ndarray, level: np.ndarray) -> None:
    """A lane for each level of the negatives, coarsest on top, and one for the positives."""
    height = np.random.default_rng(0).uniform(-0.36, 0.36, len(x))
    axes.scatter(x[:, 0], height - level, c=_colors(y), s=_size(len(x)), linewidths=0, rasterized=True)
    axes.set_yticks(-np.arange(1, law.depth + 2), [f"level {j}" for j in range(1, law.depth + 1)] + ["positive"])
    axes.set_ylim(-law.depth - 1.6, -0.4)


def _samples_in_the_plane(axes, law: FractalDistribution, x: np.ndarray, y: np.ndarray, level: np.ndarray) -> None:
    axes.scatter(*x.T, c=_colors(y), s=_size(len(x)), linewidths=0, rasterized=True)


def _samples_in_space(axes, law: FractalDistribution, x: np.ndarray, y: np.ndarray, level: np.ndarray) -> None:
    style = {"s": _size(len(x)), "linewidths": 0, "depthshade": False, "rasterized": True}
    axes.scatter(*x[y < 0].T, c=ORANGE, alpha=0.35, **style)
    axes.scatter(*x[y > 0].T, c=BLUE, **style)


def _size(points: int) -> float:
    return float(np.clip(20_000 / points, 0.4, 12))


_DRAW_SETS: dict[int, Callable] = {1: _sets_on_a_line, 2: _sets_in_the_plane, 3: _sets_in_space}
_DRAW_SAMPLES: dict[int, Callable] = {1: _samples_on_a_line, 2: _samples_in_the_plane, 3: _samples_in_space}


def _frame(axes, ifs: AffineIFS, window: np.ndarray | None) -> None:
    """K_0, or the window, to scale and without decoration."""
    lo, hi = (ifs.base.lo, ifs.base.hi) if window is None else (window[::2], window[1::2])
    slack = 0.02 * (hi - lo) if window is None else 0 * lo
    axes.set_xlim(lo[0] - slack[0], hi[0] + slack[0])
    axes.tick_params(labelsize=8, color=FAINT)
    if ifs.d == 1:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return
    axes.set_ylim(lo[1] - slack[1], hi[1] + slack[1])
    if ifs.d == 3:
        axes.set_zlim(lo[2] - slack[2], hi[2] + slack[2])
        axes.set_box_aspect(hi - lo)
        axes.view_init(elev=20, azim=-58)
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        return
    axes.set_aspect("equal")
    axes.spines[:].set_color(FAINT)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


# Curves and histories.


def _draw_curves(axes: Axes, laws: Sequence[FractalDistribution], colors: Sequence) -> None:
    n = laws[0].depth
    for law, color in zip(laws, colors, strict=True):
        axes.plot(
            range(n + 1), law.approximation_curve(), "o-", color=color, lw=2, ms=5, label=f"curve {law.curve.name}"
        )
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
    axes.set_title("the accuracy that resolving $K_j$ allows", fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes)


def _draw_history(axes: Axes, run: Finished, law: FractalDistribution) -> None:
    history, record = run.history, run.record
    last = 0.4
    for j, p in enumerate(law.approximation_curve()):
        axes.axhline(p, color=FAINT, lw=0.8, zorder=0)
        if p - last > 0.02:  # else the labels would cover each other
            axes.annotate(
                f"P({j})", (1.01, p), xycoords=("axes fraction", "data"), va="center", fontsize=9, color="gray"
            )
            last = p
    axes.plot(history["step"], history["test_acc"], "-", color=INK, lw=1.4, marker="." if len(history) < 40 else None)
    if len(history) and record.best_test_acc is not None and record.best_step is not None:
        best = (record.best_step, record.best_test_acc)
        axes.plot(*best, "o", ms=8, mfc="none", mec="#c2185b", mew=1.8)
        near_end = best[0] > 0.7 * max(history["step"])
        style: dict[str, Any] = {
            "ha": "right" if near_end else "center",
            "textcoords": "offset points",
            "color": "#c2185b",
        }
        axes.annotate(f"best {best[1]:.4f}", best, (0, 9), **style)
    axes.set(xlabel="optimizer steps", ylim=(min([0.5, *history["test_acc"].dropna()]) - 0.02, 1.04))
    axes.set_xlim(0, max([1, *history["step"]]) * 1.04)
    axes.set_title("test accuracy", fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    _plain(axes)
    axes.grid(False)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.grid(axis="y", color=FAINT, lw=0.5)
    axes.set_axisbelow(True)


# What a network has learned.


def _draw_regions(
    axes: Axes,
    law: FractalDistribution,
    model: torch.nn.Module,
    window: np.ndarray | None,
    at: np.ndarray | None,
    pixels: int,
) -> None:
    ifs = law.ifs
    base = np.stack([ifs.base.lo[:2], ifs.base.hi[:2]], 1).ravel()
    x0, x1, y0, y1 = base if window is None else window
    rest = _rest(law, at)
    columns = (np.arange(pixels) + 0.5) / pixels
    grid = np.stack(np.meshgrid(x0 + columns * (x1 - x0), y0 + columns * (y1 - y0)), -1).reshape(-1, 2)
    x = torch.tensor(np.column_stack([grid, np.tile(rest, (len(grid), 1))]))
    f = _evaluate(model, x).reshape(pixels, pixels)
    inside = (deepest(ifs, x, law.depth) == law.depth).reshape(pixels, pixels).numpy()
    said = np.where(np.isnan(f), 2, f > 0)
    axes.imshow(
        np.where(said == 2, 4, said + 2 * inside),
        # outside K_n: said negative, said positive; in K_n: said negative, said positive; not a number
        cmap=ListedColormap([PALE_ORANGE, PALE_BLUE, ORANGE, BLUE, "black"]),
        vmin=-0.5,
        vmax=4.5,
        extent=(x0, x1, y0, y1),
        origin="lower",
        interpolation="nearest",
    )
    axes.set_aspect("equal")
    if ifs.negatives is not None and ifs.d == 2:
        _outline_negatives(axes, law, (x1 - x0) / pixels)
    where = "" if ifs.d == 2 else f"\nin the plane {_plane(rest)}"
    axes.set_title(f"blue: it says positive, orange: negative; strong colours: $K_{{{law.depth}}}${where}", fontsize=11)
    axes.set(xlim=(x0, x1), ylim=(y0, y1))
    axes.tick_params(labelsize=9)
    axes.spines[:].set_visible(False)


def _outline_negatives(axes: Axes, law: FractalDistribution, pixel: float) -> None:
    """Where negatives lie, if that isn't all of the rest: their boxes, down to those of some pixels."""
    assert law.ifs.negatives is not None
    for level in range(1, law.depth + 1):
        if law.ifs.r ** (level - 1) > MAX_CELLS[2]:
            break
        boxes = _cells(law.ifs, _outline(law.ifs.negatives), level - 1)
        if np.median(np.ptp(boxes, axis=1)) > 6 * pixel:
            axes.add_collection(PolyCollection(list(boxes), facecolors="none", edgecolors="#b35400", linewidths=0.7))


def _draw_function(
    axes: Axes, law: FractalDistribution, model: torch.nn.Module, window: np.ndarray | None, pixels: int
) -> None:
    ifs = law.ifs
    x0, x1 = (ifs.base.lo[0], ifs.base.hi[0]) if window is None else window
    x = torch.linspace(x0, x1, 8 * pixels, dtype=torch.float64)[:, None]
    f = _evaluate(model, x)
    low, high = (float(edge) for edge in np.clip([np.nanmin(f) - 0.1, np.nanmax(f) + 0.1], [-3, 1.2], [-1.2, 3]))
    cells = np.sort(_cells(ifs, np.array([ifs.base.lo, ifs.base.hi]), law.depth)[..., 0], axis=1)
    axes.set_facecolor(PALE_ORANGE)
    _fill(
        axes,
        np.stack([cells[:, [0, 1, 1, 0]], np.broadcast_to([low, low, high, high], (len(cells), 4))], -1),
        PALE_BLUE,
    )
    axes.axhline(0, color=INK, lw=0.8)
    axes.plot(x[:, 0].numpy(), f, color=INK, lw=1.8)
    axes.set(xlim=(x0, x1), ylim=(low, high), xlabel="x", ylabel="the network's output: positive or negative")
    axes.set_title(f"blue ground: $K_{{{law.depth}}}$, where it should be positive", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def _rest(law: FractalDistribution, at: np.ndarray | None) -> np.ndarray:
    """x_3, ..., x_d of the plane that is drawn: those given, or those of a point of the fractal."""
    ifs = law.ifs
    if at is not None:
        return at
    x = ifs.base.center
    for _ in range(law.depth):  # the middle of the first cell of K_n
        x = ifs.matrices[0] @ x + ifs.offsets[0]
    return x[2:]


def _plane(rest: np.ndarray) -> str:
    return ", ".join(f"$x_{{{i}}} = {value:.4g}$" for i, value in enumerate(rest, 3))


@torch.no_grad()
def _evaluate(model: torch.nn.Module, x: torch.Tensor) -> np.ndarray:
    dtype = next(model.parameters()).dtype
    return torch.cat([model(piece.to(dtype)) for piece in x.split(2**15)]).double().numpy()
