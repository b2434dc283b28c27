"""Fractal distributions D_n (Section 2 of the paper): labelled points, the positives in K_n and the negatives outside.

A point is a negative of level j = 1..n or a positive; the approximation curve says how likely each is. All cells of a
level are equally likely: a negative of level j is uniform in what the images leave of a cell of K_(j-1) (or in the
cell's copy of the box `negatives`), a positive is uniform in a cell of K_n. That is the law of the walk from coarse to
fine in the paper's experiments, without the walk: level and cell are drawn at once.

With a margin it is that law, given that a positive lies in K_n^gamma: where cells differ in size, the smaller ones
lose more, and come less often.

Where images overlap, which the paper's Assumption 1 rules out, that walk would find a point of several cells as often
as there are. Here it counts once: positives are uniform on K_n, negatives of level j on K_(j-1) without K_j.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.fractals.ifs import DEPTH, AffineIFS, depth_of
from fractal_ifs.fractals.membership import deepest
from fractal_ifs.fractals.named import read
from fractal_ifs.fractals.numbers import DEEPEST, Floats, number, short, whole
from fractal_ifs.fractals.samplers import Sampler, sampler
from fractal_ifs.mkl import ask_for_equal_bits

OVERLAPS = ("once", "repeated")


class Sample(NamedTuple):
    """m labelled points; unpacks as x, y, level."""

    x: Tensor  # (m, d), float32
    y: Tensor  # (m,), float32: -1 or +1
    level: Tensor  # (m,), int64: 1..n for a negative of that level, n + 1 for a positive


class FractalDistribution:
    """The distribution D_n of a fractal with an approximation curve.

    fractal  the name of a conf/fractal/*.yaml, the path of a YAML file, a mapping with such keys, or an AffineIFS
    curve    the same for conf/curve/*.yaml, where 1 to 6 are the paper's, or an ApproximationCurve
    depth    n; if not given, the key `depth` of the fractal's file or mapping, else DEPTH
    margin   gamma: positives keep this distance from the boundary of their cell. Where cells are apart (Assumption 1 of
             the paper) this makes K_n^gamma; where they touch, the part of it away from the faces that they share.
    overlaps "once", or "repeated": where images overlap, a point of several cells comes as often as there are, as it
             did in earlier versions. Elsewhere the two are the same.

    Raises ConfigError for unknown names, images that leave K_0 or cover it, cells too small for float32, a curve that
    doesn't fit the depth, or a margin that leaves nothing.
    """

    def __init__(
        self,
        fractal: str | AffineIFS | Mapping[str, Any],
        curve: int | str | ApproximationCurve | Mapping[str, Any] = 1,
        depth: int | None = None,
        margin: float | str = 0.0,
        overlaps: str = "once",
    ):
        if overlaps not in OVERLAPS:
            raise ConfigError(f"overlaps={short(overlaps)}: must be one of {', '.join(OVERLAPS)}")
        self._once = overlaps == "once"
        ask_for_equal_bits()  # in a notebook points may be drawn before the first run
        own = DEPTH
        if isinstance(fractal, AffineIFS):
            self.ifs = fractal
        else:
            config = fractal if isinstance(fractal, Mapping) else read("fractal", fractal, {})
            self.ifs, own = AffineIFS.from_config(config), depth_of(config)
        if isinstance(curve, ApproximationCurve):
            self.curve = curve
        elif isinstance(curve, Mapping):
            self.curve = ApproximationCurve.from_config(curve)
        else:
            self.curve = ApproximationCurve.load(curve)
        self.depth = own if depth is None else whole(depth, "fractal.depth", 1, DEEPEST)
        self.margin = number(margin, "margin")
        self.level_probabilities = self.curve.level_probabilities(self.depth)  # (n + 1,): levels 1..n, then positives
        self.ifs.check(self.depth, self.margin)
        self.ifs.check_drawn(self.depth, self.margin)
        self._samplers: dict[int, Sampler] = {}

    @property
    def d(self) -> int:
        """The dimension of the points."""
        return self.ifs.d

    def approximation_curve(self) -> Floats:
        """(n + 1,): P(0), ..., P(n), see `ApproximationCurve`."""
        return self.curve.P(self.depth)

    def volume(self, j: int) -> float:
        """The Lebesgue measure of K_j, j = 0..n. Raises ConfigError where images overlap: it is only bounded there."""
        return self.ifs.volume(whole(j, "j", 0, self.depth))

    def sample(
        self, m: int, seed: int = 0, balanced: bool = False, device: str | torch.device = "cpu", start: int = 0
    ) -> Sample:
        """m independent points of the distribution, which unpack as (x, y, level).

        A seed means an endless sequence of points, the same on every device, of which these are number start to
        start + m - 1. With `balanced`, points of even number are negatives and those of odd number positives.
        Memory beyond the result doesn't grow with m. Raises ConfigError for a bad number or device.
        """
        m, seed = whole(m, "m", 1), whole(seed, "seed", 0, 2**64 - 1)
        start = whole(start, "start", 0, 2**63 - 1 - m)
        device = device_of(device)
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
        """The sampler of one label, or of both (0); made when first used."""
        if label not in self._samplers:
            p = self.level_probabilities.copy()
            if label:
                p[slice(-1, None) if label < 0 else slice(None, -1)] = 0
            self._samplers[label] = sampler(self.ifs, p / p.sum(), self.margin, self._once)
        return self._samplers[label]

    def level(self, x: Any) -> Tensor:
        """The largest j in 0..n with x in K_j, -1 outside K_0: x (m, d) to (m,) int64, on x's device.

        Found by the inverse maps, in float64, whatever way points are drawn. K_j is closed, but a point on the boundary
        of a cell may be told to lie outside: the inverse maps round, by about 2^-52 of K_0's size divided by the cell's
        scale. So 7/9, the end of a cell of the Cantor set, may be found to leave K_2. Points that are drawn keep off
        boundaries by more than that. Raises ConfigError for another shape.
        """
        x = torch.as_tensor(x, dtype=torch.float64)
        if x.ndim != 2 or x.shape[1] != self.d:
            raise ConfigError(f"x of shape {tuple(x.shape)}: must be of shape (m, {self.d})")
        return deepest(self.ifs, x, self.depth)

    def __repr__(self) -> str:
        margin = f", margin={self.margin:g}" if self.margin else ""
        return f"FractalDistribution({self.ifs.name!r}, curve={self.curve.name!r}, depth={self.depth}{margin})"


def device_of(device: str | torch.device) -> torch.device:
    """A device that is here. Raises ConfigError."""
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ConfigError(f"device={device}: must be a device that is here ({short(error)})") from None
    return device
