"""Chooses and makes the engine that trains a run."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from fractal_ifs.config.environment import emulated_gpu
from fractal_ifs.config.machine import gpus
from fractal_ifs.config.model import CNNModel
from fractal_ifs.config.run import RunConfig
from fractal_ifs.config.trainer import Trainer
from fractal_ifs.engines import cpp, cuda
from fractal_ifs.engines.conv import ConvEngine
from fractal_ifs.engines.native import NativeEngine
from fractal_ifs.engines.protocol import Engine
from fractal_ifs.engines.stacked import StackedEngine
from fractal_ifs.engines.update import compiler
from fractal_ifs.errors import ConfigError


class Choice(NamedTuple):
    """The engine of a run."""

    engine: str  # ``native``, ``cuda``, ``torch`` (the stacked engine), ``conv``, or training's ``lightning``
    reason: str | None  # why it is neither of the first two, unless another was asked for or is the only one


def choose(config: RunConfig) -> Choice:
    """The engine that trains this run on this machine."""
    if config.engine == "lightning":
        return Choice("lightning", None)
    if isinstance(config.model, CNNModel):
        return Choice("conv", None)
    if config.engine == "torch":
        return Choice("torch", None)
    trainer = config.trainer
    name = "cuda" if config.engine == "cuda" or (config.engine, trainer.accelerator) == ("auto", "gpu") else "native"
    if trainer.devices > 1:
        part = {"native": "core", "cuda": "GPU"}[name]
        return Choice("torch", f"trainer.devices={trainer.devices}: the {name} engine trains a network on one {part}")
    for key, asked in (("compile", trainer.compile), ("cuda_graphs", trainer.cuda_graphs), ("tf32", trainer.tf32)):
        if asked:
            return Choice("torch", f"trainer.{key}=true asks for it")
    if varied := config.model.varied:
        return Choice("torch", f"{varied}: the {name} engine trains plain networks of ReLUs only")
    reason = cuda.supports(config) if name == "cuda" else _native_reason(config)
    return Choice(name, None) if reason is None else Choice("torch", reason)


def check_engine(config: RunConfig) -> None:
    """Raises ConfigError for an engine that is asked for by name and can't train this run here."""
    asked, chosen = config.engine, choose(config)
    if asked not in ("native", "cuda") or chosen.engine == asked:
        return
    if asked == "cuda" and config.trainer.accelerator == "cpu" and not emulated_gpu():
        if gpus():
            raise ConfigError("engine=cuda: trains on a GPU: add trainer=gpu")
        raise ConfigError("engine=cuda: needs a GPU, and PyTorch finds none here; engine=auto trains on the CPU")
    reason = chosen.reason or "CNNs have another engine"
    raise ConfigError(f"engine={asked}: must be auto or torch here ({reason})")


def _native_reason(config: RunConfig) -> str | None:
    return cpp.supports(
        loss=config.loss.name,
        optimizer=config.optimizer.name,
        dtype={"32-true": "float32"}.get(config.trainer.precision, config.trainer.precision),
        device=config.trainer.accelerator,
    )


def create(name: str, threads: int, trainer: Trainer, stack: int = 0) -> Engine:
    """Make the engine of this name, as ``choose`` gives it.

    Args:
        threads: threads of the native engine.
        trainer: the config group, whose precision and compilation the other engines follow.
        stack: largest number of runs in a stack of the stacked engine; 0: it decides.
    """
    if name == "native":
        return NativeEngine(threads)
    if name == "conv":
        return ConvEngine(trainer.precision, trainer.channels_last, trainer.compile)
    graphs, build = trainer.cuda_graphs, None if trainer.accelerator == "cpu" or trainer.compile else compiler()
    stacked = partial(StackedEngine, trainer.precision, stack, trainer.compile, graphs=graphs, build=build)
    return cuda.CudaEngine(instead=stacked) if name == "cuda" else stacked()
