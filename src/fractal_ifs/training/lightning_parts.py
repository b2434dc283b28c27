"""The parts of Lightning that a config names: its callbacks, its loggers, and the Trainer with its flags.

All are tried before the first job starts, so that a bad name or value is refused in one line.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import (
    BatchSizeFinder,
    Callback,
    Checkpoint,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
    Timer,
)
from pytorch_lightning.loggers import Logger

from fractal_ifs.config.annotations import fitted
from fractal_ifs.config.keys import check_names, shown
from fractal_ifs.config.lightning import CKPT_PATH, ONLY_LOOKING
from fractal_ifs.config.own import Own
from fractal_ifs.config.own_class import resolve
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.errors import ConfigError, message, short
from fractal_ifs.runs import ddp
from fractal_ifs.runs.build import build_network
from fractal_ifs.runs.finished import under_way
from fractal_ifs.training import ckpt_path

# The least values of numbers, of flags and of what Lightning's own callbacks take.
LEAST = {
    "gradient_clip_val": 0,  # less: nothing is clipped
    "log_every_n_steps": 0,
    "patience": 0,
    "every_n_train_steps": 0,
    "every_n_epochs": 0,
    "refresh_rate": 0,
    "window": 1,
    "warmup": 0,
}
LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")

# Callbacks of Lightning's that train beside a run's own steps, change its steps, or its network after the last of them:
# no record would be true of such a run. And what there is in their place.
REFUSED: Mapping[type[Callback], str] = {
    LearningRateFinder: "searches in steps that no record has; hydra/sweeper=outward searches among several lr",
    BatchSizeFinder: "searches in steps that no record has; several values of batch_size are a sweep",
    StochasticWeightAveraging: "changes the network once it is measured; other engines have optimizer.average=swa",
    GradientAccumulationScheduler: "changes what a step is; trainer.accumulate_grad_batches is there",
}

LOGGED = ("train_loss", "test_loss", "test_acc", "val_acc")  # by ``Classifier``


@contextmanager
def quietly() -> Generator[None]:
    """Within: Lightning doesn't name what the machine has, and its own products. All is as before at the end, torch's
    global generator too.
    """
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@quietly()
def check_parts(jobs: Iterable[Job]) -> None:
    """Raises ConfigError for what Lightning won't take of jobs of ``engine=lightning``."""
    for job in jobs:
        if job.config.engine == "lightning":
            alone = not ddp.together()  # of a run's processes only the first has its directory
            if alone and job.directory is None and (job.config.callbacks or job.config.logger.others):
                _check_needs_no_directory(job.config)
            _check_parts(job.config.trainer, job.config.callbacks, job.config.logger.others)
            _check_clip(job.config)
            if job.config.trainer.strategy == "fsdp":
                _check_shares(job.config)
            if job.config.trainer.ckpt_path and not under_way(job):
                ckpt_path.check(job.config)


def _check_clip(config: RunConfig) -> None:
    """Raises ConfigError where Lightning would take the largest norm for a largest value. Records of before have it."""
    if config.optimizer.clip is not None and config.trainer.flags.keys.get("gradient_clip_algorithm") == "value":
        raise ConfigError(
            f"optimizer.clip={config.optimizer.clip:g}: is the largest norm; values are clipped at "
            "trainer.gradient_clip_val, not with trainer.gradient_clip_algorithm=value alone"
        )


def _check_shares(config: RunConfig) -> None:
    """Raises ConfigError for a network that can't be shared out."""
    if isinstance(config.model, Own):
        for name, parameter in build_network(config, config.fractal.ifs.d).named_parameters():
            if parameter.dim() == 0:
                raise ConfigError(f"trainer.strategy=fsdp: can't share out {short(name)}, a parameter of one number")


def _check_needs_no_directory(config: RunConfig) -> None:
    for name in config.logger.others.keys:
        raise ConfigError(f"logger.{name}: writes files: give the run a directory")
    for name, keys in config.callbacks.keys.items():
        if issubclass(resolve(f"callbacks.{name}._target_", keys["_target_"], Callback), Checkpoint):
            raise ConfigError(f"callbacks.{name}: writes files: give the run a directory")


@cache
def _check_parts(trainer: Any, callbacks: Any, loggers: Any) -> None:
    for name, keys in loggers.keys.items():
        _class_and_keys(f"logger.{name}", keys, Logger)
    made = make_callbacks(callbacks.keys, None)
    _check_monitored(callbacks.keys, made)
    if not loggers and any(isinstance(callback, LearningRateMonitor) for callback in made):
        raise ConfigError("callbacks=lr_monitor: needs a logger of Lightning's, as logger=[wandb,lightning_csv]")
    flags = quiet(trainer)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Only the flags: what the machine lacks is told by other checks.
            here = {"accelerator": "cpu", "devices": 1, "logger": False, "plugins": [LightningEnvironment()]}
            tried = pl.Trainer(**here, **flags, callbacks=made)
    except Exception as error:
        given = " ".join(
            [f"trainer.{name}={short(value)}" for name, value in trainer.flags.keys.items()]
            + [f"callbacks.{name}" for name in callbacks.keys]
        )
        raise ConfigError(f"{given}: Lightning doesn't take this ({short(message(error), 300)})") from None
    for timer in (each for each in [*cast(Any, tried).callbacks, *made] if isinstance(each, Timer)):
        if _has_ended(timer):
            key = next(
                (f"callbacks.{name}" for name, each in zip(callbacks.keys, made, strict=True) if each is timer), None
            )
            raise ConfigError(f"{key or 'trainer.max_time'}: must leave some time to train in")


def quiet(trainer: Any) -> dict[str, Any]:
    """The flags of a trainer, which by default shows nothing by itself. Raises ConfigError."""
    given = {name: value for name, value in trainer.flags.plain().items() if name != CKPT_PATH}
    flags = fitted("trainer.", pl.Trainer.__init__, given)
    _bounded("trainer.", flags)
    return {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0, **flags}


def make_callbacks(keys: Mapping[str, Any], directory: Path | None) -> list[Callback]:
    """The callbacks of a config, in its order. Raises ConfigError.

    Args:
        directory: the run's, which a relative ``dirpath`` is below. None: only to see whether they can be made.
    """
    found: list[Callback] = []
    for name, given in keys.items():
        kind, arguments = _class_and_keys(f"callbacks.{name}", given, Callback)
        for refused, why in REFUSED.items():
            if issubclass(kind, refused):
                raise ConfigError(f"callbacks.{name}: {kind.__name__} {why}")
        if kind.on_save_checkpoint is not Callback.on_save_checkpoint and not issubclass(kind, Checkpoint):
            raise ConfigError(
                f"callbacks.{name}: {kind.__name__} changes whole checkpoints, which a run's own can't hold; use it "
                "with fractal_ifs.Classifier and a pl.Trainer of your own"
            )
        if issubclass(kind, Checkpoint) and directory and "dirpath" in inspect.signature(kind).parameters:
            arguments["dirpath"] = str(directory / (arguments.get("dirpath") or "checkpoints"))
        found.append(_made(f"callbacks.{name}", kind, arguments))
    return found


def remove_later(callbacks: Iterable[Callback], directory: Path, step: int) -> None:
    """Remove the checkpoints of callbacks that are below a run's own directory and of a later step than the run.

    An attempt that was killed has left them, or a run that was overwritten. The run writes them again, and beside
    them it would have other names: best-v1.ckpt. A ``dirpath`` elsewhere may be that of other runs too.
    """
    places = {getattr(each, "dirpath", None) for each in callbacks if isinstance(each, Checkpoint)} - {None}
    own = directory.resolve()
    folders = [folder for place in places if (folder := Path(str(place)).resolve()).is_relative_to(own)]
    for path in (path for folder in folders for path in folder.glob("*.ckpt") if path.is_file()):
        try:
            there = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"]
        except Exception:  # it is none of Lightning's
            continue
        if there > step:
            path.unlink(missing_ok=True)


def ended_by(trainer: pl.Trainer, parts: Mapping[str, Callback]) -> str | None:
    """Which flag or callback has ended training early, by its key: ``trainer.max_time``. None where nothing tells.

    Args:
        trainer: after ``fit``.
        parts: the callbacks of the run's config, by their names.
    """
    own = {id(callback) for callback in parts.values()}
    timers = [each for each in cast(Any, trainer).callbacks if isinstance(each, Timer) and id(each) not in own]
    found = ["trainer.max_time" for timer in timers if _has_ended(timer)]
    found += [f"callbacks.{name}" for name, callback in parts.items() if _has_ended(callback)]
    if found:
        return " and ".join(found)
    others = [name for name, each in parts.items() if not (isinstance(each, Timer) or only_looks(each))]
    return f"callbacks.{others[0]}" if len(others) == 1 and not timers else None


def only_looks(callback: Callback) -> bool:
    return type(callback).__module__.startswith("pytorch_lightning.") and type(callback).__name__ in ONLY_LOOKING


def _has_ended(callback: Callback) -> bool:
    """Whether a callback says of itself that it has ended training."""
    if isinstance(callback, Timer):
        left = callback.time_remaining()
        return left is not None and left <= 0
    if isinstance(callback, EarlyStopping):
        return bool(callback.stopped_epoch or getattr(callback, "stopping_reason_message", None))
    return False


def make_loggers(keys: Mapping[str, Any], directory: Path, step: int) -> list[Logger]:
    """Lightning's loggers of a config. Raises ConfigError.

    Args:
        directory: the run's, in which each has a directory of its name, if it takes ``save_dir``.
        step: from which the run goes on; not 0: they begin another directory, since some empty theirs.
    """
    found: list[Logger] = []
    for name, given in keys.items():
        kind, arguments = _class_and_keys(f"logger.{name}", given, Logger)
        takes = inspect.signature(kind).parameters
        if "save_dir" in takes and arguments.get("save_dir") is not None:
            arguments["save_dir"] = str(directory / arguments["save_dir"])
        elif "save_dir" in takes:
            arguments["save_dir"] = str(directory)
            if {"name", "version"} <= set(takes):
                version = name if step == 0 else f"{name}.from_{step}"
                arguments = {"name": "", "version": version, **arguments}
        found.append(_made(f"logger.{name}", kind, arguments))
    return found


def _class_and_keys(key: str, given: Mapping[str, Any], base: type) -> tuple[Any, dict[str, Any]]:
    """The class that ``_target_`` names, and what it is given. Raises ConfigError."""
    arguments = dict(given)
    kind = resolve(f"{key}._target_", arguments.pop("_target_"), base)
    takes = inspect.signature(kind).parameters
    if not any(each.kind == each.VAR_KEYWORD for each in takes.values()):
        check_names(arguments, list(takes), f"{key}.")
    arguments = fitted(f"{key}.", kind.__init__, arguments)
    if kind.__module__.startswith("pytorch_lightning."):
        _bounded(f"{key}.", arguments)
    return kind, arguments


def _bounded(prefix: str, arguments: Mapping[str, Any]) -> None:
    """Raises ConfigError for numbers that Lightning takes, and that mean nothing or something else to it."""
    for name, least in LEAST.items():
        value = arguments.get(name)
        if isinstance(value, int | float) and not value >= least:
            raise ConfigError(f"{prefix}{name}={shown(value)}: must be a number >= {least}")


def _check_monitored(keys: Mapping[str, Any], made: list[Callback]) -> None:
    """Raises ConfigError where a callback of Lightning's watches what nobody logs; a user's own may log anything."""
    if not all(type(callback).__module__.startswith("pytorch_lightning.") for callback in made):
        return
    for name, callback in zip(keys, made, strict=True):
        monitor = getattr(callback, "monitor", None)
        known = (*LOGGED, "epoch", "step") if isinstance(callback, ModelCheckpoint) else LOGGED
        if isinstance(monitor, str) and monitor not in known:
            raise ConfigError(f"callbacks.{name}.monitor={short(monitor)}: must be one of {', '.join(known)}")


def _made(key: str, kind: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        return kind(**arguments)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{key}: {kind.__name__} doesn't take this ({short(message(error), 300)})") from None
