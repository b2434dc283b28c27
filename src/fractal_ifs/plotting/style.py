"""The colours of the paper, and axes without decoration. This module imports no matplotlib, so anyone may import it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE = "#1f77b4", "#ff7f0e"  # positive points (K_n) and negative points
PALE_BLUE, PALE_ORANGE = "#a9cbe6", "#ffd2a3"  # the network's answer outside K_n: positive, negative
INK, FAINT, ACCENT = "#222222", "#d9d9d9", "#c2185b"  # text and lines, grids and frames, what to look at


def literal(text: object) -> str:
    """A text as matplotlib writes it letter by letter: a dollar begins no formula."""
    return str(text).replace("$", r"\$")


def plain_axes(axes: Axes) -> None:
    """Leave only the left and the lower axis, with faint horizontal grid lines behind the curves."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.grid(axis="y", color=FAINT, lw=0.5)
    axes.set_axisbelow(True)
