"""Conjecture 1, as an experiment: where shallow networks stay near error 1/2, do deep ones fail to learn?

Random IFSs that meet Assumptions 1 and 2, in d = 1, 2, 3, with random depths and curves. On each, shallow and deep
networks are trained with several learning rates and seeds, and the best error counts. A correlation is evidence, not
proof: the conjecture says "exponentially close to 1/2", which no finite experiment shows, so `holds` is None.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fractal_ifs.config.keys import key
from fractal_ifs.config.machine import cores
from fractal_ifs.fractals.cube import CubeIFS
from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.theorems.learn import BATCH, error_on, seeded_networks
from fractal_ifs.theorems.problem import Check, Problem, Section
from fractal_ifs.theorems.samples import labelled_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class Settings(Section):
    """The section ``conjecture1`` of conf/theory.yaml."""

    PREFIX: ClassVar[str] = "conjecture1."

    systems: int = key("random IFSs, depths and curves", least=6, most=10**6)
    width: int = key("units of a hidden layer", least=1, most=10**6)
    shallow: int = key("hidden layers of the shallow networks", least=1, most=1000)
    deep: int = key("hidden layers of the deep networks", least=1, most=1000)
    steps: int = key("steps of Adam", least=1, most=10**9)
    lrs: tuple[float, ...] = key("learning rates, of which the best counts", above=0, most=1e38)
    seeds: int = key("networks for each learning rate, of which the best counts", least=1, most=10**6)
    train_size: int = key("training points", least=BATCH, most=10**9)


def random_system(rng: np.random.Generator, d: int) -> CubeIFS:
    """2 to 6 random images of [-1, 1]^d, each inside a cell of its own of a grid of 3^d (4 where d = 1)."""
    grid = 4 if d == 1 else 3
    cells = np.array(list(itertools.product(range(grid), repeat=d)))
    cells = cells[rng.permutation(len(cells))[: rng.integers(2, min(6, len(cells)) + 1)]]
    matrices = np.linalg.qr(rng.normal(size=(len(cells), d, d)))[0] * rng.uniform(0.5, 1, (len(cells), 1, d))
    matrices *= rng.uniform(0.6, 0.95) / (grid * np.abs(matrices).sum(2).max(1)[:, None, None])
    offsets = (cells + 0.5) / grid - matrices.sum(2) / 2
    return CubeIFS(matrices, offsets, -np.ones(d), 2 * np.ones(d), "random")


def best_errors(problem: Problem[Settings], seed: int) -> dict[str, float]:
    """A random distribution, in numbers, and the best test errors of the shallow and of the deep networks on it."""
    keys = problem.settings
    rng = np.random.default_rng([problem.seed, seed])
    d = seed % 3 + 1
    ifs, n = random_system(rng, d), int(rng.integers(1, 6))
    degree = float(rng.choice([0.0, rng.uniform(0, 9)]))
    law = ApproximationCurve(degree=degree).level_probabilities(n)
    gamma = ifs.margin(n, None)
    x, y, _ = labelled_points(ifs, n, gamma, keys.train_size, rng, law)
    x_test, y_test, _ = labelled_points(ifs, n, gamma, 5000, rng, law)
    found: dict[str, float] = {}
    for kind, hidden in (("shallow", keys.shallow), ("deep", keys.deep)):
        errors = [
            error_on(
                problem.train(
                    seeded_networks(d, keys.width, hidden, range(keys.seeds)),
                    x,
                    y,
                    keys.steps,
                    lr,
                ),
                x_test,
                y_test,
            ).min()
            for lr in keys.lrs
        ]
        found[kind] = float(min(errors))
    return {"seed": seed, "d": d, "r": ifs.r, "n": n, "degree": degree, **found}


def check(problem: Problem[Settings]) -> list[Check]:
    """Spearman's rank correlation of the two errors, of all systems and for each dimension."""
    from scipy.stats import spearmanr

    keys = problem.settings
    count = keys.systems
    with ThreadPoolExecutor(cores()) as pool:  # the native engine trains outside of Python's lock
        rows = list(pool.map(partial(best_errors, problem), range(count)))
    shallow, deep, d = (np.array([row[key] for row in rows]) for key in ("shallow", "deep", "d"))
    name = (
        f"{count} random distributions, width {keys.width}: {keys.shallow} against {keys.deep} hidden layers, "
        f"{keys.steps} steps"
    )
    checks = []
    for label, chosen in [("all", d > 0)] + [(f"d={i}", d == i) for i in (1, 2, 3)]:
        rank = np.asarray(spearmanr(shallow[chosen], deep[chosen]))[0]
        hard = chosen & (shallow > 0.45)
        learned = int((hard & (deep < 0.35)).sum())
        checks.append(
            Check(
                "Conjecture 1",
                f"{name}; {label}",
                "deep error rises with shallow error",
                f"rank correlation {rank:.3f}; of {hard.sum()} with shallow error > .45 "
                f"deep networks learn {learned} (< .35)",
                None,
                {"rank_correlation": float(rank), "hard": int(hard.sum()), "learned": learned}
                | ({"systems": rows} if label == "all" else {}),
            )
        )
    return checks


def draw(problem: Problem[Settings], checks: list[Check], axes: Axes) -> None:
    """The deep networks' error by the shallow ones', for each dimension."""
    rows = checks[0].values["systems"]
    for i in (1, 2, 3):
        chosen = [row for row in rows if row["d"] == i]
        axes.plot([r["shallow"] for r in chosen], [r["deep"] for r in chosen], ".", ms=4, label=f"d = {i}")
    axes.plot([0, 0.5], [0, 0.5], color="grey", lw=0.5)
    axes.set(xlabel="best error of shallow networks", ylabel="best error of deep networks", title="Conjecture 1")
    axes.legend(fontsize=7)
