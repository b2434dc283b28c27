"""What a trained network has learned: its decision regions over the fractal, and its test accuracy by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fractal_ifs.fractals.distribution import FractalDistribution
from fractal_ifs.fractals.membership import deepest
from fractal_ifs.plotting.sets import MAX_CELLS, cells, fill, outline
from fractal_ifs.plotting.style import (
    ACCENT,
    BLUE,
    FAINT,
    INK,
    ORANGE,
    PALE_BLUE,
    PALE_ORANGE,
    Output,
    literal,
    plain_axes,
    thousands,
)
from fractal_ifs.runs.load import Finished
from fractal_ifs.runs.predict import outputs
from fractal_ifs.runs.records import Status


def draw_network(
    run: Finished,
    window: np.ndarray | None = None,
    at: np.ndarray | None = None,
    pixels: int = 800,
    output: Output = Output(),  # noqa: B008 (it is frozen)
) -> Figure:
    """The decision regions of a finished run's network over its fractal, and its test accuracy by step.

    For d = 1 the network's output is drawn instead of regions.

    Args:
        run: a run on a fractal, of any d.
        window: (4,) x0, x1, y0, y1, or (2,) x0, x1 for d = 1: the part that is drawn. None: K_0.
        at: (d - 2,) the coordinates x_3, ..., x_d of the plane that is drawn. None: those of a point of the fractal.
        pixels: of the regions, per side.
        output: much narrower than the picture would be, it has its panels below each other.
    """
    config, record = run.config, run.record
    law = FractalDistribution(config.fractal.ifs, config.curve.curve, config.fractal.depth)
    column = output.width if output.width is not None and output.width < 8 else None
    size = (11.2, 6.0) if column is None else (column, 1.9 * column)
    figure = Figure(figsize=size, layout="constrained")
    own = config.targets.get("model._target_")  # a class, whose layers it knows alone
    network = "{} hidden layers of {} units" if own is None else literal(own) + " of depth {} and width {}"
    steps, accuracy = (record.steps, record.final_test_acc) if run.step is None else (run.step, run.accuracy)
    figure.suptitle(
        f"{literal(record['fractal'])} of depth {record['fractal_depth']}, curve {literal(record['curve'])}: "
        f"{network.format(record['depth'], record['width'])} after {steps:,} steps"
        + (", where it diverged" if record.status == Status.DIVERGED else "")
        + ("" if accuracy is None else f", test accuracy {accuracy:.4f}"),
        fontsize=13,
        color=INK,
    )
    if column is None:
        left, right = figure.subfigures(1, 2, width_ratios=[6, 5.2], squeeze=False)[0]
    else:
        left, right = figure.subfigures(2, 1, height_ratios=[6, 4], squeeze=False)[:, 0]
    axes = left.add_subplot()
    if law.d == 1:
        _draw_output(axes, law, run.model, window, pixels)
    else:
        _draw_regions(axes, law, run.model, window, at, pixels)
    _draw_history(right.add_subplot(), run, law)
    return figure


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
    rest = _point_of_fractal(law)[2:] if at is None else at
    columns = (np.arange(pixels) + 0.5) / pixels
    grid = np.stack(np.meshgrid(x0 + columns * (x1 - x0), y0 + columns * (y1 - y0)), -1).reshape(-1, 2)
    x = torch.tensor(np.column_stack([grid, np.tile(rest, (len(grid), 1))]))
    f = outputs(model, x).double().numpy().reshape(pixels, pixels)
    inside = (deepest(ifs, x, law.depth) == law.depth).reshape(pixels, pixels).numpy()
    axes.imshow(
        np.where(np.isnan(f), 4, (f > 0) + 2 * inside),
        # outside K_n, answer negative and positive; in K_n, answer negative and positive; not a number
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
    plane = ", ".join(f"$x_{{{i}}} = {value:.4g}$" for i, value in enumerate(rest, 3))
    where = f"\nin the plane {plane}" if plane else ""
    axes.set_title(f"blue: it says positive, orange: negative; strong colours: $K_{{{law.depth}}}${where}", fontsize=11)
    axes.set(xlim=(x0, x1), ylim=(y0, y1), xlabel="$x_1$", ylabel="$x_2$")
    axes.tick_params(labelsize=9)
    axes.spines[:].set_visible(False)


def _outline_negatives(axes: Axes, law: FractalDistribution, pixel: float) -> None:
    """Outline the boxes in which negatives lie, where these are not all that the fractal leaves out.

    Boxes of a few pixels are left out. ``pixel``: the side of one.
    """
    assert law.ifs.negatives is not None
    for level in range(1, law.depth + 1):
        if law.ifs.r ** (level - 1) > MAX_CELLS[2]:
            break
        boxes = cells(law.ifs, outline(law.ifs.negatives), level - 1)
        if np.median(np.ptp(boxes, axis=1)) > 6 * pixel:
            axes.add_collection(PolyCollection(list(boxes), facecolors="none", edgecolors="#b35400", linewidths=0.7))


def _draw_output(
    axes: Axes, law: FractalDistribution, model: torch.nn.Module, window: np.ndarray | None, pixels: int
) -> None:
    """The output of a network of one input, over the cells of K_n."""
    ifs = law.ifs
    x0, x1 = (ifs.base.lo[0], ifs.base.hi[0]) if window is None else window
    x = torch.linspace(x0, x1, 8 * pixels, dtype=torch.float64)[:, None]
    f = outputs(model, x).double().numpy()
    told = f[np.isfinite(f)] if np.isfinite(f).any() else np.zeros(1)  # a network that has diverged may say nothing
    low, high = (float(edge) for edge in np.clip([told.min() - 0.1, told.max() + 0.1], [-3, 1.2], [-1.2, 3]))
    ends = np.sort(cells(ifs, np.array([ifs.base.lo, ifs.base.hi]), law.depth)[..., 0], axis=1)
    axes.set_facecolor(PALE_ORANGE)
    fill(
        axes,
        np.stack([ends[:, [0, 1, 1, 0]], np.broadcast_to([low, low, high, high], (len(ends), 4))], -1),
        PALE_BLUE,
    )
    axes.axhline(0, color=INK, lw=0.8)
    axes.plot(x[:, 0].numpy(), f, color=INK, lw=1.8)
    axes.set(xlim=(x0, x1), ylim=(low, high), xlabel="x", ylabel="the network's output: positive or negative")
    axes.set_title(f"blue ground: $K_{{{law.depth}}}$, where it should be positive", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def _point_of_fractal(law: FractalDistribution) -> np.ndarray:
    """The middle (d,) of the first cell of K_n."""
    x = law.ifs.base.center
    for _ in range(law.depth):
        x = law.ifs.matrices[0] @ x + law.ifs.offsets[0]
    return x


def _draw_history(axes: Axes, run: Finished, law: FractalDistribution) -> None:
    """Test accuracy by step, with a line at each P(j): what a network that resolves K_j can reach."""
    history, record = run.history, run.record
    last = 0.4
    for j, p in enumerate(law.approximation_curve()):
        axes.axhline(p, color=FAINT, lw=0.8, zorder=0)
        if p - last > 0.02:  # otherwise the labels would cover each other
            axes.annotate(
                f"P({j})", (1.01, p), xycoords=("axes fraction", "data"), va="center", fontsize=9, color="gray"
            )
            last = p
    axes.plot(
        history["step"], history["test_acc"], "-", color=INK, lw=1.4, marker="o" if len(history) < 40 else None, ms=3.5
    )
    if len(history) and record.best_test_acc is not None and record.best_step:
        best = (record.best_step, record.best_test_acc)
        axes.plot(*best, "o", ms=8, mfc="none", mec=ACCENT, mew=1.8)
        near_end = best[0] > 0.7 * max(history["step"])
        style: dict[str, Any] = {
            "ha": "right" if near_end else "center",
            "textcoords": "offset points",
            "color": ACCENT,
        }
        axes.annotate(f"best {best[1]:.4f}", best, (0, 9), **style)
    axes.set(xlabel="optimizer steps", ylim=(min([0.5, *history["test_acc"].dropna()]) - 0.02, 1.04))
    axes.set_xlim(0, max([1, *history["step"]]) * 1.04)
    axes.set_title("test accuracy; P(j): with $K_j$ resolved", fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(thousands)
    plain_axes(axes)
    axes.grid(False)
