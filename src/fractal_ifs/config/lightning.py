"""What ``engine=lightning`` passes on to ``pytorch_lightning.Trainer``: its flags, callbacks and loggers, as written.

Their names are checked here, without importing Lightning; their values by Lightning, before the first job starts.
"""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from fractal_ifs.config.keys import shown
from fractal_ifs.config.written import Written
from fractal_ifs.errors import ConfigError, short

# Flags of the Trainer that follow from a run's own keys, and these.
OURS = {
    "max_steps": "steps",
    "min_steps": "steps",
    "max_epochs": "steps",
    "min_epochs": "steps",
    "val_check_interval": "eval_every",
    "check_val_every_n_epoch": "eval_every",
    "limit_train_batches": "data.train_size",
    "limit_val_batches": "data.test_size",
    "overfit_batches": "data.train_size",
    "fast_dev_run": "steps",
    "logger": "logger",
    "callbacks": "callbacks",
    "enable_checkpointing": "callbacks=best_checkpoint",
    "default_root_dir": "hydra.run.dir",
    "plugins": "trainer.precision",
    "num_nodes": "trainer.devices",
    "use_distributed_sampler": "trainer.strategy",
    "reload_dataloaders_every_n_epochs": "data",
    "barebones": "engine=native",
}
CKPT_PATH = "ckpt_path"  # of ``Trainer.fit``: a key of trainer, as its users know it from templates
# Those that change nothing of what a run computes.
SHOWN = (
    "log_every_n_steps",
    "enable_progress_bar",
    "enable_model_summary",
    "enable_autolog_hparams",
    "profiler",
    "detect_anomaly",
    "num_sanity_val_steps",
    "limit_test_batches",
    "limit_predict_batches",
    "model_registry",
)
# Defaults of others than these are null, as JSON has it.
USUAL = {"accumulate_grad_batches": "1", "inference_mode": "true", "sync_batchnorm": "false"}
# Callbacks of Lightning's that only look, or keep files.
ONLY_LOOKING = (
    "DeviceStatsMonitor",
    "LearningRateMonitor",
    "ModelCheckpoint",
    "ModelSummary",
    "RichModelSummary",
    "RichProgressBar",
    "TQDMProgressBar",
    "ThroughputMonitor",
)

# What loggers need, by the class: the package, and its module.
PACKAGES = {
    "TensorBoardLogger": ("tensorboard", "tensorboard"),
    "MLFlowLogger": ("mlflow", "mlflow"),
    "CometLogger": ("comet-ml", "comet_ml"),
    "NeptuneLogger": ("neptune", "neptune"),
    "LitLogger": ("litlogger", "litlogger"),
    "TrackioLogger": ("trackio", "trackio"),
}


@cache
def trainer_flags() -> tuple[str, ...]:
    """The arguments of the installed ``pytorch_lightning.Trainer``, from its source: importing it takes seconds."""
    found = find_spec("pytorch_lightning")
    assert found is not None
    assert found.origin is not None
    tree = ast.parse((Path(found.origin).parent / "trainer" / "trainer.py").read_text())
    trainer = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Trainer")
    made = next(node for node in trainer.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    return tuple(argument.arg for argument in made.args.kwonlyargs)


def parse_flags(keys: Mapping[str, Any], own: tuple[str, ...]) -> Written:
    """The flags among the keys of a trainer that are not its ``own``. Raises ConfigError for one that is none."""
    if keys.get(CKPT_PATH, "") is None:  # as in templates: it begins at step 0
        keys = {name: value for name, value in keys.items() if name != CKPT_PATH}
    for name, value in keys.items():
        given = f"trainer.{short(name)}={shown(value)}"
        if name in OURS:
            raise ConfigError(f"{given}: follows from the run's own keys, here from {OURS[name]}")
        if name == CKPT_PATH and not (isinstance(value, str) and value.strip()):
            raise ConfigError(f"{given}: must be the path of a checkpoint of Lightning's")
        if name not in (*trainer_flags(), CKPT_PATH):
            near = difflib.get_close_matches(str(name), [*own, *(f for f in trainer_flags() if f not in OURS)], 1, 0.6)
            hint = f"did you mean trainer.{near[0]}?" if near else f"keys are {', '.join(own)}"
            raise ConfigError(f"{given}: there is no such key; {hint}")
    return _plain("trainer", keys)


def flags_of_result(flags: Written) -> dict[str, str]:
    """The flags that can change a result, as texts: without those that have Lightning's own default."""
    return {name: text for name, text in _of_result(flags).items() if name not in usual_flags(flags)}


def usual_flags(flags: Written) -> dict[str, str]:
    """Those that could change a result and have the default, as texts. They were part of fingerprints once."""
    return {name: text for name, text in _of_result(flags).items() if text == USUAL.get(name, "null")}


def _of_result(flags: Written) -> dict[str, str]:
    return {name: json.dumps(value, sort_keys=True) for name, value in flags.keys.items() if name not in SHOWN}


class Callbacks(Written):
    """The group ``callbacks``: by names of their own, each with the class ``_target_`` and what that is given."""

    @classmethod
    def parse(cls, keys: Mapping[str, Any]) -> Callbacks:
        """The group from its keys. Raises ConfigError."""
        for name, value in keys.items():
            check_target(f"callbacks.{name}", value)
        return cls(_plain("callbacks", keys).keys)

    def identity(self) -> dict[str, Any]:
        """Those that can change a result."""
        return {name: value for name, value in self.keys.items() if not _only_looks(value["_target_"])}

    def may_read(self, column: str) -> bool:
        """Whether one that can change a result may go by a number: one of Lightning's by its ``monitor`` alone."""
        found = self.identity().values()
        return any(each.get("monitor", column) == column or not _lightnings(each["_target_"]) for each in found)


def check_target(key: str, value: Any) -> None:
    """Raises ConfigError unless a value is keys with a ``_target_`` that can be the name of a class."""
    target = cast(Mapping[str, Any], value).get("_target_") if isinstance(value, Mapping) else None
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")) or "." not in target:
        given = f"{short(key)}={shown(value)}" if target is None else f"{short(key)}._target_={shown(target)}"
        raise ConfigError(f"{given}: must be {'keys with ' if target is None else ''}_target_, module.Class")


def check_packages(targets: Mapping[str, str]) -> None:
    """Raises ConfigError where a logger lacks its package. ``targets``: by the full names of keys."""
    for key, target in targets.items():
        module, _, name = target.rpartition(".")
        package = PACKAGES.get(name) if module.startswith(("pytorch_lightning", "fractal_ifs")) else None
        if package and find_spec(package[1]) is None:
            raise ConfigError(
                f"{key.removesuffix('._target_')}: {package[0]} is not installed; pip install {package[0]}"
            )


def _only_looks(target: str) -> bool:
    return _lightnings(target) and target.rpartition(".")[2] in ONLY_LOOKING


def _lightnings(target: str) -> bool:
    return target.split(".")[0] == "pytorch_lightning"


def _plain(group: str, keys: Mapping[str, Any]) -> Written:
    try:
        return Written(json.loads(json.dumps(dict(keys))))
    except (TypeError, ValueError):
        raise ConfigError(f"{group}: must be plain keys with values") from None
