"""The config group ``data``: what a network is trained and tested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from fractal_ifs.config.keys import Group, chosen, key
from fractal_ifs.errors import ConfigError

MOST_POINTS = 2**32 - 1  # a permutation numbers them in 32 bits


@dataclass(frozen=True, kw_only=True)
class FractalData(Group):
    """``data=fractal``: points of the distribution D_n, drawn once per run from the run's seed (Section 5)."""

    PREFIX: ClassVar[str] = "data."

    name: Literal["fractal"] = key("which data")
    train_size: int = key("training points", least=1, most=MOST_POINTS)
    test_size: int = key("test points", least=1, most=MOST_POINTS)
    margin: float = key("gamma: positives lie in K_n^gamma", least=0)
    balanced: bool = key("exact class counts")
    val_size: int = key(
        "points of a validation set, for measures=[val_acc]", least=0, most=MOST_POINTS, later=0, result=False
    )
    overlaps: Literal["once", "repeated"] = key(
        "points of several cells, where images overlap: once, so that positives are uniform on K_n", later="repeated"
    )


class ImageSet(NamedTuple):
    """The size of a published set of images."""

    side: int  # height and width in pixels
    train_size: int
    test_size: int


LOW_HIGH = "[low, high], finite numbers with 0 <= low <= high <= 1e4"
AN_ADDRESS = "an address, https://..., not null"
A_DIRECTORY = "the path of a directory, as ./2024 or /data/cifar"
IMAGE_SETS = {"cifar10": ImageSet(32, 50_000, 10_000), "fashion_mnist": ImageSet(28, 60_000, 10_000)}


@dataclass(frozen=True, kw_only=True)
class ImageData(Group):
    """``data=cifar10`` and ``data=fashion_mnist``: images, prepared as in TensorFlow's CIFAR-10 tutorial (Figure 7)."""

    PREFIX: ClassVar[str] = "data."

    name: Literal["cifar10", "fashion_mnist"] = key("which data")
    dir: str | None = key("where the files are; null: the user's cache", result=False, allowed=A_DIRECTORY)
    verify: bool = key("read only files with a published checksum")
    train_size: int = key("number of training images: the first of the set", least=1)
    test_size: int = key("number of test images: the first of the set", least=1)
    crop: int = key("height and width in pixels of what a network sees", least=1)
    augment: bool = key("random crops, flips, brightness and contrast in training; false: the central crop")
    brightness: float = key("most that is added to a pixel of 0 to 255", least=0, most=1e4)
    contrast: tuple[float, float] = key("between which factors contrast changes", least=0, most=1e4, allowed=LOW_HIGH)
    val_size: int = key(
        "number of validation images, for measures=[val_acc]: those after the training images",
        least=0,
        later=0,
        result=False,
    )
    url: str | None = key("where the archive is fetched from if missing", later=None, result=False, allowed=AN_ADDRESS)

    def check(self) -> None:
        """Raises ConfigError for more images or pixels than the set has, a bad ``contrast``, or a missing ``dir``."""
        there = IMAGE_SETS[self.name]
        for name, most in (("train_size", there.train_size), ("test_size", there.test_size), ("crop", there.side)):
            if getattr(self, name) > most:
                raise ConfigError(f"data.{name}={getattr(self, name)}: must be at most {most}, as {self.name} has")
        if (both := self.train_size + self.val_size) > there.train_size:
            raise ConfigError(
                f"data.val_size={self.val_size}: with data.train_size={self.train_size} these are {both} images, must "
                f"be at most {there.train_size}, as {self.name} has"
            )
        low, high = self.contrast
        if low > high:
            raise ConfigError(f"data.contrast=[{low:g}, {high:g}]: must be {LOW_HIGH}")
        if self.dir is None and self.name != "cifar10":
            raise ConfigError(f"data.dir=null: must be {A_DIRECTORY}")
        if self.url is not None and self.name != "cifar10":
            raise ConfigError(f"data.url={self.url}: goes with data=cifar10; {self.name} is read from data.dir")

    def plain(self) -> dict[str, Any]:
        """The keys as conf/data spells them: a whole ``brightness`` as int, ``contrast`` as list, no ``url=None``."""
        whole = int(self.brightness) if self.brightness.is_integer() else self.brightness
        plain = super().plain() | {"brightness": whole, "contrast": list(self.contrast)}
        return {name: value for name, value in plain.items() if name != "url" or value is not None}

    def identity(self) -> dict[str, Any]:
        """The keys of the fingerprint, with numbers spelled as in ``plain``."""
        plain = self.plain()
        return {name: plain[name] for name in super().identity()}


Data = FractalData | ImageData


def parse_data(keys: Mapping[str, Any]) -> Data:
    """The dataclass for the data that ``keys["name"]`` names. Raises ConfigError."""
    if keys.get("name") == "cifar10" and keys.get("url", "") is None:  # it may be absent, as from a DataModule's caller
        raise ConfigError(f"data.url=null: must be {AN_ADDRESS}")
    return chosen(keys, (FractalData, ImageData)).parse(keys)
