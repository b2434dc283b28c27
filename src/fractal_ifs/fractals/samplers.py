"""How the points of a fractal distribution are drawn: in one of two exact ways, the faster where both apply.

Point number i is a function of (seed, i) alone: chunks, order and device don't matter. Points are float32, and never on
the wrong side of their label: both ways stay a SKIN off the faces of cells and allow for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.convex import Box, Convex
from fractal_ifs.fractals.ifs import MAX_BOXES, AffineIFS
from fractal_ifs.fractals.membership import as_tensors, deepest
from fractal_ifs.fractals.numbers import Floats
from fractal_ifs.fractals.splitmix import derive, high_bits, uniform, words

MAX_WORDS = 2**14
SKIN = 1e-9  # in units of a cell, which is 64 steps of float32 or wider: far less than rounding takes
PATIENCE = 100_000  # attempts in a row without a point, after which a distribution is called impossible


class Sampler(Protocol):
    """An endless sequence of points for each seed."""

    def draw(self, seed: int, index: Tensor) -> tuple[Tensor, Tensor]:
        """The points number `index` (k,) of a seed, on its device: x (k, d) float32, and their levels (k,) int64."""
        ...


def sampler(ifs: AffineIFS, level_probabilities: Floats, margin: float, once: bool = True) -> Sampler:
    """The faster sampler that applies; probabilities (n + 1,) of a negative of level 1..n, then of a positive.

    ``once``: as of `WordSampler`.
    """
    n = len(level_probabilities) - 1
    gap = ifs.gap()
    boxes = isinstance(ifs.base, Box) and ifs.boxes_to_boxes and not ifs.separation().overlapping
    if gap and boxes and sum(len(gap) * ifs.r**j for j in range(n)) + ifs.r**n <= MAX_BOXES:
        return BoxMixture(ifs, gap, level_probabilities, margin)
    return WordSampler(ifs, level_probabilities, margin, once)


class BoxMixture:
    """Where cells and gaps are boxes, the distribution is a mixture of uniform laws on boxes.

    Walker's alias method picks a box in constant time, with probabilities exact to 2^-40.
    """

    def __init__(self, ifs: AffineIFS, gap: Sequence[Box], level_probabilities: Floats, margin: float):
        n = len(level_probabilities) - 1
        gap_share = np.array([box.volume for box in gap]) / sum(box.volume for box in gap)
        parts: list[
            tuple[Floats, Floats, int, Floats]
        ] = []  # a level's boxes: lo (k, d), hi (k, d), level, shares (k,)
        for level in range(1, n + 1):
            lo, hi = _images(gap, *ifs.maps(level - 1))
            parts.append((lo, hi, level, np.tile(gap_share, ifs.r ** (level - 1))))
        lo, hi = _images([Box(ifs.base.lo, ifs.base.hi)], *ifs.maps(n))
        left = np.prod(np.maximum(0, hi - lo - 2 * margin) / (hi - lo), axis=1)  # the margin leaves so much of a cell
        parts.append((lo + margin, hi - margin, n + 1, left))
        lo = np.concatenate([part[0] for part in parts])
        hi = np.concatenate([part[1] for part in parts])
        level = np.concatenate([np.full(len(part[0]), part[2]) for part in parts])
        probability = np.concatenate(
            [part[3] / part[3].sum() * p for part, p in zip(parts, level_probabilities, strict=True)]
        )
        possible = probability > 0
        lo, hi, level, probability = lo[possible], hi[possible], level[possible], probability[possible]
        corners, sizes = _float32_inside(lo, hi)
        for thin in np.flatnonzero((sizes < 0).any(1)):  # slivers; all other points stay where they are
            others = np.flatnonzero((level == level[thin]) & (sizes >= 0).all(1))
            if not len(others):
                raise ConfigError(f"fractal={ifs.name}: must leave room for the points of each level, in float32")
            corners[thin], sizes[thin] = corners[others[0]], sizes[others[0]]
        accept, alias = _alias_table(probability)
        # Columns, not rows: a gather from a column is several times faster.
        arrays = (accept, alias, level, *corners.T.copy(), *sizes.T.copy())
        self.d = ifs.d
        self._tables = {torch.device("cpu"): as_tensors(torch.device("cpu"), *arrays)}

    def draw(self, seed: int, index: Tensor) -> tuple[Tensor, Tensor]:
        """As of `Sampler`."""
        if index.device not in self._tables:
            self._tables[index.device] = tuple(t.to(index.device) for t in self._tables[torch.device("cpu")])
        accept, alias, level, *corners_and_sizes = self._tables[index.device]
        scaled = high_bits(words(derive(seed, 0), index), 40).mul_(len(accept))
        column = scaled >> 40
        rest = scaled.bitwise_and_(2**40 - 1)
        box = torch.where(rest < accept.index_select(0, column), column, alias.index_select(0, column))
        x = torch.empty(len(index), self.d, device=index.device)
        for axis in range(self.d):
            u = uniform(words(derive(seed, 1 + axis), index), torch.float32)
            u.mul_(corners_and_sizes[self.d + axis].index_select(0, box))
            torch.add(u, corners_and_sizes[axis].index_select(0, box), out=x[:, axis])
        return x, level.index_select(0, box)


class WordSampler:
    """For any maps, K_0 and depth: draw a level, then points of K_0 and words of maps until an image is right.

    Right means that the image, rounded to float32, comes from the gap (a negative) or from K_0 (a positive), and that a
    positive keeps `margin` from the boundary of its cell. Where images overlap, a negative of level j must also lie
    outside all of K_j.

    A point of several cells would then come as often as there are. With ``once``, cells are drawn in proportion to
    their volumes, which makes that number the density, and a point of c cells is kept with probability 1/c: positives
    are uniform on K_n, negatives of level j on K_(j-1) without K_j. Without overlaps nothing of this is done.
    """

    def __init__(self, ifs: AffineIFS, level_probabilities: Floats, margin: float, once: bool = True):
        self.ifs, self.margin = ifs, margin
        self.overlapping = bool(ifs.separation().overlapping)
        self.once = once and self.overlapping
        self.n = len(level_probabilities) - 1
        self.cumulative = np.cumsum(level_probabilities)
        self.cumulative[np.flatnonzero(level_probabilities)[-1] :] = 1.0
        # All words of up to `block` maps, the empty one first; longer words are put together from these.
        self.block = max(length for length in range(1, self.n + 1) if length == 1 or ifs.r**length <= MAX_WORDS)
        tables = [ifs.maps(length) for length in range(self.block + 1)]
        self.first = np.cumsum([0, *(len(matrices) for matrices, _ in tables)])[:-1]
        self.matrices = np.concatenate([matrices for matrices, _ in tables])
        self.offsets = np.concatenate([offsets for _, offsets in tables])
        self.inverses = np.linalg.inv(self.matrices)
        # For volumes that differ: the number of a table plus the share of the volume up to each of its words.
        volumes = [np.abs(np.linalg.det(matrices)) for matrices, _ in tables]
        self.by_volume = self.once and not np.allclose(volumes[1], volumes[1][0], rtol=1e-12, atol=0)
        self.shares = np.concatenate([i + np.cumsum(v) / v.sum() for i, v in enumerate(volumes)])
        # Points of K_0 are proposed from the boxes `core` and `gap`. No preimage of K_n^margin is nearer to the
        # boundary of K_0 than `nearest`.
        nearest = margin / float(np.linalg.norm(ifs.matrices, 2, axis=(1, 2)).max()) ** self.n
        self.core = [ifs.base.core(nearest)]
        self.gap = ifs.gap() or [ifs.base.core(0.0)]

    def draw(self, seed: int, index: Tensor) -> tuple[Tensor, Tensor]:
        """As of `Sampler`. Raises ConfigError where there is no room for some level."""
        (cumulative,) = as_tensors(index.device, self.cumulative)
        level = 1 + torch.searchsorted(cumulative, uniform(words(derive(seed, 0), index)), right=True)
        x = torch.empty(len(index), self.ifs.d, device=index.device)
        for positive in (True, False):
            pending = torch.where((level > self.n) == positive)[0]
            attempt = futile = 0
            while len(pending):
                # an attempt's streams: a box, d coordinates, <= n blocks, with ``once`` whether it is kept
                lane = 1 + attempt * (1 + self.ifs.d + self.n + self.once)
                rows, points = self._attempt(seed, lane, index, pending, level[pending] - 1, positive)
                x[rows] = points
                attempt, futile = attempt + 1, 0 if len(rows) else futile + len(pending)
                if futile > PATIENCE:
                    raise ConfigError(
                        f"fractal={self.ifs.name}: must leave room for the points of each level, found none for some"
                    )
                pending = pending[~torch.isin(pending, rows, assume_unique=True)]
        return x, level

    def _attempt(
        self, seed: int, lane: int, index: Tensor, rows: Tensor, length: Tensor, positive: bool
    ) -> tuple[Tensor, Tensor]:
        """One attempt at points number index[rows], in cells of K_length: the rows that succeed, and their points."""
        number = index[rows]
        z = _uniform_in(self.core if positive else self.gap, seed, lane, number)
        kept = self._in_base(z) if positive else self._in_gap(z)
        rows, number, length, z = rows[kept], number[kept], length[kept], z[kept]
        matrix, offset, inverse = self._cell(seed, lane + 1 + self.ifs.d, number, length)
        x = (_apply(matrix, z) + offset).to(torch.float32)
        kept = self._right(_apply(inverse, x.to(torch.float64) - offset), inverse, positive)
        if not positive and self.overlapping:
            kept &= deepest(self.ifs, x, self.n) == length
        rows, number, length, x = rows[kept], number[kept], length[kept], x[kept]
        if self.once:
            u = uniform(words(derive(seed, lane + 1 + self.ifs.d + self.n), number))
            kept = u * self._cells_of(x, length, positive) < 1
            rows, x = rows[kept], x[kept]
        return rows, x

    def _right(self, z: Tensor, inverse: Tensor, positive: bool) -> Tensor:
        """Whether points come from the right place of a cell: preimages z (k, d), and its inverse matrix (k, d, d)."""
        if not positive:
            return self._in_gap(z)
        kept = self._in_base(z)
        if self.margin:
            normals, bounds = as_tensors(z.device, self.ifs.base.normals, self.ifs.base.bounds)
            norm = cast("Any", torch.linalg).vector_norm  # torch gives it no types
            steepness: Tensor = norm(normals @ inverse, dim=-1)  # of the cell's own faces
            kept &= torch.all(bounds - z @ normals.T >= self.margin * steepness, -1)
        return kept

    def _cells_of(self, x: Tensor, length: Tensor, positive: bool) -> Tensor:
        """(k,): of how many cells of K_length[i] a point x[i] comes from the right place; x (k, d)."""
        inverses, offsets = as_tensors(x.device, np.linalg.inv(self.ifs.matrices), self.ifs.offsets)
        z, point = x.to(torch.float64), torch.arange(len(x), device=x.device)
        inverse = torch.eye(self.ifs.d, dtype=torch.float64, device=x.device).expand(len(x), -1, -1)
        count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for j in range(self.n + 1):  # z: the preimages under words of j maps that lie in K_0
            ends = length[point] == j
            right = point[ends][self._right(z[ends], inverse[ends], positive)]
            count += torch.bincount(right, minlength=len(x))
            goes = ~ends & _inside(z, self.ifs.base, SKIN)
            z, point, inverse = z[goes], point[goes], inverse[goes]
            z = torch.einsum("iab,pib->pia", inverses, z[:, None] - offsets).reshape(-1, self.ifs.d)
            inverse = torch.einsum("iab,pbc->piac", inverses, inverse).reshape(-1, self.ifs.d, self.ifs.d)
            point = point.repeat_interleave(self.ifs.r)
        return count

    def _cell(self, seed: int, lane: int, number: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A word of length[i] maps per point: its matrix (k, d, d), offset (k, d), inverse matrix (k, d, d).

        All words are equally likely, or with ``once`` in proportion to their cells' volumes.
        """
        first, matrices, offsets, inverses = as_tensors(
            number.device, self.first, self.matrices, self.offsets, self.inverses
        )
        matrix = inverse = torch.eye(self.ifs.d, dtype=torch.float64, device=number.device).expand(len(number), -1, -1)
        offset = torch.zeros(len(number), self.ifs.d, dtype=torch.float64, device=number.device)
        for block in range(-(-self.n // self.block)):
            part = length.clamp(max=self.block)
            length = length - part
            bits = words(derive(seed, lane + block), number)
            if self.by_volume:
                (shares,) = as_tensors(number.device, self.shares)
                word = torch.searchsorted(shares, part + uniform(bits), right=True)
                word = word.clamp(first[part], first[part] + self.ifs.r**part - 1)  # from rounding alone
            else:
                count = torch.tensor(self.ifs.r, device=number.device) ** part
                word = first[part] + (high_bits(bits, 40) * count >> 40)
            offset = offset + _apply(matrix, offsets[word])
            matrix, inverse = matrix @ matrices[word], inverses[word] @ inverse
        return matrix, offset, inverse

    def _in_base(self, z: Tensor) -> Tensor:
        return _inside(z, self.ifs.base, -SKIN)

    def _in_gap(self, z: Tensor) -> Tensor:
        if self.ifs.negatives is not None:
            return _inside(z, self.ifs.negatives, -SKIN)
        inside = self._in_base(z)
        for image in self.ifs.images:
            inside &= ~_inside(z, image, SKIN)
        return inside


def _inside(z: Tensor, body: Convex, skin: float) -> Tensor:
    normals, bounds = as_tensors(z.device, body.normals, body.bounds + skin)
    return (z @ normals.T <= bounds).all(-1)


def _apply(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix * x[:, None, :]).sum(-1)


def _uniform_in(boxes: Sequence[Box], seed: int, lane: int, number: Tensor) -> Tensor:
    """A uniform point (k, d), float64, of the union of the boxes for each number (k,)."""
    volumes = np.cumsum([box.volume for box in boxes])
    lo, hi, cumulative = as_tensors(
        number.device, np.array([b.lo for b in boxes]), np.array([b.hi for b in boxes]), volumes[:-1] / volumes[-1]
    )
    box = torch.searchsorted(cumulative, uniform(words(derive(seed, lane), number)), right=True)
    u = torch.stack([uniform(words(derive(seed, lane + 1 + axis), number)) for axis in range(lo.shape[1])], -1)
    return lo[box] + u * (hi - lo)[box]


def _images(boxes: Sequence[Box], matrices: Floats, offsets: Floats) -> tuple[Floats, Floats]:
    """lo and hi (w b, d) of the images of b boxes under w maps that send boxes to boxes; map by map."""
    ends = np.array([box.lo for box in boxes]), np.array([box.hi for box in boxes])
    a, b = (np.einsum("wxy,by->wbx", matrices, end) + offsets[:, None] for end in ends)
    d = offsets.shape[1]
    return np.minimum(a, b).reshape(-1, d), np.maximum(a, b).reshape(-1, d)


def _float32_inside(lo: Floats, hi: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """float32 corners and sizes (b, d) with lo < corner + size u < hi in float32 arithmetic, for 0 <= u < 1."""
    skin = SKIN * (hi - lo)
    lo, hi = lo + skin, hi - skin
    low, high = lo.astype(np.float32), hi.astype(np.float32)
    low = np.where(low <= lo, np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high >= hi, np.nextafter(high, np.float32(-np.inf)), high)
    # Rounding is monotone, so corner + size u can't pass `high` where corner + size doesn't, as real numbers.
    exact = high.astype(np.float64) - low
    size = exact.astype(np.float32)
    return low, np.where(size > exact, np.nextafter(size, np.float32(0)), size)


def _alias_table(probability: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Walker's table for probabilities (b,): accept and alias (b,).

    Draw a column k uniformly; take k itself with probability accept[k] / 2^40, else alias[k].
    """
    share: list[float] = (probability / probability.sum() * len(probability)).tolist()
    alias = list(range(len(share)))
    poor = [k for k, s in enumerate(share) if s < 1]
    rich = [k for k, s in enumerate(share) if s >= 1]
    while poor and rich:
        k, giver = poor.pop(), rich[-1]
        alias[k] = giver
        share[giver] -= 1 - share[k]
        if share[giver] < 1:
            poor.append(rich.pop())
    for k in poor + rich:  # left over by rounding alone
        share[k] = 1.0
    return np.round(np.array(share) * 2**40).astype(np.int64), np.array(alias)
