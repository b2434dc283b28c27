"""Labelled float64 points for trying a construction: of every level, far outside, and on both sides of the margin."""

from __future__ import annotations

import numpy as np

from fractal_ifs.fractals.cube import CubeIFS


def labelled_points(
    ifs: CubeIFS,
    n: int,
    gamma: float,
    count: int,
    rng: np.random.Generator,
    law: np.ndarray | None = None,
    hard: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of D_n: x (count, d) in the user's space, y (count,) in {-1, +1}, and their levels (count,).

    Levels are 1..n for negatives and n + 1 for positives.

    Args:
        law: the probabilities (n + 1,) of the levels; uniform if not given.
        hard: half of the positives lie on the boundary of K_n^gamma, half of the negatives 10^-9 of a cell outside
            one, and a tenth of the negatives outside K_0, near and very far (level 0).
    """
    law = np.full(n + 1, 1 / (n + 1)) if law is None else law
    level = rng.choice(n + 1, count, p=law) + 1
    positive = level == n + 1
    matrix, offset = np.broadcast_to(np.eye(ifs.d), (count, ifs.d, ifs.d)).copy(), np.zeros((count, ifs.d))
    for j in range(1, n + 1):
        at = np.flatnonzero(level > j)
        i = rng.integers(ifs.r, size=len(at))
        offset[at] += np.einsum("nij,nj->ni", matrix[at], ifs.offsets[i])
        matrix[at] = matrix[at] @ ifs.matrices[i]
    u = rng.random((count, ifs.d))

    inset = gamma * np.linalg.norm(np.linalg.inv(matrix[positive]) / ifs.side, axis=2)
    inside = u[positive]
    if hard:
        edge, axis = np.arange(0, len(inside), 2), rng.integers(ifs.d, size=(len(inside) + 1) // 2)
        inside[edge, axis] = rng.integers(2, size=len(edge))
    u[positive] = inset + (1 - 2 * inset) * inside

    negative = np.flatnonzero(~positive)
    todo = negative
    while len(todo):  # uniform in the parent minus its images
        u[todo] = rng.random((len(todo), ifs.d))
        todo = todo[_in_image(ifs, u[todo])]
    if hard and len(negative):
        _harden(ifs, u, matrix, offset, level, negative, rng)
    z = np.einsum("nij,nj->ni", matrix, u) + offset
    return ifs.low + ifs.side * z, np.where(positive, 1, -1), level


def _in_image(ifs: CubeIFS, u: np.ndarray) -> np.ndarray:
    inside = np.zeros(len(u), bool)
    for matrix, offset in zip(np.linalg.inv(ifs.matrices), ifs.offsets, strict=True):
        v = (u - offset) @ matrix.T
        inside |= ((v >= 0) & (v <= 1)).all(1)
    return inside


def _harden(
    ifs: CubeIFS,
    u: np.ndarray,
    matrix: np.ndarray,
    offset: np.ndarray,
    level: np.ndarray,
    negative: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Moves some of the negatives, in place: near a face of a cell, or out of K_0."""
    near = negative[::2]
    axis, image = rng.integers(ifs.d, size=len(near)), rng.integers(ifs.r, size=len(near))
    child = rng.random((len(near), ifs.d))
    child[np.arange(len(near)), axis] = np.where(rng.random(len(near)) < 0.5, -1e-9, 1 + 1e-9)
    u[near] = np.einsum("nij,nj->ni", ifs.matrices[image], child) + ifs.offsets[image]
    far = negative[::10]
    axis = rng.integers(ifs.d, size=len(far))
    beyond = rng.random((len(far), ifs.d)) * 3 - 1
    beyond[np.arange(len(far)), axis] = 0.5 + rng.choice([-1, 1], len(far)) * (0.5 + 10 ** rng.uniform(-9, 6, len(far)))
    u[far], matrix[far], offset[far], level[far] = beyond, np.eye(ifs.d), 0, 0
