"""Theorem 1: the depth, the width and the error of its network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from fractal_ifs.networks.construction import theorem1_network
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.networks.sizes import printed_width
from fractal_ifs.plotting.style import BLUE, FAINT, INK, PALE_ORANGE, signs
from fractal_ifs.theorems.keys import Section
from fractal_ifs.theorems.problem import Check, Problem
from fractal_ifs.theorems.samples import labelled_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHUNK = 100_000


def wrong_points(model: MLP, problem: Problem[Section]) -> tuple[int, int]:
    """How many of how many points the model gets wrong, in float64: of `labelled_points`, the hard ones."""
    rng, wrong, done = problem.rng(), 0, 0
    while done < problem.points:
        count = min(CHUNK, problem.points - done)
        x, y, _ = labelled_points(problem.ifs, problem.n, problem.gamma, count, rng, hard=True)
        with torch.no_grad():
            wrong += int((model(torch.from_numpy(x)).numpy() * y <= 0).sum())
        done += count
    return wrong, done


def check(problem: Problem[Section]) -> list[Check]:
    """Depth, width and error of the construction. Raises ConfigError where an assumption fails."""
    ifs, n = problem.ifs, problem.n
    model = theorem1_network(ifs, n, problem.gamma)
    wrong, count = wrong_points(model, problem)
    depth, width = model.depth + 1, model.width
    setting = (
        f"{ifs.name} d={ifs.d} r={ifs.r} n={n} epsilon={ifs.epsilon * ifs.side.min():.3g} gamma={problem.gamma:.2g}"
    )
    largest = max(float(p.detach().abs().max()) for p in model.parameters())
    return [
        Check("Theorem 1: depth", setting, f"2n+1 = {2 * n + 1}", str(depth), depth == 2 * n + 1, {"depth": depth}),
        Check(
            "Theorem 1: width",
            setting,
            f"5dr = {printed_width(ifs)}",
            str(width),
            width <= printed_width(ifs),
            {"width": width},
        ),
        Check(
            "Theorem 1: error",
            setting,
            "0",
            f"{wrong} of {count:,} points",
            wrong == 0,
            {"wrong": wrong, "points": count, "largest_weight": largest},
        ),
    ]


def draw(problem: Problem[Section], checks: list[Check], axes: Axes) -> None:
    """The output of the network, which is +-1/2 but for thin ramps; where d = 3, in a plane."""
    ifs = problem.ifs
    n = 1  # deep enough that a cell is still a few pixels wide
    while n < problem.n and 2 * ifs.inradius(n + 1) / ifs.side.max() > 0.02:
        n += 1
    model = theorem1_network(ifs, n, ifs.inradius(n) / 4)
    plane = ""
    if ifs.d == 1:
        x = np.linspace(ifs.low[0] - 0.1, ifs.low[0] + ifs.side[0] + 0.1, 4001)
        with torch.no_grad():
            axes.plot(x, model(torch.from_numpy(x[:, None])), lw=0.8)
        axes.axhline(0, color=INK, lw=0.5)
    else:
        from matplotlib.patches import Patch

        side = 500
        grid = np.stack(np.meshgrid(*[np.linspace(-0.05, 1.05, side)] * 2, indexing="xy"), -1).reshape(-1, 2)
        x = np.full((len(grid), ifs.d), 0.5)
        word = ifs.words(n)  # the plane through the first cell's centre, where d = 3
        x[:] = word.offsets[0] + word.matrices[0].sum(1) / 2
        x[:, :2] = grid
        plane = "".join(f", $x_{{{axis + 1}}}$ = {(ifs.low + ifs.side * x[0])[axis]:.3g}" for axis in range(2, ifs.d))
        with torch.no_grad():
            f = model(torch.from_numpy(ifs.low + ifs.side * x)).numpy().reshape(side, side)
        low, high = ifs.low - 0.05 * ifs.side, ifs.low + 1.05 * ifs.side
        axes.imshow(f, origin="lower", extent=(low[0], high[0], low[1], high[1]), cmap=signs(), vmin=-0.5, vmax=0.5)
        axes.grid(False)
        said = {BLUE: f"1/2: positive, as $K_{{{n}}}$ is", PALE_ORANGE: "-1/2: negative", "white": "between the two"}
        key = [Patch(facecolor=color, edgecolor=FAINT, label=text) for color, text in said.items()]
        axes.figure.legend(handles=key, loc="outside lower center")
        axes.set(xlabel="$x_1$", ylabel="$x_2$")
    # Over the figure, which is wider than a square panel.
    axes.figure.suptitle(
        f"Theorem 1: {ifs.name}, n = {n}\nthe output of width {model.width}, depth {model.depth + 1}{plane}",
        fontsize=10,
    )
