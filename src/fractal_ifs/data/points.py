"""Points as the data of a run: a training and a test set from D_n, drawn from the run's seed and kept in memory."""

import json
import weakref
from dataclasses import dataclass

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

    @property
    def d(self) -> int:
        """The dimension of the points."""
        return self.x_train.shape[1]

    def to(self, device: torch.device | str) -> "Points":
        """The same points on another device."""
        if self.x_train.device == torch.device(device):
            return self
        return Points(*(t.to(device) for t in (self.x_train, self.y_train, self.x_test, self.y_test)))


# Runs with the same distribution, sizes and seed share their points while one of the runs is in memory.
_shared: "weakref.WeakValueDictionary[str, Points]" = weakref.WeakValueDictionary()


def fractal_points(
    fractal: Fractal, curve: Curve, data: FractalData, seed: int, device: str | torch.device = "cpu"
) -> Points:
    """The points of a run (Section 5). Training and test set come from independent streams of its seed."""
    key = json.dumps([dict(fractal.keys), dict(curve.keys), data.plain(), seed, str(device)], sort_keys=True)
    points = _shared.get(key)
    if points is None:
        law = FractalDistribution(fractal.ifs, curve.curve, fractal.depth, data.margin)
        x, y, _ = law.sample(data.train_size, seed=stream(seed, "train"), balanced=data.balanced)
        x_test, y_test, _ = law.sample(data.test_size, seed=stream(seed, "test"), balanced=data.balanced)
        points = Points(x, y.float(), x_test, y_test.float()).to(device)
        _shared[key] = points
    return points
