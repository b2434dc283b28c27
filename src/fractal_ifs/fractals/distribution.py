"""Fractal distributions D_n (the paper's Section 2): labelled points whose positives lie in K_n, its negatives outside.

A point is a negative of level j = 1..n or a positive; the approximation curve says how likely each is. The cell it
lies in, a word of maps, is uniform: a negative of level j is uniform in what the images leave of a cell of K_(j-1) (or
in the cell's copy of the box `negatives`), a positive is uniform in a cell of K_n. This is the law of the experiments'
walk from coarse to fine, without the walk: level and cell are drawn at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.fractals.ifs import AffineIFS
from fractal_ifs.fractals.membership import deepest
from fractal_ifs.fractals.numbers import number, short, whole
from fractal_ifs.fractals.samplers import Sampler, sampler


class Sample(NamedTuple):
    """m labelled points; unpacks as x, y, level."""

    x: Tensor  # (m, d), float32
    y: Tensor  # (m,), float32: -1 or +1
    level: Tensor  # (m,), int64: 1..n for a negative of that level, n + 1 for a positive


class FractalDistribution:
    """The distribution over K_n = K_depth of a fractal with an approximation curve.

    fractal  the name of a conf/fractal/*.yaml, an AffineIFS, or a mapping with the keys of such a file
    curve    the name of a conf/curve/*.yaml (1 to 6 are the paper's), an ApproximationCurve, or a mapping
    depth    n
    margin   gamma: positives keep this distance from the boundary of their cell. Under the paper's Assumption 1 (cells
             apart) that is K_n^gamma exactly; where cells touch, the part of K_n^gamma away from the faces they share.

    Raises ConfigError for what can't be: unknown names, images that leave K_0 or cover it, cells too small for float32,
    a curve that doesn't fit the depth, a margin that leaves nothing.
    """

    def __init__(
        self,
        fractal: str | AffineIFS | Mapping[str, Any],
        curve: int | str | ApproximationCurve | Mapping[str, Any] = 1,
        depth: int = 5,
        margin: float | str = 0.0,
    ):
        if isinstance(fractal, AffineIFS):
            self.ifs = fractal
        else:
            self.ifs = AffineIFS.from_config(fractal) if isinstance(fractal, Mapping) else AffineIFS.load(fractal)
        if isinstance(curve, ApproximationCurve):
            self.curve = curve
        else:
            self.curve = (
                ApproximationCurve.from_config(curve) if isinstance(curve, Mapping) else ApproximationCurve.load(curve)
            )
        self.depth = whole(depth, "fractal.depth", 1)
        self.margin = number(margin, "margin")
        self.level_probabilities = self.curve.level_probabilities(self.depth)  # (n + 1,): levels 1..n, then positives
        self.ifs.check(self.depth, self.margin)
        self._samplers: dict[int, Sampler] = {}

    @classmethod
    def from_config(
        cls, fractal: Mapping[str, Any], curve: Mapping[str, Any], margin: float | str = 0.0
    ) -> FractalDistribution:
        """From the nodes `fractal` (whose key `depth` is n) and `curve` of a composed config."""
        return cls(fractal, curve, fractal.get("depth", 5), margin)

    @property
    def d(self) -> int:
        return self.ifs.d

    def approximation_curve(self) -> np.ndarray:
        """(n + 1,): P(0), ..., P(n)."""
        return self.curve.P(self.depth)

    def volume(self, j: int) -> float:
        """The Lebesgue measure of K_j, j = 0..n. Raises ConfigError where images overlap: it is only bounded there."""
        return self.ifs.volume(whole(j, "j", 0, self.depth))

    def sample(
        self, m: int, seed: int = 0, balanced: bool = False, device: str | torch.device = "cpu", start: int = 0
    ) -> Sample:
        """m points, drawn independently from the distribution; they unpack as (x, y, level).

        `seed` fixes an endless sequence of points, the same on every device; this returns numbers start, ...,
        start + m - 1 of it. With `balanced`, points of even number are negatives, those of odd number positives: from
        an even start on, m - m//2 and m//2 of them. Works in chunks: memory beyond the result doesn't grow with m.
        """
        m, start, seed = whole(m, "m", 1), whole(start, "start", 0), whole(seed, "seed", 0)
        device = _device(device)
        x = torch.empty(m, self.d, dtype=torch.float32, device=device)
        y = torch.empty(m, dtype=torch.float32, device=device)
        level = torch.empty(m, dtype=torch.int64, device=device)
        chunk = 2**15 if device.type == "cpu" else 2**20  # in the processor's cache; enough for a GPU
        for begin in range(0, m, chunk):
            end = min(begin + chunk, m)
            number = torch.arange(start + begin, start + end, device=device)
            if balanced:
                for label, odd in ((-1, 0), (+1, 1)):
                    first = (start + begin + odd) % 2
                    mine = slice(begin + first, end, 2)
                    x[mine], level[mine] = self._sampler(label).draw(seed, number[first::2])
            else:
                x[begin:end], level[begin:end] = self._sampler(0).draw(seed, number)
        torch.mul(level > self.depth, 2, out=y).sub_(1)
        return Sample(x, y, level)

    def _sampler(self, label: int) -> Sampler:
        """Of one class, or of both (0); made when first used."""
        if label not in self._samplers:
            p = self.level_probabilities.copy()
            if label:
                p[slice(-1, None) if label < 0 else slice(None, -1)] = 0
            self._samplers[label] = sampler(self.ifs, p / p.sum(), self.margin)
        return self._samplers[label]

    def level(self, x: Any) -> Tensor:
        """The deepest j in 0..n with x in K_j, -1 outside K_0: x (m, d) to int64 (m,), on x's device.

        By the inverse maps, in float64; K_j is closed. Independent of how points are drawn.
        """
        x = torch.as_tensor(x, dtype=torch.float64)
        if x.ndim != 2 or x.shape[1] != self.d:
            raise ConfigError(f"x of shape {tuple(x.shape)}: must be of shape (m, {self.d})")
        return deepest(self.ifs, x, self.depth)

    def __repr__(self) -> str:
        margin = f", margin={self.margin:g}" if self.margin else ""
        return f"FractalDistribution({self.ifs.name!r}, curve={self.curve.name!r}, depth={self.depth}{margin})"


def _device(device: str | torch.device) -> torch.device:
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device}: must be a device that is here ({short(error)})") from None
    return device
