"""Labelled images as the data of a run. The device holds all of them as bytes, and batches are made there."""

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fractal_ifs.config.data import ImageData
from fractal_ifs.config.run import RunConfig
from fractal_ifs.data import augment
from fractal_ifs.data.cifar10 import Arrays
from fractal_ifs.data.readers import READERS
from fractal_ifs.data.seeds import permutations, stream
from fractal_ifs.errors import ConfigError

TEST_BATCH = 1000


@dataclass(eq=False)
class Images:
    """The sets of images of a run, packed by ``augment.pack``, with labels 0 to 9."""

    x_train: Tensor  # (n, h, w) int32
    y_train: Tensor  # (n,) int64
    x_test: Tensor  # (m, h, w) int32
    y_test: Tensor  # (m,) int64
    channels: int  # 3, or 1 for grey images
    x_val: Tensor | None = None  # (v, h, w) int32, the validation set, if there is one
    y_val: Tensor | None = None  # (v,) int64

    def to(self, device: torch.device | str) -> "Images":
        """The same images on another device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Images(**moved, channels=self.channels)


def check_images(configs: Iterable[RunConfig]) -> None:
    """Read the images of all these configs, and fetch missing ones, so that errors appear before anything trains.

    Raises ConfigError, also where there are fewer than a config asks for.
    """
    for data in {config.data for config in configs if isinstance(config.data, ImageData)}:
        _check_sizes(data, READERS[data.name].load(data))


def _check_sizes(data: ImageData, arrays: Arrays) -> None:
    train, test = len(arrays.y_train), len(arrays.y_test)
    for name, asked, there in (
        ("train_size", data.train_size, train),
        ("test_size", data.test_size, test),
        ("val_size", data.train_size + data.val_size, train),
    ):
        if asked > there:
            both = f", with data.train_size={data.train_size} these are {asked}" if name == "val_size" else ""
            raise ConfigError(f"data.{name}={getattr(data, name)}: there are {there} images in {data.dir}{both}")


# Runs with the same images share them while one of the runs is in memory.
_shared: "weakref.WeakValueDictionary[tuple[ImageData, str], Images]" = weakref.WeakValueDictionary()


def image_sets(data: ImageData, device: torch.device | str = "cpu") -> Images:
    """The first ``data.train_size`` training images, ``data.val_size`` after them, and ``data.test_size`` test images.

    Raises ConfigError.
    """
    key = (data, str(device))
    images = _shared.get(key)
    if images is None:
        arrays = READERS[data.name].load(data)
        tensors = []
        _check_sizes(data, arrays)
        for x, y, size in ((*arrays[:2], data.train_size), (*arrays[2:], data.test_size)):
            tensors += [augment.pack(x[:size]), torch.from_numpy(y[:size])]
        images = Images(*tensors, channels=arrays.x_train.shape[1])
        if data.val_size:
            after = slice(data.train_size, data.train_size + data.val_size)
            images.x_val, images.y_val = augment.pack(arrays.x_train[after]), torch.from_numpy(arrays.y_train[after])
        images = images.to(device)
        _shared[key] = images
    return images


class Batches:
    """The batches of a run: x (b, c, s, s) of ``dtype``, with s = ``data.crop``, and y (b,) int64.

    A training batch is a function of the seed and the step. Each epoch has its own permutation, without the incomplete
    last batch, and each step its own draws.
    """

    def __init__(self, images: Images, data: ImageData, seed: int, batch: int, dtype: torch.dtype = torch.float32):
        self.images, self.data, self.batch, self.dtype = images, data, batch, dtype
        self.shuffle, self.augment = stream(seed, "shuffle"), stream(seed, "augment")
        self.per_epoch = len(images.y_train) // batch
        self.order = (-1, torch.empty(0))

    def rows(self, step: int) -> Tensor:
        """The indices (b,) of the images of a step, int64. The device sorts them, once in an epoch."""
        epoch, position = divmod(step, self.per_epoch)
        if self.order[0] != epoch:
            labels = self.images.y_train
            self.order = (epoch, permutations([(self.shuffle, epoch)], len(labels), labels.device)[0].long())
        return self.order[1][position * self.batch : (position + 1) * self.batch]

    def __call__(self, step: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of ``steps`` steps from ``step`` on. All draws go to the device at once."""
        images, size, device = self.images, self.data.crop, self.images.y_train.device
        rows = torch.stack([self.rows(step + i) for i in range(steps)])
        if not self.data.augment:
            for row in rows:
                yield augment.central(images.x_train, images.channels, row, size, self.dtype), images.y_train[row]
            return
        draws = augment.draw(self.augment, step, steps, self.batch, images.x_train.shape[1], self.data)
        moved = [torch.from_numpy(array).to(device) for array in draws]
        for row, top, left, flip, delta, factor in zip(rows, *moved, strict=True):
            crops = augment.crop(images.x_train, images.channels, row, top, left, flip, size)
            yield augment.standardise(crops, delta, factor, self.dtype), images.y_train[row]

    def test(self, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The test set in batches of 1,000, from batch number ``first`` on, as central crops."""
        return self.of(self.images.x_test, self.images.y_test, first)

    def of(self, x: Tensor, y: Tensor, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """A set of packed images (m, h, w) with labels (m,), as ``test`` gives the test set."""
        for rows in torch.arange(len(y), device=y.device).split(TEST_BATCH)[first:]:
            yield augment.central(x, self.images.channels, rows, self.data.crop, self.dtype), y[rows]
