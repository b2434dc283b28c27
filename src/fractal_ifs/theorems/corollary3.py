"""Corollary 3 (5 on arXiv): what its hypothesis forces, and a repaired one.

As printed it is vacuous. By its hypothesis, networks of width 10 and any depth t' < n err by at least
1/2 - eps^(n - t'). But the folded network, of width 8 and depth t' = ceil((n + 4) / 3), realises C_n for every curve.
So eps^(n - t') >= 1/2, hence 5 eps^(n/2) > 2.9 and 1/2 - (3/2) eps^(n/2) < 0: both bounds say nothing. The same network
makes the proof's own hypothesis false, that those of depth 2n' + 1 err by at least 1/2 - eta, for all n < 6n' and
eta < 1/2.

Repaired, it takes less depth: if networks of width 8 and depth t' = ceil((n' + 4) / 3) err by at least 1/2 - eta, then
P(n') - 1/2 <= eta, as the folded network for C_m with m = 3t' - 4 >= n' errs by at most 1 - P(m). Then Theorem 5 gives
the bounds 5 eta and 1/2 - (3/2) eta. The hypothesis is shown for the eta that the count of linear pieces gives, see
`theorem4.proven_bounds`.
"""

from __future__ import annotations

import numpy as np
import torch

from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.theorems.depths import folding_depth, least_level
from fractal_ifs.theorems.fold import CANTOR
from fractal_ifs.theorems.keys import Corollary3
from fractal_ifs.theorems.measure import ROUNDING, LineDistribution
from fractal_ifs.theorems.problem import Check, Problem, Why, judged
from fractal_ifs.theorems.theorem4 import proven_bounds
from fractal_ifs.theorems.theorem5 import gradient_sizes, networks_with_bias, trivial

FOLDED = 8  # the width of the folded network


def forced(n: int) -> float:
    """The least eps^(n/2) that the hypothesis allows: the folded network has error 0 at depth ceil((n + 4) / 3)."""
    t = folding_depth(n)
    return 0.5 ** (n / 2 / (n - t)) if t < n else 0.0


def least_eta(P: np.ndarray, level: int) -> float:
    """The least eta known for which all networks of width 8 and depth `folding_depth(level)` err by at least 1/2 - eta.

    P (n + 1,): the approximation curve. From the count of their linear pieces; at most 1/2.
    """
    return 0.5 - float(proven_bounds(P, CANTOR.r, FOLDED, folding_depth(level)).max())


def check(problem: Problem[Corollary3]) -> list[Check]:
    """The corollary as printed, at its least n, and as repaired, on fine and coarse curves."""
    keys = problem.settings
    k, t, delta, count = keys.width, keys.t, keys.delta, keys.initialisations
    least = int(4 * np.log(4 * t * k**2 / delta) / np.log(1.5) + 2) + 1
    power = forced(least)
    rows = [
        Check(
            "Corollary 3 as printed",
            f"k={k} t={t} delta={delta:g}, least n={least}: hypothesis forces eps^(n/2) >= {power:.3f}",
            f"gradient <= {5 * power:.2f}, error >= {0.5 - 1.5 * power:.2f}",
            "every gradient is <= 0.5, every error >= 0",
            None,
            {"n": least, "forced": power},
            "vacuous",
        )
    ]
    n = keys.n
    for bias in keys.biases:
        parameters = networks_with_bias(count, k, t, bias, torch.Generator().manual_seed(problem.seed))
        used = least_level(k, t, delta, bias)
        for name in keys.curve_names:
            curve = ApproximationCurve.load(name)
            distribution = LineDistribution(CANTOR, curve.level_probabilities(n), 3.0**-n / 8)
            size, wrong = np.maximum(*gradient_sizes(distribution, parameters)), distribution.error(parameters)
            P, level = curve.P(n), min(used, n - 1)
            eta, excess = least_eta(P, level), float(P[level] - 0.5)
            good = (size <= 5 * eta + ROUNDING) & (wrong >= 0.5 - 1.5 * eta - ROUNDING)
            right = bool(good.mean() >= 1 - delta) and excess <= eta
            most, lowest = trivial(bias)
            why: Why | None = "vacuous" if 5 * eta >= most and 0.5 - 1.5 * eta <= lowest else None
            rows.append(
                Check(
                    "Corollary 3 repaired",
                    f"k={k} t={t} b={bias:g} n={n} curve {name}; width {FOLDED}, depth {folding_depth(level)} err by "
                    f">= 1/2 - eta, eta = {eta:.2g}" + ("" if used < n else f"; needs n > {used}"),
                    f"gradient <= {5 * eta:.2g} (trivially {most:g}), error >= {0.5 - 1.5 * eta:.2g} ({lowest:g}) for "
                    f"at least {1 - delta:g}; P({level}) - 1/2 <= eta",
                    f"largest {size.max():.2g}, error >= {wrong.min():.4f}; both hold for {good.mean():.4f}; "
                    f"P({level}) - 1/2 = {excess:.2g}",
                    **(judged(right, why) if used < n else judged(True, "unmet")),
                    values={
                        "b": bias,
                        "curve": name,
                        "eta": eta,
                        "excess": excess,
                        "largest": float(size.max()),
                        "share": float(good.mean()),
                    },
                )
            )
    return rows
