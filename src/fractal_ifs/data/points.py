"""Points as the data of a run: a training and a test set from D_n, drawn from the run's seed and kept in memory."""

import json
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

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


class FractalDataModule(pl.LightningDataModule):
    """The points of a run for any LightningModule, in batches (x (b, d), y (b,)).

    The points are those of this package's own training; the order of the batches is PyTorch's.

    Args:
        fractal, curve, data: the config groups of these names, or mappings with their keys.
        seed: the run's seed.
        batch_size: points in a training batch.

    Raises ConfigError.
    """

    def __init__(
        self,
        fractal: Fractal | Mapping[str, Any],
        curve: Curve | Mapping[str, Any],
        data: FractalData | Mapping[str, Any],
        seed: int = 0,
        batch_size: int = 100,
    ):
        super().__init__()
        self.fractal = fractal if isinstance(fractal, Fractal) else Fractal.parse(fractal)
        self.curve = curve if isinstance(curve, Curve) else Curve.parse(curve)
        self.data = data if isinstance(data, FractalData) else FractalData.parse(data)
        self.seed, self.batch_size = seed, batch_size
        self.points: Points | None = None

    def setup(self, stage: str | None = None) -> None:
        """Draw the points, if that is still to be done."""
        if self.points is None:
            self.points = fractal_points(self.fractal, self.curve, self.data, self.seed)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """The training set in shuffled batches, without the incomplete last one."""
        self.setup()
        assert self.points is not None
        order = torch.Generator().manual_seed(stream(self.seed, "shuffle"))
        pairs = TensorDataset(self.points.x_train, self.points.y_train)
        return DataLoader(pairs, self.batch_size, shuffle=True, drop_last=True, generator=order)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """The test set as one batch."""
        self.setup()
        assert self.points is not None
        return DataLoader(TensorDataset(self.points.x_test, self.points.y_test), len(self.points.y_test))

    test_dataloader = val_dataloader
