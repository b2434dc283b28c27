"""Reads Fashion-MNIST's four IDX files, as the Debian package dataset-fashion-mnist installs them: grey, 28x28 pixels.

This is also the example of how to add a data set. It takes a reader like ``load``, a line in ``READERS`` of
``readers``, its name in two places of ``config.data``, and conf/data/NAME.yaml; if it trains with other defaults,
also conf/protocol/NAME.yaml.
"""

import struct
import zlib
from pathlib import Path

import numpy as np

from fractal_ifs.config.data import ImageData
from fractal_ifs.data.cifar10 import Arrays, check_labels, md5, unpacked
from fractal_ifs.errors import ConfigError, reason

# Each with two MD5 sums: the one published on https://github.com/zalandoresearch/fashion-mnist, and that of Debian's
# package (0.0~git20200523.55506a9-1), which compresses the same files again.
FILES = {
    "train-images-idx3-ubyte.gz": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "cf8536b0aa1a6ac5fa3f23001093305c"),
    "train-labels-idx1-ubyte.gz": ("25c81989df183df01b3e8a0aad5dffbe", "10bea18fdb374794d4bb42e356e600c9"),
    "t10k-images-idx3-ubyte.gz": ("bef4ecab320f06d8554ea6380940ec79", "f78720b4224f21cce2f2ccf2d7a94c9a"),
    "t10k-labels-idx1-ubyte.gz": ("bb300cfdad3c16e7a12a480ee83cd310", "0d30e22e447f3c33dab9ed536400ac01"),
}


def directory(data: ImageData) -> Path:
    """The directory of the four files: ``data.dir``, or the one worked in."""
    return Path(data.dir or ".").expanduser()


def load(data: ImageData) -> Arrays:
    """All images (n, 1, 28, 28) in ``data.dir``. With ``data.verify``, only the published files. Raises ConfigError."""
    where = directory(data)
    arrays = []
    for name, published in FILES.items():
        path = where / name
        if not path.is_file():
            raise ConfigError(
                f"data.dir={where}: {name} is missing; the Debian package dataset-fashion-mnist has it, or name the "
                "directory of the four files: data.dir=DIR"
            )
        if data.verify and (found := md5(path)) not in published:
            raise ConfigError(
                f"data.dir={where}: {name} has the MD5 sum {found}, published are {' and '.join(published)}; "
                "read it as it is with data.verify=false"
            )
        try:
            arrays.append(idx(unpacked(path), 3 if "images" in name else 1))
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise ConfigError(f"{path}: is truncated, or no IDX file ({reason(error)})") from None
    x, y, x_test, y_test = arrays
    for images, labels, name in ((x, y, "train-images"), (x_test, y_test, "t10k-images")):
        if images.shape[1:] != (28, 28) or len(images) != len(labels):
            raise ConfigError(f"{where}: {name}: has {images.shape} pixels for {len(labels)} labels")
        check_labels(labels, f"{where}: {name.replace('images', 'labels')}")
    return Arrays(x[:, None], y.astype(np.int64), x_test[:, None], y_test.astype(np.int64))


def idx(raw: bytes, dimensions: int) -> np.ndarray:
    """The array of an IDX file. Raises ValueError.

    The file begins with the bytes 0, 0, 8 (type: bytes) and the number of dimensions, then the sizes, 4 bytes each.
    """
    if raw[:4] != bytes([0, 0, 8, dimensions]) or len(raw) < 4 + 4 * dimensions:
        raise ValueError(f"must have {dimensions} dimensions of bytes")
    shape = struct.unpack(f">{dimensions}I", raw[4 : 4 + 4 * dimensions])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
