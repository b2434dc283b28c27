"""Conjecture 1, as an experiment on random IFSs.

Random IFSs that meet Assumptions 1 and 2, in d = 1, 2, 3, with random depths and curves. All are realisable by the deep
networks' width and depth, as the conjecture asks: Corollary 1 says so. On each, shallow and deep networks are trained
with several learning rates and seeds. The best, chosen on points of its own, counts with its test error. In d = 1 the
least error of all shallow networks is known exactly (with several hidden layers, a lower bound of it), and counts in
the place of the trained ones'; elsewhere theirs is an upper bound.

A correlation is evidence, not proof: the conjecture says "exponentially close to 1/2", which no finite experiment
shows, so `holds` is None. A counter-example, as far as there can be one, is a distribution with a shallow error above
HARD that a deep network learns to under LEARNED.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fractal_ifs.config.machine import cores
from fractal_ifs.fractals.cube import CubeIFS, built_width
from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.networks.sizes import built_depth
from fractal_ifs.plotting.style import INK, lines
from fractal_ifs.theorems.keys import Conjecture1
from fractal_ifs.theorems.learn import error_on, seeded_networks
from fractal_ifs.theorems.measure import LineDistribution, masses_of_pieces
from fractal_ifs.theorems.problem import Check, Problem
from fractal_ifs.theorems.samples import labelled_points
from fractal_ifs.theorems.theorem4 import least_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HARD, LEARNED = 0.45, 0.35  # errors
FINE = 99.0  # the degree of a curve that has all negatives on the finest level, up to a millionth


def random_system(rng: np.random.Generator, d: int) -> CubeIFS:
    """2 to 6 random images of [-1, 1]^d, each inside a cell of its own of a grid of 3^d (4 where d = 1)."""
    grid = 4 if d == 1 else 3
    cells = np.array(list(itertools.product(range(grid), repeat=d)))
    cells = cells[rng.permutation(len(cells))[: rng.integers(2, min(6, len(cells)) + 1)]]
    matrices = np.linalg.qr(rng.normal(size=(len(cells), d, d)))[0] * rng.uniform(0.5, 1, (len(cells), 1, d))
    matrices *= rng.uniform(0.6, 0.95) / (grid * np.abs(matrices).sum(2).max(1)[:, None, None])
    offsets = (cells + 0.5) / grid - matrices.sum(2) / 2
    return CubeIFS(matrices, offsets, -np.ones(d), 2 * np.ones(d), "random")


def realised_by(ifs: CubeIFS, n: int, width: int, hidden: int) -> int | None:
    """The least s with which Corollary 1's network for K_n fits into that width and depth; None where none does."""
    fits = (s for s in range(1, n + 1) if built_width(ifs, s) <= width and built_depth(ifs, n, s) <= hidden + 1)
    return next(fits, None)


def realisable_system(rng: np.random.Generator, d: int, width: int, hidden: int) -> tuple[CubeIFS, int, int]:
    """A random IFS, a depth n of 1 to 5, or to 7 on the line, and the s of `realised_by`: drawn until there is one."""
    while True:
        ifs, n = random_system(rng, d), int(rng.integers(1, 8 if d == 1 else 6))
        if (s := realised_by(ifs, n, width, hidden)) is not None:
            return ifs, n, s


def best_errors(problem: Problem[Conjecture1], seed: int) -> dict[str, Any]:
    """A random distribution, in numbers, and the test errors of the best shallow and the best deep networks on it.

    `shallow` is the least error there is where d = 1. `lr` and `network` are those of the best deep network.
    """
    keys = problem.settings
    rng = np.random.default_rng([problem.seed, seed])
    d = seed % 3 + 1
    ifs, n, s = realisable_system(rng, d, keys.width, keys.deep)
    degree = float(rng.choice([0.0, rng.uniform(0, 9), FINE]))
    law = ApproximationCurve(degree=degree).level_probabilities(n)
    gamma = ifs.margin(n, None)
    x, y, _ = labelled_points(ifs, n, gamma, keys.train_size, rng, law)
    x_test, y_test, _ = labelled_points(ifs, n, gamma, 5000, rng, law)
    x_fresh, y_fresh, _ = labelled_points(ifs, n, gamma, 5000, rng, law)

    def best(hidden: int) -> tuple[float, float, int]:
        """The test error, the learning rate and the seed of the network with the least error on the fresh points.

        Of equal ones it is the first. The test error has no part in the choice.
        """
        first, found = seeded_networks(d, keys.width, hidden, range(keys.seeds)), []
        for lr in keys.lrs:
            trained = problem.train(first, x, y, keys.steps, lr)
            fresh, test = error_on(trained, x_fresh, y_fresh), error_on(trained, x_test, y_test)
            found += [(float(fresh[network]), (float(test[network]), lr, network)) for network in range(keys.seeds)]
        return min(found, key=lambda each: each[0])[1]

    trained, _, _ = best(keys.shallow)
    deep, lr, network = best(keys.deep)
    least = trained
    if d == 1:
        pieces = masses_of_pieces(LineDistribution(ifs, law, gamma))
        least = least_error(pieces, keys.width, keys.shallow + 1)
    found = {"shallow": least, "shallow_trained": trained, "deep": deep, "lr": lr, "network": network}
    return {"seed": seed, "d": d, "r": ifs.r, "n": n, "s": s, "degree": degree, **found}


def counter_examples(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The seeds of the systems that deep networks learn though shallow ones stay near 1/2."""
    return [row["seed"] for row in rows if row["shallow"] > HARD and row["deep"] < LEARNED]


def check(problem: Problem[Conjecture1]) -> list[Check]:
    """Spearman's rank correlation of the two errors, for each dimension: a least error isn't like a trained one."""
    from scipy.stats import spearmanr

    keys = problem.settings
    count = keys.systems
    with ThreadPoolExecutor(cores()) as pool:  # the native engine trains outside of Python's lock
        rows = list(pool.map(partial(best_errors, problem), range(count)))
    name = (
        f"{count} random distributions, all realisable at width {keys.width} and {keys.deep} hidden layers; against "
        f"{keys.shallow} hidden, {keys.steps} steps"
    )
    checks = []
    for label, d in (
        ("d=1 (least shallow error there is)", 1),
        ("d=2 (trained shallow networks)", 2),
        ("d=3 (trained shallow networks)", 3),
    ):
        chosen = [row for row in rows if row["d"] == d]
        shallow, deep = ([row[key] for row in chosen] for key in ("shallow", "deep"))
        # of equal numbers there is no rank, as where shallow networks realise all
        rank = float(np.asarray(spearmanr(shallow, deep))[0]) if len({*shallow}) > 1 < len({*deep}) else float("nan")
        hard, against = sum(error > HARD for error in shallow), counter_examples(chosen)
        seeds = f": seeds {' '.join(map(str, against))}" if against else ""
        checks.append(
            Check(
                "Conjecture 1",
                f"{name}; {label}",
                "deep error rises with shallow error",
                f"rank correlation {rank:.3f}; of {hard} with shallow error > {HARD:g} deep networks learn "
                f"{len(against)} (< {LEARNED:g}){seeds}",
                None,
                {
                    "rank_correlation": rank,
                    "hard": hard,
                    "learned": len(against),
                    "counter_examples": against,
                    "systems": chosen,
                },
                "compare",
            )
        )
    return checks


def draw(problem: Problem[Conjecture1], checks: list[Check], axes: Axes) -> None:
    """The deep networks' error by the shallow ones', for each dimension."""
    for d, (check, look) in enumerate(zip(checks, lines(3), strict=True), 1):
        chosen = check.values["systems"]
        shallow, deep = [row["shallow"] for row in chosen], [row["deep"] for row in chosen]
        axes.plot(shallow, deep, look.marker, color=look.color, ms=3, label=f"d = {d}")
    axes.plot([0, 0.5], [0, 0.5], color=INK, lw=0.5)
    axes.set(
        xlabel="best error of shallow networks (d = 1: exact)",
        ylabel="best error of deep networks",
        title="Conjecture 1",
    )
    axes.legend()
