"""Labelled images as the data of a run. The device holds all of them as bytes, and batches are made there."""

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fractal_ifs.config.data import ImageData
from fractal_ifs.config.run import RunConfig
from fractal_ifs.data import augment, cifar10, fashion_mnist
from fractal_ifs.data.seeds import permutation, stream
from fractal_ifs.errors import ConfigError

# The function that reads each set of images, by ``data.name``.
READERS = {"cifar10": cifar10.load, "fashion_mnist": fashion_mnist.load}

TEST_BATCH = 1000


@dataclass(eq=False)
class Images:
    """A training and a test set of images, packed by ``augment.pack``, with labels 0 to 9."""

    x_train: Tensor  # (n, h, w) int32
    y_train: Tensor  # (n,) int64
    x_test: Tensor  # (m, h, w) int32
    y_test: Tensor  # (m,) int64
    channels: int  # 3, or 1 for grey images

    def to(self, device: torch.device | str) -> "Images":
        """The same images on another device."""
        tensors = (self.x_train, self.y_train, self.x_test, self.y_test)
        return Images(*(t.to(device) for t in tensors), channels=self.channels)


def check_images(configs: Iterable[RunConfig]) -> None:
    """Read the images of all these configs, and fetch missing ones, so that errors appear before anything trains.

    Raises ConfigError.
    """
    for data in {config.data for config in configs if isinstance(config.data, ImageData)}:
        READERS[data.name](data)


# Runs with the same images share them while one of the runs is in memory.
_shared: "weakref.WeakValueDictionary[tuple[ImageData, str], Images]" = weakref.WeakValueDictionary()


def image_sets(data: ImageData, device: torch.device | str = "cpu") -> Images:
    """The first ``data.train_size`` training images and ``data.test_size`` test images, on a device.

    Raises ConfigError.
    """
    key = (data, str(device))
    images = _shared.get(key)
    if images is None:
        arrays = READERS[data.name](data)
        tensors = []
        for x, y, name in ((*arrays[:2], "train_size"), (*arrays[2:], "test_size")):
            size: int = getattr(data, name)
            if len(y) < size:
                raise ConfigError(f"data.{name}={size}: there are {len(y)} images in {data.dir}")
            tensors += [augment.pack(x[:size]), torch.from_numpy(y[:size])]
        images = Images(*tensors, channels=arrays.x_train.shape[1]).to(device)
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
        self.order = (-1, np.empty(0, np.int64))

    def rows(self, step: int) -> np.ndarray:
        """The indices (b,) of the images of a step."""
        epoch, position = divmod(step, self.per_epoch)
        if self.order[0] != epoch:
            self.order = (epoch, permutation(self.shuffle, epoch, len(self.images.y_train)))
        return self.order[1][position * self.batch : (position + 1) * self.batch]

    def __call__(self, step: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of ``steps`` steps from ``step`` on. All draws go to the device at once."""
        images, size, device = self.images, self.data.crop, self.images.y_train.device
        rows = torch.from_numpy(np.stack([self.rows(step + i) for i in range(steps)])).to(device)
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
        images = self.images
        for rows in torch.arange(len(images.y_test), device=images.y_test.device).split(TEST_BATCH)[first:]:
            x = augment.central(images.x_test, images.channels, rows, self.data.crop, self.dtype)
            yield x, images.y_test[rows]
