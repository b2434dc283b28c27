"""Images: files and what is refused of them, the pipeline against a slow reference, the networks, their training."""

import gzip
import io
import math
import os
import pickle
import random
import re
import signal
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed, read_checkpoint, slurm_settings
from omegaconf import OmegaConf
from test_training import numbers
from torch import nn
from torch.nn import functional

from fractal_ifs import ConfigError
from fractal_ifs.config.compose import compose
from fractal_ifs.config.data import ImageData
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.data import augment, cifar10, fashion_mnist, images, modules, seeds
from fractal_ifs.data.readers import READERS, digest
from fractal_ifs.engines.conv import ConvEngine
from fractal_ifs.engines.optimizers import torch_optimizer, torch_schedule
from fractal_ifs.files import CONF
from fractal_ifs.help.takes import content
from fractal_ifs.networks.convnet import ConvNet, multiplications
from fractal_ifs.report.forms import markdown
from fractal_ifs.report.write import write_report
from fractal_ifs.results import rows
from fractal_ifs.runs import records
from fractal_ifs.runs.load import load
from fractal_ifs.runs.run import Run
from fractal_ifs.runs.versions import versions
from fractal_ifs.sweeps import slurm
from fractal_ifs.sweeps.executors import processes
from fractal_ifs.sweeps.sweep import train_jobs
from fractal_ifs.training.train import train


def blobs(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) of bytes that a network can tell apart: noise, brighter in one of ten squares."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 10
    x = rng.integers(0, 160, (n, 3, 32, 32))
    for i, label in enumerate(y):
        row, column = 8 + 8 * (label // 5), 6 + 4 * (label % 5)
        x[i, :, row : row + 6, column : column + 4] += 90
    return x.astype(np.uint8), y


def parts(n: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    names = [*cifar10.BATCHES, "test_batch"]
    return {name: blobs(n, seed) for seed, name in enumerate(names)}


def binary(x: np.ndarray, y: np.ndarray) -> bytes:
    return b"".join(bytes([label]) + image.tobytes() for image, label in zip(x, y, strict=True))


def pickled(x: np.ndarray, y: np.ndarray, protocol: int = 2) -> bytes:
    batch = {b"batch_label": b"a part", b"labels": y.tolist(), b"data": x.reshape(len(x), -1), b"filenames": [b"a.png"]}
    return pickle.dumps(batch, protocol)


def archive(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"folder/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Sixty training and twelve test images, as unpacked binary files."""
    where = tmp_path_factory.mktemp("cifar10")
    for name, (x, y) in parts(12).items():
        (where / f"{name}.bin").write_bytes(binary(x, y))
    return where


def config(folder: Path, **keys: Any) -> RunConfig:
    asked = {"data": "cifar10", "model": "cnn", "data.dir": str(folder), "data.verify": False, "data.train_size": 60}
    asked |= {"data.test_size": 12, "batch_size": 16, "width": 4, "depth": 3, "steps": 30, "eval_every": 10}
    asked |= {"logger": "none", "sweep": "tests"} | {key.replace("__", "."): value for key, value in keys.items()}
    return composed(**asked)


def data_of(where: Path, name: str = "cifar10", **keys: Any) -> ImageData:
    """The config group ``data`` for the files of a directory, whatever their checksums; nothing is fetched."""
    of_conf = content(CONF / "data" / f"{name}.yaml")
    nowhere = {"url": "nowhere/cifar-10-binary.tar.gz"} if "url" in of_conf else {}
    return ImageData.parse({**of_conf, **nowhere, "dir": str(where), "verify": False, **keys})


def images_of(config: RunConfig) -> ImageData:
    """The config's group ``data``, which is of images."""
    assert isinstance(config.data, ImageData)
    return config.data


def trained(config: RunConfig, directory: Path | None = None, report: Any = None) -> Run:
    [run] = train([Job(config, directory)], report=report)
    if isinstance(run, Exception):
        raise run
    return run


# --- the pipeline


def reference(image: np.ndarray, top: int, left: int, flip: bool, delta: float, factor: float, size: int) -> np.ndarray:
    """TensorFlow's tutorial, an operation at a time: crop, flip, brightness, contrast, per-image standardisation."""
    x = image.astype(np.float64)[:, top : top + size, left : left + size]
    if flip:
        x = x[:, :, ::-1]
    x = x + delta
    mean = x.mean(axis=(1, 2), keepdims=True)
    x = (x - mean) * factor + mean
    return (x - x.mean()) / max(x.std(), 1 / math.sqrt(x.size))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_pipeline_equals_a_slow_reference(channels):
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (20, channels, 32, 32), dtype=np.uint8)
    pictures[3] = 77  # flat: its standard deviation is bounded from below
    pictures[4, :, 5] = 78
    data = data_of(Path(), crop=24, brightness=63, contrast=(0.2, 1.8))
    draws = augment.draw(5, 0, 1, 20, 32, data)
    top, left, flip, delta, factor = (torch.from_numpy(array[0]) for array in draws)
    packed, rows = augment.pack(pictures), torch.randperm(20)
    crops = augment.crop(packed, channels, rows, top, left, flip, 24)
    assert crops.dtype == torch.uint8
    found = augment.standardise(crops, delta, factor)
    assert found.dtype == torch.float32
    for i, row in enumerate(rows):
        numbers: Any = [array[0, i] for array in draws]
        expected = reference(pictures[row], *numbers, size=24)
        close = 3e-4 if row == 3 else 2e-5  # all of a flat image is rounding
        np.testing.assert_allclose(found[i].numpy(), expected, atol=close, rtol=2e-5)
    tested = augment.central(packed, channels, rows, 24)
    for i, row in enumerate(rows):
        expected = reference(pictures[row], 4, 4, False, 0, 1, 24)
        np.testing.assert_allclose(tested[i].numpy(), expected, atol=3e-4 if row == 3 else 2e-5, rtol=2e-5)


@pytest.mark.parametrize("low", [0, 240])
def test_standardisation_within_autocast(low):
    """A step may run in bfloat16, an image's deviation may not: in 8 bits that of a dark one would be wrong."""
    x = torch.randint(low, low + 8, (50, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = augment.standardise(x, torch.zeros(50).double(), torch.ones(50).double())
    assert found.dtype == torch.float32
    assert found.std((1, 2, 3), correction=0).numpy() == pytest.approx(1, abs=1e-4)


def test_the_draws_are_uniform_and_independent():
    data = data_of(Path(), crop=24, brightness=63, contrast=(0.2, 1.8))
    draws = augment.draw(1, 1000, 500, 128, 32, data)
    n = 500 * 128
    for place in (draws.top, draws.left):
        counts = np.bincount(place.ravel(), minlength=9)
        assert len(counts) == 9  # 0..8: all places of 24 in 32
        assert ((counts - n / 9) ** 2 / (n / 9)).sum() < 26.1  # chi^2 of 8 degrees of freedom, p = .001
    assert abs(draws.flip.mean() - 0.5) < 3.3 * 0.5 / math.sqrt(n)
    for value, low, high in ((draws.delta, -63, 63), (draws.factor, 0.2, 1.8)):
        assert low <= value.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < value.max() < high
        assert abs(value.mean() - (low + high) / 2) < 3.3 * (high - low) / math.sqrt(12 * n)
        assert value.var() == pytest.approx((high - low) ** 2 / 12, rel=0.02)
    flat = np.stack([np.ravel(array).astype(float) for array in draws])
    assert np.abs(np.corrcoef(flat) - np.eye(5)).max() < 4 / math.sqrt(n)
    for column in flat:  # from image to image, and from step to step
        for lag in (1, 128):
            assert abs(np.corrcoef(column[:-lag], column[lag:])[0, 1]) < 4 / math.sqrt(n)


def test_numbers_are_a_function_of_seed_and_step():
    whole = seeds.uniforms(3, 0, 10, 7)
    assert np.array_equal(whole[4:9], seeds.uniforms(3, 4, 5, 7))
    assert len(np.unique(np.concatenate([whole, seeds.uniforms(4, 0, 10, 7)]))) == 140
    assert whole.min() >= 0
    assert whole.max() < 1


def test_batches_are_a_function_of_seed_and_step(folder):
    c = config(folder)
    sets = images.image_sets(images_of(c))

    def batches(seed=0):
        return images.Batches(sets, images_of(c), seed, 16)

    straight = list(batches()(0, 9))
    for step, (x, y) in enumerate(straight):
        assert x.shape == (16, 3, 24, 24)
        [(again, same)] = batches()(step, 1)
        assert torch.equal(x, again)
        assert torch.equal(y, same)
    epoch = torch.cat([batches().rows(step) for step in range(3, 6)])  # 60 images, 16 a batch: 12 are left out
    assert len(epoch.unique()) == 48
    assert epoch.tolist() == seeds.permutation(seeds.stream(0, "shuffle"), 1, 60)[:48].tolist()
    assert not torch.equal(straight[0][0], next(batches(1)(0, 1))[0])
    assert not torch.equal(straight[0][0], straight[3][0])  # another epoch
    x = torch.cat([x for x, _ in straight])
    torch.testing.assert_close(x.mean((1, 2, 3)), torch.zeros(len(x)), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.flatten(1).std(1, correction=0), torch.ones(len(x)), atol=1e-4, rtol=0)


# --- the files


@pytest.mark.parametrize("kind", ["binary", "python"])
@pytest.mark.parametrize("packed", [False, True])
def test_both_distributions_packed_and_unpacked(tmp_path, kind, packed):
    contents = {
        f"{name}.bin" if kind == "binary" else name: binary(x, y) if kind == "binary" else pickled(x, y)
        for name, (x, y) in parts(4).items()
    }
    if packed:
        archive(tmp_path / f"cifar-10-{kind}.tar.gz", contents)
    else:
        (tmp_path / f"cifar-10-batches-{kind[:3].replace('pyt', 'py')}").mkdir()
        for name, content in contents.items():
            (tmp_path / f"cifar-10-batches-{kind[:3].replace('pyt', 'py')}" / name).write_bytes(content)
    found = cifar10.load(data_of(tmp_path))
    assert found.x_train.shape == (20, 3, 32, 32)
    for i, name in enumerate(cifar10.BATCHES):
        x, y = parts(4)[name]
        assert np.array_equal(found.x_train[4 * i : 4 * i + 4], x)
        assert np.array_equal(found.y_train[4 * i : 4 * i + 4], y)
    assert np.array_equal(found.x_test, parts(4)["test_batch"][0])
    assert found.y_test.dtype == np.int64


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol(protocol):
    x, y = blobs(5)
    if protocol >= 5:  # there numpy writes buffers by a function of its own, which CIFAR-10's files don't have
        with pytest.raises(ValueError, match="refused"):
            cifar10.python(pickled(x, y, protocol))
        return
    found, labels = cifar10.python(pickled(x, y, protocol))
    assert np.array_equal(found, x)
    assert np.array_equal(labels, y)


class Evil:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def test_a_pickle_runs_no_code(tmp_path):
    x, y = blobs(3)
    target = tmp_path / "made"
    for evil in (Evil(target.touch), Evil(exec, f"open({str(target)!r}, 'w')"), Evil(eval, "1"), Evil(getattr, x, "T")):
        for batch in (evil, {"data": evil, "labels": [0]}, {"data": x.reshape(3, -1), "labels": list(y), "more": evil}):
            with pytest.raises(ValueError, match=r"is refused: a pickle that names .*, which could run code"):
                cifar10.python(pickle.dumps(batch))
    assert not target.exists()
    with pytest.raises(ValueError, match="is refused: a pickle that has an array of type 'O8', must be of bytes"):
        cifar10.python(pickle.dumps({"data": np.array([[Evil(eval, "1")]], dtype=object), "labels": [0]}, 2))


@pytest.mark.parametrize(
    "raw",
    [
        # numpy.ndarray((1,), "O", bytearray(8 bytes)): an array of pointers that the file chooses
        b"\x80\x05cnumpy\nndarray\nK\x01\x85\x8c\x01O\x96\x08\x00\x00\x00\x00\x00\x00\x00AAAAAAAA\x87R.",
        # BUILD on a function: its attributes are set for the whole process
        b"\x80\x02c_codecs\nencode\nN}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b.",
        b"\x80\x02cnumpy\ndtype\nN}X\x08\x00\x00\x00__call__K\x01s\x86b.",
    ],
)
def test_what_a_pickle_is_given_can_be_called_and_no_more(raw):
    with pytest.raises(ValueError, match="no pickle"):
        cifar10.safe_unpickle(raw)


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        ([1, 2], "holds a list"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [2**70]}, "has a label of 71 bits"),
        ({"labels": [1]}, "has no data"),
        ({"data": np.zeros((1, 9), np.uint8), "labels": [1]}, "has no data"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "no list of as many labels"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": ["cat"]}, "no list of as many labels"),
        (
            {"data": np.zeros((1, 3072), np.float32), "labels": [1]},
            "has an array of type 'f4', must be of bytes",
        ),
    ],
)
def test_pickles_of_something_else(batch, reason):
    with pytest.raises(ValueError, match=reason):
        cifar10.python(pickle.dumps(batch, 2))


def test_refused_files(tmp_path):
    def write(**changed: bytes | None):
        for name, (x, y) in parts(3).items():
            content = changed.get(name, binary(x, y))
            (tmp_path / f"{name}.bin").unlink(missing_ok=True)
            if content is not None:
                (tmp_path / f"{name}.bin").write_bytes(content)

    x, y = blobs(3)
    bad = {
        "data_batch_4.bin is missing": {"data_batch_4": None},
        "test_batch.bin is missing": {"test_batch": None},
        "data_batch_2.bin has 9218 bytes": {"data_batch_2": binary(x, y)[:-1]},
        "test_batch.bin is empty": {"test_batch": b""},
        "data_batch_1.bin: image 2 has label 10, must be from 0 to 9": {"data_batch_1": binary(x, [0, 9, 10])},  # pyright: ignore[reportArgumentType]
    }
    for reason, changed in bad.items():
        write(**changed)
        with pytest.raises(ConfigError) as refused:
            cifar10.load(data_of(tmp_path))
        assert reason in str(refused.value)
        assert str(tmp_path) in str(refused.value)
        assert "\n" not in str(refused.value)
    write()
    with pytest.raises(ConfigError, match=r"data\.verify=false"):
        cifar10.load(data_of(tmp_path, verify=True))


def test_checksums(tmp_path, monkeypatch):
    path = tmp_path / "cifar-10-binary.tar.gz"
    archive(path, {f"{name}.bin": binary(x, y) for name, (x, y) in parts(2).items()})
    with pytest.raises(ConfigError, match=r"has the MD5 sum .* published is c32a1d4ab5d03f1284b67883e8d87530"):
        cifar10.load(data_of(tmp_path, verify=True))
    monkeypatch.setitem(cifar10.ARCHIVES, path.name, cifar10.md5(path))
    assert len(cifar10.load(data_of(tmp_path, verify=True)).y_train) == 10
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="can't be unpacked"):
        cifar10.load(data_of(tmp_path))
    for place in range(1, 9):  # a bit of the images, of which gzip's checksum alone knows; and that itself
        torn = bytearray(whole)
        torn[len(whole) * place // 9] ^= 16
        path.write_bytes(torn)
        with pytest.raises(ConfigError, match="can't be unpacked"):
            cifar10.load(data_of(tmp_path))
    path.write_bytes(whole[:-8])
    with pytest.raises(ConfigError, match="can't be unpacked"):
        cifar10.load(data_of(tmp_path))
    archive(path, {"readme.txt": b"nothing"})
    with pytest.raises(ConfigError, match="holds no CIFAR-10"):
        cifar10.load(data_of(tmp_path))


def test_what_little_would_become_terabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "MOST_BYTES", 1 << 20)
    path = tmp_path / "cifar-10-binary.tar.gz"
    contents = {f"{name}.bin": binary(x, y) for name, (x, y) in parts(2).items()}
    archive(path, contents | {"readme.txt": bytes(1 << 20)})
    with pytest.raises(ConfigError, match=r"can't be unpacked \(more than 1048576 bytes\)"):
        cifar10.load(data_of(tmp_path))
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if name == "test_batch.bin":
                member.pax_headers = {"GNU.sparse.map": f"0,{len(content)}", "GNU.sparse.size": str(1 << 45)}
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(ConfigError, match=r"can't be unpacked \(test_batch.bin has holes\)"):
        cifar10.load(data_of(tmp_path))
    path.unlink()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    os.truncate(tmp_path / "test_batch.bin", 1 << 40)
    with pytest.raises(ConfigError, match=r"test_batch.bin can't be read \(1099511627776 bytes, at most 1048576"):
        cifar10.load(data_of(tmp_path))
    bomb = {"train_images": gzip.compress(bytes(1 << 21))}
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        fashion_mnist.load(fashion(tmp_path, changed=bomb))


def test_fetching(tmp_path, monkeypatch):
    """From a server on this machine: the whole file, a wrong one, one that breaks off, none; and an odd name."""
    import functools
    import http.server
    import threading

    (tmp_path / "site").mkdir()
    served = tmp_path / "site" / "cifar-10-binary.tar.gz"
    archive(served, {f"{name}.bin": binary(x, y) for name, (x, y) in parts(2).items()})
    broken = [False]

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            """Quiet."""

        def copyfile(self, source, outputfile):
            content = source.read()
            outputfile.write(content[: len(content) // 2] if broken[0] else content)

    handler = functools.partial(Handler, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/{served.name}"
        cache = tmp_path / "cache"
        with pytest.raises(ConfigError, match="what came is not the published file"):
            cifar10.load(data_of(cache, url=url, verify=True))
        assert not list(cache.iterdir())
        monkeypatch.setitem(cifar10.ARCHIVES, served.name, cifar10.md5(served))
        broken[0] = True
        with pytest.raises(ConfigError, match="can't be fetched"):
            cifar10.load(data_of(cache, url=url, verify=True))
        assert not list(cache.iterdir())  # a part is never used
        broken[0] = False
        assert len(cifar10.load(data_of(cache, url=url, verify=True)).y_train) == 10
        assert [path.name for path in cache.iterdir()] == [served.name]
        server.shutdown()
    assert len(cifar10.load(data_of(cache, url=url, verify=True)).y_train) == 10  # from the cache
    with pytest.raises(ConfigError, match=r"put cifar-10-binary\.tar\.gz or cifar-10-python\.tar\.gz into") as offline:
        cifar10.load(data_of(tmp_path / "other", url=url))
    assert "\n" not in str(offline.value)
    with pytest.raises(ConfigError, match="must end in"):
        cifar10.load(data_of(tmp_path / "other", url="http://127.0.0.1/cifar.zip"))
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(ConfigError, match="can't be written"):
        cifar10.load(data_of(tmp_path / "file" / "below", url=url))


def fashion(where: Path, first: int = 0, changed: Mapping[str, bytes] | None = None) -> ImageData:
    """The four IDX files of Fashion-MNIST with 20 images each, by seeds from ``first``; returns the config group."""
    import struct

    n = 20
    for part, seed in (("train", 0), ("t10k", 1)):
        x, y = blobs(n, first + seed)
        files = {"images-idx3": struct.pack(">4B3I", 0, 0, 8, 3, n, 28, 28) + x[:, 0, 2:30, 2:30].tobytes()}
        files["labels-idx1"] = struct.pack(">4BI", 0, 0, 8, 1, n) + y.astype(np.uint8).tobytes()
        for kind, packed in files.items():
            name = f"{part}-{kind}-ubyte.gz"
            (where / name).write_bytes((changed or {}).get(f"{part}_{kind[:6]}", gzip.compress(packed)))
    return data_of(where, "fashion_mnist")


def test_fashion_mnist(tmp_path):
    """Read, refused, and trained on as grey images."""

    data = fashion(tmp_path)
    found = fashion_mnist.load(data)
    assert found.x_train.shape == found.x_test.shape == (20, 1, 28, 28)
    assert np.array_equal(found.x_test[:, 0], blobs(20, 1)[0][:, 0, 2:30, 2:30])
    assert np.array_equal(found.y_train, blobs(20)[1])
    keys = {"data": "fashion_mnist", "data.train_size": 20, "data.test_size": 20}
    run = trained(config(tmp_path, **keys))
    assert run.status == "finished"
    assert run.model.hidden[0].weight.shape == (4, 1, 5, 5)
    assert run.record()["data"] == "fashion_mnist"
    with pytest.raises(ConfigError, match="there are 20 images"):
        trained(config(tmp_path, **{**keys, "data.train_size": 21}))
    with pytest.raises(ConfigError, match="MD5 sum"):
        fashion_mnist.load(replace(data, verify=True))
    bad = {
        "no IDX file": {"train_images": gzip.compress(b"nothing")},
        "is truncated": {"t10k_labels": gzip.compress(b"x" * 100)[:40]},
        "image 1 has label 10": {"t10k_labels": gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 20, 0, 10, *[0] * 18]))},
        "for 2 labels": {"train_labels": gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2, 0, 9]))},
    }
    for reason, changed in bad.items():
        with pytest.raises(ConfigError) as refused:
            fashion_mnist.load(fashion(tmp_path, changed=changed))
        assert reason in str(refused.value)
        assert "\n" not in str(refused.value)
    (tmp_path / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(ConfigError, match=r"t10k-images-idx3-ubyte\.gz is missing"):
        fashion_mnist.load(data)


# --- the networks of Figure 7

PARAMETERS = {  # depth: for 8, 16, 32, 64, 128 channels
    1: (12_138, 24_266, 48_522, 97_034, 194_058),
    2: (5_106, 13_402, 39_594, 130_378, 465_546),
    3: (6_714, 19_818, 65_226, 232_842, 875_274),
    4: (8_322, 26_234, 90_858, 335_306, 1_285_002),
    5: (9_930, 32_650, 116_490, 437_770, 1_694_730),
}
MEGAFLOPS = {  # of one image's forward pass
    1: (0.714, 1.429, 2.857, 5.714, 11.428),
    2: (1.158, 3.237, 10.161, 35.067, 129.116),
    3: (1.273, 3.698, 12.004, 42.440, 158.607),
    4: (1.388, 4.159, 13.847, 49.812, 188.099),
    5: (1.503, 4.620, 15.690, 57.185, 217.590),
}


@pytest.mark.parametrize("depth", range(1, 6))
@pytest.mark.parametrize("i", range(5))
def test_the_25_networks(depth, i):
    width = 8 << i
    model = ConvNet(depth, width)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[depth][i]
    assert 2 * multiplications(depth, width) / 1e6 == pytest.approx(MEGAFLOPS[depth][i], abs=6e-4)
    shapes = []
    for layer in model.hidden:
        layer.register_forward_hook(lambda _, inputs, output: shapes.append(output.shape[1:]))
    assert model(torch.zeros(2, 3, 24, 24)).shape == (2, 10)
    assert shapes == [(width, side, side) for side in (24, 12, 6, 6, 6)[:depth]]


def test_the_readout_over_means_and_grey_images():
    model = ConvNet(3, 4, channels=1, size=28, readout="mean")
    assert model.readout.weight.shape == (10, 4)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert multiplications(1, 4, 1, 2, flatten=False) - 25 * 4 * 4 == 4 * 10


@pytest.mark.parametrize("init", ["paper", "he", "pytorch"])
def test_initialisations(init):
    model = ConvNet(3, 64, init=init, generator=torch.Generator().manual_seed(3))
    same = ConvNet(3, 64, init=init, generator=torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    for layer in [*model.hidden, model.readout]:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        assert layer.bias is not None
        fan_in = layer.weight[0].numel()
        gain = math.sqrt(2) if isinstance(layer, nn.Conv2d) else 1
        std = {"paper": 0.8796, "he": gain, "pytorch": 1 / math.sqrt(3)}[init] / math.sqrt(fan_in)
        assert layer.weight.std().item() == pytest.approx(std, rel=0.03)
        if init == "pytorch":
            assert 0 < layer.bias.abs().max() <= 1 / math.sqrt(fan_in)
        else:
            assert (layer.bias == (0.1 if init == "paper" else 0)).all()


@pytest.mark.parametrize(
    "keys", [{"depth": 0}, {"width": 0}, {"init": "zeros"}, {"readout": "max"}, {"size": 3}, {"pools": 5, "depth": 5}]
)
def test_networks_that_can_not_be(keys):
    with pytest.raises(ConfigError):
        ConvNet(**{"depth": 2, "width": 4, **keys})


# --- training


def plain_loop(c: RunConfig) -> tuple[nn.Module, float]:
    """The reference: a module, torch's own optimizer, autograd, the same batches."""
    run = Run(c, None)
    model = run.model
    optimizer = torch_optimizer(c, model.parameters())
    schedule = torch_schedule(c, optimizer)
    total = 0.0
    batches = images.Batches(run.data, images_of(c), c.seed, c.batch_size)
    for step in range(c.steps):
        [(x, y)] = batches(step, 1)
        loss = -torch.log_softmax(model(x), 1)[torch.arange(len(y)), y].mean()
        optimizer.zero_grad()
        loss.backward()
        if c.optimizer.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), c.optimizer.clip)
        optimizer.step()
        schedule.step()
        total += loss.item()
    return model, total / c.steps


def vector(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


MOMENTUM = {"optimizer": "sgd", "lr": 0.05, "optimizer.momentum": 0.9, "optimizer.clip": 0.5, "schedule": "cosine"}
DECAY = {"optimizer": "adamw", "optimizer.weight_decay": 0.1, "schedule": "linear", "schedule.warmup": 5}


@pytest.mark.parametrize(
    "keys", [{}, {"optimizer": "sgd", "lr": 0.05}, MOMENTUM, DECAY, {"data__augment": False}], ids=str
)
def test_a_run_equals_a_plain_loop(folder, keys):
    c = config(folder, eval_every=30, **keys)
    run = trained(c)
    model, loss = plain_loop(c)
    assert relative(run.params, vector(model)) < 1e-4
    assert run.history[-1].train_loss == pytest.approx(loss, rel=1e-4)
    assert relative(run.params, vector(Run(c, None).model)) > 1e-2  # it did move
    x, y = (torch.cat(column) for column in zip(*images.Batches(run.data, images_of(c), 0, 16).test(), strict=True))
    f = run.model(x)
    assert run.history[-1].test_acc == pytest.approx((f.argmax(1) == y).double().mean().item())
    assert run.history[-1].test_loss == pytest.approx(nn.functional.cross_entropy(f, y).item(), rel=1e-4)
    assert run.record()["engine"] == "conv"
    assert (run.record()["data"], run.record()["fractal"]) == ("cifar10", None)


class Stop:
    def __init__(self, rounds: int):
        self.left = rounds

    def __call__(self, training) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("keys", [{}, MOMENTUM | {"optimizer.average": "ema", "optimizer.average_decay": 0.9}], ids=str)
def test_interrupted_runs_go_on_to_the_same_bits(folder, tmp_path, keys):
    c = config(folder, **keys)
    straight = trained(c)
    for rounds in (1, 1):
        with pytest.raises(KeyboardInterrupt):
            trained(c, tmp_path, Stop(rounds))
    record = records.read_record(tmp_path)
    assert record is not None
    assert (record["status"], record["steps"]) == ("interrupted", 20)
    resumed = trained(c, tmp_path)
    for name in ("params", "exp_avg", "exp_avg_sq", "best_params"):
        assert torch.equal(getattr(resumed, name), getattr(straight, name))
    assert numbers(resumed) == numbers(straight)
    written = load(tmp_path)
    assert written.record["status"] == "finished"
    assert torch.equal(vector(written.model), straight.measured)
    assert straight.best_params is not None
    assert torch.equal(vector(load(tmp_path, best=True).model), straight.best_params)
    [(x, _)] = images.Batches(straight.data, images_of(c), 0, 16)(7, 1)
    assert torch.equal(written.model(x), straight.trained(x))


def test_slurms_warning_within_a_step_requeues_the_task(folder, tmp_path, monkeypatch):
    commands, losses, calls = [], functional.cross_entropy, []

    def warned(*arguments, **keys):
        calls.append(1)
        if len(calls) == 7:
            signal.raise_signal(signal.SIGUSR2)
        return losses(*arguments, **keys)

    monkeypatch.setattr(functional, "cross_entropy", warned)
    versions()  # asks git, once in a process
    monkeypatch.setattr(slurm.subprocess, "run", lambda command, **_: commands.append(command))
    monkeypatch.setattr(slurm.logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(slurm.streams, "outlast", lambda: None)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    before = signal.getsignal(signal.SIGUSR2)
    try:
        with pytest.raises(SystemExit, match="interrupted"):
            slurm.SlurmTask([Job(config(folder), tmp_path)], slurm_settings())()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert commands == [["scontrol", "requeue", "7"]]
    record = records.read_record(tmp_path)
    assert record is not None
    assert (record["status"], record["steps"]) == ("interrupted", 7)


def test_where_an_interrupt_comes_changes_no_bit_of_the_losses(folder):
    found = []
    for parts in ((30,), (7, 1, 22)):
        run = Run(config(folder, **{"trainer.precision": "64-true"}), None)
        engine = ConvEngine("64-true")
        for steps in parts:
            run.advanced(steps, engine.advance([run], [steps], [])[0], 0.0)
        found.append(run.loss_sum)
    assert found[0] == found[1]


def test_bits_do_not_depend_on_where_an_interrupt_comes(folder, tmp_path, monkeypatch):
    """Small networks at random; what was allocated in between moves their memory."""
    cross_entropy, left = functional.cross_entropy, 0

    def signalled(*arguments: Any, **keys: Any) -> torch.Tensor:
        nonlocal left
        left -= 1
        if left == 0:
            signal.raise_signal(signal.SIGINT)
        return cross_entropy(*arguments, **keys)

    monkeypatch.setattr(functional, "cross_entropy", signalled)
    for number in range(5):
        chance = random.Random(number)
        shape = {"width": chance.randint(1, 24), "depth": chance.randint(1, 4), "batch_size": chance.randint(1, 33)}
        shape |= {"steps": chance.randint(6, 9), "eval_every": chance.randint(2, 4)}
        shape |= {"trainer.precision": chance.choice(["32-true", "64-true", "bf16-mixed"])}
        shape |= {"trainer.channels_last": chance.random() < 0.5, "trainer.threads": chance.randint(1, 2)}
        asked = config(folder, **shape)
        straight = trained(asked)
        left = chance.randint(2, 5)
        with pytest.raises(KeyboardInterrupt):
            trained(asked, tmp_path / str(number))
        kept = torch.zeros(chance.randint(1, 10**5))
        resumed = trained(asked, tmp_path / str(number))
        for name in ("params", "exp_avg", "exp_avg_sq", "best_params"):
            assert torch.equal(getattr(resumed, name), getattr(straight, name)), shape
        assert numbers(resumed) == numbers(straight), shape
        del kept


def test_processes_and_their_threads_share_the_cores(folder, monkeypatch):
    monkeypatch.setattr("fractal_ifs.sweeps.executors.cores", lambda: 8)
    counts = [processes(config(folder, **{"trainer.threads": n})) for n in (1, 2, 3, 16)]
    assert counts == [8, 4, 2, 1]
    assert processes(config(folder, **{"trainer.threads": 2}, workers=3)) == 3


@pytest.mark.slow  # test_combinations interrupts CNNs too
def test_killed_and_gone_on_to_the_same_bits(folder, tmp_path):
    """SIGKILL to the real command in mid-run, then the same command again."""
    import os
    import signal
    import subprocess
    import sys
    import time

    code = "import fractal_ifs.training.rounds as t, fractal_ifs.train as m; t.CHECKPOINT_SECONDS = 0.0; m.main()"
    keys = [f"data.dir={folder}", "data=cifar10", "model=cnn", "data.verify=false", "data.train_size=60"]
    keys += ["data.test_size=12", "batch_size=16", "width=4", "depth=2", "steps=400", "eval_every=20", "logger=none"]

    def start(name: str) -> subprocess.Popen:
        command = [sys.executable, "-c", code, *keys, f"hydra.run.dir={tmp_path / name}"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    straight = start("straight")
    killed = start("killed")
    deadline = time.monotonic() + 300
    while not (tmp_path / "killed" / "checkpoint.previous.pt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert records.read_record(tmp_path / "killed") is None
    state = read_checkpoint(tmp_path / "killed")
    assert state is not None
    assert 0 < state["step"] < 400
    assert start("killed").wait(300) == 0
    assert straight.wait(300) == 0
    ends = [read_checkpoint(tmp_path / name) for name in ("straight", "killed")]
    for name in ("params", "exp_avg", "exp_avg_sq", "best_params"):
        assert torch.equal(*(end[name] for end in ends if end))
    first, second = ([(s, *rest) for s, _, *rest in end["history"]] for end in ends if end)
    assert first == second
    assert "from step 0 " not in (tmp_path / "killed" / "train.log").read_text().splitlines()[-2]


@pytest.mark.parametrize(
    "keys",
    [
        {"trainer__channels_last": False},
        {"trainer__precision": "bf16-mixed"},
        pytest.param(
            {"trainer__compile": True},
            marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")],  # torch's own
        ),
    ],
    ids=str,
)
def test_other_ways_to_compute_find_nearly_the_same(folder, keys):
    from torch._dynamo.utils import counters

    before = counters["frames"]["ok"]
    default, other = trained(config(folder)), trained(config(folder, **keys))
    assert relative(other.params, default.params) < (0.05 if "bf16-mixed" in keys.values() else 1e-3)
    # That it was another way: other rounding shows it, or that a graph was compiled, which rounds alike here.
    assert not torch.equal(other.params, default.params) or counters["frames"]["ok"] > before


def test_fitting_what_can_be_fitted(folder):
    run = trained(config(folder, data__augment=False, width=8, depth=2, steps=150, eval_every=150, lr=3e-3))
    x = augment.central(run.data.x_train, 3, torch.arange(60), 24)
    assert (run.model(x).argmax(1) == run.data.y_train).all()
    assert run.best_test_acc > 0.5  # squares of ten places, five images of each seen; chance is .1


@pytest.mark.slow
def test_fitting_a_thousand_random_labels():
    """1,000 images of noise, labelled at random, without augmentation: nothing but memory helps, and all are fitted."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for name in [*cifar10.BATCHES, "test_batch"]:
            x, y = rng.integers(0, 256, (200, 3, 32, 32), dtype=np.uint8), rng.integers(0, 10, 200)
            Path(folder, f"{name}.bin").write_bytes(binary(x, y))
        keys = {"data.train_size": 1000, "data.test_size": 200, "data.augment": False, "batch_size": 100, "lr": 1e-3}
        run = trained(config(Path(folder), **keys, width=16, depth=3, steps=1500, eval_every=1500))
    x = augment.central(run.data.x_train, 3, torch.arange(1000), 24)
    assert (run.model(x).argmax(1) == run.data.y_train).all()
    assert run.best_test_acc < 0.25  # chance is .1


def test_divergence_is_recorded(folder):
    run = trained(config(folder, lr=1e30))
    assert run.record()["status"] == "diverged"
    assert run.history[-1].test_acc == 0  # nan is an answer to no image, not that of class 0


def test_the_data_module_under_plain_lightning(folder):
    import pytorch_lightning as pl

    c = config(folder)
    data = modules.CIFAR10DataModule(images_of(c), seed=0, batch_size=16)
    data.prepare_data()
    seen = list(data.train_dataloader())
    expected = list(images.Batches(images.image_sets(images_of(c)), images_of(c), 0, 16)(0, 3))
    assert all(
        torch.equal(a, b) for one, other in zip(seen, expected, strict=True) for a, b in zip(one, other, strict=True)
    )
    assert len(data.train_dataloader()) == 3
    assert sum(len(y) for _, y in data.val_dataloader()) == 12
    assert isinstance(data, pl.LightningDataModule)


def test_the_data_module_by_a_name_and_some_keys(folder):
    of = modules.CIFAR10DataModule
    assert of().data == of("cifar10").data == of({}).data
    assert (of("fashion_mnist").data.name, of({"name": "fashion_mnist", "crop": 20}).data.crop) == ("fashion_mnist", 20)
    c = images_of(config(folder))
    sizes = {"train_size": c.train_size, "test_size": c.test_size}
    data = of(OmegaConf.create({"dir": c.dir, "verify": False, **sizes}), batch_size=16)
    assert len(next(iter(data.train_dataloader()))[1]) == 16


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"batch_size": 60_000}, "batch_size=60000: must be a whole number >= 1 and <= 50000"),
        ({"batch_size": 0}, "batch_size=0: must be a whole number >= 1 and <= 50000"),
        ({"seed": -1}, "seed=-1: must be a whole number >= 0 and < 2^63"),
        ({"device": "nowhere"}, "device=nowhere: must be a device that is here"),
        ({"data": 3}, "data=3: unknown; known: cifar10, fashion_mnist"),
        ({"data": {"crp": 2}}, "data.crp=2: there is no such key; did you mean crop?"),
    ],
)
def test_the_data_module_refuses(keys, told):
    with pytest.raises(ConfigError) as refused:
        modules.CIFAR10DataModule(**keys)
    assert str(refused.value).startswith(told)


def test_fingerprints_of_images(folder):
    def of(**keys):
        return config(folder, **keys).fingerprint

    same = {of(), of(data__dir="elsewhere"), of(data__url="other"), of(fractal="vicsek"), of(curve=4)}
    assert len(same) == 1
    other = {of(data__verify=True), of(data__crop=28), of(model__readout="mean"), of(data__augment=False)}
    other |= {of(trainer__channels_last=False), of(trainer__threads=2), of(trainer__compile=True)}
    assert len(same | other) == 8


def test_the_protocol_of_figure_7():
    c = compose(data="cifar10", model="cnn")
    expected = {"loss": "cross_entropy", "batch_size": 128, "steps": 60_000, "optimizer": "adam"}
    assert {key: c.leaves()[key] for key in expected} == expected
    experiment = compose(experiment="figure7", depth=2, width=8, data__verify=False)
    assert {key: experiment.leaves()[key] for key in expected} == expected
    assert (experiment.data.name, experiment.model.name) == ("cifar10", "cnn")
    assert compose(data="cifar10", model="cnn", budget="quick").steps == 20_000
    assert compose(data="cifar10", model="cnn", batch_size=64, steps=10).batch_size == 64


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"model": "mlp"}, "model=mlp: must be cnn with data=cifar10"),
        ({"data": "fractal", "loss": "hinge"}, "model=cnn: must be another than cnn with data=fractal"),
        ({"loss": "hinge"}, "loss=hinge: must be one of cross_entropy"),
        ({"model.pools": 5, "depth": 5}, "model.pools=5: 5 poolings of 2x2 (depth=5) leave nothing of data.crop=24"),
        ({"data.crop": 3, "depth": 2}, "leave nothing of data.crop=3"),
        ({"data.crop": 33}, "data.crop=33: must be at most 32"),
        ({"data.crop": 0}, "data.crop=0: must be a whole number >= 1"),
        ({"width": 0}, "width=0: must be a whole number >= 1"),
        ({"depth": 0}, "depth=0: must be a whole number >= 1"),
        ({"data.train_size": 50_001}, "data.train_size=50001: must be at most 50000"),
        ({"data.test_size": 10_001}, "data.test_size=10001: must be at most 10000"),
        ({"data.brightness": -1}, "data.brightness=-1: must be a finite number >= 0"),
        ({"data.contrast": [2, 1]}, "data.contrast=[2, 1]: must be [low, high]"),
        ({"data.contrast": 1}, "data.contrast=1: must be [low, high]"),
        ({"data.verify": 3}, "data.verify=3: must be true or false"),
        ({"data.augment": "yes please"}, "data.augment=yes please: must be true or false"),
        ({"model.init": "theory"}, "model.init=theory: must be one of paper, he, pytorch"),
        ({"model.readout": "max"}, "model.readout=max: must be one of flatten, mean"),
        ({"trainer.channels_last": 2}, "trainer.channels_last=2: must be true or false"),
        ({"trainer.threads": 0}, "trainer.threads=0: must be a whole number >= 1"),
        ({"data": "fashion_mnist", "data.dir": None}, "data.dir=null: must be the path of a directory"),
        ({"data.url": None}, "data.url=null: must be an address"),
        ({"data.dir": "~/cifar"}, "data.dir=~/cifar: ~ can't stand here, write $HOME"),
    ],
    ids=str,
)
def test_refused_configs(keys, reason):
    with pytest.raises(ConfigError) as refused:
        compose(**{"data": "cifar10", "model": "cnn", **keys})
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_sweep_of_images(command, folder):
    keys = ["data=cifar10", "model=cnn", f"data.dir={folder}", "data.train_size=60", "data.test_size=12", "steps=4"]
    keys += ["eval_every=2", "batch_size=16", "logger=csv", "hydra.launcher.executor=inline", "sweep=s"]
    refused = command("-m", *keys, "depth=1,2", "width=4")
    assert "no checksum is published" in refused.status
    assert not list(Path("multirun").rglob("result.json"))
    done = command("-m", *keys, "data.verify=false", "depth=1,2", "width=4,6", "trainer.accelerator=auto")
    assert done.status == 0, done.status
    assert "best test accuracy" in done.out
    found = [records.read_record(path.parent) for path in sorted(Path("multirun/s").rglob("result.json"))]
    assert [(r["depth"], r["width"]) for r in found if r] == [(1, 4), (1, 6), (2, 4), (2, 6)]
    here = "gpu" if torch.cuda.is_available() else "cpu"
    assert {r.config.trainer.accelerator for r in found if r} == {here}
    assert all(r["params"] == sum(p.numel() for p in ConvNet(r["depth"], r["width"]).parameters()) for r in found if r)
    again = command("-m", *keys, "data.verify=false", "depth=1,2", "width=4,6", "trainer.accelerator=auto")
    assert "4 of 4 jobs are finished already" in again.out + again.err
    twice = command("-m", *keys, "data.verify=false", "depth=1", "width=4", "curve=1,4", "fractal=vicsek,cantor")
    said = "data=cifar10: reads no fractal and no curve, so curve=1 fractal=vicsek is the same job"
    assert twice.status == f"error: {said} (3 of 4 jobs, the first curve=1 fractal=cantor)"
    more = command("-m", *keys, "data.verify=false", "depth=1,2", "width=4", "data.train_size=16,61", "sweep=more")
    assert more.status == f"error: data.train_size=61: there are 60 images in {folder}"
    assert not list(Path("multirun/more").rglob("result.json"))


def test_a_run_is_of_the_images_that_it_was_trained_on(command, tmp_path):
    """Those of another directory may be others: their content tells, where no checksum is published."""
    for name, seed in (("one", 1), ("other", 2), ("same", 1)):
        (tmp_path / name).mkdir()
        fashion(tmp_path / name, seed)
    keys = ["data=fashion_mnist", "model=cnn", "data.verify=false", "data.train_size=20", "data.test_size=20"]
    keys += ["width=2", "depth=1", "steps=4", "eval_every=2", "batch_size=10", "logger=csv", "hydra.run.dir=run"]
    assert command(*keys, "data.dir=one").status == 0
    found = records.read_record(tmp_path / "run")
    assert found
    assert re.fullmatch("[0-9a-f]{12}", found["data_source"])
    for name in ("same", "other"):
        ended = command(*keys, f"data.dir={name}")
        text = "1 of these were trained on other images than are in data.dir now; overwrite=true trains them again"
        assert (text in ended.out + ended.err) == (name == "other")
    assert records.read_record(tmp_path / "run") == found


def test_a_run_is_not_gone_on_with_on_other_images(tmp_path):
    for name, seed in (("one", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        fashion(tmp_path / name, seed)
    keys = {"data": "fashion_mnist", "data.train_size": 20, "data.test_size": 20, "data.verify": False}
    one, other = (config(tmp_path / name, **keys) for name in ("one", "other"))
    [_] = train_jobs([Job(one, tmp_path / "run", pause=10)])
    [ended] = train_jobs([Job(other, tmp_path / "run")])
    assert re.search(
        r"run: was begun on other images than are in data.dir=.*other \(\w{12} there, \w{12} here\)", str(ended)
    )
    [ended] = train_jobs([Job(one, tmp_path / "run")])
    assert isinstance(ended, records.RunRecord)
    assert (ended.status, ended.steps) == ("finished", 30)
    longer = [replace(each, steps=60, continue_from=str(tmp_path / "run")) for each in (one, other)]
    assert [trained(each).history[0].step for each in longer] == [10, 10]
    train_jobs([Job(each, tmp_path / name) for each, name in zip(longer, ("same", "not"), strict=True)])
    told = [(tmp_path / name / "train.log").read_text() for name in ("same", "not")]
    assert "begins from step 30: the end of" in told[0]
    assert "begins from step 0: the run in" in told[1]
    assert "was trained on other images than are in data.dir" in told[1]


def test_images_that_a_run_reads_tell_it_apart(tmp_path, monkeypatch):
    data = replace(fashion(tmp_path), train_size=10, test_size=5)
    first, read = digest(data), []
    known = READERS["fashion_mnist"]
    monkeypatch.setitem(READERS, "fashion_mnist", known._replace(load=lambda data: read.append(1) or known.load(data)))
    assert digest(replace(data, val_size=5)) == first
    assert not read  # they are read once in a process
    assert digest(replace(data, test_size=6)) != first
    more = Path(tmp_path / "more")
    more.mkdir()
    fashion(more, 1)
    assert digest(replace(data, dir=str(more))) != first
    assert digest(replace(data, dir=str(tmp_path / "nowhere"))) is None


def test_images_in_the_cache_are_told_apart_as_well(tmp_path, monkeypatch, folder):
    """Not those in the directory worked in, which a run without ``data.dir`` doesn't read."""
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / name)
    monkeypatch.chdir(folder)
    data = replace(data_of(folder, train_size=10, test_size=5), dir=None)
    assert digest(data) is None
    (tmp_path / "fractal_ifs").mkdir()
    (tmp_path / "fractal_ifs" / "cifar10").symlink_to(folder)
    assert digest(data) == digest(replace(data, dir=str(folder)))
    monkeypatch.setitem(sys.modules, "pooch", None)  # as where the extra isn't installed: the run says so, as it reads
    assert digest(data) is None


def test_figure_7_in_the_report(folder, tmp_path):
    """Records made here, a hundredth above the paper's figure: the grid, its difference, the claim, the picture."""
    import json

    from fractal_ifs.report import tables as report_tables
    from fractal_ifs.report import verdicts as report_verdicts
    from fractal_ifs.results import cells as report_data
    from fractal_ifs.runs.records import keys_of

    theirs = report_tables.paper()["figure7"]["values"]
    whole = {
        "data.train_size": 50_000,
        "data.test_size": 10_000,
        "batch_size": 128,
        "steps": 60_000,
        "eval_every": 1_000,
    }
    for depth in range(1, 6):
        for i, width in enumerate((8, 16, 32)):
            c = config(folder, **whole, depth=depth, width=width, lr=1e-3)
            accuracy = theirs[depth - 1][i] + 0.01
            record = {"format": 1, "status": "finished", "best_test_acc": accuracy, "best_step": 60_000}
            keys = keys_of(c)
            del keys["steps_asked"]  # which format 1 didn't have
            record |= {"steps": 60_000, "seconds": 1.0, "params": 1, **keys, "error": None, "config": c.plain()}
            directory = tmp_path / "runs" / f"{depth}-{width}"
            directory.mkdir(parents=True)
            (directory / "result.json").write_text(json.dumps(record))
    runs, _ = rows.read_runs([tmp_path / "runs"])
    assert set(runs.differs) == {""}  # where the images lie, and that they weren't verified, is no other protocol
    made = report_tables.tables(report_data.form_cells(runs)[0])
    [seven] = [table for table in made if "CIFAR-10" in table.title]
    assert sum(c.ours is not None for c in seven.cells) == 15
    n, absolute, mean = report_tables.difference(seven.cells) or (0, 0.0, 0.0)
    assert (n, pytest.approx(absolute), pytest.approx(mean)) == (15, 0.01, 0.01)
    [claim] = [found for found in report_verdicts.verdicts(made) if "CIFAR-10" in found.claim]
    # By hand from the paper's figure: means of (.016, .041, .067), (.002, .015, .024), (.003, .014, .007), ...
    assert claim.ours.startswith("layers 2 to 5 bring +0.041, +0.014, +0.008, -0.003; 2 and 3 +0.055, widths +0.018 to")
    assert claim.verdict == "supported"
    assert "| 3 | 0.602 (0.592) +0.010 |" in markdown(seven)
    write_report([tmp_path / "runs"], tmp_path / "report")
    assert (tmp_path / "report" / "figures" / "figure7.png").stat().st_size > 10_000
    assert "CIFAR-10" in (tmp_path / "report" / "tables.md").read_text()


@pytest.mark.filterwarnings("ignore:.*many workers", "ignore:.*treespec", "ignore:.*logging interval", "ignore:.*srun")
def test_lightning_trains_a_cnn_as_the_conv_engine(folder):
    runs = [
        train([Job(config(folder, engine=engine, trainer__precision="64-true"), None)])[0]
        for engine in ("auto", "lightning")
    ]
    ours, theirs = (run for run in runs if isinstance(run, Run))
    assert (ours.computed_by.engine, theirs.computed_by.engine) == ("conv", "lightning")
    assert (ours.params - theirs.params).abs().max() < 1e-6
    assert [row.test_acc for row in ours.history] == [row.test_acc for row in theirs.history]
