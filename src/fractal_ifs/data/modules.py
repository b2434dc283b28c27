"""Lightning DataModules of points and images, for any LightningModule: the data of a run, in the order of a run.

In a file of their own, because Lightning takes as long to import as everything else together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fractal_ifs.config.data import FractalData, ImageData
from fractal_ifs.config.fractal import Curve, Fractal, check_distribution
from fractal_ifs.config.keys import A_SEED, checked
from fractal_ifs.data.images import TEST_BATCH, Batches, image_sets
from fractal_ifs.data.order import OrderedLoader, PointBatches, Shares
from fractal_ifs.data.points import Points, fractal_points
from fractal_ifs.data.readers import READERS
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.fractals.distribution import device_of
from fractal_ifs.fractals.named import plain, read

SEED: dict[str, Any] = {"least": 0, "most": 2**63 - 1, "allowed": A_SEED}


class FractalDataModule(pl.LightningDataModule):
    """The points of a run for any LightningModule, in batches (x (b, d), y (b,)): ``FractalDataModule("vicsek", 4)``.

    The points, and their order in every epoch, are those of this package's own training.

    Args:
        fractal: the name of a conf/fractal/*.yaml, the path of a YAML file, a mapping with such keys, or the group.
        curve: the same of conf/curve/*.yaml, where 1 to 6 are the paper's.
        data: a mapping with keys of conf/data/fractal.yaml, in place of those that stand there, or the group.
        seed: the run's seed.
        batch_size: points in a training batch.

    Where several processes train, each takes its share of every batch.

    Raises ConfigError.
    """

    shares = True  # whether processes share out each batch here; in a run of ours they do so later

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
            own = _own(data, "conf/data/fractal.yaml")
            data = FractalData.parse({**read("data", "fractal", {}), **own})
        check_distribution(self.fractal, self.curve, data.margin)
        self.data, self.seed = data, checked("seed", _plainly(seed), int, SEED)
        self.batch_size = checked("batch_size", _plainly(batch_size), int, {"least": 1, "most": data.train_size})
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
        return OrderedLoader(_shared_out(batches, self), batches.per_epoch)

    def val_dataloader(self) -> DataLoader[Any]:
        """The test set as one batch."""
        self.setup()
        assert self.points is not None
        return DataLoader([(self.points.x_test, self.points.y_test)], batch_size=None)  # pyright: ignore[reportArgumentType]

    test_dataloader = predict_dataloader = val_dataloader


def _plainly(value: Any) -> Any:
    """A whole number of numpy's as one of Python's."""
    return value.item() if hasattr(value, "item") else value


def _own(data: object, file: str) -> Mapping[str, Any]:
    """Keys in place of those of a file. Raises ConfigError, also where they ask for a set that no loader here gives."""
    if not isinstance(data, Mapping | None):
        raise ConfigError(f"data={short(data)}: must be a mapping with keys of {file}")
    own = plain(cast(Mapping[str, Any], data or {}))
    if own.get("val_size"):
        raise ConfigError(
            f"data.val_size={short(own['val_size'])}: must be 0 here, where val_dataloader is the test set"
        )
    return own


def _keys(group: str, named: object) -> Mapping[str, Any]:
    """The keys of a choice of a group: of its file, of the file of one's own, or as they are given."""
    return plain(cast(Mapping[str, Any], named)) if isinstance(named, Mapping) else read(group, named, {})


class _Training(Dataset[tuple[Tensor, Tensor]]):
    """The training batches of all epochs, by their numbers."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __len__(self) -> int:
        """Those of an epoch."""
        return self.batches.per_epoch

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        return next(self.batches(number, 1))


class _Test(Dataset[tuple[Tensor, Tensor]]):
    """The batches of the test set."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __len__(self) -> int:
        return -(-len(self.batches.images.y_test) // TEST_BATCH)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return next(self.batches.test(i))


class CIFAR10DataModule(pl.LightningDataModule):
    """CIFAR-10, or the set that ``data.name`` names, for any LightningModule.

    Gives batches (x (b, 3, 24, 24) float32, y (b,) int64), made on the device, the same as in this package's own
    training. A batch is a function of the seed and its number over all epochs.

    Args:
        data: the name of a conf/data/*.yaml of images, a mapping with keys in place of those that stand there (of the
            set that its ``name`` says, else of CIFAR-10), or the config group ``data``.
        seed: the run's seed.
        batch_size: images in a training batch.
        device: where the images are stored and the batches are made.

    Where several processes train, each takes its share of every batch.

    Raises ConfigError.
    """

    shares = True  # as those of points

    def __init__(
        self,
        data: str | ImageData | Mapping[str, Any] = "cifar10",
        seed: int = 0,
        batch_size: int = 128,
        device: str = "cpu",
    ):
        super().__init__()
        if not isinstance(data, ImageData):
            own = _own(data, "conf/data/cifar10.yaml") if isinstance(data, Mapping) else {"name": data}
            keys = read("data", own.get("name", "cifar10"), own)
            data = ImageData.parse({name: value for name, value in keys.items() if name != "defaults"})
        self.data, self.seed = data, checked("seed", _plainly(seed), int, SEED)
        self.batch_size = checked("batch_size", _plainly(batch_size), int, {"least": 1, "most": data.train_size})
        self.target = device_of(device)
        self._batches: Batches | None = None

    def prepare_data(self) -> None:
        """Fetch the files if they are missing. Raises ConfigError."""
        READERS[self.data.name].load(self.data)

    @property
    def batches(self) -> Batches:
        """The batches, made when first used. Raises ConfigError."""
        if self._batches is None:
            self._batches = Batches(image_sets(self.data, self.target), self.data, self.seed, self.batch_size)
        return self._batches

    def train_dataloader(self) -> DataLoader[Any]:
        """The training batches, an epoch at a time."""
        return OrderedLoader(_shared_out(_Training(self.batches), self), self.batches.per_epoch)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """The test set, in batches of 1,000."""
        return DataLoader(_Test(self.batches), batch_size=None)

    test_dataloader = predict_dataloader = val_dataloader


def _shared_out(
    batches: Dataset[tuple[Tensor, Tensor]], module: FractalDataModule | CIFAR10DataModule
) -> Dataset[tuple[Tensor, Tensor]]:
    """The batches of a module, or where several processes train with its Trainer, this one's share of each."""
    trainer = module.trainer
    if trainer is None or trainer.world_size == 1 or not module.shares:
        return batches
    return Shares(batches, module.batch_size, trainer.global_rank, trainer.world_size)
