"""Convex sets that a fractal starts from: boxes and hulls of points; what lies in them, how far apart they are.

Sets are closed. Relations between sets (inside, apart, overlapping) are decided up to TOLERANCE times their size,
because numbers such as 2/3 + 1/3 or sqrt(5) aren't exact in floating point, and images that share a face must count as
touching.
"""

from __future__ import annotations

from functools import cached_property
from itertools import product

import numpy as np

from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.numbers import short

TOLERANCE = 1e-9


class Convex:
    """{x : normals x <= bounds}, bounded, with interior. `normals` (h, d) have unit length, `bounds` (h,)."""

    normals: np.ndarray
    bounds: np.ndarray
    lo: np.ndarray  # (d,) the bounding box
    hi: np.ndarray  # (d,)
    volume: float
    vertices: np.ndarray  # (k, d)

    @property
    def d(self) -> int:
        return len(self.lo)

    def contains(self, x: np.ndarray, tolerance: float = 0.0) -> np.ndarray:
        """(..., d) -> (...): whether x lies in the set."""
        return (x @ self.normals.T <= self.bounds + tolerance).all(-1)

    @cached_property
    def center(self) -> np.ndarray:
        """(d,): the mean of the vertices."""
        return self.vertices.mean(0)

    @cached_property
    def inradius(self) -> float:
        """The radius of the largest ball inside."""
        return max(0.0, _largest_ball(self.normals, self.bounds))

    def core(self, radius: float) -> Box:
        """The bounding box of the points whose ball of this radius, less than the inradius, lies in the set."""
        if radius == 0:
            return Box(self.lo, self.hi)
        from scipy.optimize import linprog

        ends = [
            [
                sign * linprog(sign * axis, self.normals, self.bounds - radius, bounds=(None, None)).fun
                for sign in (1, -1)
            ]
            for axis in np.eye(self.d)
        ]
        return Box(*np.transpose(ends))

    def image(self, matrix: np.ndarray, offset: np.ndarray) -> Convex:
        """{matrix x + offset : x in the set}, for an invertible matrix (d, d)."""
        return Polytope(self.vertices @ matrix.T + offset)

    def inside(self, other: Convex) -> bool:
        return bool(other.contains(self.vertices, TOLERANCE * np.ptp(other.vertices)).all())


class Box(Convex):
    """lo <= x <= hi, coordinate by coordinate; lo, hi of shape (d,)."""

    def __init__(self, lo: np.ndarray, hi: np.ndarray):
        self.lo, self.hi = np.asarray(lo, float), np.asarray(hi, float)
        if not (self.lo < self.hi).all():
            raise ConfigError(f"box from {self.lo.tolist()} to {self.hi.tolist()}: every lo must be below its hi")
        self.normals = np.vstack([np.eye(self.d), -np.eye(self.d)])
        self.bounds = np.append(self.hi, -self.lo)
        self.volume = float(np.prod(self.hi - self.lo))

    @cached_property
    def vertices(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleVariableOverride]
        return np.array(list(product(*zip(self.lo, self.hi, strict=True))))

    @cached_property
    def center(self) -> np.ndarray:
        return (self.lo + self.hi) / 2

    @cached_property
    def inradius(self) -> float:
        return float((self.hi - self.lo).min() / 2)

    def image(self, matrix: np.ndarray, offset: np.ndarray) -> Convex:
        """Again a box where the matrix sends axes to axes."""
        if not is_monomial(matrix):
            return super().image(matrix, offset)
        a, b = matrix @ self.lo + offset, matrix @ self.hi + offset
        return Box(np.minimum(a, b), np.maximum(a, b))

    def inside(self, other: Convex) -> bool:
        if isinstance(other, Box):
            slack = TOLERANCE * float((other.hi - other.lo).max())
            return bool((self.lo >= other.lo - slack).all() and (self.hi <= other.hi + slack).all())
        return super().inside(other)

    def __repr__(self) -> str:
        return f"Box({self.lo.tolist()}, {self.hi.tolist()})"


class Polytope(Convex):
    """The convex hull of `vertices` (k, d), d >= 2, without points inside it. Raises ConfigError where it is flat."""

    def __init__(self, vertices: np.ndarray):
        from scipy.spatial import ConvexHull, QhullError

        vertices = np.asarray(vertices, float)
        try:
            hull = ConvexHull(vertices)
        except (QhullError, ValueError):
            raise ConfigError(
                f"fractal.base={short(vertices.round(6).tolist())}: the hull of its vertices must have a volume"
            ) from None
        self.vertices = vertices[hull.vertices]
        _, first = np.unique(hull.equations.round(9), axis=0, return_index=True)  # a face may come in several simplices
        self.normals, self.bounds = hull.equations[first, :-1], -hull.equations[first, -1]
        self.lo, self.hi = self.vertices.min(0), self.vertices.max(0)
        self.volume = float(hull.volume)

    def __repr__(self) -> str:
        return f"Polytope({self.vertices.tolist()})"


def hull(vertices: np.ndarray) -> Convex:
    """The convex hull of (k, d): a Box where it is one."""
    lo, hi = vertices.min(0), vertices.max(0)
    if (lo < hi).all() and len(vertices) >= 2 ** len(lo):
        corners = {tuple(vertex) for vertex in vertices.tolist()}
        if all(corner in corners for corner in product(*zip(lo.tolist(), hi.tolist(), strict=True))):
            return Box(lo, hi)
    return Polytope(vertices)


def is_monomial(matrix: np.ndarray) -> bool:
    """Whether the matrix sends boxes to boxes: in every row and column, one entry that isn't zero."""
    filled = matrix != 0
    return bool((filled.sum(0) == 1).all() and (filled.sum(1) == 1).all())


def distance(a: Convex, b: Convex) -> float:
    """The Euclidean distance of two sets, 0 where they meet.

    Exact for boxes. Else it is the norm of the shortest vector in conv{p - q}, p and q the vertices, which a
    non-negative least squares problem gives; what is returned is the lower bound that this vector proves: the width of
    the slab between the sets that it is normal to.
    """
    if isinstance(a, Box) and isinstance(b, Box):
        gaps = np.maximum(0, np.maximum(a.lo - b.hi, b.lo - a.hi))
        gaps[gaps <= TOLERANCE * max(np.ptp(a.bounds), np.ptp(b.bounds))] = 0
        return float(np.linalg.norm(gaps))
    from scipy.optimize import nnls

    differences = (a.vertices[:, None] - b.vertices[None]).reshape(-1, a.d)
    scale = float(np.abs(differences).max())
    # min |D l|^2 + (1 - sum l)^2 over l >= 0 has l along the convex combination of the least |D l|.
    weights, _ = nnls(np.vstack([differences.T / scale, np.ones(len(differences))]), np.append(np.zeros(a.d), 1.0))
    shortest = differences.T @ (weights / weights.sum())
    length = float(np.linalg.norm(shortest))
    if length <= TOLERANCE * scale:
        return 0.0
    proven = float((differences @ shortest).min() / length)
    return proven if proven > TOLERANCE * scale else 0.0


def overlap(a: Convex, b: Convex) -> bool:
    """Whether the two have a ball in common: more than a shared piece of boundary."""
    if (np.minimum(a.hi, b.hi) <= np.maximum(a.lo, b.lo)).any():
        return False
    scale = TOLERANCE * float(max((a.hi - a.lo).max(), (b.hi - b.lo).max()))
    if isinstance(a, Box) and isinstance(b, Box):
        return bool((np.minimum(a.hi, b.hi) - np.maximum(a.lo, b.lo) > scale).all())
    return _largest_ball(np.vstack([a.normals, b.normals]), np.append(a.bounds, b.bounds)) > scale


def _largest_ball(normals: np.ndarray, bounds: np.ndarray) -> float:
    """The radius of the largest ball in {normals x <= bounds}, a linear program; negative where the set is empty."""
    from scipy.optimize import linprog

    d = normals.shape[1]
    result = linprog(
        np.append(np.zeros(d), -1.0),
        A_ub=np.column_stack([normals, np.ones(len(normals))]),
        b_ub=bounds,
        bounds=(None, None),
    )
    return float(result.x[-1])
