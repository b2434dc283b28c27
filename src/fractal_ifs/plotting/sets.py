"""The sets K_0..K_n of a fractal in one, two or three dimensions.

What is left of K_0 is blue. The places where the negative points of a level lie are orange.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LightSource
from matplotlib.figure import SubFigure
from matplotlib.patches import Polygon
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from fractal_ifs.fractals.convex import Box, Convex
from fractal_ifs.fractals.ifs import AffineIFS
from fractal_ifs.plotting.style import BLUE, FAINT, ORANGE

MAX_CELLS = {1: 20_000, 2: 40_000, 3: 600}  # the most cells that a panel shows, by dimension
MAX_PANELS = 9


def shown_levels(ifs: AffineIFS, n: int) -> list[int]:
    """The levels j <= n whose sets K_j have few enough cells to be drawn."""
    return [j for j in range(n + 1) if ifs.r**j <= MAX_CELLS[ifs.d]][:MAX_PANELS]


def draw_sets(parent: SubFigure, ifs: AffineIFS, levels: Sequence[int], per_row: int | None = None) -> None:
    """Draw K_j for each level j: one panel each, or one row each on a line. The fractal must have d <= 3.

    Args:
        per_row: of the panels. None: all.
    """
    _DRAW[ifs.d](parent, ifs, levels, per_row or len(levels))


def cells(ifs: AffineIFS, corners: np.ndarray, j: int) -> np.ndarray:
    """The images (r^j, k, d) of corners (k, d) under all compositions of j maps: the cells of K_j."""
    matrices, offsets = ifs.maps(j)
    return corners @ matrices.transpose(0, 2, 1) + offsets[:, None]


def outline(body: Convex) -> np.ndarray:
    """The corners (k, 2) of a set in the plane, in order around it."""
    if isinstance(body, Box):
        (x0, y0), (x1, y1) = body.lo, body.hi
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    return body.vertices


def fill(axes: Axes, polygons: np.ndarray, color: str, **style: Any) -> None:
    """Fill polygons (p, k, 2).

    A hairline in the same colour closes the seams between neighbours. Many polygons are not snapped to pixels: that
    would change the size of tiny ones.
    """
    many = len(polygons) > 50
    style = {"linewidths": 0.15, "edgecolors": color, "rasterized": len(polygons) > 2000, "snap": not many, **style}
    axes.add_collection(PolyCollection(list(polygons), facecolors=color, **style))


def frame(axes: Any, ifs: AffineIFS, window: np.ndarray | None = None) -> None:
    """Show K_0, or the window (x0, x1 or x0, x1, y0, y1), to scale, with the coordinates' names. 3D axes for d = 3."""
    lo, hi = (ifs.base.lo, ifs.base.hi) if window is None else (window[::2], window[1::2])
    slack = 0.02 * (hi - lo) if window is None else 0 * lo
    axes.set_xlim(lo[0] - slack[0], hi[0] + slack[0])
    axes.tick_params(labelsize=8, color=FAINT)
    axes.set_xlabel("$x_1$" if ifs.d > 1 else "$x$", fontsize=9, labelpad=1)
    if ifs.d > 1:
        axes.set_ylabel("$x_2$", fontsize=9, labelpad=1)
    if ifs.d == 1:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return
    axes.set_ylim(lo[1] - slack[1], hi[1] + slack[1])
    if ifs.d == 3:
        axes.set_zlim(lo[2] - slack[2], hi[2] + slack[2])
        axes.set_zlabel("$x_3$", fontsize=9, labelpad=1)
        axes.set_box_aspect(hi - lo)
        axes.view_init(elev=20, azim=-58)
    else:
        axes.set_aspect("equal")
        axes.spines[:].set_color(FAINT)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis) if ifs.d == 3 else (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def _on_a_line(parent: SubFigure, ifs: AffineIFS, levels: Sequence[int], _: int) -> None:
    axes = parent.add_subplot()
    corners = np.array([ifs.base.lo, ifs.base.hi])
    negatives = corners if ifs.negatives is None else np.array([ifs.negatives.lo, ifs.negatives.hi])

    def strips(corners: np.ndarray, level: int, row: int) -> np.ndarray:
        ends = np.sort(cells(ifs, corners, level)[..., 0], axis=1)
        y = np.broadcast_to([-row - 0.3, -row - 0.3, -row + 0.3, -row + 0.3], (len(ends), 4))
        return np.stack([ends[:, [0, 1, 1, 0]], y], -1)

    finest = _three_pixels(parent, ifs, 1)
    for j in levels:
        # A hairline of blue would cover negatives that are narrower than it.
        fine = {"linewidths": 0} if _width(cells(ifs, corners, j)) <= finest else {}
        if j:
            fill(axes, strips(negatives, j - 1, j), ORANGE, **fine)
        fill(axes, strips(corners, j, j), BLUE, **fine)
    axes.set(xlim=(ifs.base.lo[0], ifs.base.hi[0]), ylim=(-levels[-1] - 0.5, 0.5))
    axes.set_yticks([-j for j in levels], [f"$K_{{{j}}}$" for j in levels])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _in_the_plane(parent: SubFigure, ifs: AffineIFS, levels: Sequence[int], per_row: int) -> None:
    corners = outline(ifs.base)
    negatives = corners if ifs.negatives is None else outline(ifs.negatives)
    finest = _three_pixels(parent, ifs, per_row)
    for i, j in enumerate(levels):
        axes = parent.add_subplot(-(-len(levels) // per_row), per_row, i + 1)
        within = _within(ifs, corners, j, finest)
        cell = cells(ifs, corners, within)[0]  # what the panel shows
        fill(axes, cell[None], "white", edgecolors=FAINT, linewidths=0.6)
        if j:
            fill(axes, cells(ifs, negatives, j - 1), ORANGE)
        fill(axes, cells(ifs, corners, j), BLUE)
        _bare_panel(axes, ifs, j)
        if within:
            for part in axes.collections[1:]:  # nothing of the cells beside it
                part.set_clip_path(Polygon(cell, transform=axes.transData))
            lo, hi = cell.min(0), cell.max(0)
            slack = 0.02 * (hi - lo)
            axes.set_xlim(lo[0] - slack[0], hi[0] + slack[0])
            axes.set_ylim(lo[1] - slack[1], hi[1] + slack[1])
            axes.set_title(f"$K_{{{j}}}$\nin a cell of $K_{{{within}}}$", fontsize=12)


def _in_space(parent: SubFigure, ifs: AffineIFS, levels: Sequence[int], per_row: int) -> None:
    corners = ifs.base.vertices
    faces = _faces(ifs.base)
    for i, j in enumerate(levels):
        axes: Any = parent.add_subplot(-(-len(levels) // per_row), per_row, i + 1, projection="3d")
        polygons = cells(ifs, corners, j)[:, faces].reshape(-1, faces.shape[1], 3)
        light = LightSource(azdeg=-100, altdeg=45)
        axes.add_collection3d(Poly3DCollection(polygons, facecolors=BLUE, shade=True, lightsource=light, linewidths=0))
        _bare_panel(axes, ifs, j)


_DRAW: dict[int, Callable[[SubFigure, AffineIFS, Sequence[int], int], None]] = {
    1: _on_a_line,
    2: _in_the_plane,
    3: _in_space,
}


def _bare_panel(axes: Any, ifs: AffineIFS, j: int) -> None:
    frame(axes, ifs)
    axes.set_axis_off()
    axes.set_title(f"$K_{{{j}}}$", fontsize=12)


def _three_pixels(parent: SubFigure, ifs: AffineIFS, panels: int) -> float:
    """The width of three pixels on a screen."""
    return float(np.max(ifs.base.hi - ifs.base.lo)) * 3 * panels / (150 * parent.figure.get_figwidth())


def _width(boxes: np.ndarray) -> float:
    """The usual width of cells (p, k, d)."""
    return float(np.median(np.ptp(boxes, axis=1)))


def _within(ifs: AffineIFS, corners: np.ndarray, j: int, finest: float) -> int:
    """The level of the cell that K_j is shown in: 0, or where its cells are no wider than ``finest`` the coarsest in
    which they are enlarged to more than twice that."""
    whole, fine = _width(corners[None]), _width(cells(ifs, corners, j))
    if fine > finest:
        return 0
    return next(n for n in range(j + 1) if n == j or fine * whole / _width(cells(ifs, corners, n)) > 2 * finest)


def _faces(body: Convex) -> np.ndarray:
    """The faces of a solid, as rows of indices into its vertices, outwards: squares for a box, otherwise triangles."""
    from scipy.spatial import ConvexHull

    if isinstance(body, Box):
        return np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    return ConvexHull(body.vertices).simplices
