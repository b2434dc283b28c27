"""The Cantor set folded three levels per hidden layer, which takes much less depth than Theorem 1.

g(x) = 3 |x - 1/2| - 1/2 is 1 - 3x and 3x - 2 on the two thirds that remain: one hidden layer undoes one level. It sends
the middle third below 0, and what is there above 1, never to return, so no "alive" unit is needed: x is in C_n iff
g^n(x) is in [0, 1]. The m-th iterate of g is a zigzag of 2^m arms: one hidden layer of 2^m units.
"""

from __future__ import annotations

import numpy as np

from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.cube import CubeIFS
from fractal_ifs.networks.construction import Layer, mlp_of
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.theorems.depths import folded_depth
from fractal_ifs.theorems.keys import DEEPEST_FOLD

CANTOR = CubeIFS.from_box([[[-1 / 3]], [[1 / 3]]], [[1 / 3], [2 / 3]], [0.0], [1.0], "cantor")


def fold_network(t: int) -> MLP:
    """A float64 MLP of depth t (t - 1 hidden layers) and width 8: positive inside C_(3t-4), negative outside.

    It needs no margin. Raises ConfigError unless 2 <= t <= DEEPEST_FOLD.
    """
    if not 2 <= t <= DEEPEST_FOLD:
        raise ConfigError(
            f"t={t}: must be in 2..{DEEPEST_FOLD} (C_n for n = 3 t - 4 = {folded_depth(t)} has to fit into float64)"
        )
    peaks = _cells(3)
    middles = (peaks[1:, 0] + peaks[:-1, 1]) / 2
    (units, biases), readout = _zigzag(middles, 27.0, _iterate(middles[0], 3))
    weight, bias = np.ones((1, 1)), np.zeros(1)  # the input of a layer as an affine function of the layer below
    layers: list[Layer] = []
    for _ in range(t - 2):
        layers.append((units @ weight, units @ bias + biases))
        weight, bias = readout
    cells = _cells(2)
    vertices = np.sort(np.concatenate([cells.mean(1), (cells[1:, 0] + cells[:-1, 1]) / 2]))
    (units, biases), readout = _zigzag(vertices, -1.0, 1 / 18)
    return mlp_of(1, [*layers, (units @ weight, units @ bias + biases), readout])


def _cells(m: int) -> np.ndarray:
    """(2^m, 2): the intervals of C_m from left to right."""
    return np.sort(CANTOR.intervals(m), 0)


def _iterate(x: float, m: int) -> float:
    for _ in range(m):
        x = 3 * abs(x - 0.5) - 0.5
    return x


def _zigzag(vertices: np.ndarray, slope: float, value: float) -> tuple[Layer, Layer]:
    """A hidden layer and a readout that make a zigzag with these vertices: `value` at the first, slopes -+`slope`."""
    units = np.append(-1.0, np.ones(len(vertices)))[:, None]
    biases = np.append(vertices[0], -vertices)
    turn = 2 * slope * (-1.0) ** np.arange(len(vertices))
    turn[0] = slope
    return (units, biases), (np.append(slope, turn)[None], np.array([value]))
