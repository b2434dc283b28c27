"""Iterated function systems: r affine maps F_i(x) = M_i x + v_i, and the sets K_n = F_1(K_(n-1)) u ... u F_r(K_(n-1)).

Section 2 of the paper. K_0 is [-1, 1]^d unless something else is given, such as [0, 1] for the Cantor set of Section 4,
or a triangle. A cell of K_j is the image of K_0 under a composition of j maps; K_j is the union of its r^j cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple, TypeGuard, cast

import numpy as np
from numpy.typing import ArrayLike

from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.convex import TOLERANCE, Box, Convex, distance, hull, is_monomial, overlap
from fractal_ifs.fractals.named import checked, name_of, read
from fractal_ifs.fractals.numbers import DEEPEST, Floats, is_list, number, short, vector, whole

DEPTH = 5  # n of K_n, unless one is given: that of the paper's experiments
KEYS = ("name", "depth", "d", "ratio", "offsets", "corners", "maps", "base", "negatives")
MAX_CELLS, MAX_BOXES = 2**22, 2**18
MOST_FOLD = 100  # in how many cells a point may lie on average, where these cover K_0: with 85, 3 ms a point
SLIVER = 1e-4  # the share of a gap that may be too thin for float32: a decimal such as .3333 leaves slivers
Run = tuple[int, int]  # neighbouring cells of a grid along an axis: the first, and the one after the last


class Separation(NamedTuple):
    """How the images of K_0 lie to each other; Assumption 1 of the paper holds where epsilon > 0."""

    epsilon: float  # the least distance of two images
    touching: list[tuple[int, int]]  # the pairs that share a piece of their boundaries and nothing else
    overlapping: list[tuple[int, int]]  # the pairs that share more


class AffineIFS:
    """The maps x -> matrices[i] x + offsets[i], i = 0..r-1, and the set K_0 that they start from.

    matrices   (r, d, d): invertible, of spectral norm < 1
    offsets    (r, d)
    base       K_0: a Box, a Polytope, or vertices (k, d); [-1, 1]^d if not given
    negatives  the box in K_0 where negatives of the first level lie; all of K_0 outside the images if not given

    Raises ConfigError where shapes don't fit, a map is singular or doesn't contract, or `negatives` leaves K_0 or
    overlaps an image.
    """

    def __init__(
        self,
        matrices: ArrayLike,
        offsets: ArrayLike,
        base: Convex | ArrayLike | None = None,
        negatives: Box | None = None,
        name: str | None = None,
    ):
        self.matrices: Floats = np.array(matrices, np.float64)
        self.offsets: Floats = np.array(offsets, np.float64)
        self.name = name or "custom"
        if self.offsets.ndim != 2 or 0 in self.offsets.shape:
            raise ConfigError(
                f"fractal.offsets of shape {self.offsets.shape}: must be of shape (r, d), with r and d at least 1"
            )
        self.r, self.d = map(int, self.offsets.shape)
        if self.matrices.shape != (self.r, self.d, self.d):
            raise ConfigError(
                f"fractal.matrices of shape {self.matrices.shape}: must be of shape {(self.r, self.d, self.d)}"
            )
        self._check_maps()
        if base is None:
            base = Box(-np.ones(self.d), np.ones(self.d))
        self.base: Convex = base if isinstance(base, Convex) else hull(np.asarray(base, np.float64))
        if self.base.d != self.d:
            raise ConfigError(f"fractal.base of dimension {self.base.d}: must be of the maps' dimension, {self.d}")
        self.negatives = negatives
        if negatives is not None:
            self._check_negatives(negatives)

    def _check_maps(self) -> None:
        if not (np.isfinite(self.matrices).all() and np.isfinite(self.offsets).all()):
            raise ConfigError("fractal.maps: every entry must be finite")
        singular_values = np.linalg.svd(self.matrices, compute_uv=False)
        for i, values in enumerate(singular_values):
            matrix = short(self.matrices[i].round(6).tolist())
            if values[0] >= 1:
                raise ConfigError(
                    f"fractal.maps[{i}].matrix={matrix}: must contract, its spectral norm is {values[0]:.6g}, not < 1"
                )
            if values[-1] <= 1e-12 * values[0]:
                raise ConfigError(f"fractal.maps[{i}].matrix={matrix}: must have full rank, is singular")

    def _check_negatives(self, box: Box) -> None:
        key = f"fractal.negatives={{lo: {box.lo.round(6).tolist()}, hi: {box.hi.round(6).tolist()}}}"
        if box.d != self.d:
            raise ConfigError(f"{key}: must be of the maps' dimension, {self.d}")
        if not box.inside(self.base):
            raise ConfigError(f"{key}: must lie in K_0")
        for i, image in enumerate(self.images):
            if overlap(box, image):
                raise ConfigError(f"{key}: must not overlap an image of K_0, overlaps that of maps[{i}]")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AffineIFS:
        """From the keys of a conf/fractal/*.yaml, where numbers may be fractions ("2/3"). Raises ConfigError.

        ratio + offsets  one contraction ratio and r offsets, or ratio + corners: c, for the offsets {-c, c}^d
        maps             instead: a list of {matrix, offset}; a lone number as the matrix is a multiple of the identity
        d                the dimension, needed with `corners` only
        base             cube ([-1, 1]^d, the default) | unit ([0, 1]^d) | {lo, hi} | a list of vertices
        negatives        {lo, hi}
        name, depth      a name, and the n of K_n, which is not part of the IFS: see `depth_of`
        """
        keys = checked(config, "fractal", KEYS)
        d = whole(keys["d"], "fractal.d", 1, 10) if "d" in keys else None
        depth_of(keys)
        matrices, offsets = _maps(keys, d)
        d = len(offsets[0])
        negatives = _box(keys["negatives"], "fractal.negatives", d) if "negatives" in keys else None
        return cls(
            matrices, offsets, _base(keys.get("base", "cube"), d), negatives, name_of(keys, "fractal") or "custom"
        )

    @classmethod
    def load(cls, name: str, **keys: Any) -> AffineIFS:
        """By the name of a conf/fractal/*.yaml or the path of a YAML file: load("vicsek"), load("cantor_dust", d=3).

        `keys` take the place of the file's. Raises ConfigError.
        """
        return cls.from_config(read("fractal", name, keys))

    @cached_property
    def images(self) -> list[Convex]:
        """F_1(K_0), ..., F_r(K_0)."""
        return [self.base.image(matrix, offset) for matrix, offset in zip(self.matrices, self.offsets, strict=True)]

    def images_inside(self) -> bool:
        """Whether every image lies in K_0: Assumption 2 of the paper."""
        return all(image.inside(self.base) for image in self.images)

    def separation(self) -> Separation:
        """The least distance of two images of K_0 (infinite for one map), and the pairs that meet.

        The distance is exact for images that are boxes, a lower bound for others.
        """
        return self._separation

    @cached_property
    def _separation(self) -> Separation:
        epsilon = np.inf
        touching: list[tuple[int, int]] = []
        overlapping: list[tuple[int, int]] = []
        lo, hi = (np.array(edges) for edges in zip(*((image.lo, image.hi) for image in self.images), strict=True))
        rounding = 8 * self.d * TOLERANCE * float((hi.max(0) - lo.min(0)).max())
        for i in range(self.r):
            gaps = np.maximum(lo[i] - hi[i + 1 :], lo[i + 1 :] - hi[i])
            least = np.linalg.norm(np.maximum(0, gaps), axis=1)  # the distances of the boxes around the images
            near = np.flatnonzero(least <= epsilon + rounding)
            for after in near[np.argsort(least[near], kind="stable")]:  # the nearest first: most others can't be nearer
                if least[after] > epsilon + rounding:
                    break
                j = i + 1 + int(after)
                apart = distance(self.images[i], self.images[j])
                epsilon = min(epsilon, apart)
                if apart == 0:
                    (overlapping if overlap(self.images[i], self.images[j]) else touching).append((i, j))
        return Separation(epsilon, sorted(touching), sorted(overlapping))

    def maps(self, j: int) -> tuple[Floats, Floats]:
        """All compositions of j maps: matrices (r^j, d, d) and offsets (r^j, d).

        Row i_1 r^(j-1) + ... + i_j is F_(i_1) o ... o F_(i_j): the first digit is that of the coarsest cell. Raises
        ConfigError where there are too many to be listed.
        """
        j = whole(j, "j", 0)
        if self.r**j > MAX_CELLS:
            raise ConfigError(f"j={j}: {self.name} has {self.r}^{j} cells there, at most {MAX_CELLS} can be listed")
        matrices, offsets = np.eye(self.d)[None], np.zeros((1, self.d))
        for _ in range(j):
            offsets = (offsets[:, None] + np.einsum("wab,ib->wia", matrices, self.offsets)).reshape(-1, self.d)
            matrices = np.einsum("wab,ibc->wiac", matrices, self.matrices).reshape(-1, self.d, self.d)
        return matrices, offsets

    def volume(self, j: int) -> float:
        """The Lebesgue measure of K_j: volume(K_0) (|det M_1| + ... + |det M_r|)^j.

        Raises ConfigError where images overlap: there that is an upper bound only.
        """
        j = whole(j, "j", 0)
        bound = self.base.volume * float(np.abs(np.linalg.det(self.matrices)).sum()) ** j
        if j > 0 and (pairs := self.separation().overlapping):
            raise ConfigError(
                f"volume({j}): images {pairs[0]} of {self.name} overlap; all that is known is volume <= {bound:.6g}"
            )
        return bound

    def shrunk(self, factor: float) -> AffineIFS:
        """The images made smaller by a factor in (0, 1], each about its centre, so that those that touch come apart.

        This is how the paper would meet its Assumptions 1 and 2: by "correctly scaling the fractal at each step"
        (Section 3). Raises ConfigError for other factors.
        """
        factor = number(factor, "factor")
        if not 0 < factor <= 1:
            raise ConfigError(f"factor={factor}: must be > 0 and <= 1")
        matrices = factor * self.matrices
        offsets = self.offsets + (self.matrices - matrices) @ self.base.center
        return AffineIFS(matrices, offsets, self.base, self.negatives, self.name)

    def check(self, depth: int, margin: float = 0.0, resolution: float = 2.0**-24, key: str = "margin") -> None:
        """Raise ConfigError unless there is a fractal distribution of this depth and margin. Needs no torch.

        The images must stay in K_0 (Assumption 2) and leave room outside them, the cells of K_depth must be wide enough
        for numbers of that resolution (2^-24 for float32), and K_depth^margin must not be empty. ``key`` is the
        margin's name in a message.
        """
        depth = whole(depth, "fractal.depth", 1, DEEPEST)
        margin = number(margin, key)
        if margin < 0:
            raise ConfigError(f"{key}={margin:g}: must be a number >= 0")
        if not self.images_inside():
            i = next(i for i, image in enumerate(self.images) if not image.inside(self.base))
            raise ConfigError(f"fractal.maps[{i}] of {self.name}: must send K_0 into itself (the paper's Assumption 2)")
        thinnest = float(np.linalg.svd(self.matrices, compute_uv=False).min())
        if self._size < 1e-300:
            raise self._of_bad_size()
        deepest = int(np.floor(np.log(64 * resolution * self._size / (2 * self.base.inradius)) / np.log(thinnest)))
        if depth > deepest:
            raise self._too_deep(depth, deepest, "cells")
        apart = not self.separation().overlapping
        if self.gap() == [] or (apart and self.volume(1) > (1 - TOLERANCE) * self.base.volume):
            raise ConfigError(f"fractal={self.name}: must leave a part of K_0 outside the images, for the negatives")
        if margin and margin >= (largest := self.inradius(depth)):
            raise self._no_point_left(depth, margin, largest, key)

    def check_drawn(self, depth: int, margin: float = 0.0, resolution: float = 2.0**-24, key: str = "margin") -> None:
        """Raise ConfigError where points can't be drawn well, or in a bearable time, of what `check` accepts.

        By itself, since a run of before there was this check has a record that is still to be read. The numbers of K_0
        must fit into float32. Where they are boxes, the gaps between cells must be wide enough for numbers of that
        resolution, but for a `SLIVER`. A margin must be below the inradius by more than two such numbers. Points may
        lie in `MOST_FOLD` cells on average.
        """
        if not 1e-30 <= self._size <= 1e30:
            raise self._of_bad_size()
        fold = depth * np.log(np.abs(np.linalg.det(self.matrices)).sum())
        if fold > np.log(MOST_FOLD):
            raise ConfigError(
                f"fractal.depth={depth}: the cells of {self.name} overlap about {np.exp(min(fold, 700)):.3g}-fold "
                f"there; must be at most {MOST_FOLD}-fold, as drawing takes a time in proportion to the square of that"
            )
        least = 4 * resolution * self._size
        if self._thin_share(depth, least) > SLIVER:
            deepest = next((n for n in range(depth - 1, 0, -1) if self._thin_share(n, least) <= SLIVER), 0)
            raise self._too_deep(depth, deepest, "gaps between the cells")
        if margin and margin >= (largest := self.inradius(depth)) - least / 2:
            raise self._no_point_left(depth, margin, largest, key)

    @cached_property
    def _size(self) -> float:
        return float(np.abs([self.base.lo, self.base.hi]).max())

    def _thin_share(self, level: int, least: float) -> float:
        """The share of the gap on a level, all cells alike, in boxes thinner than ``least``. 0 where it is no boxes."""
        gap = self.gap() or []
        boxes = isinstance(self.base, Box) and self.boxes_to_boxes and not self.separation().overlapping
        if not boxes or not gap or len(gap) * self.r ** (level - 1) > MAX_BOXES:
            return 0.0
        matrices, _ = self.maps(level - 1)
        sides = np.abs(matrices) @ np.array([box.hi - box.lo for box in gap]).T  # (cells, d, boxes)
        volumes = np.array([box.volume for box in gap])
        return float(((sides.min(1) < least) * volumes).sum() / volumes.sum() / len(matrices))

    def _of_bad_size(self) -> ConfigError:
        return ConfigError(f"fractal.base of {self.name}: its largest number must be >= 1e-30 and <= 1e30")

    def _no_point_left(self, depth: int, margin: float, largest: float, key: str) -> ConfigError:
        return ConfigError(
            f"{key}={margin:g}: must be < {largest:.6g}, else K_{depth}^margin of {self.name} has no point left"
        )

    def _too_deep(self, depth: int, deepest: int, what: str) -> ConfigError:
        if deepest < 1:
            return ConfigError(
                f"fractal={self.name}: must have larger {what}; those of K_1 are too small for float32 already"
            )
        return ConfigError(
            f"fractal.depth={depth}: must be <= {deepest}, else the {what} of {self.name} are too small for float32"
        )

    def inradius(self, j: int) -> float:
        """The radius of the largest ball in any cell of K_j."""
        scales = np.abs(np.linalg.det(self.matrices)) ** (1 / self.d)
        turns = self.matrices / scales[:, None, None]
        if np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(self.d), rtol=0, atol=1e-12):  # similarities keep balls
            return self.base.inradius * float(scales.max()) ** j
        matrices, offsets = self.maps(j)
        if isinstance(self.base, Box) and self.boxes_to_boxes:
            return float((np.abs(matrices) @ (self.base.hi - self.base.lo)).min(-1).max() / 2)
        return max(self.base.image(matrix, offset).inradius for matrix, offset in zip(matrices, offsets, strict=True))

    @property
    def boxes_to_boxes(self) -> bool:
        """Whether every map sends axis-parallel boxes to axis-parallel boxes."""
        return is_monomial(self.matrices)

    def gap(self) -> list[Box] | None:
        """Where negatives of the first level lie, as boxes that share faces only: `negatives`, or K_0 minus the images.

        None where K_0 or an image isn't a box, or where there would be too many boxes.
        """
        if self.negatives is not None:
            return [self.negatives]
        images = [image for image in self.images if isinstance(image, Box)]
        if not isinstance(self.base, Box) or len(images) < self.r:
            return None
        return _difference(self.base, images)

    def __repr__(self) -> str:
        return f"AffineIFS({self.name!r}, r={self.r}, d={self.d})"


def depth_of(config: Mapping[str, Any]) -> int:
    """The n of a fractal's config: its key `depth`, or DEPTH. Raises ConfigError unless 1 <= n <= 10^6."""
    depth = config.get("depth")
    return DEPTH if depth is None else whole(depth, "fractal.depth", 1, DEEPEST)


def _maps(keys: Mapping[str, Any], d: int | None) -> tuple[Floats, Floats]:
    ways = [key for key in ("offsets", "corners", "maps") if key in keys]
    if len(ways) != 1:
        raise ConfigError(
            f"fractal: has {' and '.join(ways) or 'no maps'}; must have ratio + offsets, ratio + corners, or maps"
        )
    if "maps" in keys:
        if "ratio" in keys:
            raise ConfigError(f"fractal.ratio={short(keys['ratio'])}: goes with offsets or corners, not with maps")
        return _matrices_and_offsets(keys["maps"], d)
    if "ratio" not in keys:
        raise ConfigError(f"fractal.{ways[0]}: needs fractal.ratio, a number > 0 and < 1")
    ratio = number(keys["ratio"], "fractal.ratio")
    if not 0 < ratio < 1:
        raise ConfigError(f"fractal.ratio={short(keys['ratio'])}: must be a number > 0 and < 1")
    if "corners" in keys:
        if d is None:
            raise ConfigError(f"fractal.corners={short(keys['corners'])}: needs fractal.d, a whole number >= 1")
        corner = number(keys["corners"], "fractal.corners")
        offsets = np.array(list(product((-corner, corner), repeat=d)))
    else:
        offsets = _rows(keys["offsets"], "fractal.offsets", d)
    return np.repeat(ratio * np.eye(offsets.shape[1])[None], len(offsets), 0), offsets


def _matrices_and_offsets(maps: Any, d: int | None) -> tuple[Floats, Floats]:
    if not is_list(maps) or not len(maps):
        raise ConfigError(f"fractal.maps={short(maps)}: must be a list of {{matrix, offset}}")
    matrices: list[Floats] = []
    offsets: list[Floats] = []
    for i, entry in enumerate(maps):
        key = f"fractal.maps[{i}]"
        if not _has_keys(entry, {"matrix", "offset"}):
            raise ConfigError(f"{key}={short(entry)}: must be {{matrix: ..., offset: ...}}")
        offset = vector(entry["offset"], f"{key}.offset", d)
        d = len(offset)
        matrix = entry["matrix"]
        matrices.append(
            _rows(matrix, f"{key}.matrix", d, d) if is_list(matrix) else number(matrix, f"{key}.matrix") * np.eye(d)
        )
        offsets.append(offset)
    return np.array(matrices), np.array(offsets)


def _rows(value: Any, key: str, d: int | None, count: int | None = None) -> Floats:
    """A list of rows of d numbers each, as (rows, d)."""
    if not is_list(value) or not len(value) or (count is not None and len(value) != count):
        raise ConfigError(f"{key}={short(value)}: must be a list of {count or 'r'} rows of {d or 'd'} numbers")
    rows: list[Floats] = []
    for i, row in enumerate(value):
        rows.append(vector(row, f"{key}[{i}]", d or (len(rows[0]) if rows else None)))
    return np.array(rows)


def _base(value: Any, d: int) -> Convex:
    if value == "cube":
        return Box(-np.ones(d), np.ones(d))
    if value == "unit":
        return Box(np.zeros(d), np.ones(d))
    if isinstance(value, Mapping):
        return _box(cast("Mapping[str, Any]", value), "fractal.base", d)
    if not is_list(value):
        raise ConfigError(
            f"fractal.base={short(value)}: must be cube ([-1, 1]^d), unit ([0, 1]^d), {{lo, hi}} or a list of vertices"
        )
    vertices = _rows(value, "fractal.base", d)
    if d == 1:
        return _box({"lo": vertices.min(0), "hi": vertices.max(0)}, "fractal.base", d)
    return hull(vertices)


def _has_keys(value: Any, keys: set[str]) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping) and set(cast("Mapping[str, Any]", value)) == keys


def _box(value: Any, key: str, d: int) -> Box:
    if not _has_keys(value, {"lo", "hi"}):
        raise ConfigError(f"{key}={short(value)}: must be {{lo: [{d} numbers], hi: [{d} numbers]}}")
    lo, hi = vector(value["lo"], f"{key}.lo", d), vector(value["hi"], f"{key}.hi", d)
    if not (lo < hi).all():
        raise ConfigError(f"{key}={short(value)}: every lo must be below its hi")
    return Box(lo, hi)


def _difference(base: Box, images: Sequence[Box], most: int = 4096) -> list[Box] | None:
    """base without the images, as boxes: the free cells of the grid of all faces, merged axis by axis."""
    cuts: list[Floats] = []
    for axis in range(base.d):
        faces = np.unique(
            [base.lo[axis], base.hi[axis], *(f for image in images for f in (image.lo[axis], image.hi[axis]))]
        )
        faces = faces[(faces >= base.lo[axis]) & (faces <= base.hi[axis])]
        tolerance = TOLERANCE * (base.hi[axis] - base.lo[axis])
        cuts.append(faces[np.append(True, np.diff(faces) > tolerance)])
    if np.prod([len(c) - 1.0 for c in cuts]) > most:
        return None
    centers = np.stack(np.meshgrid(*[(c[1:] + c[:-1]) / 2 for c in cuts], indexing="ij"), -1)
    free = ~np.any([image.contains(centers) for image in images], axis=0)
    cells: list[list[int]] = np.argwhere(free).tolist()
    boxes = {tuple((i, i + 1) for i in cell) for cell in cells}
    for axis in reversed(range(base.d)):
        merged: dict[tuple[Run, ...], list[Run]] = {}
        for box in sorted(boxes, key=lambda box: box[axis]):
            across = box[:axis] + box[axis + 1 :]
            runs = merged.setdefault(across, [])
            if runs and runs[-1][1] == box[axis][0]:
                runs[-1] = (runs[-1][0], box[axis][1])
            else:
                runs.append(box[axis])
        boxes = {(*across[:axis], run, *across[axis:]) for across, runs in merged.items() for run in runs}
    return [
        Box(
            np.array([c[i] for c, (i, _) in zip(cuts, box, strict=True)]),
            np.array([c[j] for c, (_, j) in zip(cuts, box, strict=True)]),
        )
        for box in sorted(boxes)
    ]
