"""Chooses and makes the engine that trains a run."""

from __future__ import annotations

from typing import NamedTuple

from fractal_ifs.config.model import CNNModel
from fractal_ifs.config.run import RunConfig
from fractal_ifs.config.trainer import Trainer
from fractal_ifs.engines import cpp
from fractal_ifs.engines.conv import ConvEngine
from fractal_ifs.engines.native import NativeEngine
from fractal_ifs.engines.protocol import Engine
from fractal_ifs.engines.stacked import StackedEngine


class Choice(NamedTuple):
    """The engine of a run."""

    engine: str  # ``native``, ``torch`` (the stacked engine), ``conv``, or ``lightning``, which training.lightning has
    reason: str | None  # why it is not ``native``, unless another engine was asked for or is the only one


def choose(config: RunConfig) -> Choice:
    """The engine that trains this run on this machine."""
    if config.engine == "lightning":
        return Choice("lightning", None)
    if isinstance(config.model, CNNModel):
        return Choice("conv", None)
    if config.engine == "torch":
        return Choice("torch", None)
    trainer = config.trainer
    if trainer.devices > 1:
        return Choice("torch", f"trainer.devices={trainer.devices}: the native engine trains a network on one core")
    if trainer.compile:
        return Choice("torch", "trainer.compile=true asks for it")
    if varied := config.model.varied:
        return Choice("torch", f"{varied}: the native engine trains plain networks of ReLUs only")
    reason = cpp.supports(
        model="mlp",
        loss=config.loss.name,
        optimizer=config.optimizer.name,
        dtype={"32-true": "float32"}.get(trainer.precision, trainer.precision),
        device=trainer.accelerator,
    )
    return Choice("native", None) if reason is None else Choice("torch", reason)


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
    return StackedEngine(trainer.precision, stack, trainer.compile, trainer.cuda_graphs)
