"""Theorem 2: its least width, and the linear regions that its proof counts.

The proof: a network has at most prod_layers sum_(j <= d) C(k, j) <= (e k / d)^(t d) linear regions, and no two cells of
K_n share one. The readout has no ReLU, so the product has t - 1 factors: `least_width_printed` is the bound as printed,
`least_width_proven` the one that the proof gives.
"""

from __future__ import annotations

from math import comb, e, log
from typing import TYPE_CHECKING

import numpy as np
import torch

from fractal_ifs.fractals.cube import built_width
from fractal_ifs.networks.construction import corollary1_network, theorem1_network
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.networks.sizes import LARGEST_CHECKED, built_depth
from fractal_ifs.theorems.keys import Section, Theorem2
from fractal_ifs.theorems.learn import seeded_networks
from fractal_ifs.theorems.line import along, patterns, regions, stacked
from fractal_ifs.theorems.problem import Check, Problem
from fractal_ifs.theorems.samples import labelled_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELLS = 20_000  # cells of K_n looked at, at most


def least_width_printed(d: int, r: int, n: int, t: int) -> float:
    """(d/e) r^(n / (t d)): below this width, depth t (readout counted) can't reach zero error."""
    return d / e * r ** (n / (t * d))


def most_regions(d: int, k: int, t: int) -> int:
    """The product over the t - 1 hidden layers of sum_(j <= d) C(k, j): no network of width k has more regions."""
    return sum(comb(k, j) for j in range(d + 1)) ** (t - 1)


def least_width_proven(d: int, r: int, n: int, t: int) -> int:
    """The least k whose `most_regions` are as many as the r^n cells."""
    low, high = 0, 1  # too narrow, wide enough
    while most_regions(d, high, t) < r**n:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if most_regions(d, middle, t) >= r**n else (middle, high)
    return high


def cell_patterns(model: MLP, problem: Problem[Section]) -> tuple[int, int]:
    """How many different activation patterns there are at how many centres of cells of K_n: all, or CELLS of them."""
    ifs, n = problem.ifs, problem.n
    if ifs.r**n <= CELLS:
        words = ifs.words(n)
        centres = words.offsets + words.matrices.sum(2) / 2
    else:
        rng, centres = problem.rng(), np.full((CELLS, ifs.d), 0.5)
        word = rng.integers(ifs.r, size=(n, CELLS))
        _, first = np.unique(word, axis=1, return_index=True)
        word, centres = word[:, first], centres[first]
        for maps in word[::-1]:
            centres = np.einsum("nij,nj->ni", ifs.matrices[maps], centres) + ifs.offsets[maps]
    x = torch.from_numpy(ifs.low + ifs.side * centres)
    on = patterns(stacked([model]), x[None])[0]
    return len(torch.unique(on, dim=0)), len(x)


def line_regions(parameters: list[torch.Tensor], problem: Problem[Section], lines: int) -> np.ndarray:
    """(M, lines): the regions that random segments across K_0 meet; where d = 1, K_0 itself, (M, 1)."""
    ifs = problem.ifs
    low, high = torch.from_numpy(ifs.low), torch.from_numpy(ifs.low + ifs.side)
    if ifs.d == 1:
        return regions(parameters, float(low), float(high)).numpy()[:, None]
    rng, counts = problem.rng(), []
    for _ in range(lines):
        axis = rng.integers(ifs.d)
        ends = rng.random((2, ifs.d))
        ends[:, axis] = 0, 1  # from one face of K_0 to the opposite one
        start, end = low + (high - low) * torch.from_numpy(ends)
        count = len(parameters[0])
        counts.append(regions(along(parameters, start.expand(count, -1), (end - start).expand(count, -1)), 0.0, 1.0))
    return torch.stack(counts, 1).numpy()


def check(problem: Problem[Theorem2]) -> list[Check]:
    """The bound on the width beside our constructions, one region per cell, and the regions that networks have."""
    ifs, n = problem.ifs, problem.n
    rows = []
    for s in range(1, n + 1):
        if built_width(ifs, s) > LARGEST_CHECKED:
            break
        model = corollary1_network(ifs, n, s, problem.gamma)
        t = model.depth + 1
        least, need = least_width_printed(ifs.d, ifs.r, n, t), least_width_proven(ifs.d, ifs.r, n, t)
        values = {"s": s, "t": t, "width": model.width, "least": least, "least_by_proof": need}
        rows.append(
            Check(
                "Theorem 2: width",
                f"{ifs.name} n={n}, constructed, depth t={t}",
                f"k >= {least:.3g} (its proof gives {need})",
                f"k = {model.width}",
                model.width >= max(least, need),
                values,
            )
        )
    model = theorem1_network(ifs, n, problem.gamma)
    distinct, cells = cell_patterns(model, problem)
    most = log(most_regions(ifs.d, model.width, model.depth + 1), 10)
    rows.append(
        Check(
            "Theorem 2: regions",
            f"{ifs.name} n={n}, Theorem 1's network: one region per cell",
            f"{cells:,} of r^n = {ifs.r**n:,} cells <= regions <= 10^{most:.0f}",
            f"{distinct:,} patterns at the cells' centres",
            distinct == cells,
            {"distinct": distinct, "cells": cells, "log10_most": most},
        )
    )
    return rows + _networks(problem, model)


def _networks(problem: Problem[Theorem2], constructed: MLP) -> list[Check]:
    ifs, n, keys = problem.ifs, problem.n, problem.settings
    width, hidden, lines, steps = keys.width, keys.depth, keys.lines, keys.train_steps
    x, y, _ = labelled_points(ifs, n, problem.gamma, 20_000, problem.rng(), problem.law)
    first = seeded_networks(ifs.d, width, hidden, range(8))
    kinds = {
        "constructed": (stacked([constructed]), constructed.width, constructed.depth),
        "at the paper's initialisation": (first, width, hidden),
        f"trained, {steps} steps of Adam": (problem.train(first, x, y, steps, 3e-3), width, hidden),
        "at Theorem 5's initialisation": (seeded_networks(ifs.d, width, hidden, range(8), "theory"), width, hidden),
    }
    rows = []
    for kind, (parameters, k, depth) in kinds.items():
        found = line_regions(parameters, problem, lines)
        bound = most_regions(1, k, depth + 1)
        where = "on K0 (exact)" if ifs.d == 1 else f"on {lines} lines across K0 (each exact)"
        rows.append(
            Check(
                "Theorem 2: regions",
                f"width {k}, {depth} hidden, {kind}",
                f"<= (k+1)^(t-1) = {bound:.2g} on a line",
                f"mean {found.mean():.1f}, most {found.max()} {where}",
                bool(found.max() <= bound),
                {"kind": kind, "mean": float(found.mean()), "most": int(found.max())},
            )
        )
    return rows


def draw(problem: Problem[Section], checks: list[Check], axes: Axes) -> None:
    """The least width by depth, as printed and by the proof, and the widths of the constructions."""
    ifs, n = problem.ifs, problem.n
    depths = range(2, 2 * n + 2)
    axes.semilogy(depths, [least_width_printed(ifs.d, ifs.r, n, t) for t in depths], "--", label="Theorem 2 as printed")
    axes.semilogy(
        depths, [least_width_proven(ifs.d, ifs.r, n, t) for t in depths], "-", label="its proof, t - 1 layers counted"
    )
    built = {built_depth(ifs, n, s): built_width(ifs, s, n) for s in range(n, 0, -1)}
    axes.semilogy(list(built), list(built.values()), "o", label="Corollary 1's networks")
    axes.set(xlabel="depth t (readout counted)", ylabel="width k", title=f"Theorem 2: {ifs.name}, n = {n}")
    axes.locator_params(axis="x", integer=True)
    axes.legend()
