"""Theorem 4 (d = 1): what networks that are too small for K_j err by.

Three errors are compared with the bound: the least of all functions with at most `most_sign_changes` (which networks of
t = 2 reach), that of our construction for depth t and width k, and those of trained networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fractal_ifs.fractals.cube import CubeIFS, built_width
from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.networks.construction import corollary1_network, theorem1_network
from fractal_ifs.networks.sizes import LARGEST_WIDTH
from fractal_ifs.theorems.depths import folded_depth
from fractal_ifs.theorems.fold import CANTOR, fold_network
from fractal_ifs.theorems.keys import LineSection, Theorem4
from fractal_ifs.theorems.learn import seeded_networks
from fractal_ifs.theorems.line import stacked
from fractal_ifs.theorems.measure import ROUNDING, LineDistribution, best_error, masses_of_pieces
from fractal_ifs.theorems.problem import Check, Problem, Why, judged
from fractal_ifs.theorems.samples import labelled_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def printed_bounds(P: np.ndarray, r: int, k: int, t: int) -> np.ndarray:
    """(n + 1,): the bound for each j, nan unless n > j > s t, where s is the least whole number with k < r^s."""
    s = 1
    while r**s <= k:
        s += 1
    n = len(P) - 1
    j = np.arange(n + 1)
    return np.where((j > s * t) & (j < n), (1 - r ** (s * t - j.astype(float))) * (1 - P), np.nan)


def proven_bounds(P: np.ndarray, r: int, k: int, t: int) -> np.ndarray:
    """(n + 1,): what the proof gives for each j: (1 - (k + 1)^(t - 1) / r^j) (1 - P(j)), where that is positive.

    A network has at most (k + 1)^(t - 1) linear pieces.
    """
    j = np.arange(len(P), dtype=float)
    pieces = float(min((k + 1) ** (t - 1), 10**300))
    return np.maximum(1 - pieces / r**j, 0) * (1 - P)


def most_sign_changes(k: int, t: int) -> int:
    """How often a network on the line can change its sign. Exact for t = 2 and for k = 1, an upper bound elsewhere.

    It has at most (k + 1)^(t - 1) pieces, and one sign change in each. Networks with k = 1 are monotone. For t = 2, the
    slopes left and right of all kinks are minus the sum and the sum of the kinks' own, each unit being on to one side
    of its kink alone. That forbids three alternating slopes in a row with k = 2, so that 2 changes are the most. From
    k = 3 on all k + 1 pieces can cross zero: with the slopes s_0 > 0 > s_1, ... alternating and s_0 = s_2 - s_3, the
    third unit is on to the left of its kink, and all others to the right of theirs. Wherever the zeros lie, the kinks
    between them can be put so.
    """
    if k == 1:
        return 1
    return k + (k > 2) if t == 2 else (k + 1) ** (t - 1)


def least_error(masses: np.ndarray, k: int, t: int) -> float:
    """The least error of functions with at most `most_sign_changes`; masses (2, pieces) as of `masses_of_pieces`."""
    least = float(best_error(masses, min(most_sign_changes(k, t), masses.shape[1]))[-1])
    return max(0.0, least)  # of sums that round to less


def constructed_error(problem: Problem[LineSection], distribution: LineDistribution, k: int, t: int) -> float:
    """The exact error of our best construction with depth <= t and width <= k; 1/2 (a constant) where none fits."""
    best, ifs = 0.5, problem.ifs
    if k >= 8 and folded_depth(t) <= problem.n and _is_cantor(ifs):
        best = min(best, float(distribution.error(stacked([fold_network(t)]))[0]))
    for j in range(1, problem.n + 1):
        for s in range(1, j + 1):
            if 4 * ifs.r**s + 2 > k + 2 or built_width(ifs, s) > LARGEST_WIDTH:
                break
            model = theorem1_network(ifs, j, problem.gamma) if s == 1 else corollary1_network(ifs, j, s, problem.gamma)
            if model.depth + 1 <= t and model.width <= k:
                best = min(best, float(distribution.error(stacked([model]))[0]))
    return best


def _is_cantor(ifs: CubeIFS) -> bool:
    """Whether the maps, whichever way round each is, make the Cantor set in [0, 1]."""
    if ifs.r != 2 or not np.allclose([ifs.low, ifs.side], [CANTOR.low, CANTOR.side]):
        return False
    return np.allclose(np.sort(ifs.intervals(1), 0), np.sort(CANTOR.intervals(1), 0))


def check(problem: Problem[Theorem4]) -> list[Check]:
    """Every (width, depth) and curve of the settings. Raises ConfigError as `Theorem4.check_for`."""
    ifs, n, keys = problem.ifs, problem.n, problem.settings
    keys.check_for(ifs, n)
    rows = []
    for name in dict.fromkeys([problem.curve.name, *keys.curve_names]):
        curve = problem.curve if name == problem.curve.name else ApproximationCurve.load(name)
        P, law = curve.P(n), curve.level_probabilities(n)
        distribution = LineDistribution(ifs, law, problem.gamma)
        labelled = masses_of_pieces(distribution)
        x, y, _ = labelled_points(ifs, n, problem.gamma, 20_000, problem.rng(), law)
        for k, t in keys.networks:
            allowed = printed_bounds(P, ifs.r, k, t)
            proof = proven_bounds(P, ifs.r, k, t)
            least = least_error(labelled, k, t)
            built = constructed_error(problem, distribution, k, t)
            trained = distribution.error(
                problem.train(seeded_networks(1, k, t - 1, range(8), "pytorch"), x, y, keys.train_steps, 1e-2)
            ).min()
            valid = np.isfinite(allowed).any()
            j = int(np.nanargmax(allowed)) if valid else None
            bound = float(allowed[j]) if j is not None else 0.0
            lowest, proven = min(least, built, trained), float(proof.max())
            why: Why | None = "vacuous" if max(bound, proven) <= ROUNDING else None
            said = f"{bound:.4f} (j={j})" if valid else "none: no j with n > j > st"
            rows.append(
                Check(
                    "Theorem 4",
                    f"{ifs.name} n={n} curve {name}, k={k} t={t}",
                    f"{said}; its proof gives {proven:.4f}",
                    f"best function {least:.4f}, constructed {built:.4f}, trained {trained:.4f}",
                    **(judged(bool(lowest >= max(bound, proven) - ROUNDING), why) if valid else judged(True, "unmet")),
                    values={
                        "k": k,
                        "t": t,
                        "j": j,
                        "bound": bound,
                        "proof": proven,
                        "best_function": least,
                        "constructed": built,
                        "trained": float(trained),
                        "curve": name,
                    },
                )
            )
    return rows


def draw(problem: Problem[Theorem4], checks: list[Check], axes: Axes) -> None:
    """The bounds for t = 2 by width, below the exact least error."""
    ifs, n = problem.ifs, problem.n
    P, law = problem.P, problem.law
    widths = np.unique(np.geomspace(1, 300, 40).astype(int))

    def least() -> list[float]:
        labelled = masses_of_pieces(LineDistribution(ifs, law, problem.gamma))
        return [least_error(labelled, int(k), 2) for k in widths]

    axes.semilogx(widths, problem.once("least", least), "-", label="least error of one hidden layer (exact)")
    axes.semilogx(widths, [proven_bounds(P, ifs.r, k, 2).max() for k in widths], "--", label="the proof's bound, t = 2")
    printed = [printed_bounds(P, ifs.r, int(k), 2) for k in widths]
    axes.semilogx(
        widths, [np.nanmax(b) if np.isfinite(b).any() else np.nan for b in printed], ":", label="as printed, t = 2"
    )
    axes.set(
        xlabel="width k",
        ylabel="error",
        title=f"Theorem 4: {ifs.name}, n = {n}, curve {problem.curve.name}",
        ylim=(0, 0.5),
    )
    axes.legend()
