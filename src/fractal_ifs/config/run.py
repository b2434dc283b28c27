"""The configuration of one run: all its keys, typed and checked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fractal_ifs.config.data import Data, FractalData, ImageData, parse_data
from fractal_ifs.config.fractal import Curve, Fractal, check_distribution
from fractal_ifs.config.keys import A_SEED, Group, checked, key
from fractal_ifs.config.lightning import Callbacks
from fractal_ifs.config.logger import Logger, PlainLogger, WandbLogger, parse_logger
from fractal_ifs.config.model import CNNModel, MLPModel, Model, parse_model
from fractal_ifs.config.trainer import Trainer
from fractal_ifs.errors import ConfigError, short

GROUPS = {
    "fractal": Fractal.parse,
    "curve": Curve.parse,
    "data": parse_data,
    "model": parse_model,
    "trainer": Trainer.parse,
    "logger": parse_logger,
    "callbacks": Callbacks.parse,
}

NO_CALLBACKS = Callbacks()


@dataclass(frozen=True, kw_only=True)
class RunConfig(Group):
    """All keys of a run. conf/config.yaml has their defaults, which are those of the paper (Section 5)."""

    fractal: Fractal
    curve: Curve
    data: Data
    model: Model
    trainer: Trainer
    logger: Logger
    callbacks: Callbacks = NO_CALLBACKS

    depth: int = key("hidden layers", least=1, most=100_000)
    width: int = key("units of a hidden layer, or channels of a CNN's", least=1, most=10**9)
    lr: float = key("learning rate", above=0, most=1e38)  # about the largest number of float32
    loss: Literal["hinge", "logistic", "squared", "cross_entropy"] = key("loss; cross_entropy for images")
    optimizer: Literal["adam", "sgd"] = key("optimizer")
    training: Literal["joint", "layerwise"] = key("all layers together, or each in turn", later="joint")
    batch_size: int = key("points in a batch", least=1, most=10**9)
    steps: int = key("optimizer steps; in layer-wise training, of each layer", least=1, most=10**12)
    eval_every: int = key("steps from one measurement of the test accuracy to the next", least=1, most=10**12)
    seed: int = key("seed of everything random in the run", least=0, most=2**63 - 1, allowed=A_SEED)

    engine: Literal["auto", "native", "torch", "lightning"] = key("what computes the steps", later="auto", result=False)
    workers: int = key("how many cores or GPUs to use; 0: all of them", least=0, most=4096, later=0, result=False)
    sweep: str = key("directory of a sweep under multirun/; if not given, its overrides", later="", result=False)
    kept: str = key(
        "a table of finished runs, which this run may be taken from and is added to", later="", result=False
    )
    overwrite: bool = key("discard a run that is already in the directory, and train again", later=False, result=False)

    @classmethod
    def parse(cls, keys: Mapping[str, Any]) -> RunConfig:
        """The config from plain values, those of a composed config or of a record. Raises ConfigError."""
        given: dict[str, Any] = {name: {} if keys.get(name) is None else keys[name] for name in GROUPS}
        made = {name: parse(checked(name, given[name], Mapping[str, Any], {})) for name, parse in GROUPS.items()}
        return super().parse({**keys, **made})

    def check(self) -> None:
        """Raises ConfigError if keys of different groups contradict each other."""
        if self.batch_size % self.trainer.devices:
            raise ConfigError(
                f"batch_size={self.batch_size}: must be a multiple of trainer.devices={self.trainer.devices}"
            )
        if self.training == "layerwise" and not isinstance(self.model, MLPModel):
            raise ConfigError(f"training=layerwise: needs model=mlp, not {self.model.name}")
        self._check_lightning()
        if self.batch_size > self.data.train_size:
            raise ConfigError(f"batch_size={self.batch_size}: must be at most data.train_size={self.data.train_size}")
        network, losses = ("mlp", "hinge, logistic, squared") if self.synthetic else ("cnn", "cross_entropy")
        if self.model.name != network:
            raise ConfigError(f"model={self.model.name}: must be {network} with data={self.data.name}")
        if self.loss not in losses.split(", "):
            raise ConfigError(f"loss={self.loss}: must be one of {losses} with data={self.data.name}")
        if isinstance(self.data, FractalData):
            check_distribution(self.fractal, self.curve, self.data.margin)
        elif isinstance(self.model, CNNModel):
            halvings = min(self.depth, self.model.pools)
            if self.data.crop >> halvings < 1:
                raise ConfigError(
                    f"model.pools={self.model.pools}: {halvings} poolings of 2x2 (depth={self.depth}) leave nothing "
                    f"of data.crop={self.data.crop} pixels; at most {self.data.crop.bit_length() - 1}"
                )

    def _check_lightning(self) -> None:
        """Raises ConfigError for what only ``engine=lightning`` does, and for what it can't do."""
        if self.engine != "lightning":
            parts = {"trainer": self.trainer.flags, "callbacks": self.callbacks, "logger": self.logger.others}
            for group, part in parts.items():
                for name in part.keys:
                    raise ConfigError(f"{group}.{short(name)}: goes with engine=lightning, not engine={self.engine}")
            return
        for name in ("compile", "cuda_graphs"):
            if getattr(self.trainer, name):
                raise ConfigError(f"trainer.{name}=true: must be false with engine=lightning")
        if self.training == "layerwise":
            raise ConfigError("training=layerwise: goes with the other engines, not engine=lightning")
        every = self.trainer.flags.keys.get("accumulate_grad_batches", 1)
        per_epoch = self.data.train_size // self.batch_size
        if type(every) is not int or every < 1 or per_epoch % every:
            raise ConfigError(
                f"trainer.accumulate_grad_batches={short(every)}: must be a whole number that divides the {per_epoch} "
                "batches of an epoch"
            )

    @property
    def synthetic(self) -> bool:
        """Whether the data are points of a fractal distribution, not images."""
        return isinstance(self.data, FractalData)

    @property
    def steps_in_all(self) -> int:
        """The optimizer steps of the whole run: ``steps``, and in layer-wise training ``steps`` for each layer."""
        return self.steps * (self.depth if self.training == "layerwise" else 1)

    def on(self, accelerator: Literal["cpu", "gpu"]) -> RunConfig:
        """The same run on another kind of device."""
        return dataclasses.replace(self, trainer=dataclasses.replace(self.trainer, accelerator=accelerator))

    def plain(self) -> dict[str, Any]:
        """Plain values, as a record stores them. ``RunConfig.parse`` turns them back into this config."""
        plain = super().plain()
        for name in GROUPS:
            plain[name] = plain[name].plain()
        return plain

    def identity(self) -> dict[str, Any]:
        """Everything that can change the run's result, as plain values. The fingerprint is the hash of it."""
        own = {field.name for field in dataclasses.fields(self) if field.name not in GROUPS}
        found = {name: value for name, value in super().identity().items() if name in own}
        found |= {"data": self.data.identity(), "model": self.model.identity()}
        found["trainer"] = self.trainer.of_network(cnn=self.model.name == "cnn")
        if callbacks := self.callbacks.identity():
            found["callbacks"] = callbacks
        if self.synthetic:
            found |= {"fractal": self.fractal.identity(), "curve": self.curve.identity()}
        return found

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits, the hash of ``identity``. Configs with the same fingerprint have the same result."""
        return _digest(self.identity())

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """The fingerprint, then those that format 1 may have had: it hashed numbers as they were given, 0 or 0.0."""
        identity = self.identity()
        data = identity["data"]
        numbers = [name for name in data if name in ("margin", "brightness", "contrast")]
        spellings = [dict(zip(numbers, each, strict=True)) for each in product(*(_spellings(data[n]) for n in numbers))]
        found = [_digest(identity | {"data": data | each}) for each in spellings]
        return tuple(dict.fromkeys([self.fingerprint, *found]))


def _digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _spellings(value: float | list[float]) -> list[Any]:
    """The ways to write a number, or a list of them: 0 and 0.0."""
    if isinstance(value, list):
        return [list(each) for each in product(*map(_spellings, value))]
    return [int(value), float(value)] if float(value).is_integer() else [value]


KINDS: tuple[type[Group], ...] = (
    RunConfig,
    FractalData,
    ImageData,
    MLPModel,
    CNNModel,
    Trainer,
    PlainLogger,
    WandbLogger,
)


def placement() -> tuple[str, ...]:
    """The keys that can't change a result, as on the command line: where and how it is computed, kept and logged."""
    names = [
        f"{kind.PREFIX}{field.name}"
        for kind in KINDS
        for field in dataclasses.fields(kind)
        if field.metadata.get("result") is False
    ]
    return tuple(dict.fromkeys(names))


class Job(NamedTuple):
    """A run to train, and the directory for its record (None: nothing is written)."""

    config: RunConfig
    directory: Path | None
