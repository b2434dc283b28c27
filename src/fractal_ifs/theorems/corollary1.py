"""Corollary 1: the depth, the width and the error of its network for each s."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fractal_ifs.fractals.cube import built_width
from fractal_ifs.networks.construction import corollary1_network
from fractal_ifs.networks.sizes import LARGEST_WIDTH, built_depth, printed_width
from fractal_ifs.plotting.style import INK
from fractal_ifs.theorems.keys import Corollary1
from fractal_ifs.theorems.problem import Check, Problem, judged
from fractal_ifs.theorems.theorem1 import wrong_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def check(problem: Problem[Corollary1]) -> list[Check]:
    """Every s of the settings, or all whose network is narrow enough. Raises ConfigError for s > n."""
    ifs, n = problem.ifs, problem.n
    rows = []
    for s in problem.settings.steps(ifs, n):
        model = corollary1_network(ifs, n, s, problem.gamma)
        wrong, count = wrong_points(model, problem)
        printed, blocks = 2 * (n // s) + 2, -(-n // s)
        depth, setting = model.depth + 1, f"{ifs.name} n={n} s={s}" + ("" if n % s == 0 else ", s doesn't divide n")
        values = {
            "s": s,
            "depth": depth,
            "width": model.width,
            "printed_depth": printed,
            "wrong": wrong,
            "points": count,
        }
        short = depth <= printed
        bound = f"width <= {printed_width(ifs, s)}, depth <= {printed}"
        if not short:
            bound += f" (as printed; 2 ceil(n/s) + 1 = {2 * blocks + 1} is proven)"
        right = wrong == 0 and model.width <= printed_width(ifs, s)
        rows.append(
            Check(
                "Corollary 1",
                setting,
                bound,
                f"width {model.width}, depth {depth}, {wrong} of {count:,} points wrong",
                **judged(right, None if short else "deeper"),
                values=values,
            )
        )
    return rows


def draw(problem: Problem[Corollary1], checks: list[Check], axes: Axes) -> None:
    """Depth against width, as printed and as built."""
    ifs, n = problem.ifs, problem.n
    most = n if ifs.r > 1 else 1  # with one map the networks of all s are the same
    steps = [s for s in range(1, most + 1) if printed_width(ifs, s) <= 1e6]
    axes.semilogx(
        [printed_width(ifs, s) for s in steps],
        [2 * (n // s) + 2 for s in steps],
        "o--",
        label="printed: 2 floor(n/s) + 2",
    )
    known = {check.values["s"]: check.values["width"] for check in checks}
    widths = [known.get(s) or built_width(ifs, s, n) for s in steps]
    depths = [built_depth(ifs, n, s) for s in steps]
    axes.semilogx(widths, depths, "s-", label="built, for each s")
    for s, width, depth in zip(steps, widths, depths, strict=True):
        axes.annotate(str(s), (width, depth), textcoords="offset points", xytext=(4, 4), fontsize=8)
    axes.axvline(LARGEST_WIDTH, color=INK, lw=0.5, label="wider ones are not built")
    axes.set(xlabel="width", ylabel="depth (readout counted)", title=f"Corollary 1: {ifs.name}, n = {n}")
    axes.locator_params(axis="y", integer=True)
    axes.legend()
