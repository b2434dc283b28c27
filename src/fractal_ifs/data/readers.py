"""What reads each set of images, and what tells own images apart. Nothing here imports torch."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fractal_ifs.config.data import ImageData
from fractal_ifs.data import cifar10, fashion_mnist
from fractal_ifs.errors import ConfigError


class Reader(NamedTuple):
    """How a set of images is read.

    Attributes:
        load: reads all of them, and fetches them where they can be fetched and aren't there. Raises ConfigError.
        directory: where it looks for them.
        files: the names of those that it may read there.
    """

    load: Callable[[ImageData], cifar10.Arrays]
    directory: Callable[[ImageData], Path]
    files: Sequence[str]


READERS = {  # by ``data.name``
    "cifar10": Reader(cifar10.load, cifar10.directory, cifar10.FILES),
    "fashion_mnist": Reader(fashion_mnist.load, fashion_mnist.directory, tuple(fashion_mnist.FILES)),
}


def digest(data: ImageData) -> str | None:
    """12 hex digits, the hash of the images and labels that a run trains and is tested on. None if there are none.

    None are fetched for that, and files that haven't changed are read once in a process.
    """
    reader = READERS[data.name]
    try:
        where = reader.directory(data)
    except ConfigError:  # that a package is missing is for the run to say, when it reads them
        return None
    found = [(name, path.stat()) for name in reader.files if (path := where / name).is_file()]
    state = tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)
    return _digest(replace(data, verify=False, url=None, val_size=0, dir=str(where)), state) if state else None


@lru_cache(maxsize=64)
def _digest(data: ImageData, _: tuple[tuple[str, int, int], ...]) -> str | None:
    try:
        arrays = READERS[data.name].load(data)
    except ConfigError:
        return None
    found = hashlib.sha256()
    for array, size in zip(arrays, (data.train_size,) * 2 + (data.test_size,) * 2, strict=True):
        found.update(f"{array[:size].shape}".encode())
        found.update(array[:size].tobytes())
    return found.hexdigest()[:12]
