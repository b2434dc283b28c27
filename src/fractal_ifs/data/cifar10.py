"""Reads and fetches CIFAR-10's files: the binary or the Python distribution, packed or unpacked.

Nothing here imports torch. Files can't run code. Every problem is reported as a ConfigError of one line.
"""

import gzip
import hashlib
import io
import pickle
import tarfile
import uuid
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from fractal_ifs.config.data import ImageData
from fractal_ifs.errors import ConfigError, reason
from fractal_ifs.extras import require
from fractal_ifs.files import opened
from fractal_ifs.files import read as read_file

SIZE = 32  # height and width of an image
PIXELS = 3 * SIZE**2
BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
# Both distributions, with their MD5 sums as published on https://www.cs.toronto.edu/~kriz/cifar.html.
ARCHIVES = {
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
}
MOST_BYTES = 1 << 28  # of an archive unpacked, and so of a file in it; CIFAR-10 has 186 million
FOLDERS = (".", "cifar-10-batches-bin", "cifar-10-batches-py")
FILES = (
    *ARCHIVES,
    *(f"{folder}/{name}{e}" for folder in FOLDERS for name in (*BATCHES, "test_batch") for e in ("", ".bin")),
)


class Arrays(NamedTuple):
    """Images, with channels red, green, blue or just grey, and their labels 0 to 9."""

    x_train: np.ndarray  # (n, c, h, w) uint8
    y_train: np.ndarray  # (n,) int64
    x_test: np.ndarray  # (m, c, h, w) uint8
    y_test: np.ndarray  # (m,) int64


def directory(data: ImageData) -> Path:
    """The directory for CIFAR-10's files: ``data.dir``, or one in the user's cache."""
    if data.dir:
        return Path(data.dir).expanduser()
    require("images")
    import pooch

    return Path(pooch.os_cache("fractal_ifs")) / "cifar10"


def load(data: ImageData) -> Arrays:
    """All images, from an archive in the directory, else from unpacked files there, else fetched from ``data.url``.

    With ``data.verify``, only an archive with the published checksum is read. Raises ConfigError.
    """
    where = directory(data)
    archive = next((where / name for name in ARCHIVES if (where / name).is_file()), None)
    loose = next((where / folder for folder in FOLDERS if _ending(_is_in(where / folder)) is not None), None)
    if archive is None and loose is not None:
        if data.verify:
            raise ConfigError(
                f"data.dir={where}: has unpacked files, for which no checksum is published: put "
                f"{' or '.join(ARCHIVES)} there, or read them as they are with data.verify=false"
            )
        return read(lambda name: read_file(loose / name, MOST_BYTES), _ending(_is_in(loose)), loose)
    if archive is None:
        archive = fetch(data.url or "", where, data.verify)
    elif data.verify and (found := md5(archive)) != ARCHIVES[archive.name]:
        raise ConfigError(
            f"data.dir={where}: {archive.name} has the MD5 sum {found}, published is {ARCHIVES[archive.name]}; "
            "delete it, or read it as it is with data.verify=false"
        )
    return read_archive(archive)


def fetch(url: str, where: Path, verify: bool = True) -> Path:
    """Download an archive into the directory ``where`` and return its path. Raises ConfigError.

    The file appears only once it is complete and, with ``verify``, has the published checksum.
    """
    require("images")
    import logging

    import pooch
    import requests

    name = PurePosixPath(url).name
    if name not in ARCHIVES:
        raise ConfigError(f"data.url={url}: must end in {' or '.join(ARCHIVES)}")
    try:
        where.mkdir(parents=True, exist_ok=True)
        probe = where / f".{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"data.dir={where}: can't be written ({error.strerror})") from None
    pooch.get_logger().setLevel(logging.WARNING)
    logging.getLogger(__name__).info("fetching %s (170 MB) into %s", url, where)
    checksum = f"md5:{ARCHIVES[name]}" if verify else None
    try:  # pooch downloads to a temporary name, compares, then renames
        return Path(pooch.retrieve(url, checksum, fname=name, path=where))
    except ValueError as error:
        why = "what came is not the published file" if "hash" in str(error) else reason(error)
    except (OSError, requests.RequestException) as error:
        why = f"{type(error).__name__}: no connection?"
    raise ConfigError(
        f"data.url={url}: can't be fetched ({why}); put {' or '.join(ARCHIVES)} into {where}, "
        "or name its directory: data.dir=DIR"
    ) from None


def read_archive(archive: Path) -> Arrays:
    """All images of a packed distribution. Raises ConfigError, also where little packed would become terabytes."""
    members = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(unpacked(archive))) as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if member.isfile() and name.removesuffix(".bin") in (*BATCHES, "test_batch"):
                    if member.issparse():
                        raise ValueError(f"{name} has holes")
                    file = tar.extractfile(member)
                    assert file is not None
                    members[name] = file.read()
    except (OSError, EOFError, tarfile.TarError, ValueError, zlib.error) as error:
        raise ConfigError(f"{archive}: can't be unpacked ({reason(error)}); delete it") from None
    ending = _ending(members.__contains__)
    if ending is None:
        raise ConfigError(f"{archive}: holds no CIFAR-10 (data_batch_1.bin or data_batch_1)")
    return read(members.__getitem__, ending, archive)


def unpacked(path: Path) -> bytes:
    """The content of a gzip file, compared with its checksum. Raises OSError, EOFError and zlib.error, ValueError."""
    with opened(path, MOST_BYTES) as file, gzip.open(file) as stream:
        content = stream.read(MOST_BYTES + 1)  # as far as the checksum at the end
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    return content


def _ending(there: Callable[[str], bool]) -> str | None:
    """The ending of the files that ``there`` finds: ``.bin``, or "" for the Python distribution. None: no files."""
    return next((e for e in (".bin", "") if any(there(f"{name}{e}") for name in (*BATCHES, "test_batch"))), None)


def _is_in(folder: Path) -> Callable[[str], bool]:
    return lambda name: (folder / name).is_file()


def read(content: Callable[[str], bytes], ending: str | None, source: Path) -> Arrays:
    """All images, from six files with the bytes ``content(name)``. Raises ConfigError if one is missing or broken."""
    parts = []
    for name in [f"{stem}{ending}" for stem in (*BATCHES, "test_batch")]:
        try:
            raw = content(name)
        except (KeyError, FileNotFoundError):
            raise ConfigError(f"{source}: {name} is missing") from None
        except OSError as error:
            raise ConfigError(f"{source}: {name} can't be read ({error.strerror})") from None
        try:
            x, y = binary(raw) if ending else python(raw)
        except ValueError as error:
            raise ConfigError(f"{source}: {name} {error}") from None
        check_labels(y, f"{source}: {name}")
        parts.append((x, y))
    x, y = (np.concatenate(column) for column in zip(*parts[:-1], strict=True))
    return Arrays(x, y, *parts[-1])


def check_labels(y: np.ndarray, where: str) -> None:
    """Raises ConfigError if there are no labels (n,), or one is not from 0 to 9. ``where`` names the file."""
    if len(y) == 0:
        raise ConfigError(f"{where} is empty")
    if y.max() > 9 or y.min() < 0:
        bad = int(np.flatnonzero((y > 9) | (y < 0))[0])
        raise ConfigError(f"{where}: image {bad} has label {y[bad]}, must be from 0 to 9")


def binary(raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) and labels (n,) from records of a label byte and 3,072 pixel bytes. Raises ValueError."""
    if len(raw) % (1 + PIXELS):
        raise ValueError(f"has {len(raw)} bytes, not a multiple of {1 + PIXELS}: it is truncated, or no CIFAR-10 file")
    records = np.frombuffer(raw, np.uint8).reshape(-1, 1 + PIXELS)
    return records[:, 1:].reshape(-1, 3, SIZE, SIZE), records[:, 0].astype(np.int64)


def python(raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) and labels (n,) from a pickled dict of ``data`` (n, 3072) uint8 and ``labels``.

    Raises ValueError.
    """
    batch = safe_unpickle(raw)
    if not isinstance(batch, dict):
        raise ValueError(f"holds a {type(batch).__name__}, must be a dict")
    batch = {key.decode("ascii", "replace") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    x, labels = batch.get("data"), batch.get("labels")
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != PIXELS:
        raise ValueError(f"has no data of {PIXELS} bytes an image")
    if not isinstance(labels, list) or len(labels) != len(x) or any(type(label) is not int for label in labels):
        raise ValueError("has no list of as many labels as images")
    if large := next((label for label in labels if abs(label) > 255), 0):
        raise ValueError(f"has a label of {large.bit_length()} bits, must be from 0 to 9")
    return x.reshape(-1, 3, SIZE, SIZE), np.array(labels, dtype=np.int64)


class _Unpickler(pickle.Unpickler):
    """Reads plain values and numpy arrays of bytes. Refuses every other class or function that a pickle names.

    A pickle gets small callables of ours instead of numpy's classes and functions. A real class could be called with
    harmful arguments (an ndarray of pointers made of the file's bytes), and a pickle can set a function's attributes.
    """

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _Reconstruct()
        if (module, name) == ("numpy", "ndarray"):
            return _NDARRAY
        if (module, name) == ("numpy", "dtype"):
            return _DType()
        if (module, name) == ("_codecs", "encode"):  # protocol 2 writes bytes with it
            return _Encode()
        raise pickle.UnpicklingError(f"names {module}.{name}, which could run code")


_NDARRAY = object()


class _Reconstruct:
    __slots__ = ()

    def __call__(self, kind: Any, shape: Any, code: Any) -> np.ndarray:
        if kind is not _NDARRAY:
            raise pickle.UnpicklingError("makes no array")
        return np.ndarray((0,), np.uint8)  # the state, which comes next, sets shape and type


class _DType:
    __slots__ = ()

    def __call__(self, code: Any, *rest: Any) -> np.dtype:
        if code not in ("u1", "|u1", b"u1", b"|u1"):
            raise pickle.UnpicklingError(f"has an array of type {code!r}, must be of bytes (u1)")
        return np.dtype(np.uint8)


class _Encode:
    __slots__ = ()

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("has bytes in an odd encoding")
        return text.encode("latin1")


def safe_unpickle(raw: bytes) -> Any:
    """Read a pickle of arrays, bytes, str, list, dict and int, without running its code. Raises ValueError."""
    try:
        return _Unpickler(io.BytesIO(raw), encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"is refused: a pickle that {error}") from None
    except Exception as error:  # a torn pickle can raise almost anything
        raise ValueError(f"is truncated, or no pickle ({type(error).__name__})") from None


def md5(path: Path) -> str:
    """The MD5 sum of a file. Raises ConfigError."""
    try:
        stat = path.stat()
        return _md5(path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror})") from None


@lru_cache
def _md5(path: Path, modified: int, size: int) -> str:
    """Cached by time and size of the file, since all jobs of a sweep ask for the same one."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
