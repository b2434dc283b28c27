"""The data of a run: a training and a test set of D_n, drawn from the run's seed and kept in memory as tensors."""

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
    """x_train (n, d), y_train (n,), x_test (m, d), y_test (m,): float32, labels in {-1, +1}."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor

    @property
    def d(self) -> int:
        return self.x_train.shape[1]

    def to(self, device: torch.device | str) -> "Points":
        if self.x_train.device == torch.device(device):
            return self
        return Points(*(t.to(device) for t in (self.x_train, self.y_train, self.x_test, self.y_test)))


# Runs that are in memory together and agree in distribution, sizes and seed share one set; nothing outlives them.
_shared: "weakref.WeakValueDictionary[str, Points]" = weakref.WeakValueDictionary()


def fractal_points(
    fractal: Fractal, curve: Curve, data: FractalData, seed: int, device: str | torch.device = "cpu"
) -> Points:
    """The sets of a run, by independent generators for training and test, from its seed."""
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
    """The same data for any LightningModule: batches of (x (b, d), y (b,)) of one fractal and curve.

    Args: the config groups ``fractal``, ``curve`` and ``data``, as typed or as mappings with their keys, the seed and
    the batch size. The platform's own training reads the same points and makes its batches by index.
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
        if self.points is None:
            self.points = fractal_points(self.fractal, self.curve, self.data, self.seed)

    def train_dataloader(self) -> DataLoader:
        self.setup()
        assert self.points is not None
        order = torch.Generator().manual_seed(stream(self.seed, "shuffle"))
        pairs = TensorDataset(self.points.x_train, self.points.y_train)
        return DataLoader(pairs, self.batch_size, shuffle=True, drop_last=True, generator=order)

    def val_dataloader(self) -> DataLoader:
        self.setup()
        assert self.points is not None
        return DataLoader(TensorDataset(self.points.x_test, self.points.y_test), len(self.points.y_test))

    test_dataloader = val_dataloader
