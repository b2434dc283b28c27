"""Corollary 2 (4 on arXiv): the fine Cantor distribution, as it is built, counted and not learned.

The text takes the fine Cantor distribution of depth n = t/2 and Theorem 1. That gives depth 2n + 1 = t + 1, not t, and
counting pieces gives 2^n - 1 units, not 2^(t-1). Folding three levels per layer (see `fold`) mends both: n = 3t - 4
with width 8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from fractal_ifs.theorems.depths import folded_depth, folding_depth, least_depths, least_level
from fractal_ifs.theorems.fold import CANTOR, fold_network
from fractal_ifs.theorems.keys import Corollary2
from fractal_ifs.theorems.learn import seeded_networks
from fractal_ifs.theorems.line import sign_changes, stacked
from fractal_ifs.theorems.measure import ROUNDING, LineDistribution, best_error, masses_of_pieces
from fractal_ifs.theorems.problem import Check, Problem, judged
from fractal_ifs.theorems.samples import labelled_points
from fractal_ifs.theorems.theorem5 import affine_level, gradient_sizes, networks_with_bias

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def fine(n: int) -> LineDistribution:
    """The fine Cantor distribution of depth n: every negative is of level n."""
    law = np.zeros(n + 1)
    law[-2:] = 0.5
    return LineDistribution(CANTOR, law, 3.0**-n / 8)


def check(problem: Problem[Corollary2]) -> list[Check]:
    """The three claims for one k and delta, at the least depth t that n = 3 t - 4 allows."""
    keys = problem.settings
    k, delta, count = keys.width, keys.delta, keys.initialisations
    printed, t = least_depths(k, delta, min(keys.biases))
    n = folded_depth(t)
    name = f"fine Cantor n={n}, k={k} t={t} delta={delta:g}"
    seen = min(t, 7)  # deeper, the rounding of x alone crosses the boundaries of a few cells in a million
    depth = folded_depth(seen)
    x, y, _ = labelled_points(
        CANTOR, depth, 3.0**-depth / 4, min(problem.points, 200_000), problem.rng(), fine(depth).law
    )
    with torch.no_grad():
        wrong = int((fold_network(seen)(torch.from_numpy(x)).numpy() * y <= 0).sum())
    rows = [
        Check(
            "Corollary 2.1: realised",
            f"{name} b={min(keys.biases):g}; with n = t/2, as in the text, t >= {printed}",
            "depth t, width 10, error 0",
            f"width 8; checked for t={seen}, n={depth}: {wrong} of {len(x):,} points wrong",
            wrong == 0,
            {"n": n, "t": t, "printed_t": printed, "wrong": wrong},
        )
    ]
    for small in (3, 4):  # exact, where all cells can be listed
        depth = folded_depth(small)
        distribution = fine(depth)
        exact = distribution.error(stacked([fold_network(small)]))[0]
        least = best_error(masses_of_pieces(distribution), 2**depth + 1)
        units = int(np.argmax(least < 1e-9)) - 1  # k units: k + 1 pieces, k + 1 sign changes
        rows.append(
            Check(
                "Corollary 2.2: not by one layer",
                f"fine Cantor n={depth}, t={small}",
                f"at least 2^(t-1) = {2 ** (small - 1)} units",
                f"needs {units} units (2^n - 1); folded network's exact error {exact:.1e}, "
                f"{int(sign_changes(stacked([fold_network(small)]), -1.0, 2.0))} sign changes",
                bool(units >= 2 ** (small - 1) and exact < 1e-10),
                {"t": small, "n": depth, "units": units, "exact_error": float(exact)},
            )
        )
    for bias in keys.biases:
        parameters = networks_with_bias(count, k, t, bias, torch.Generator().manual_seed(problem.seed))
        distribution = fine(n)
        sizes = np.maximum(*gradient_sizes(distribution, parameters))
        wrong = distribution.error(parameters)
        stuck = (sizes < ROUNDING) & (np.abs(wrong - 0.5) < ROUNDING)
        required = least_level(k, t, delta, bias)
        rows.append(
            Check(
                "Corollary 2.3: not learned",
                f"{name} b={bias:g}, {count} initialisations" + ("" if required < n else f"; needs n > {required}"),
                f"gradient 0 and error 1/2 for at least {1 - delta:g}",
                f"{stuck.mean():.4f}; affine on C_{n - 1}: {(affine_level(parameters, n) < n).mean():.4f}",
                **judged(
                    bool(stuck.mean() >= 1 - delta) or required >= n,
                    "unmet" if required >= n else "vacuous" if bias == 0.5 else None,
                ),
                values={"b": bias, "share": float(stuck.mean()), "largest": float(sizes.max())},
            )
        )
    steps = keys.train_steps
    x, y, _ = labelled_points(CANTOR, n, 3.0**-n / 4, 50_000, problem.rng(), fine(n).law)
    trained = problem.train(seeded_networks(1, k, t - 1, range(8), "theory"), x, y, steps, 1e-3)
    final = fine(n).error(trained)
    rows.append(
        Check(
            "Corollary 2.3: not learned",
            f"{name}, {steps} steps of Adam on samples, 8 seeds",
            "error about 1/2 (a population statement: samples move it)",
            f"exact error {final.min():.4f}..{final.max():.4f}",
            None,
            {"errors": final.tolist()},
            "compare",
        )
    )
    return rows


def draw(problem: Problem[Corollary2], checks: list[Check], axes: Axes) -> None:
    """The exact error of what is built and of what training finds, on one fine Cantor distribution after another."""
    steps, depths = problem.settings.train_steps, range(1, 9)
    folds = {folded_depth(t): fold_network(t) for t in {folding_depth(n) for n in depths}}
    built = [(n, fine(n).error(stacked([folds[n]]))[0]) for n in depths if n in folds]
    axes.plot(*zip(*built, strict=True), "o", label="constructed: width 8, depth (n + 4) / 3")

    def trained(n: int, init: str) -> float:
        distribution = fine(n)
        x, y, _ = labelled_points(CANTOR, n, 3.0**-n / 8, 20_000, problem.rng(), distribution.law)
        networks = problem.train(seeded_networks(1, 10, 4, range(8), init), x, y, steps, 3e-3)
        return float(distribution.error(networks).min())

    for init, marker in (("paper", "s"), ("theory", "^")):
        errors = problem.once(init, lambda init=init: [trained(n, init) for n in depths])
        label = f"trained: width 10, 4 hidden, {init} init,\n{steps} steps, best of 8"
        axes.plot(depths, errors, "-", marker=marker, ms=4, label=label)
    axes.set(xlabel="n", ylabel="exact error", title="Corollary 2: the fine Cantor distribution", ylim=(-0.02, 0.52))
    axes.legend()
