"""Corollary 3 (5 on arXiv): strong depth separation makes the population gradient exponentially small.

As printed it is vacuous. By its hypothesis, networks of width 10 and any depth t' < n err by at least
1/2 - eps^(n - t'). But the folded network, of width 8 and depth t' = ceil((n + 4) / 3), realises C_n for every curve.
So eps^(n - t') >= 1/2, hence 5 eps^(n/2) > 2.9 and 1/2 - (3/2) eps^(n/2) < 0: both bounds say nothing. What the proof
does show is checked: if networks of width 10 and depth 2n' + 1 err by at least 1/2 - eta, then P(n') - 1/2 <= eta by
Theorem 3, and Theorem 5 gives the bounds 5 eta and 1/2 - (3/2) eta.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from fractal_ifs.config.keys import key
from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.theorems.fold import CANTOR
from fractal_ifs.theorems.measure import LineDistribution
from fractal_ifs.theorems.problem import CURVES, Check, LineSection, Problem
from fractal_ifs.theorems.theorem5 import DEEPEST, LEAST, ROUNDING, gradient_sizes, least_level, networks_with_bias


@dataclass(frozen=True, kw_only=True)
class Settings(LineSection):
    """The section ``corollary3`` of conf/theory.yaml."""

    PREFIX: ClassVar[str] = "corollary3."

    width: int = key("k", least=1, most=10**6)
    t: int = key("depth, the readout counted", least=2, most=1000)
    delta: float = key("both bounds hold with probability 1 - delta", least=LEAST, below=1)
    n: int = key("depth of the Cantor set", least=1, most=DEEPEST)
    biases: tuple[float, ...] = key("b, the initial value of every bias", least=LEAST, most=0.5)
    curves: tuple[str | int, ...] = key("curves", allowed=CURVES)
    initialisations: int = key("networks for each bias", least=1, most=10**9)


def forced(n: int) -> float:
    """The least eps^(n/2) that the hypothesis allows: the folded network has error 0 at depth ceil((n + 4) / 3)."""
    t = -(-(n + 4) // 3)
    return 0.5 ** (n / 2 / (n - t)) if t < n else 0.0


def check(problem: Problem[Settings]) -> list[Check]:
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
            "every gradient is <= 1, every error >= 0: vacuous",
            None,
            {"n": least, "forced": power},
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
            eta = float(curve.P(n)[min(used, n - 1)] - 0.5)
            good = (size <= 5 * eta + ROUNDING) & (wrong >= 0.5 - 1.5 * eta - ROUNDING)
            rows.append(
                Check(
                    "Corollary 3 repaired",
                    f"k={k} t={t} b={bias:g} n={n} curve {name}, eta = P({min(used, n - 1)}) - 1/2 = {eta:.2g}",
                    f"gradient <= {5 * eta:.2g}, error >= {0.5 - 1.5 * eta:.2g} for at least {1 - delta:g}",
                    f"largest {size.max():.2g}, error >= {wrong.min():.4f}; both hold for {good.mean():.4f}",
                    bool(good.mean() >= 1 - delta) if used < n else None,
                    {
                        "b": bias,
                        "curve": name,
                        "eta": eta,
                        "largest": float(size.max()),
                        "share": float(good.mean()),
                    },
                )
            )
    return rows
