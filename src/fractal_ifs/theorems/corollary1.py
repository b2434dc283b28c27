"""Corollary 1: for every s <= n, width 5 d r^s and depth 2 floor(n/s) + 2 are enough for zero error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fractal_ifs.errors import ConfigError
from fractal_ifs.theorems.construction import (
    LARGEST_CHECKED,
    LARGEST_WIDTH,
    built_depth,
    built_width,
    corollary1_network,
    printed_width,
)
from fractal_ifs.theorems.problem import Check, Problem
from fractal_ifs.theorems.theorem1 import wrong_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def check(problem: Problem) -> list[Check]:
    """Every s of the settings, or all whose network is narrow enough. Raises ConfigError for s > n."""
    ifs, n = problem.ifs, problem.n
    given = problem.settings.get("s")
    if given is None:
        given = [s for s in range(1, n + 1) if built_width(ifs, s) <= LARGEST_CHECKED]
        if not given:
            raise ConfigError(f"s=null: even s=1 is wider than {LARGEST_CHECKED}; give s")
    rows = []
    for s in given:
        model = corollary1_network(ifs, n, int(s), problem.gamma)
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
                (True if short else None) if right else False,
                values,
            )
        )
    return rows


def draw(problem: Problem, checks: list[Check], axes: Axes) -> None:
    """Depth against width, as printed and as built."""
    ifs, n = problem.ifs, problem.n
    steps = [s for s in range(1, n + 1) if printed_width(ifs, s) <= 1e6]
    axes.semilogx(
        [printed_width(ifs, s) for s in steps],
        [2 * (n // s) + 2 for s in steps],
        "o--",
        label="printed: 2 floor(n/s) + 2",
    )
    built = [built_depth(ifs, n, s) for s in steps]
    axes.semilogx([built_width(ifs, s) for s in steps], built, "s-", label="built")
    for s, depth in zip(steps, built, strict=True):
        axes.annotate(f"s={s}", (4 * ifs.d * ifs.r**s, depth), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.axvline(LARGEST_WIDTH, color="grey", lw=0.5)
    axes.set(xlabel="width", ylabel="depth (readout counted)", title=f"Corollary 1: {ifs.name}, n = {n}")
    axes.legend(fontsize=7)
