"""Theorem 3: the errors of networks that resolve K_j, which are Corollary 1's for n = j.

Their depth is t = 2 floor(j/s) + 2 and their width 5 d r^s. Where s doesn't divide j and d > 1, ours are one layer
deeper, as for Corollary 1: such a row doesn't show the statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from fractal_ifs.fractals.cube import built_width
from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.networks.construction import corollary1_network
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.networks.sizes import LARGEST_CHECKED, printed_width
from fractal_ifs.theorems.keys import Section, Theorem3
from fractal_ifs.theorems.learn import error_on, seeded_networks
from fractal_ifs.theorems.problem import Check, Problem, judged
from fractal_ifs.theorems.samples import labelled_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = ("1", "2", "3", "4", "5", "6")
PER_LEVEL = 4000
SEEDS, LRS = range(4), (1e-3, 4e-3)  # of the networks that the figure trains


def level_errors(problem: Problem[Section], model: MLP) -> np.ndarray:
    """(n + 1,): what share of D_n's negatives of each level, then of its positives, a network gets wrong."""
    ifs, n = problem.ifs, problem.n
    x, y, level = labelled_points(ifs, n, problem.gamma, PER_LEVEL * (n + 1), problem.rng())
    with torch.no_grad():
        wrong = model(torch.from_numpy(x)).numpy() * y <= 0
    return np.array([wrong[level == i].mean() for i in range(1, n + 2)])


def curves(problem: Problem[Section]) -> dict[str, ApproximationCurve]:
    """The problem's own curve and the paper's six, where they fit n."""
    found = {problem.curve.name: problem.curve}
    found |= {c: ApproximationCurve.load(c) for c in CURVES}
    return {name: c for name, c in found.items() if c.fits(problem.n)}


def check(problem: Problem[Section]) -> list[Check]:
    """All curves, s = 1 and 2, j from s on: no error on levels 1..j and positives, so the error is at most 1 - P(j).

    And the depth and the width are at most those of the statement.
    """
    ifs, n = problem.ifs, problem.n
    rows = []
    for s in (1, 2):
        if built_width(ifs, s) > LARGEST_CHECKED:
            continue
        for j in range(s, n + 1):
            model = corollary1_network(ifs, j, s, problem.gamma)
            wrong = level_errors(problem, model)
            per_curve = {
                name: (float(c.level_probabilities(n) @ wrong), float(1 - c.P(n)[j]))
                for name, c in curves(problem).items()
            }
            measured, bound = per_curve[problem.curve.name]
            slack = max(b - m for m, b in per_curve.values())
            depth, width = model.depth + 1, model.width
            printed, wide = 2 * (j // s) + 2, printed_width(ifs, s)
            right = all(m <= b + 1e-12 for m, b in per_curve.values()) and width <= wide
            rows.append(
                Check(
                    "Theorem 3",
                    f"{ifs.name} n={n}, network for K_{j}, s={s}, curve {problem.curve.name}",
                    f"error <= 1 - P({j}) = {bound:.4f}; depth <= {printed}, width <= {wide}",
                    f"error {measured:.4f}; on {len(per_curve)} curves at most {slack:.4f} under the bound; "
                    f"depth {depth}, width {width}",
                    **judged(right, None if depth <= printed else "deeper"),
                    values={
                        "j": j,
                        "s": s,
                        "depth": depth,
                        "printed_depth": printed,
                        "width": width,
                        "curves": per_curve,
                        "levels": wrong.tolist(),
                    },
                )
            )
    return rows


def draw(problem: Problem[Theorem3], checks: list[Check], axes: Axes) -> None:
    """1 - P(j), and the best error that a short training finds with as many layers as the construction has, 2 j."""
    ifs, n, steps, width = problem.ifs, problem.n, problem.settings.train_steps, problem.settings.width
    axes.plot(range(n + 1), 1 - problem.P, "o-", label="1 - P(j)")
    best = problem.once("best", lambda: _trained(problem))
    of = f"{len(SEEDS)} seeds at {len(LRS)} learning rates each"
    label = f"trained: 2j hidden layers of {width}, {steps} steps,\nthe best of {of}"
    axes.plot(range(1, n + 1), best, "s--", label=label)
    axes.set(
        xlabel="j", ylabel="error", title=f"Theorem 3: {ifs.name}, n = {n}, curve {problem.curve.name}", ylim=(0, None)
    )
    axes.locator_params(axis="x", integer=True)
    axes.figure.legend(loc="outside lower center")  # below: no line runs through it


def _trained(problem: Problem[Theorem3]) -> list[float]:
    """The best error of 2 j hidden layers, for each j from 1."""
    ifs, n, steps, width = problem.ifs, problem.n, problem.settings.train_steps, problem.settings.width
    rng = problem.rng()
    x, y, _ = labelled_points(ifs, n, problem.gamma, 50_000, rng, problem.law)
    x_test, y_test, _ = labelled_points(ifs, n, problem.gamma, 10_000, rng, problem.law)

    def error(j: int, lr: float) -> float:
        networks = problem.train(seeded_networks(ifs.d, width, 2 * j, SEEDS), x, y, steps, lr)
        return float(error_on(networks, x_test, y_test).min())

    return [min(error(j, lr) for lr in LRS) for j in range(1, n + 1)]
