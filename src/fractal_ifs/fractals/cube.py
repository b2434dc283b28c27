"""An IFS in the coordinates of its own K_0, in which the constructions work.

The paper has K_0 = [-1, 1]^d and proves its lemmas for [0, 1]^d. Here z = (x - low) / side carries any box to [0, 1]^d
once, so that every lemma holds as printed; lengths in the user's space (epsilon, gamma) are converted by the sides.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.convex import Box
from fractal_ifs.fractals.ifs import AffineIFS
from fractal_ifs.fractals.numbers import short
from fractal_ifs.fractals.solvers import least_squares_in_cube


@dataclass(frozen=True)
class CubeIFS:
    """Maps z -> M_i z + v_i of the unit cube, where x = low + side * z leads to the user's space.

    Raises ConfigError where an image leaves K_0 (Assumption 2), or a map is singular or doesn't contract.
    """

    matrices: np.ndarray  # (r, d, d)
    offsets: np.ndarray  # (r, d)
    low: np.ndarray  # (d,): the lower corner of K_0
    side: np.ndarray  # (d,): its sides
    name: str = "ifs"

    def __post_init__(self):
        singular = np.linalg.svd(self.matrices, compute_uv=False)
        for i, values in enumerate(singular):
            given = self.matrices[i] * self.side[:, None] / self.side
            key = f"fractal.maps[{i}].matrix={short(given.round(6).tolist())}"
            if values[0] >= 1 + 1e-9:
                raise ConfigError(
                    f"{key}: must contract in the coordinates of K_0's box too, its spectral norm there is "
                    f"{values[0]:.6g}, not < 1"
                )
            if values[-1] <= 0:
                raise ConfigError(f"{key}: must have full rank, is singular")
        low = self.offsets + np.minimum(self.matrices, 0).sum(2)
        high = self.offsets + np.maximum(self.matrices, 0).sum(2)
        outside = np.flatnonzero(((low < -1e-9) | (high > 1 + 1e-9)).any(1))
        if len(outside):
            raise ConfigError(
                f"fractal={self.name}: Assumption 2 fails, map {outside[0] + 1} leaves K0; must stay inside"
            )

    @classmethod
    def of(cls, ifs: AffineIFS) -> CubeIFS:
        """From an AffineIFS. Raises ConfigError unless K_0 is a box: the constructions go coordinate by coordinate."""
        if not isinstance(ifs.base, Box):
            raise ConfigError(
                f"fractal={ifs.name}: Theorem 1 needs a box as K0 ([-1, 1]^d in the paper); fractal.base=cube"
            )
        return cls.from_box(ifs.matrices, ifs.offsets, ifs.base.lo, ifs.base.hi, ifs.name)

    @classmethod
    def from_box(
        cls, matrices: ArrayLike, offsets: ArrayLike, low: ArrayLike, high: ArrayLike, name: str = "ifs"
    ) -> CubeIFS:
        """From maps x -> M x + v, (r, d, d) and (r, d), on the box with corners low and high (d,)."""
        matrices, offsets, low, high = (np.asarray(a, float) for a in (matrices, offsets, low, high))
        side = high - low
        return cls(
            matrices * side / side[:, None], (matrices @ low + offsets - low) / side, low=low, side=side, name=name
        )

    @property
    def d(self) -> int:
        """The dimension."""
        return self.offsets.shape[1]

    @property
    def r(self) -> int:
        """The number of maps."""
        return len(self.offsets)

    @property
    def contraction(self) -> float:
        """The largest singular value of any map in the cube: no map makes a length more than so many times as long."""
        return float(np.linalg.norm(self.matrices, 2, axis=(1, 2)).max())

    def shrunk(self, factor: float) -> CubeIFS:
        """The images made smaller by a factor in (0, 1], each about its centre: touching ones then meet Assumption 1.

        Raises ConfigError for other factors.
        """
        if not 0 < factor <= 1:
            raise ConfigError(f"shrink={factor}: must be in (0, 1]")
        return CubeIFS(
            self.matrices * factor,
            self.offsets + (1 - factor) * self.matrices.sum(2) / 2,
            self.low,
            self.side,
            self.name if factor == 1 else f"{self.name}*{factor:g}",
        )

    @cached_property
    def distances(self) -> dict[tuple[int, int], float]:
        """The distance, in the cube, of every pair of images, by bounded least squares; about 0 where they touch."""
        found: dict[tuple[int, int], float] = {}
        for i, j in itertools.combinations(range(self.r), 2):
            both = np.hstack([self.matrices[i], -self.matrices[j]])
            shift = self.offsets[j] - self.offsets[i]
            u = least_squares_in_cube(both, shift)
            found[i, j] = float(np.linalg.norm(both @ u - shift))
        return found

    @property
    def epsilon(self) -> float:
        """The epsilon of Assumption 1, in the cube: the least distance of two images, 1 where there is one map only."""
        return min(self.distances.values(), default=1.0)

    def touching(self) -> list[tuple[int, int]]:
        """The pairs of maps, counted from 1, that break Assumption 1."""
        return [(i + 1, j + 1) for (i, j), distance in self.distances.items() if distance < 1e-9]

    def require_separated(self) -> None:
        """Raises ConfigError, which names the maps, where images touch: Assumption 1."""
        if pairs := self.touching():
            some = " ".join(f"{i}-{j}" for i, j in pairs[:6]) + (" ..." if len(pairs) > 6 else "")
            raise ConfigError(
                f"fractal={self.name}: Assumption 1 fails, {len(pairs)} pairs of cells are at distance 0 ({some}); "
                "must be apart (shrink=0.9 makes them so)"
            )

    def words(self, length: int) -> CubeIFS:
        """The r^length compositions F_(i_1) o ... o F_(i_length), as an IFS."""
        matrices, offsets = np.eye(self.d)[None], np.zeros((1, self.d))
        for _ in range(length):
            offsets = (np.einsum("aij,bj->abi", matrices, self.offsets) + offsets[:, None]).reshape(-1, self.d)
            matrices = np.einsum("aij,bjk->abik", matrices, self.matrices).reshape(-1, self.d, self.d)
        return CubeIFS(matrices, offsets, self.low, self.side, self.name)

    def intervals(self, length: int) -> np.ndarray:
        """(r^length, 2): the ends of the cells of K_length, lower first, in the cube of an IFS with d = 1."""
        words = self.words(length)
        return np.sort(np.stack([words.offsets[:, 0], words.offsets[:, 0] + words.matrices[:, 0, 0]], 1), 1)

    def inradius(self, n: int) -> float:
        """A radius, in the user's unit, of a ball that fits into every cell of K_n.

        It is the largest one for up to 10^5 cells, and for similarities.
        """
        if self.r**n <= 1e5:
            inverse = np.linalg.inv(self.words(n).matrices) / self.side
            return float(0.5 / np.linalg.norm(inverse, axis=2).max())
        smallest = np.linalg.svd(self.matrices, compute_uv=False)[:, -1].min()
        return float(0.5 * self.side.min() * smallest**n)

    def margin(self, n: int, gamma: float | None, key: str = "fractal.depth") -> float:
        """The gamma of Assumption 3, in the user's unit: a tenth of the smallest cell's inradius if not given.

        Raises ConfigError where K_n^gamma loses a cell, or where float64 can't tell the cells of K_n apart: rounding x
        and inverting n maps costs up to 16 d n 2^-52 times the size of K_0, which must stay below gamma / 4. ``key``
        is what sets n.
        """
        inradius = self.inradius(n)
        scale = max(abs(self.low).max(), abs(self.low + self.side).max())
        rounding = 64 * self.d * n * np.finfo(float).eps * scale
        if inradius / 10 <= rounding:
            raise ConfigError(
                f"{key}={n}: the cells of K_n have inradius {inradius:.1e}; "
                f"must be over {10 * rounding:.1e} for float64 to tell them apart"
            )
        if gamma is None:
            return inradius / 10
        if not rounding < gamma < inradius:
            raise ConfigError(
                f"margin={gamma}: must be in ({rounding:.1e}, {inradius:.3g}), so that float64 resolves it "
                "and each cell of K_n keeps positives (Assumption 3)"
            )
        return float(gamma)


def built_width(ifs: CubeIFS, s: int, n: int | None = None) -> int:
    """The width of the networks that `networks.construction` builds, for blocks of s levels.

    The most that it may be where s doesn't divide the depth n. A single block, of s = n levels or of a single map,
    carries nothing to a next one. n=None: there are several.
    """
    cells = 1 if ifs.r == 1 else ifs.r**s
    return 2 * ifs.d * cells if ifs.r == 1 or s == n else 4 * ifs.d * cells + ifs.d + 1
