"""Which engine trains a run."""

from __future__ import annotations

from typing import NamedTuple

from fractal_ifs.config.run import RunConfig
from fractal_ifs.config.trainer import Trainer
from fractal_ifs.engines import cpp
from fractal_ifs.engines.conv import ConvEngine
from fractal_ifs.engines.native import NativeEngine
from fractal_ifs.engines.protocol import Engine
from fractal_ifs.engines.stacked import StackedEngine


class Choice(NamedTuple):
    """The engine of a run, and why it is not the native one: None where it is, or where another was asked for."""

    engine: str
    reason: str | None


def choose(config: RunConfig) -> Choice:
    """The engine ``native``, ``torch`` (the stacked one) or ``conv``."""
    if config.model.name == "cnn":
        return Choice("conv", None)
    if config.engine == "torch":
        return Choice("torch", None)
    trainer = config.trainer
    if trainer.devices > 1:
        return Choice("torch", f"trainer.devices={trainer.devices}: the native engine trains a network on one core")
    if trainer.compile:
        return Choice("torch", "trainer.compile=true asks for it")
    reason = cpp.supports(
        model=config.model.name,
        loss=config.loss,
        optimizer=config.optimizer,
        dtype={"32-true": "float32"}.get(trainer.precision, trainer.precision),
        device=trainer.accelerator,
    )
    return Choice("native", None) if reason is None else Choice("torch", reason)


def create(name: str, threads: int, trainer: Trainer, stack: int = 0, together: bool = False) -> Engine:
    """The engine of that name.

    Args:
        threads: of the native engine.
        stack: runs in a stack of the stacked engine at most; 0: as many as suit.
        together: the runs are of a sweep, and must have the same bits however many of it are left to train.
    """
    if name == "native":
        return NativeEngine(threads)
    if name == "conv":
        return ConvEngine(trainer.precision, trainer.channels_last, trainer.compile)
    return StackedEngine(trainer.precision, stack, trainer.compile, trainer.cuda_graphs, together)
