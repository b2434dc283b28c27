"""Points as the data of a run: its training, test and validation set from D_n, drawn from its seed, kept in memory."""

import json
import weakref
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor

from fractal_ifs.config.data import FractalData
from fractal_ifs.config.fractal import Curve, Fractal
from fractal_ifs.data.seeds import stream
from fractal_ifs.fractals.distribution import FractalDistribution


@dataclass(eq=False)
class Points:
    """A training and a test set of points, float32, with labels -1 and +1."""

    x_train: Tensor  # (n, d)
    y_train: Tensor  # (n,)
    x_test: Tensor  # (m, d)
    y_test: Tensor  # (m,)
    level_test: Tensor | None = None  # (m,) int64: 1..n for a negative of that level, n + 1 for a positive
    x_val: Tensor | None = None  # (v, d), the validation set, if there is one
    y_val: Tensor | None = None  # (v,)

    @property
    def d(self) -> int:
        """The dimension of the points."""
        return self.x_train.shape[1]


# Runs with the same distribution, sizes and seed share their points while one of the runs is in memory.
_shared: "weakref.WeakValueDictionary[str, Points]" = weakref.WeakValueDictionary()


def fractal_points(
    fractal: Fractal, curve: Curve, data: FractalData, seed: int, device: str | torch.device = "cpu"
) -> Points:
    """The points of a run (Section 5). Each of its sets comes from an independent stream of its seed."""
    key = json.dumps([dict(fractal.keys), dict(curve.keys), data.plain(), seed, str(device)], sort_keys=True)
    points = _shared.get(key)
    if points is None:
        law = _law(fractal, curve, data.margin, data.overlaps)
        draw = partial(law.sample, balanced=data.balanced, device=device)
        x, y, _ = draw(data.train_size, seed=stream(seed, "train"))
        x_test, y_test, level = draw(data.test_size, seed=stream(seed, "test"))
        points = Points(x, y.float(), x_test, y_test.float(), level)
        if data.val_size:
            points.x_val, points.y_val, _ = draw(data.val_size, seed=stream(seed, "validation"))
        _shared[key] = points
    return points


def levels_of_test(fractal: Fractal, curve: Curve, data: FractalData, seed: int) -> Tensor:
    """The levels (m,) of a run's test points, as ``Points.level_test`` has them, without its other sets."""
    law = _law(fractal, curve, data.margin, data.overlaps)
    return law.sample(data.test_size, seed=stream(seed, "test"), balanced=data.balanced)[2]


@lru_cache(maxsize=8)  # the seeds of a sweep share a few, whose tables take as long to make as the points to draw
def _law(fractal: Fractal, curve: Curve, margin: float, overlaps: str) -> FractalDistribution:
    return FractalDistribution(fractal.ifs, curve.curve, fractal.depth, margin, overlaps)
