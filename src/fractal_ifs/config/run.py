"""The configuration of one run: all its keys, typed and checked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fractal_ifs import fractals  # whose names are imported when they are used
from fractal_ifs.config.data import Data, FractalData, ImageData, parse_data
from fractal_ifs.config.fractal import Curve, Fractal, check_distribution
from fractal_ifs.config.keys import A_SEED, Group, checked, key
from fractal_ifs.config.leaves import leaves
from fractal_ifs.config.lightning import Callbacks, usual_flags
from fractal_ifs.config.logger import Logger, PlainLogger, WandbLogger, parse_logger
from fractal_ifs.config.loss import LOSSES, OF_IMAGES, OF_POINTS, AnyLoss, OwnLoss, parse_loss
from fractal_ifs.config.measures import ALLOWED, check_fits, check_names, is_own
from fractal_ifs.config.model import OURS, CNNModel, MLPModel, Model, Theorem1Model, parse_model
from fractal_ifs.config.optimizer import OPTIMIZERS, Optimizer, parse_optimizer
from fractal_ifs.config.own import TARGET, Own
from fractal_ifs.config.schedule import SCHEDULES, Schedule, parse_schedule
from fractal_ifs.config.stop import Stop
from fractal_ifs.config.trainer import Trainer
from fractal_ifs.errors import ConfigError, counted, short

GROUPS: dict[str, Callable[[Any], Any]] = {
    "fractal": Fractal.parse,
    "curve": Curve.parse,
    "data": parse_data,
    "model": parse_model,
    "loss": parse_loss,
    "optimizer": parse_optimizer,
    "schedule": parse_schedule,
    "stop": Stop.parse,
    "trainer": Trainer.parse,
    "logger": parse_logger,
    "callbacks": Callbacks.parse,
}
NAMED = ("loss", "optimizer", "schedule")  # those that a name alone may stand for, ``optimizer: adam``: see ``Named``

NO_CALLBACKS = Callbacks()

MOST_READ = 1000


@dataclass(frozen=True)
class _Given:
    """The keys of a group, which are the same where their text is."""

    group: str
    text: str
    keys: Any = dataclasses.field(compare=False)


def _group(name: str, keys: Any) -> Any:
    """A group from its keys. Most are those of other jobs too, and read once; not those that name a user's code."""
    text = repr(keys)
    return GROUPS[name](keys) if TARGET in text else _read(_Given(name, text, keys))


@lru_cache(maxsize=MOST_READ)
def _read(given: _Given) -> Any:
    return GROUPS[given.group](given.keys)


@dataclass(frozen=True, kw_only=True)
class RunConfig(Group):
    """All keys of a run. conf/config.yaml has their defaults, which are those of the paper (Section 5)."""

    fractal: Fractal
    curve: Curve
    data: Data
    model: Model
    loss: AnyLoss
    optimizer: Optimizer
    schedule: Schedule
    stop: Stop
    trainer: Trainer
    logger: Logger
    callbacks: Callbacks = NO_CALLBACKS

    depth: int = key("hidden layers", least=1, most=100_000)
    width: int = key("units of a hidden layer, or channels of a CNN's", least=1, most=10**9)
    lr: float = key("learning rate", above=0, most=1e38)  # about the largest number of float32
    training: Literal["joint", "layerwise"] = key("all layers together, or each in turn", later="joint")
    batch_size: int = key("points in a batch", least=1, most=10**9)
    steps: int = key("optimizer steps; in layer-wise training, of each layer", least=1, most=10**12)
    eval_every: int = key("steps from one measurement of the test accuracy to the next", least=1, most=10**12)
    seed: int = key("seed of everything random in the run", least=0, most=2**63 - 1, allowed=A_SEED)
    measures: tuple[str, ...] = key(
        "what is measured besides the test set, docs/measures.md", empty=True, later=(), result=False, allowed=ALLOWED
    )
    measure_start: bool = key("measure before the first step too", later=False, result=False)
    objective: Literal["test_acc", "val_acc"] = key(
        "by which accuracy stop, halving and other sweepers choose; val_acc needs measures=[val_acc]", later="test_acc"
    )

    engine: Literal["auto", "native", "cuda", "torch", "lightning"] = key(
        "what computes the steps", later="auto", result=False
    )
    workers: int = key(
        "how many cores to use, or processes on GPUs; 0: all that suit", least=0, most=4096, later=0, result=False
    )
    sweep: str = key("directory of a sweep under multirun/; if not given, its overrides", later="", result=False)
    kept: str = key(
        "a table of finished runs, which this run may be taken from and is added to", later="", result=False
    )
    continue_from: str = key(
        "directory with finished runs: one that differs in nothing but fewer steps is gone on with, and stays",
        later="",
        result=False,
    )
    overwrite: bool = key("discard a run that is already in the directory, and train again", later=False, result=False)

    @classmethod
    def parse(cls, keys: Mapping[str, Any]) -> RunConfig:
        """The config from plain values, those of a composed config or of a record. Raises ConfigError."""
        given: dict[str, Any] = {name: {} if keys.get(name) is None else keys[name] for name in GROUPS}
        for name in (name for name in GROUPS if name not in NAMED):
            checked(name, given[name], Mapping[str, Any], {})
        made: dict[str, Any] = {name: _group(name, given[name]) for name in GROUPS}
        return super().parse({**keys, **made})

    def __post_init__(self) -> None:
        for name in NAMED:
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, GROUPS[name](value))
        super().__post_init__()

    def check(self) -> None:
        """Raises ConfigError if keys of different groups contradict each other."""
        if self.batch_size % self.trainer.devices:
            raise ConfigError(
                f"batch_size={self.batch_size}: must be a multiple of trainer.devices={self.trainer.devices}"
            )
        if self.training == "layerwise" and not (isinstance(self.model, MLPModel) and not self.model.varied):
            other = self.model.varied if isinstance(self.model, MLPModel) else self.model.name
            raise ConfigError(f"training=layerwise: needs model=mlp, not {other}")
        if self.training == "layerwise" and (stop := self.stop.given()):
            raise ConfigError(f"{stop}: must be null with training=layerwise, where each layer has its own steps")
        self._check_lightning()
        check_names(self.measures)
        check_fits(self.measures, self.data, self.model)
        if self.objective not in ("test_acc", *self.measures):
            raise ConfigError(
                f"objective={self.objective}: must be among the measures, which are [{', '.join(self.measures)}]"
            )
        if self.batch_size > self.data.train_size:
            raise ConfigError(f"batch_size={self.batch_size}: must be at most data.train_size={self.data.train_size}")
        network, losses = ("another than cnn", OF_POINTS) if self.synthetic else ("cnn", OF_IMAGES)
        if isinstance(self.model, CNNModel) == self.synthetic:
            raise ConfigError(f"model={self.model.name}: must be {network} with data={self.data.name}")
        if self.loss.name not in losses and not (self.synthetic and isinstance(self.loss, OwnLoss)):
            raise ConfigError(f"loss={self.loss.name}: must be one of {', '.join(losses)} with data={self.data.name}")
        if self.schedule.warmup > self.steps:
            raise ConfigError(f"schedule.warmup={self.schedule.warmup}: must be at most steps={self.steps}")
        if self.optimizer.average_begin >= self.steps:
            raise ConfigError(f"optimizer.average_begin={self.optimizer.average_begin}: must be < steps={self.steps}")
        if self.optimizer.average != "none" and self.training == "layerwise":
            raise ConfigError(f"optimizer.average={self.optimizer.average}: must be none with training=layerwise")
        if isinstance(self.data, FractalData):
            check_distribution(self.fractal, self.curve, self.data.margin)
            if isinstance(self.model, Theorem1Model):
                check_theorem1(self.fractal, self.model, self.data, self.width, self.depth)
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
            if self.trainer.strategy == "fsdp":
                raise ConfigError(f"trainer.strategy=fsdp: goes with engine=lightning, not engine={self.engine}")
            return
        for name in ("compile", "cuda_graphs"):
            if getattr(self.trainer, name):
                raise ConfigError(f"trainer.{name}=true: must be false with engine=lightning")
        others = {
            "training=layerwise": self.training == "layerwise",
            f"optimizer.average={self.optimizer.average}": self.optimizer.average != "none",
            f"continue_from={short(self.continue_from)}": bool(self.continue_from),
        }
        for given in (given for given, is_given in others.items() if is_given):
            raise ConfigError(f"{given}: goes with the other engines, not engine=lightning")
        if self.optimizer.clip is not None and self.trainer.strategy == "fsdp":
            raise ConfigError(f"optimizer.clip={self.optimizer.clip:g}: must be null with trainer.strategy=fsdp")
        if self.optimizer.clip is not None and self.trainer.flags.keys.get("gradient_clip_val") is not None:
            raise ConfigError(f"optimizer.clip={self.optimizer.clip:g}: must be null with trainer.gradient_clip_val")
        every: object = self.trainer.batches_per_step  # as it is given
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
    def targets(self) -> dict[str, str]:
        """The classes and functions that the config names, ``MODULE.NAME``, by the full names of their keys."""
        own = [each for each in (self.model, self.loss) if isinstance(each, Own)]
        found = {f"{each.PREFIX}{TARGET}": each.target for each in own}
        for group, parts in (("callbacks", self.callbacks), ("logger", self.logger.others)):
            found |= {f"{group}.{name}.{TARGET}": keys[TARGET] for name, keys in parts.keys.items()}
        own_measures = {f"measures[{number}]": name for number, name in enumerate(self.measures) if is_own(name)}
        return found | own_measures

    @property
    def steps_in_all(self) -> int:
        """The optimizer steps of the whole run: ``steps``, and in layer-wise training ``steps`` for each layer."""
        return self.steps * (self.depth if self.training == "layerwise" else 1)

    @property
    def counts_from(self) -> int:
        """The step after which measurements count as results: in layer-wise training only the last layer's do."""
        return self.steps_in_all - self.steps

    def on(self, accelerator: Literal["cpu", "gpu"]) -> RunConfig:
        """The same run on another kind of device."""
        return dataclasses.replace(self, trainer=dataclasses.replace(self.trainer, accelerator=accelerator))

    def measured_as(self, other: RunConfig) -> RunConfig:
        """The same run with what another config of it says of its measures."""
        data: Any = dataclasses.replace(self.data, val_size=other.data.val_size)
        names = ("measures", "measure_start", "objective")
        return dataclasses.replace(self, data=data, **{name: getattr(other, name) for name in names})

    def plain(self) -> dict[str, Any]:
        """Plain values, as a record stores them. ``RunConfig.parse`` turns them back into this config."""
        plain = super().plain()
        for name in GROUPS:
            plain[name] = plain[name].spelled() if name in NAMED else plain[name].plain()
        return plain | {"measures": list(self.measures)}

    def leaves(self) -> dict[str, Any]:
        """All keys with their values, by their names on the command line: ``optimizer``, ``optimizer.momentum``, ..."""
        full: dict[str, Any] = {name: getattr(self, name).plain() for name in NAMED}
        return by_name(self.plain() | full)

    def identity(self) -> dict[str, Any]:
        """Everything that can change the run's result, as plain values. The fingerprint is the hash of it."""
        own = {field.name for field in dataclasses.fields(self) if field.name not in GROUPS}
        found = {name: value for name, value in super().identity().items() if name in own}
        found |= {"data": self.data.identity(), "model": self.model.identity()}
        found |= {name: getattr(self, name).spelled() for name in NAMED}
        if found["schedule"] == "constant":  # as of all runs before there were schedules
            del found["schedule"]
        drawn = not isinstance(self.model, Theorem1Model)
        found["trainer"] = self.trainer.of_network(self.model.name == "cnn", drawn)
        if stop := self.stop.identity():  # without it, a fingerprint is what it was before the group came
            found["stop"] = stop
        if not stop:  # nothing is chosen within the run
            found.pop("objective", None)
        elif self.objective == "val_acc":
            found["data"]["val_size"] = self.data.val_size
        if callbacks := self.callbacks.identity():
            found["callbacks"] = callbacks
            if self.objective == "val_acc" and self.callbacks.may_read("val_acc"):
                found[VALIDATED] = self.data.val_size
        if self.synthetic:
            found |= {"fractal": self.fractal.identity(), "curve": self.curve.identity()}
            if "overlaps" in found["data"] and not self.fractal.overlapping:  # then it changes no point
                del found["data"]["overlaps"]
        return found

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits, the hash of ``identity``. Configs with the same fingerprint have the same result."""
        return _digest(self.identity())

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """The fingerprint, then those that earlier versions may have given.

        Format 1 hashed numbers as they were given, 0 or 0.0; flags of Lightning's were hashed at their defaults too.
        """
        identity = self.identity()
        data = identity["data"]
        numbers = [name for name in data if name in ("margin", "brightness", "contrast")]
        spellings = [dict(zip(numbers, each, strict=True)) for each in product(*(_spellings(data[n]) for n in numbers))]
        found = [_digest(identity | {"data": data | each}) for each in spellings]
        if usual := usual_flags(self.trainer.flags):
            found.append(_digest(identity | {"trainer": identity["trainer"] | usual}))
        return tuple(dict.fromkeys([self.fingerprint, *found]))

    @cached_property
    def by_test(self) -> str | None:
        """The fingerprint of another run, by an earlier version: its callbacks had the test accuracy as ``val_acc``.

        None where callbacks go by no validation accuracy.
        """
        identity = self.identity()
        return None if identity.pop(VALIDATED, None) is None else _digest(identity)


VALIDATED = "callbacks_by_val_acc"  # in an identity: on how many points callbacks are given a validation accuracy


def by_name(values: Mapping[str, Any], levels: int | None = None) -> dict[str, Any]:
    """The ``leaves`` of a config's plain values, with the choice of a group in ``NAMED`` as ``optimizer``."""
    names = {f"{group}.name": group for group in NAMED}
    return {names.get(name, name): value for name, value in leaves(values, levels).items()}


def theorem1_margin(model: Theorem1Model, data: Data) -> float | None:
    """The gamma that the network of Theorem 1 is built for; None: it is chosen as the network is built."""
    return model.gamma or (data.margin if isinstance(data, FractalData) else None) or None


@lru_cache(maxsize=4096)
def check_theorem1(fractal: Fractal, model: Theorem1Model, data: FractalData, width: int, depth: int) -> None:
    """Raises ConfigError where the network of Theorem 1 can't be built for a fractal, in this width and depth."""
    try:
        cube = fractals.CubeIFS.of(fractal.ifs)
        if pairs := cube.touching():
            raise ConfigError(
                f"fractal={fractal.name}: must have cells that are apart; {counted(len(pairs), 'pair')} touch"
            )
        cube.margin(fractal.depth, theorem1_margin(model, data))
    except ConfigError as error:
        raise ConfigError(f"model=theorem1: {error}") from None
    least_width, least_depth = fractals.built_width(cube, 1, fractal.depth), 2 * fractal.depth
    if width < least_width or depth < least_depth:
        raise ConfigError(
            f"width={width} depth={depth}: must be at least {least_width} and {least_depth} with model=theorem1, "
            f"fractal={fractal.name} and fractal.depth={fractal.depth}"
        )


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
    *OURS,
    *LOSSES,
    *OPTIMIZERS,
    *SCHEDULES,
    Stop,
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
    source: Path | str | None = None  # the directory of a run to begin from, or why there is none: ``runs.longer``
    pause: int | None = None  # the step at which it is put aside, one with a measurement. None: it trains to its end

    @property
    def steps(self) -> int:
        """The step at which it ends, or is put aside."""
        return self.pause or self.config.steps_in_all
