"""What convex sets need of scipy, with types, which it lacks; imported when first used, as most fractals need none."""
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from fractal_ifs.fractals.numbers import Floats


class Hull(NamedTuple):
    """A convex hull of points: which of them are its vertices, its faces, and its volume."""

    vertices: NDArray[np.int64]  # (k,): indices
    equations: Floats  # (h, d + 1): normals and offsets, normals x + offset <= 0 inside; a face may come several times
    volume: float


def linear_program(objective: Floats, normals: Floats, bounds: Floats) -> tuple[Floats, float]:
    """The point x (d,) with normals x <= bounds that minimises objective x, and the minimum."""
    from scipy import optimize

    result: Any = cast(Any, optimize).linprog(objective, A_ub=normals, b_ub=bounds, bounds=(None, None))
    return result.x, float(result.fun)


def nonnegative_least_squares(matrix: Floats, target: Floats) -> Floats:
    """The weights w >= 0, (k,), that minimise |matrix w - target|."""
    from scipy import optimize

    return cast(Any, optimize).nnls(matrix, target)[0]


def least_squares_in_cube(matrix: Floats, target: Floats) -> Floats:
    """The point u of [0, 1]^k that minimises |matrix u - target|."""
    from scipy import optimize

    return cast(Any, optimize).lsq_linear(matrix, target, bounds=(0, 1), method="bvls").x


def convex_hull(points: Floats) -> Hull:
    """The hull of points (k, d), d >= 2. Raises ValueError where it has no volume."""
    from scipy import spatial

    try:
        hull: Any = cast(Any, spatial).ConvexHull(points)
    except spatial.QhullError as error:
        raise ValueError(error) from None
    return Hull(hull.vertices, hull.equations, float(hull.volume))
