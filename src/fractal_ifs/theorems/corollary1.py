"""Corollary 1: for every s <= n, width 5 d r^s and depth 2 floor(n/s) + 2 are enough for zero error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fractal_ifs.config.keys import key
from fractal_ifs.errors import ConfigError, counted
from fractal_ifs.fractals.cube import CubeIFS
from fractal_ifs.networks.construction import (
    LARGEST_CHECKED,
    LARGEST_WIDTH,
    built_depth,
    built_width,
    check_width,
    corollary1_network,
    printed_width,
    split,
)
from fractal_ifs.plotting.style import INK
from fractal_ifs.theorems.problem import Check, Problem, Section, judged
from fractal_ifs.theorems.theorem1 import wrong_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class Settings(Section):
    """The section ``corollary1`` of conf/theory.yaml."""

    PREFIX: ClassVar[str] = "corollary1."

    points: int = key("points that a network is checked on", least=1, most=10**9)
    s: tuple[int, ...] | None = key("levels that a block folds; null: every s whose network is narrow enough", least=1)

    def check_for(self, ifs: CubeIFS, n: int) -> None:
        """Raises ConfigError for s > n, and where a network would be too wide."""
        for s in self.steps(ifs, n):
            try:
                split(n, s)
            except ConfigError as error:
                raise ConfigError(f"{self.PREFIX}{error}") from None
            check_width(ifs, s, f"{self.PREFIX}s={s}")

    def steps(self, ifs: CubeIFS, n: int) -> tuple[int, ...]:
        """Every s to check. Raises ConfigError where s=null finds none."""
        if self.s is not None:
            return self.s
        found = tuple(s for s in range(1, n + 1) if built_width(ifs, s) <= LARGEST_CHECKED)
        if not found:
            raise ConfigError(
                f"{self.PREFIX}s=null: with fractal.d={ifs.d} and {counted(ifs.r, 'map')} even s=1 is wider than "
                f"{LARGEST_CHECKED}; give s"
            )
        return found


def check(problem: Problem[Settings]) -> list[Check]:
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


def draw(problem: Problem[Settings], checks: list[Check], axes: Axes) -> None:
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
    axes.semilogx([built_width(ifs, s) for s in steps], built, "s-", label="built, for each s")
    for s, depth in zip(steps, built, strict=True):
        axes.annotate(str(s), (4 * ifs.d * ifs.r**s, depth), textcoords="offset points", xytext=(4, 4), fontsize=8)
    axes.axvline(LARGEST_WIDTH, color=INK, lw=0.5, label="wider ones are not built")
    axes.set(xlabel="width", ylabel="depth (readout counted)", title=f"Corollary 1: {ifs.name}, n = {n}")
    axes.legend()
