"""What the tests of training share: small jobs, and the command line in this process."""

import contextlib
import gc
import itertools
import json
import logging
import os
import pickle
import signal
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigResult
from hypothesis import HealthCheck, settings

from fractal_ifs.mkl import ask_for_equal_bits

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # several threads on tiny tensors only wait for each other
ask_for_equal_bits()  # before any test multiplies
gc.set_threshold(20_000, 20, 20)  # Hydra makes a million objects in a command, and nothing here holds much memory
os.environ.pop("COLUMNS", None)  # pytest's processes have it, and no table here is as wide as a terminal of theirs
# No property rests on how fast this machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

pytest_plugins = ["emulation"]  # fixtures of its own

SMALL = {
    "width": 8,
    "depth": 3,
    "steps": 100,
    "eval_every": 50,
    "lr": 1e-3,
    "logger": "none",
    "sweep": "tests",
    "data.train_size": 1500,  # 15 batches: several epochs in 100 steps
    "data.test_size": 300,
}

NUMBERS = ("seed", "width", "depth", "steps", "eval_every")

# Files of few tests that take long: on several cores they come first, or all but one would wait for the last.
FIRST = ("test_torture.py", "test_wheel.py", "test_killed.py", "test_wandb.py", "test_report.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.path.name not in FIRST)


_load_config = FileConfigSource.load_config


@lru_cache
def _parsed(path: str, provider: str, name: str, *file: int) -> bytes:
    return pickle.dumps(_load_config(FileConfigSource(provider, path), name))


def _load_once(self: FileConfigSource, config_path: str) -> ConfigResult:
    """As Hydra, which parses each file in every one of the some 10,000 compositions here: a fifth of their time."""
    try:
        there = os.stat(os.path.join(self.path, self._normalize_file_name(config_path)))
    except OSError:
        return _load_config(self, config_path)
    file = there.st_ino, there.st_mtime_ns, there.st_size
    return pickle.loads(_parsed(self.path, self.provider, config_path, *file))


FileConfigSource.load_config = _load_once

_NAMES = itertools.count()


@lru_cache(maxsize=256)
def _composed(keys: tuple[tuple[str, Any], ...]) -> Any:
    from fractal_ifs.config.compose import compose

    return compose(**dict(keys))


def small(**keys: Any) -> Any:
    """The config of a run of a few milliseconds; keys as of ``fractal_ifs.config.compose``."""
    return composed(**{**SMALL, **keys})


def edited(file: Path, text: str) -> None:
    """Write a module that this process may have imported, as where it is edited between two commands."""
    file.write_text(text)
    sys.modules.pop(file.stem, None)


def composed(**keys: Any) -> Any:
    """As ``fractal_ifs.config.compose``, which takes a tenth of a second: once for all numbers that need no parser.

    Of floats tests use absurd ones.
    """
    asked = {key.replace("__", "."): value for key, value in keys.items()}
    numbers = ("seed",) if asked.get("model") == "theorem1" else NUMBERS  # that network fits no others
    later = {
        key: value for key, value in asked.items() if type(value) is float or (key in numbers and type(value) is int)
    }
    config = _composed(tuple((key, value) for key, value in asked.items() if key not in later))
    for key, value in later.items():
        config = changed(config, key, value)
    return config


def changed(config: Any, key: str, value: Any) -> Any:
    """The config with another value of one key: ``changed(config, "data.margin", 0.01)``."""
    group, _, inner = key.rpartition(".")
    if group:
        return replace(config, **{group: replace(getattr(config, group), **{inner: value})})
    return replace(config, **{inner: value})


def read_checkpoint(directory: Path) -> Any:
    """The newest checkpoint in a directory that is as it was written, whatever run it is of; None if there is none."""
    from fractal_ifs.errors import Damaged
    from fractal_ifs.runs.checkpoints import CHECKPOINTS, read_whole

    for name in CHECKPOINTS:
        with contextlib.suppress(FileNotFoundError, Damaged):
            return read_whole(directory / name)
    return None


def undigested(path: Path) -> dict[str, Any]:
    """The content of a result.json without its digests, so that a test may change it and write it back."""
    return {key: value for key, value in json.loads(path.read_text()).items() if key != "digests"}


def slurm_settings(**keys: Any) -> Any:
    """The settings of conf/hydra/launcher/slurm.yaml, with some other values."""
    import yaml

    from fractal_ifs.files import CONF
    from fractal_ifs.sweeps.slurm_settings import SlurmSettings

    usual = yaml.safe_load((CONF / "hydra" / "launcher" / "slurm.yaml").read_text())
    return SlurmSettings.parse({name: value for name, value in usual.items() if name != "_target_"} | keys)


class Ended(NamedTuple):
    """How a command ended."""

    status: Any  # 0, or what sys.exit was given
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """``command("-m", "curve=1,4")``: the training entry point, in this process and in tmp_path."""
    import fractal_ifs.train

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # the entry point sets it: taken back at the end

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        capsys.readouterr()
        with _logging_as_before():
            try:
                fractal_ifs.train.main()
                status = 0
            except SystemExit as error:
                status = error.code or 0
        return Ended(status, *capsys.readouterr())

    return run


def _levels() -> dict[str, int]:
    loggers = logging.getLogger().manager.loggerDict.items()
    return {name: logger.level for name, logger in loggers if isinstance(logger, logging.Logger)}


@contextlib.contextmanager
def _logging_as_before():
    """Hydra gives the root logger handlers that hold the run's log and pytest's captured streams; loggers levels."""
    root = logging.getLogger()
    before, level, levels = list(root.handlers), root.level, _levels()
    try:
        yield
    finally:
        for name in _levels():
            logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
        for handler in list(root.handlers):
            if handler not in before:
                handler.close()
        root.handlers[:], root.level = before, level


def files(directory: Path, pattern: str = "*") -> dict[str, tuple[int, bytes]]:
    """Times and contents of all files below a directory."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in directory.rglob(pattern)
        if path.is_file()
    }


@pytest.fixture
def write(tmp_path, monkeypatch):
    """``write(SOURCE)``: the name of a new module on Python's path."""
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    made = []

    def written(source: str) -> str:
        made.append(name := f"measured{next(_NAMES)}")
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{name}.py").write_text(source)
        return name

    yield written
    for name in made:
        sys.modules.pop(name, None)
