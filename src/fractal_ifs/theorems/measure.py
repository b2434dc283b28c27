"""A fractal distribution on the line, integrated exactly: masses, first moments, errors and population gradients.

K_0 is an interval. At each level the r images carry equal shares; negatives of a level are uniform in the gaps of their
parent cell, positives uniform in K_n^gamma. By self-similarity the mass left of x is found in n steps, whatever r^n is:
at each level only the cell that holds x is opened.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.cube import CubeIFS
from fractal_ifs.networks.mlp import mlp
from fractal_ifs.theorems.line import breakpoints

ROUNDING = 1e-9  # of integrals of cells down to 3^-30 in float64
CHUNK = 1 << 20  # points at a time: memory stays under about 100 MB


class LineDistribution:
    """D_n of an IFS with d = 1.

    Args:
        law: (n + 1,): the probabilities of a negative of level 1..n, then of a positive.
        gamma: the margin of the positives, in the user's unit.

    Raises ConfigError where d > 1, where images overlap or leave no gap, or where gamma leaves no positives in a cell.
    """

    def __init__(self, ifs: CubeIFS, law: np.ndarray, gamma: float = 0.0):
        if ifs.d != 1:
            raise ConfigError(f"fractal={ifs.name}: has d={ifs.d}; must have d=1 here")
        self.law, self.n, self.r, self.ifs = np.asarray(law, float), len(law) - 1, ifs.r, ifs
        self.low, self.side = float(ifs.low[0]), float(ifs.side[0])
        self.high = self.low + self.side
        self.gamma = gamma
        slope, offset = ifs.matrices[:, 0, 0], ifs.offsets[:, 0]
        left, right = np.minimum(offset, offset + slope), np.maximum(offset, offset + slope)
        order = np.argsort(left)
        left, right, flipped = left[order], right[order], (slope < 0)[order]
        if (left[1:] < right[:-1] - 1e-12).any():
            raise ConfigError(f"fractal={ifs.name}: images of K0 overlap; must be disjoint")
        # a cell's layout as is, and mirrored (a map of negative slope mirrors what is inside)
        self._left, self._right = np.stack([left, 1 - right[::-1]]), np.stack([right, 1 - left[::-1]])
        self._flip = np.stack([flipped, flipped[::-1]])
        self._wide = self._right - self._left
        self._gaps = 1 - float((right - left).sum())
        if self._gaps < 1e-12:
            raise ConfigError(f"fractal={ifs.name}: the images fill K0; must leave gaps for the negatives")
        if gamma >= 0.5 * self.side * float((right - left).min()) ** self.n:
            raise ConfigError(f"margin={gamma}: must be less than half of the smallest cell (Assumption 3)")
        self._centroids()

    def _centroids(self) -> None:
        """For each level: the mass of negatives below it, and both labels' centroids in a cell, as is and mirrored."""
        n, negatives = self.n, self.law[:-1]
        self._below = np.append(negatives[::-1].cumsum()[::-1], 0.0)
        self._centre = np.full((n + 1, 2, 2), 0.5)  # level, mirrored, label (-, +)
        gap_centroid = (0.5 - (self._wide * (self._left + self._right) / 2).sum(1)) / self._gaps
        for j in range(n - 1, -1, -1):
            child = self._left + self._wide * self._centre[j + 1, :, 0][np.arange(2)[:, None] ^ self._flip]
            total = self._below[j + 1] * child.mean(1) + negatives[j] * gap_centroid
            if self._below[j] > 0:
                self._centre[j, :, 0] = total / self._below[j]
            child = self._left + self._wide * self._centre[j + 1, :, 1][np.arange(2)[:, None] ^ self._flip]
            self._centre[j, :, 1] = child.mean(1)

    def cumulative(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mass and the first moment of each label left of x: each (2, *x.shape), negatives first."""
        x = np.asarray(x, float)
        flat = x.reshape(-1)
        parts = [self._cumulative(flat[i : i + CHUNK]) for i in range(0, len(flat), CHUNK)]
        mass, moment = (np.concatenate(part, 1).reshape(2, *x.shape) for part in zip(*parts, strict=True))
        return mass, moment

    def _cumulative(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = np.clip((x - self.low) / self.side, 0, 1)
        mass, moment = np.zeros((2, len(x))), np.zeros((2, len(x)))
        at = np.arange(len(x))  # the points whose cell is still to be opened
        origin, size = np.full(len(x), self.low), np.full(len(x), self.side)
        mirrored = np.zeros(len(x), int)
        positive = self.law[-1]
        for j in range(self.n):
            left, right, wide = self._left[mirrored], self._right[mirrored], self._wide[mirrored]
            kind = mirrored[:, None] ^ self._flip[mirrored]
            share = self.r ** -float(j)
            # images wholly left of x
            passed = right <= u[:, None]
            for label, whole in ((0, self._below[j + 1]), (1, positive)):
                weight = whole * share / self.r
                centre = left + wide * self._centre[j + 1, kind, label]
                mass[label, at] += weight * passed.sum(1)
                moment[label, at] += weight * (passed * (origin[:, None] + size[:, None] * centre)).sum(1)
            # gaps left of x
            end = np.clip(u[:, None], left, right)
            length = u - (end - left).sum(1)
            first = u**2 / 2 - ((end**2 - left**2) / 2).sum(1)
            density = self.law[j] * share / self._gaps
            mass[0, at] += density * length
            moment[0, at] += density * (origin * length + size * first)
            # the image that holds x
            inside = (left < u[:, None]) & (u[:, None] < right)
            held = inside.any(1)
            if not held.any():
                return mass, moment
            i = inside.argmax(1)[held]
            rows = np.flatnonzero(held)
            u = (u[held] - left[rows, i]) / wide[rows, i]
            origin, size = origin[held] + size[held] * left[rows, i], size[held] * wide[rows, i]
            mirrored, at = kind[rows, i], at[held]
        inset = self.gamma / size
        reached = np.clip(u, inset, 1 - inset)
        density = positive * self.r ** -float(self.n) / (1 - 2 * inset)
        mass[1, at] += density * (reached - inset)
        moment[1, at] += density * (origin * (reached - inset) + size * (reached**2 - inset**2) / 2)
        return mass, moment

    def masses(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mass and the first moment of each label between neighbours of x (M, B): each (2, M, B - 1)."""
        mass, moment = self.cumulative(x)
        return np.diff(mass, axis=-1), np.diff(moment, axis=-1)

    def error(self, parameters: Sequence[Tensor]) -> np.ndarray:
        """(M,): the exact error of each of M networks; an output of 0 is wrong."""
        x = breakpoints(parameters, self.low, self.high, values=[0.0])
        with torch.no_grad():
            f = mlp(parameters, ((x[:, 1:] + x[:, :-1]) / 2).unsqueeze(-1)).numpy()
        mass, _ = self.masses(x.numpy())
        return np.clip((mass[0] * (f >= 0) + mass[1] * (f <= 0)).sum(-1), 0, 1)

    def loss_and_gradient(self, parameters: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The population hinge loss (M,) of M networks and its exact gradient, shaped as `parameters`.

        Between breakpoints (of the units, and where the output is +-1) the network and its gradient in the parameters
        are affine in x: two nodes whose weights have the piece's mass and first moment integrate them exactly.
        """
        x = breakpoints(parameters, self.low, self.high, values=[-1.0, 1.0])
        mass, moment = (torch.from_numpy(a) for a in self.masses(x.numpy()))
        centre, half = (x[:, 1:] + x[:, :-1]) / 2, (x[:, 1:] - x[:, :-1]) / 2
        leaves = [p.detach().clone().requires_grad_() for p in parameters]
        nodes = torch.cat([centre - half / 2, centre + half / 2], 1)
        f = mlp(leaves, nodes.unsqueeze(-1))
        tilt = torch.where(half > 0, (moment - centre * mass) / half, 0)
        weight = torch.cat([mass / 2 - tilt, mass / 2 + tilt], 2)  # (2, M, nodes)
        middle = mlp(parameters, centre.unsqueeze(-1)).detach().repeat(1, 2)
        loss = torch.zeros(len(f), dtype=torch.float64)
        for label, y in ((0, -1.0), (1, 1.0)):
            loss = loss + (weight[label] * (1 - y * f) * (y * middle < 1)).sum(1)
        return loss.detach(), list(torch.autograd.grad(loss.sum(), leaves))


def best_error(masses: np.ndarray, changes: int) -> np.ndarray:
    """(changes + 1,): the least error of all functions on the line with at most 0, 1, ... sign changes.

    By dynamic programming over pieces that carry one label each, of masses (2, pieces): see `masses_of_pieces`.
    """
    cost = np.full((changes + 1, 2), np.inf)
    cost[0] = 0
    for negative, positive in masses.T:
        switched = np.full_like(cost, np.inf)
        switched[1:] = cost[:-1, ::-1]
        cost = np.minimum(cost, switched) + np.array([positive, negative])  # sign - pays for positives, + for negatives
    return np.minimum.accumulate(cost.min(1))


def masses_of_pieces(distribution: LineDistribution) -> np.ndarray:
    """(2, about 2 r^n): both labels' masses in the cells of K_n and in the gaps between them, from left to right."""
    x = np.sort(np.append([0.0, 1.0], distribution.ifs.intervals(distribution.n)))
    x = x[np.append(True, np.diff(x) > 1e-12)]  # an end of K_0 is an end of a cell too
    mass, _ = distribution.masses(distribution.low + distribution.side * x[None])
    return mass[:, 0]
