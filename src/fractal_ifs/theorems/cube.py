"""An IFS in the coordinates of its own K0: the form that the constructions work in.

The paper defines K0 = [-1, 1]^d and proves its lemmas for [0, 1]^d. Here z = (x - low) / side carries any box to [0,
1]^d once, so that every lemma holds as printed; lengths of the user's space (epsilon, gamma) are converted with the
box's sides.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.convex import Box
from fractal_ifs.fractals.ifs import AffineIFS


@dataclass(frozen=True)
class CubeIFS:
    """Maps z -> M_i z + v_i of the unit cube: matrices (r, d, d), offsets (r, d); x = low + side * z gives the user's
    space.

    Raises ConfigError where Assumption 2 (images inside K0) fails or a matrix is singular.
    """

    matrices: np.ndarray
    offsets: np.ndarray
    low: np.ndarray
    side: np.ndarray
    name: str = "ifs"

    def __post_init__(self):
        singular = np.linalg.svd(self.matrices, compute_uv=False)
        if (singular[:, -1] <= 0).any() or (singular[:, 0] >= 1 + 1e-9).any():
            raise ConfigError(f"fractal={self.name}: every map must be a contraction with a full-rank matrix")
        low = self.offsets + np.minimum(self.matrices, 0).sum(2)
        high = self.offsets + np.maximum(self.matrices, 0).sum(2)
        outside = np.flatnonzero(((low < -1e-9) | (high > 1 + 1e-9)).any(1))
        if len(outside):
            raise ConfigError(
                f"fractal={self.name}: Assumption 2 fails, map {outside[0] + 1} leaves K0; must stay inside"
            )

    @classmethod
    def of(cls, ifs: AffineIFS) -> CubeIFS:
        """From an AffineIFS whose K0 is a box; the constructions' indicators are products of intervals."""
        if not isinstance(ifs.base, Box):
            raise ConfigError(
                f"fractal={ifs.name}: Theorem 1 needs a box as K0 ([-1, 1]^d in the paper); fractal.base=cube"
            )
        return cls.from_box(ifs.matrices, ifs.offsets, ifs.base.lo, ifs.base.hi, ifs.name)

    @classmethod
    def from_box(cls, matrices, offsets, low, high, name: str = "ifs") -> CubeIFS:
        """From maps x -> M x + v on the box with corners low and high (d,)."""
        matrices, offsets, low, high = (np.asarray(a, float) for a in (matrices, offsets, low, high))
        side = high - low
        return cls(
            matrices * side / side[:, None], (matrices @ low + offsets - low) / side, low=low, side=side, name=name
        )

    @property
    def d(self) -> int:
        return self.offsets.shape[1]

    @property
    def r(self) -> int:
        return len(self.offsets)

    @property
    def contraction(self) -> float:
        """The largest singular value of any map, in the cube."""
        return float(np.linalg.norm(self.matrices, 2, axis=(1, 2)).max())

    def shrunk(self, factor: float) -> CubeIFS:
        """The same centres of the images, every image `factor` times as large: how an IFS with touching cells meets
        Assumption 1.
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
        """The distance (in the cube) of every pair of images of K0, by bounded least squares; about 0 where they
        touch.
        """
        from scipy.optimize import lsq_linear

        found = {}
        for i, j in itertools.combinations(range(self.r), 2):
            both = np.hstack([self.matrices[i], -self.matrices[j]])
            shift = self.offsets[j] - self.offsets[i]
            u = lsq_linear(both, shift, bounds=(0, 1), method="bvls").x
            found[i, j] = float(np.linalg.norm(both @ u - shift))
        return found

    @property
    def epsilon(self) -> float:
        """Assumption 1's epsilon in the cube's unit: the least distance of two images (1 where there's one map)."""
        return min(self.distances.values(), default=1.0)

    def touching(self) -> list[tuple[int, int]]:
        """The pairs (counted from 1) that break Assumption 1."""
        return [(i + 1, j + 1) for (i, j), distance in self.distances.items() if distance < 1e-9]

    def require_separated(self) -> None:
        """Refuses an IFS that breaks Assumption 1, naming the maps that touch."""
        if pairs := self.touching():
            some = " ".join(f"{i}-{j}" for i, j in pairs[:6]) + (" ..." if len(pairs) > 6 else "")
            raise ConfigError(
                f"fractal={self.name}: Assumption 1 fails, {len(pairs)} pairs of cells are at distance 0 ({some}); "
                "must be apart (shrink=0.9 makes them so)"
            )

    def words(self, length: int) -> CubeIFS:
        """The r^length compositions F_i1 o ... o F_i_length, as one IFS."""
        matrices, offsets = np.eye(self.d)[None], np.zeros((1, self.d))
        for _ in range(length):
            offsets = (np.einsum("aij,bj->abi", matrices, self.offsets) + offsets[:, None]).reshape(-1, self.d)
            matrices = np.einsum("aij,bjk->abik", matrices, self.matrices).reshape(-1, self.d, self.d)
        return CubeIFS(matrices, offsets, self.low, self.side, self.name)

    def inradius(self, n: int) -> float:
        """A radius (user's unit) such that every cell of K_n holds a ball of it; exact for similarities or up to 10^5
        cells.
        """
        if self.r**n <= 1e5:
            inverse = np.linalg.inv(self.words(n).matrices) / self.side
            return float(0.5 / np.linalg.norm(inverse, axis=2).max())
        smallest = np.linalg.svd(self.matrices, compute_uv=False)[:, -1].min()
        return float(0.5 * self.side.min() * smallest**n)

    def margin(self, n: int, gamma: float | None) -> float:
        """Assumption 3's gamma, a tenth of the smallest cell's inradius unless given.

        Raises ConfigError where K_n^gamma loses a cell or where float64 can't tell the cells of K_n apart: the
        rounding of x and of n inversions of the maps is up to 16 d n times 2^-52 of the size of K0, and has to stay
        under gamma / 4.
        """
        inradius = self.inradius(n)
        scale = max(abs(self.low).max(), abs(self.low + self.side).max())
        rounding = 64 * self.d * n * np.finfo(float).eps * scale
        if inradius / 10 <= rounding:
            raise ConfigError(
                f"fractal.depth={n}: the cells of K_n have inradius {inradius:.1e}; "
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
