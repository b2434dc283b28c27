"""The config group ``optimizer``: how a step follows from a gradient. The learning rate is a key of the run itself.

The names and formulas are those of ``torch.optim``; ``engines.steps`` has what all engines share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fractal_ifs.config.keys import key
from fractal_ifs.config.named import Named, parse_named
from fractal_ifs.errors import ConfigError

AVERAGE_DECAY = 0.999


@dataclass(frozen=True, kw_only=True)
class Optimizer(Named):
    """What all optimizers have. ``average``: of the weights, see ``engines.steps.shares``."""

    PREFIX: ClassVar[str] = "optimizer."

    weight_decay: float = key("factor of the weights that is added to their gradient", least=0, most=1e9, later=0.0)
    clip: float | None = key("largest norm of a batch's whole gradient; null: any", above=0, most=1e38, later=None)
    average: Literal["none", "ema", "swa"] = key(
        "measure and keep an average of the weights: a moving one (ema), or of all steps alike (swa)", later="none"
    )
    average_decay: float = key("what each step leaves of the moving average", least=0, below=1, later=AVERAGE_DECAY)
    average_begin: int = key("steps before the average begins", least=0, most=10**12, later=0)

    def check(self) -> None:
        """Raises ConfigError for keys of an average that there isn't."""
        if self.average == "none" and self.average_begin:
            raise ConfigError(f"optimizer.average_begin={self.average_begin}: needs optimizer.average=ema or swa")
        if self.average != "ema" and self.average_decay != AVERAGE_DECAY:
            raise ConfigError(f"optimizer.average_decay={self.average_decay:g}: needs optimizer.average=ema")


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """``optimizer=adam``: Kingma and Ba (2015); a weight decay is part of the gradient."""

    name: Literal["adam"] = key("which optimizer")
    betas: tuple[float, float] = key(
        "what a step leaves of the means of the gradient and of its square", least=0, below=1, later=(0.9, 0.999)
    )
    eps: float = key("added to the root of the squares' mean", least=1e-30, most=1e9, later=1e-8)


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """``optimizer=adamw``: Loshchilov and Hutter (2019); the weights decay beside the step."""

    name: Literal["adamw"] = key("which optimizer")  # pyright: ignore[reportIncompatibleVariableOverride]
    weight_decay: float = key("lr times this share of the weights goes in each step", least=0, most=1e9, later=0.01)


@dataclass(frozen=True, kw_only=True)
class Sgd(Optimizer):
    """``optimizer=sgd``: gradient descent on batches, with Polyak's or Nesterov's momentum."""

    name: Literal["sgd"] = key("which optimizer")
    momentum: float = key("what a step leaves of the steps before it", least=0, below=1, later=0.0)
    nesterov: bool = key("Nesterov's momentum", later=False)

    def check(self) -> None:
        """Raises ConfigError for Nesterov's momentum without one."""
        super().check()
        if self.nesterov and not self.momentum:
            raise ConfigError("optimizer.nesterov=true: needs optimizer.momentum > 0")


OPTIMIZERS = (Adam, AdamW, Sgd)


def parse_optimizer(given: Any) -> Optimizer:
    """The optimizer of a name or of keys. Raises ConfigError."""
    return parse_named(given, OPTIMIZERS)
