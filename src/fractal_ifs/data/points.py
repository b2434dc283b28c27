"""Points as the data of a run: a training and a test set from D_n, drawn from the run's seed and kept in memory."""

import json
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fractal_ifs.config.data import FractalData
from fractal_ifs.config.fractal import Curve, Fractal, check_distribution
from fractal_ifs.config.keys import A_SEED, checked
from fractal_ifs.data.order import OrderedLoader, PointBatches
from fractal_ifs.data.seeds import stream
from fractal_ifs.fractals.distribution import FractalDistribution
from fractal_ifs.fractals.named import read


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
        law = FractalDistribution(fractal.ifs, curve.curve, fractal.depth, data.margin, data.overlaps)
        x, y, _ = law.sample(data.train_size, seed=stream(seed, "train"), balanced=data.balanced)
        x_test, y_test, _ = law.sample(data.test_size, seed=stream(seed, "test"), balanced=data.balanced)
        points = Points(x, y.float(), x_test, y_test.float()).to(device)
        _shared[key] = points
    return points


class FractalDataModule(pl.LightningDataModule):
    """The points of a run for any LightningModule, in batches (x (b, d), y (b,)): ``FractalDataModule("vicsek", 4)``.

    The points, and their order in every epoch, are those of this package's own training.

    Args:
        fractal: the name of a conf/fractal/*.yaml, the path of a YAML file, a mapping with such keys, or the group.
        curve: the same of conf/curve/*.yaml, where 1 to 6 are the paper's.
        data: a mapping with keys of conf/data/fractal.yaml, in place of those that stand there, or the group.
        seed: the run's seed.
        batch_size: points in a training batch.

    Raises ConfigError.
    """

    def __init__(
        self,
        fractal: str | Fractal | Mapping[str, Any],
        curve: int | str | Curve | Mapping[str, Any] = 1,
        data: FractalData | Mapping[str, Any] | None = None,
        seed: int = 0,
        batch_size: int = 100,
    ):
        super().__init__()
        self.fractal = fractal if isinstance(fractal, Fractal) else Fractal.parse(_keys("fractal", fractal))
        self.curve = curve if isinstance(curve, Curve) else Curve.parse(_keys("curve", curve))
        if not isinstance(data, FractalData):
            data = FractalData.parse({**read("data", "fractal", {}), **(data or {})})
        check_distribution(self.fractal, self.curve, data.margin)
        self.data, self.seed = data, checked("seed", seed, int, {"least": 0, "most": 2**63 - 1, "allowed": A_SEED})
        self.batch_size = checked("batch_size", batch_size, int, {"least": 1, "most": data.train_size})
        self.points: Points | None = None

    def setup(self, stage: str | None = None) -> None:
        """Draw the points, if that is still to be done."""
        if self.points is None:
            self.points = fractal_points(self.fractal, self.curve, self.data, self.seed)

    def train_dataloader(self) -> DataLoader[Any]:
        """The training set in shuffled batches, without the incomplete last one."""
        self.setup()
        assert self.points is not None
        batches = PointBatches(self.points.x_train, self.points.y_train, self.seed, self.batch_size)
        return OrderedLoader(batches, batches.per_epoch)

    def val_dataloader(self) -> DataLoader[Any]:
        """The test set as one batch."""
        self.setup()
        assert self.points is not None
        return DataLoader([(self.points.x_test, self.points.y_test)], batch_size=None)  # pyright: ignore[reportArgumentType]

    test_dataloader = val_dataloader


def _keys(group: str, named: object) -> Mapping[str, Any]:
    """The keys of a choice of a group: of its file, of the file of one's own, or as they are given."""
    return cast(Mapping[str, Any], named) if isinstance(named, Mapping) else read(group, named, {})
