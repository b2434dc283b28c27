"""Theorem 5: the population gradient on a Cantor distribution at initialisation, exactly.

Depth t counts the readout. Weights are uniform in +-1/(2 fan in) and every bias is b: 1/2 in the theorem, which says
that any b in (0, 1/2] would do. The two cases differ. With b = 1/2 no ReLU switches on [0, 1], as every layer maps
[0, 1]^k into itself, with preactivations >= 1/2 - 1/2. So the network is affine there with probability 1, its
population gradient is exactly 0 for every curve, fine or coarse, and its error is 1/2. Fine details matter only with
b < 1/2.

Some of it is true without the theorem, see `trivial`. A row whose bound is no better is called vacuous.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.plotting.style import lines
from fractal_ifs.theorems.depths import least_level
from fractal_ifs.theorems.fold import CANTOR
from fractal_ifs.theorems.keys import Theorem5
from fractal_ifs.theorems.line import breakpoints
from fractal_ifs.theorems.measure import ROUNDING, LineDistribution
from fractal_ifs.theorems.problem import Check, Problem, judged

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def trivial(bias: float) -> tuple[float, float]:
    """The most that a gradient's entry can be, and the least error, whatever the curve: what needs no theorem.

    Activations lie in [0, 1] and the output in [-1, 1], so the hinge is active everywhere and a gradient is -E[y g],
    with g the derivative of the output in a parameter: an activation of the last layer, in [0, 1]; 1 for the last bias;
    for those below within +-1/(2 k). As both labels have mass 1/2, that is at most 1/2. With b = 1/2 the network is
    affine and not negative on [0, 1], so it is 0 and the error is 1/2.
    """
    return (0.0, 0.5) if bias == 0.5 else (0.5, 0.0)


def networks_with_bias(count: int, width: int, t: int, bias: float, generator: torch.Generator) -> list[Tensor]:
    """The parameters (count, ...) of networks on the line as the theorem initialises them, float64; depth t."""
    parameters = []
    for fan_in, out in [(1, width)] + [(width, width)] * (t - 2) + [(width, 1)]:
        weight = torch.rand(count, out, fan_in, generator=generator, dtype=torch.float64)
        parameters += [(weight - 0.5) / fan_in, torch.full((count, out), bias, dtype=torch.float64)]
    return parameters


def affine_level(parameters: list[Tensor], n: int) -> np.ndarray:
    """(M,): the least n' <= n with each network affine on every interval of C_n', n + 1 where there is none.

    A kink at x spoils the levels in whose cells x lies inside: all down to that in whose gap it lies.
    """
    x = breakpoints(parameters, 0.0, 1.0).numpy()
    level, u = np.zeros(x.shape, int), x.copy()
    alive = (x > 0) & (x < 1)  # the ends of [0, 1] are the row's first entry and its padding
    for j in range(1, n + 2):
        level[alive] = j
        u = 3 * np.abs(u - 0.5) - 0.5
        alive &= (u > 1e-12) & (u < 1 - 1e-12)
    return level.max(1)


def gradient_sizes(distribution: LineDistribution, parameters: list[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """The largest entry of the exact population gradient in the weights, (M,), and in the biases, (M,)."""
    _, gradient = distribution.loss_and_gradient(parameters)
    sizes = torch.stack([g.abs().flatten(1).max(1).values for g in gradient], 1).numpy()
    return sizes[:, ::2].max(1), sizes[:, 1::2].max(1)


def check(problem: Problem[Theorem5]) -> list[Check]:
    """Every (width, depth), bias and curve of the settings, on many initialisations."""
    keys = problem.settings
    n, count, delta = keys.n, keys.initialisations, keys.delta
    rows = []
    for k, t in keys.networks:
        for bias in keys.biases:
            generator = torch.Generator().manual_seed(problem.seed)
            parameters = networks_with_bias(count, k, t, bias, generator)
            level = affine_level(parameters, n)
            required = least_level(k, t, delta, bias)
            practical = int(np.quantile(level, 1 - delta, method="inverted_cdf"))
            rows.append(
                Check(
                    "Theorem 5: affine on C_n'",
                    f"k={k} t={t} b={bias:g} delta={delta:g}, {count} initialisations",
                    f"from n' = {required} on with probability >= {1 - delta:g}",
                    f"from n' = {practical} on; at n' = {required}: {(level <= required).mean():.4f}",
                    **_judged(bool(practical <= required), required <= n, bias == 0.5),
                    values={
                        "k": k,
                        "t": t,
                        "b": bias,
                        "required": required,
                        "practical": practical,
                        "levels": level.tolist(),
                    },
                )
            )
            for name in keys.curves:
                curve = problem.curve if name == "own" else ApproximationCurve.load(str(name))
                rows += _gradient(parameters, curve, n, (k, t, bias, delta), required)
    return rows


def _gradient(
    parameters: list[Tensor],
    curve: ApproximationCurve,
    n: int,
    network: tuple[int, int, float, float],
    required: int,
) -> list[Check]:
    """A row for each bound, beside its trivial one. Both are right where the bounds hold together as often as asked."""
    k, t, bias, delta = network
    P, used = curve.P(n), min(required, n - 1)
    distribution = LineDistribution(CANTOR, curve.level_probabilities(n), 3.0**-n / 8)
    chunks = [[p[i : i + 512] for p in parameters] for i in range(0, len(parameters[0]), 512)]
    sizes = [gradient_sizes(distribution, chunk) for chunk in chunks]
    weights, biases = (np.concatenate(s) for s in zip(*sizes, strict=True))
    wrong = np.concatenate([distribution.error(chunk) for chunk in chunks])
    size = np.maximum(weights, biases)
    excess = P - 0.5
    bound, lower = 5 * excess[used], (1.5 - P[used]) * (1 - P[used])
    good = (size <= bound + ROUNDING) & (wrong >= lower - ROUNDING)
    practical = next((j for j in range(n) if (size <= 5 * excess[j] + ROUNDING).mean() >= 1 - delta), n)
    tight = size.max() / bound if bound > 0 else float("nan")
    most, least = trivial(bias)
    probably = f"with probability >= {1 - delta:g}" + (f" (needs n > {required})" if required > used else "")
    setting = f"k={k} t={t} b={bias:g} n={n} curve {curve.name}"
    right = bool(good.mean() >= 1 - delta)
    values = {
        "k": k,
        "t": t,
        "b": bias,
        "curve": curve.name,
        "n_prime": used,
        "bound": float(bound),
        "trivial_bound": most,
        "weights_max": float(weights.max()),
        "biases_max": float(biases.max()),
        "median": float(np.median(size)),
        "tightness": float(tight),
        "error_bound": float(lower),
        "trivial_error_bound": least,
        "error_min": float(wrong.min()),
        "share": float(good.mean()),
        "share_with_2": float((size <= 2 * excess[used] + ROUNDING).mean()),
        "practical": practical,
    }
    return [
        Check(
            "Theorem 5: gradient",
            setting,
            f"<= 5(P({used}) - 1/2) = {bound:.3g}, trivially {most:g}, {probably}",
            f"weights <= {_size(weights.max())}, biases <= {_size(biases.max())}; "
            f"both bounds hold for {good.mean():.4f}; from n' = {practical}",
            **_judged(right, required <= used, bool(bound >= most)),
            values=values,
        ),
        Check(
            "Theorem 5: error",
            setting,
            f">= (3/2 - P({used}))(1 - P({used})) = {lower:.3g}, trivially {least:g}, {probably}",
            f"{wrong.min():.4f}..{wrong.max():.4f}; both bounds hold for {good.mean():.4f}",
            **_judged(right, required <= used, bool(lower <= least)),
            values=values,
        ),
    ]


def _judged(right: bool, deep: bool, vacuous: bool) -> dict[str, Any]:
    """`deep`: whether the Cantor set has the levels that the theorem asks for; without them nothing can be wrong."""
    if not deep:
        return judged(True, "unmet")
    return judged(right, "vacuous" if vacuous else None)


def _size(value: float) -> str:
    return "0 (to rounding)" if value < 1e-12 else f"{value:.3g}"


def draw(problem: Problem[Theorem5], checks: list[Check], axes: Axes) -> None:
    """How often the network isn't affine on all intervals of C_n', by n', and how often the proof allows."""
    keys = problem.settings
    n, (k, t) = keys.n, keys.networks[-1]
    levels = np.arange(n + 1)
    biases = [b for b in keys.biases if b < 0.5]
    for look, bias in zip(lines(len(biases)), biases, strict=True):
        parameters = networks_with_bias(
            4 * keys.initialisations, k, t, bias, torch.Generator().manual_seed(problem.seed)
        )
        level = affine_level(parameters, n)
        missed = [(level > j).mean() for j in levels]
        seen = np.where(np.array(missed) > 0, missed, np.nan)
        axes.semilogy(levels, seen, "-", color=look.color, marker=look.marker, ms=3, label=f"b = {bias:g}: measured")
        allowed = np.minimum(1, 2 * t * k**2 / bias * (2 / 3) ** levels)
        axes.semilogy(levels, allowed, "--", color=look.color, label=f"b = {bias:g}: proof")
    axes.set(xlabel="n'", ylabel="P[not affine on C_n']", title=f"Theorem 5: k = {k}, t = {t} (b = 1/2: always affine)")
    axes.locator_params(axis="x", integer=True)
    axes.figure.legend(loc="outside lower center")  # below: no line runs through it
