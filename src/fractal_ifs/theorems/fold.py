"""The Cantor set folded three levels per hidden layer, which is much less depth than Theorem 1 needs.

g(x) = 3 |x - 1/2| - 1/2 is 1 - 3x and 3x - 2 on the two thirds that remain: one hidden layer undoes one level. The
middle third goes below 0, from there to above 1, and never comes back, so no "alive" unit is needed: x is in C_n iff
g^n(x) is in [0, 1]. The m-th iterate of g is a zigzag of 2^m arms: one hidden layer of 2^m units.
"""

from __future__ import annotations

import numpy as np
import torch

from fractal_ifs.errors import ConfigError
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.theorems.cube import CubeIFS

CANTOR = CubeIFS.from_box([[[-1 / 3]], [[1 / 3]]], [[1 / 3], [2 / 3]], [0.0], [1.0], "cantor")


def folded_depth(t: int) -> int:
    """The depth n of the Cantor set that a network of depth t >= 2 (readout counted) and width 8 realises: 3 t - 4."""
    return 3 * t - 4


def fold_network(t: int) -> MLP:
    """A float64 MLP of depth t (t - 1 hidden layers) and width 8: positive inside C_(3t-4), negative outside, no
    margin.
    """
    if not 2 <= t <= 11:
        raise ConfigError(f"t={t}: must be in 2..11 (C_n for n = 3 t - 4 = {3 * t - 4} has to fit into float64)")
    model = MLP(1, 8, t - 1, dtype=torch.float64)
    parameters = list(model.parameters())
    peaks = _cells(3)
    middles = (peaks[1:, 0] + peaks[:-1, 1]) / 2
    units, out, constant = _zigzag(middles, 27.0, _iterate(middles[0], 3))
    weight, bias = np.ones((1, 1)), np.zeros(1)  # the input of a layer as an affine function of the layer below
    layers = []
    for _ in range(t - 2):
        layers.append((units[0] @ weight, units[0] @ bias + units[1]))
        weight, bias = out, constant
    cells = _cells(2)
    vertices = np.sort(np.concatenate([cells.mean(1), (cells[1:, 0] + cells[:-1, 1]) / 2]))
    units, out, constant = _zigzag(vertices, -1.0, 1 / 18)
    layers += [(units[0] @ weight, units[0] @ bias + units[1]), (out, constant)]
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
        for full_weight, full_bias, (w, b) in zip(parameters[::2], parameters[1::2], layers, strict=True):
            full_weight[: w.shape[0], : w.shape[1]] = torch.from_numpy(w)
            full_bias[: len(b)] = torch.from_numpy(b)
    return model


def _cells(m: int) -> np.ndarray:
    """(2^m, 2): the intervals of C_m from left to right."""
    words = CANTOR.words(m)
    ends = np.stack([words.offsets[:, 0], words.offsets[:, 0] + words.matrices[:, 0, 0]], 1)
    return np.sort(np.sort(ends, 1), 0)


def _iterate(x: float, m: int) -> float:
    for _ in range(m):
        x = 3 * abs(x - 0.5) - 0.5
    return x


def _zigzag(vertices: np.ndarray, slope: float, value: float):
    """A hidden layer and its readout for the function with slope -+`slope`, alternating at the vertices, `value` at
    the first.
    """
    units = np.append(-1.0, np.ones(len(vertices)))[:, None]
    biases = np.append(vertices[0], -vertices)
    turn = 2 * slope * (-1.0) ** np.arange(len(vertices))
    turn[0] = slope
    return (units, biases), np.append(slope, turn)[None], np.array([value])
