"""The networks of Theorem 1 and Corollary 1, weight by weight.

A block folds the r^s images of K_0 under all words of s maps back onto K_0, in two hidden layers (Lemmas 1 to 4 of the
appendix):

    layer 1   z_j                                   the point, carried once for all maps
              -u_j, u_j - 1                         how far u = F_i^-1(z) lies outside K_0 (Lemma 1)
              1 - u_j / g, 1 - (1 - u_j) / g        how far u reaches into the margin (Lemma 2)
              a                                     "alive": 1 while z may still be in K_n, 0 once it can't be
    layer 2   u_j - N (outside of i)                F_i^-1(z) where z is in image i, else 0 (Lemma 3)
              a - (margin of i)                     alive where z is in image i and away from its boundary (Lemma 4)

Summed over the maps, layer 2 is (g(z), a): the input of the next block. Two changes make the printed width true. The
text carries u_j for each map (d r units) beside 4 d r units for the two indicators, and a counter on top: 5 d r + 1.
Since u is affine in z, carrying z is enough: 4 d r + d + 1 <= 5 d r as soon as r >= 2. And the alive unit falls from 1
to 0, where the paper counts failures upwards, so that layer 2 need not carry it.
"""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the types of from_numpy)

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fractal_ifs.fractals.cube import CubeIFS
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.networks.sizes import check_width, split

Layer = tuple[np.ndarray, np.ndarray]  # weight (out, in), bias (out,)


def network(ifs: CubeIFS, n: int, gamma: float, sizes: Sequence[int], hidden: int | None = None) -> MLP:
    """A float64 MLP that is positive on K_n^gamma and negative outside K_n.

    Args:
        sizes: how many levels each block folds, coarse to fine, n in all; ``[1] * n`` is the network of Theorem 1.
        hidden: the number of hidden layers; identity layers make up what 2 len(sizes) leaves.

    The width is that of the widest layer; zeros pad the others. Raises ConfigError where Assumption 1 fails, or where
    the network would not fit into memory.
    """
    ifs.require_separated()
    assert sum(sizes) == n
    check_width(ifs, max(sizes))
    return _assemble(ifs, *_blocks(ifs, gamma, sizes), hidden)


def line_network(ifs: CubeIFS, n: int, gamma: float, sizes: Sequence[int]) -> MLP:
    """As `network`, but the last block has one hidden layer: where d = 1, a trapezoid for each interval will do."""
    ifs.require_separated()
    assert ifs.d == 1
    assert sum(sizes) == n
    check_width(ifs, max(sizes))
    layers, (weight, bias) = _blocks(ifs, gamma, sizes[:-1], readout=False)
    ends = ifs.intervals(sizes[-1]).T
    ramp = np.full(ends.shape[1], gamma / ifs.side[0] * ifs.contraction ** -sum(sizes[:-1]))
    corners = np.stack([ends[0], ends[0] + ramp, ends[1] - ramp, ends[1]], 1).reshape(-1)
    heights = np.stack([1 / ramp, -1 / ramp, -1 / ramp, 1 / ramp], 1).reshape(-1)
    rows = np.zeros((len(corners) + 1, 2))
    rows[:-1, 0] = rows[-1, 1] = 1
    layers.append((rows @ weight, rows @ bias + np.append(-corners, 0)))
    return _assemble(ifs, layers, (np.append(heights, 1)[None], np.array([-1.5])), None)


def _blocks(ifs: CubeIFS, gamma: float, sizes: Sequence[int], readout: bool = True) -> tuple[list[Layer], Layer]:
    """The hidden layers of a network of the user's x, and the affine map of the last one to (z, a), or to a - 1/2.

    The latter is made with `readout`.
    """
    d = ifs.d
    cut = 1 + 1 / ifs.epsilon  # N: a point of image i is >= epsilon outside of image l, even after l's expansion
    # (z, a) as an affine function of the layer below; at first a = 1
    weight = np.vstack([np.diag(1 / ifs.side), np.zeros((1, d))])
    bias = np.append(-ifs.low / ifs.side, 1.0)
    layers: list[Layer] = []
    done = 0
    for b, size in enumerate(sizes):
        final = readout and b == len(sizes) - 1
        maps = ifs.words(size)
        inverse = np.linalg.inv(maps.matrices)  # u = inverse z + shift
        shift = -np.einsum("rij,rj->ri", inverse, maps.offsets)
        # a ball of radius gamma around x has grown by 1 / contraction per level when it arrives here
        reach = gamma / ifs.side.max() * ifs.contraction**-done * np.linalg.norm(inverse, axis=2)

        rows: list[np.ndarray] = []
        constants: list[np.ndarray] = []
        if not final:  # the point, and how far outside of each image it is
            rows += [np.eye(d), -inverse.reshape(-1, d), inverse.reshape(-1, d)]
            constants += [np.zeros(d), -shift.reshape(-1), shift.reshape(-1) - 1]
        scaled, moved = inverse / reach[:, :, None], shift / reach
        rows += [-scaled.reshape(-1, d), scaled.reshape(-1, d)]
        constants += [(1 - moved).reshape(-1), (1 + moved - 1 / reach).reshape(-1)]
        count = len(np.concatenate(constants))
        layer = np.zeros((count + (b > 0), d + 1))
        layer[:count, :d] = np.concatenate(rows)
        constant = np.concatenate(constants)
        if b > 0:  # in the first block every point is alive: a constant, no unit
            layer[count, d] = 1
            constant = np.append(constant, 0.0)
        layers.append((layer @ weight, layer @ bias + constant))

        one_map = np.repeat(np.eye(maps.r), d, axis=1)  # (r, r d): sums over the coordinates of one map
        alive = np.hstack([-one_map, -one_map])
        if final:
            second, constant = alive, np.zeros(maps.r)
        else:
            outside = -cut * np.repeat(one_map, d, axis=0)
            second = np.zeros((maps.r * (d + 1), count))
            second[: maps.r * d, : d + 2 * d * maps.r] = np.hstack([inverse.reshape(-1, d), outside, outside])
            second[maps.r * d :, d + 2 * d * maps.r :] = alive
            constant = np.append(shift.reshape(-1), np.zeros(maps.r))
        if b > 0:
            second = np.hstack([second, np.zeros((len(second), 1))])
            second[-maps.r :, -1] = 1
        else:
            constant[-maps.r :] += 1
        layers.append((second, constant))

        weight = np.zeros((1 if final else d + 1, len(second)))
        weight[-1, -maps.r :] = 1
        if not final:
            weight[:d, : maps.r * d] = np.tile(np.eye(d), maps.r)
        bias = np.full(1, -0.5) if final else np.zeros(d + 1)
        done += size
    return layers, (weight, bias)


def _assemble(ifs: CubeIFS, layers: list[Layer], readout: Layer, hidden: int | None) -> MLP:
    for _ in range((hidden or 0) - len(layers)):  # what a hidden layer gives is >= 0, so ReLU lets it pass
        units = len(layers[-1][1])
        layers.append((np.eye(units), np.zeros(units)))
    return mlp_of(ifs.d, [*layers, readout])


def mlp_of(d: int, layers: Sequence[Layer]) -> MLP:
    """The float64 MLP with these layers, the readout last; hidden ones are padded with zeros to the widest."""
    model = MLP(d, max(len(bias) for _, bias in layers), len(layers) - 1, dtype=torch.float64)
    parameters = list(model.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
        for full_weight, full_bias, (weight, bias) in zip(parameters[::2], parameters[1::2], layers, strict=True):
            full_weight[: weight.shape[0], : weight.shape[1]] = torch.from_numpy(weight)
            full_bias[: len(bias)] = torch.from_numpy(bias)
    return model


def theorem1_network(ifs: CubeIFS, n: int, gamma: float, hidden: int | None = None) -> MLP:
    """The network of Theorem 1: depth 2 n + 1 (2 n hidden layers), width at most 5 d r. Raises as `network`.

    ``hidden`` asks for more hidden layers, which are identities. With one map (r = 1) there is no room for the carried
    units, but nothing to fold either: K_n is one cell.
    """
    return network(ifs, n, gamma, [1] * n if ifs.r > 1 else [n], hidden=max(2 * n, hidden or 0))


def corollary1_network(ifs: CubeIFS, n: int, s: int, gamma: float) -> MLP:
    """The network of Corollary 1: width at most 5 d r^s, 2 ceil(n/s) hidden layers; 2 with one map (r = 1).

    Where d = 1 and s doesn't divide n there is one layer less. So the depth is at most the printed 2 floor(n/s) + 2
    where d = 1 or s divides n, and one more elsewhere. Raises as `network`, and unless 1 <= s <= n.
    """
    sizes = split(n, s)
    if ifs.r == 1:
        return network(ifs, n, gamma, [n])
    if ifs.d == 1 and n % s:
        return line_network(ifs, n, gamma, sizes)
    return network(ifs, n, gamma, sizes)
