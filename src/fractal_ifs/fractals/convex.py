"""The convex sets that a fractal starts from, boxes and hulls of points: what lies in them, how far apart they are.

Sets are closed. Whether one lies in another, touches or overlaps it is decided up to TOLERANCE times their size:
numbers such as 2/3 + 1/3 or sqrt(5) aren't exact in floating point, and images that share a face must touch.
"""

from __future__ import annotations

from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.numbers import Floats, short
from fractal_ifs.fractals.solvers import convex_hull, linear_program, nonnegative_least_squares

TOLERANCE = 1e-9


class Convex:
    """A closed, bounded convex set of R^d with a volume: {x : normals x <= bounds}."""

    normals: Floats  # (h, d), of length 1
    bounds: Floats  # (h,)
    lo: Floats  # (d,): the lower ends of the bounding box
    hi: Floats  # (d,): its upper ends
    volume: float
    vertices: Floats  # (k, d)

    @property
    def d(self) -> int:
        """The dimension."""
        return len(self.lo)

    def contains(self, x: Floats, tolerance: float = 0.0) -> NDArray[np.bool_]:
        """Whether each x lies in the set, or beyond its faces by no more than `tolerance`: (..., d) to (...)."""
        return np.all(x @ self.normals.T <= self.bounds + tolerance, axis=-1)

    @cached_property
    def center(self) -> Floats:
        """(d,): the mean of the vertices."""
        return self.vertices.mean(0)

    @cached_property
    def inradius(self) -> float:
        """The radius of the largest ball inside."""
        return max(0.0, _largest_ball(self.normals, self.bounds))

    def core(self, radius: float) -> Box:
        """The bounding box of the points around which a ball of this radius, below the inradius, fits into the set."""
        if radius == 0:
            return Box(self.lo, self.hi)
        lo, hi = (
            [sign * linear_program(sign * axis, self.normals, self.bounds - radius)[1] for axis in np.eye(self.d)]
            for sign in (1, -1)
        )
        return Box(np.array(lo), np.array(hi))

    def image(self, matrix: Floats, offset: Floats) -> Convex:
        """{matrix x + offset : x in the set}, for an invertible matrix (d, d)."""
        return Polytope(self.vertices @ matrix.T + offset)

    def inside(self, other: Convex) -> bool:
        """Whether the set lies in the other, up to TOLERANCE."""
        return bool(other.contains(self.vertices, TOLERANCE * np.ptp(other.vertices)).all())


class Box(Convex):
    """lo <= x <= hi in every coordinate; lo and hi (d,). Raises ConfigError unless every lo is below its hi."""

    def __init__(self, lo: ArrayLike, hi: ArrayLike):
        self.lo, self.hi = np.asarray(lo, np.float64), np.asarray(hi, np.float64)
        if not (self.lo < self.hi).all():
            raise ConfigError(f"box from {self.lo.tolist()} to {self.hi.tolist()}: every lo must be below its hi")
        self.normals = np.vstack([np.eye(self.d), -np.eye(self.d)])
        self.bounds = np.append(self.hi, -self.lo)
        self.volume = float(np.prod(self.hi - self.lo))

    @cached_property
    def vertices(self) -> Floats:  # pyright: ignore[reportIncompatibleVariableOverride]
        """(2^d, d): the corners."""
        return np.array(list(product(*zip(self.lo, self.hi, strict=True))))

    @cached_property
    def center(self) -> Floats:
        """(d,): the midpoint."""
        return (self.lo + self.hi) / 2

    @cached_property
    def inradius(self) -> float:
        """Half of the shortest side."""
        return float((self.hi - self.lo).min() / 2)

    def image(self, matrix: Floats, offset: Floats) -> Convex:
        """Again a box where the matrix sends axes to axes."""
        if not is_monomial(matrix):
            return super().image(matrix, offset)
        a, b = matrix @ self.lo + offset, matrix @ self.hi + offset
        return Box(np.minimum(a, b), np.maximum(a, b))

    def inside(self, other: Convex) -> bool:
        """As of `Convex`; of two boxes, side by side."""
        if isinstance(other, Box):
            slack = TOLERANCE * float((other.hi - other.lo).max())
            return bool((self.lo >= other.lo - slack).all() and (self.hi <= other.hi + slack).all())
        return super().inside(other)

    def __repr__(self) -> str:
        return f"Box({self.lo.tolist()}, {self.hi.tolist()})"


class Polytope(Convex):
    """The convex hull of points (k, d), d >= 2. Raises ConfigError where it has no volume."""

    def __init__(self, vertices: ArrayLike):
        vertices = np.asarray(vertices, np.float64)
        try:
            hull = convex_hull(vertices)
        except ValueError:
            raise ConfigError(
                f"fractal.base={short(vertices.round(6).tolist())}: the hull of its vertices must have a volume"
            ) from None
        self.vertices = vertices[hull.vertices]
        _, first = np.unique(hull.equations.round(9), axis=0, return_index=True)  # a face may come in several simplices
        self.normals, self.bounds = hull.equations[first, :-1], -hull.equations[first, -1]
        self.lo, self.hi = self.vertices.min(0), self.vertices.max(0)
        self.volume = hull.volume

    def __repr__(self) -> str:
        return f"Polytope({self.vertices.tolist()})"


def hull(vertices: Floats) -> Convex:
    """The convex hull of points (k, d), as a Box where it is one. Raises ConfigError where it has no volume."""
    lo, hi = vertices.min(0), vertices.max(0)
    if (lo < hi).all() and len(vertices) >= 2 ** len(lo):
        corners = {tuple(vertex) for vertex in vertices.tolist()}
        if all(corner in corners for corner in product(*zip(lo.tolist(), hi.tolist(), strict=True))):
            return Box(lo, hi)
    return Polytope(vertices)


def is_monomial(matrix: Floats) -> bool:
    """Whether matrices (..., d, d) all send boxes to boxes: one entry that isn't zero in every row and column."""
    filled = matrix != 0
    return bool((filled.sum(-2) == 1).all() and (filled.sum(-1) == 1).all())


def distance(a: Convex, b: Convex) -> float:
    """The Euclidean distance of two sets, 0 where they meet: exact for boxes, else a lower bound near it.

    The distance is the length of the shortest vector in the hull of all p - q, p and q the vertices: a non-negative
    least squares problem. What is returned is what that vector proves in spite of rounding: how wide the slab normal
    to it is that lies between the sets.
    """
    if isinstance(a, Box) and isinstance(b, Box):
        gaps = np.maximum(0, np.maximum(a.lo - b.hi, b.lo - a.hi))
        gaps[gaps <= TOLERANCE * max(np.ptp(a.bounds), np.ptp(b.bounds))] = 0
        return float(np.linalg.norm(gaps))
    differences = (a.vertices[:, None] - b.vertices[None]).reshape(-1, a.d)
    scale = float(np.abs(differences).max())
    # min |D l|^2 + (1 - sum l)^2 over l >= 0 has l along the convex combination of the least |D l|.
    weights = nonnegative_least_squares(
        np.vstack([differences.T / scale, np.ones(len(differences))]), np.append(np.zeros(a.d), 1.0)
    )
    shortest = differences.T @ (weights / weights.sum())
    length = float(np.linalg.norm(shortest))
    if length <= TOLERANCE * scale:
        return 0.0
    proven = float((differences @ shortest).min() / length)
    return proven if proven > TOLERANCE * scale else 0.0


def overlap(a: Convex, b: Convex) -> bool:
    """Whether the two have more in common than a piece of their boundaries: a ball."""
    if (np.minimum(a.hi, b.hi) <= np.maximum(a.lo, b.lo)).any():
        return False
    scale = TOLERANCE * float(max((a.hi - a.lo).max(), (b.hi - b.lo).max()))
    if isinstance(a, Box) and isinstance(b, Box):
        return bool((np.minimum(a.hi, b.hi) - np.maximum(a.lo, b.lo) > scale).all())
    return _largest_ball(np.vstack([a.normals, b.normals]), np.append(a.bounds, b.bounds)) > scale


def _largest_ball(normals: Floats, bounds: Floats) -> float:
    """The radius of the largest ball in {normals x <= bounds}, by a linear program; negative where the set is empty."""
    objective = np.append(np.zeros(normals.shape[1]), -1.0)
    x, _ = linear_program(objective, np.column_stack([normals, np.ones(len(normals))]), bounds)
    return float(x[-1])
