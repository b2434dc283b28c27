"""The function that reads each set of images, and what tells own images apart. Nothing here imports torch."""

import hashlib
from dataclasses import replace

from fractal_ifs.config.data import ImageData
from fractal_ifs.data import cifar10, fashion_mnist
from fractal_ifs.errors import ConfigError

READERS = {"cifar10": cifar10.load, "fashion_mnist": fashion_mnist.load}  # by ``data.name``


def digest(data: ImageData) -> str | None:
    """12 hex digits, the hash of all images and labels in ``data.dir``, whatever they are. None if there are none.

    None are fetched for that.
    """
    try:
        arrays = READERS[data.name](replace(data, verify=False, url=None))
    except ConfigError:
        return None
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:12]
