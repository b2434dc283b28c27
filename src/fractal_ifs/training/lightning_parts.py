"""The parts of Lightning that a config names: its callbacks, its loggers, and the Trainer with its flags.

All are tried before the first job starts, so that a bad name or value is refused in one line.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Callback, Checkpoint, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import Logger

from fractal_ifs.config.keys import check_names
from fractal_ifs.config.own_class import resolve
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.errors import ConfigError, message, short

# What Lightning's loggers need, by the class: the package, and its module.
PACKAGES = {
    "TensorBoardLogger": ("tensorboard", "tensorboard"),
    "MLFlowLogger": ("mlflow", "mlflow"),
    "CometLogger": ("comet-ml", "comet_ml"),
    "NeptuneLogger": ("neptune", "neptune"),
    "LitLogger": ("litlogger", "litlogger"),
}


def check_parts(jobs: Iterable[Job]) -> None:
    """Raises ConfigError for what Lightning won't take of jobs of ``engine=lightning``."""
    for job in jobs:
        if job.config.engine == "lightning":
            if job.directory is None and (job.config.callbacks or job.config.logger.others):
                _check_needs_no_directory(job.config)
            _check_parts(job.config.trainer, job.config.callbacks, job.config.logger.others)


def _check_needs_no_directory(config: RunConfig) -> None:
    for name in config.logger.others.keys:
        raise ConfigError(f"logger.{name}: writes files: give the run a directory")
    for name, keys in config.callbacks.keys.items():
        if issubclass(_class(f"callbacks.{name}", keys["_target_"], Callback), Checkpoint):
            raise ConfigError(f"callbacks.{name}: writes files: give the run a directory")


@cache
def _check_parts(trainer: Any, callbacks: Any, loggers: Any) -> None:
    for name, keys in loggers.keys.items():
        _class_and_keys(f"logger.{name}", keys, Logger)
    made = make_callbacks(callbacks.keys, None)
    if not loggers and any(isinstance(callback, LearningRateMonitor) for callback in made):
        raise ConfigError("callbacks=lr_monitor: needs a logger of Lightning's, as logger=[wandb,lightning_csv]")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Only the flags: what the machine lacks is told by other checks.
            pl.Trainer(accelerator="cpu", devices=1, logger=False, plugins=[LightningEnvironment()], **quiet(trainer))
    except Exception as error:
        flags = " ".join(f"trainer.{name}={short(value)}" for name, value in trainer.flags.keys.items())
        raise ConfigError(f"{flags}: Lightning doesn't take this ({short(message(error), 300)})") from None


def quiet(trainer: Any) -> dict[str, Any]:
    """The flags of a trainer, which by default shows nothing by itself."""
    return {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        **trainer.flags.plain(),
    }


def make_callbacks(keys: Mapping[str, Any], directory: Path | None) -> list[Callback]:
    """The callbacks of a config, in its order. Raises ConfigError.

    Args:
        directory: the run's, in which checkpoints are kept unless ``dirpath`` says otherwise.
    """
    found: list[Callback] = []
    for name, given in keys.items():
        kind, arguments = _class_and_keys(f"callbacks.{name}", given, Callback)
        if kind.on_save_checkpoint is not Callback.on_save_checkpoint and not issubclass(kind, Checkpoint):
            raise ConfigError(
                f"callbacks.{name}: {kind.__name__} changes whole checkpoints, which a run's own can't hold; use it "
                "with fractal_ifs.Classifier and a pl.Trainer of your own"
            )
        if issubclass(kind, ModelCheckpoint) and arguments.get("dirpath") is None and directory:
            arguments["dirpath"] = str(directory / "checkpoints")
        found.append(_made(f"callbacks.{name}", kind, arguments))
    return found


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
        if "save_dir" in takes and arguments.get("save_dir") is None:
            arguments["save_dir"] = str(directory)
            if {"name", "version"} <= set(takes):
                version = name if step == 0 else f"{name}.from_{step}"
                arguments = {"name": "", "version": version, **arguments}
        found.append(_made(f"logger.{name}", kind, arguments))
    return found


def _class_and_keys(key: str, given: Mapping[str, Any], base: type) -> tuple[Any, dict[str, Any]]:
    """The class that ``_target_`` names, and what it is given. Raises ConfigError."""
    arguments = dict(given)
    kind = _class(key, arguments.pop("_target_"), base)
    takes = inspect.signature(kind).parameters
    if not any(each.kind == each.VAR_KEYWORD for each in takes.values()):
        check_names(arguments, list(takes), f"{key}.")
    return kind, arguments


def _class(key: str, target: str, base: type) -> Any:
    """The class of a dotted name, derived from ``base``. Raises ConfigError."""
    module, _, name = target.rpartition(".")
    package = PACKAGES.get(name) if module.startswith("pytorch_lightning") else None
    if package and find_spec(package[1]) is None:
        raise ConfigError(f"{key}: {package[0]} is not installed; pip install {package[0]}")
    return resolve(f"{key}._target_", target, base)


def _made(key: str, kind: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        return kind(**arguments)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{key}: {kind.__name__} doesn't take this ({short(message(error), 300)})") from None
