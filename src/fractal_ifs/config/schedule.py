"""The config group ``schedule``: how the learning rate changes over the steps. Its peak is the key ``lr``.

``engines.steps.factors`` computes it, for all engines. In layer-wise training each layer has a schedule of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fractal_ifs.config.keys import key
from fractal_ifs.config.named import Named, parse_named


@dataclass(frozen=True, kw_only=True)
class Schedule(Named):
    """What all schedules have."""

    PREFIX: ClassVar[str] = "schedule."

    warmup: int = key("steps in which the learning rate rises to lr, the first being lr / warmup", least=0, later=0)


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """``schedule=constant``: lr, after the warm-up."""

    name: Literal["constant"] = key("which schedule")


@dataclass(frozen=True, kw_only=True)
class Decay(Schedule):
    """``schedule=linear`` and ``schedule=cosine``: from lr after the warm-up down to ``final`` * lr at the end."""

    name: Literal["linear", "cosine"] = key("which schedule")
    final: float = key("factor of lr at the end of training", least=0, most=1, later=0.0)


@dataclass(frozen=True, kw_only=True)
class Step(Schedule):
    """``schedule=step``: the learning rate is multiplied by ``gamma`` every so many steps."""

    name: Literal["step"] = key("which schedule")
    every: int = key("steps from one change to the next", least=1, most=10**12, later=100_000)
    gamma: float = key("factor of each change", above=0, most=1, later=0.1)


@dataclass(frozen=True, kw_only=True)
class Inverse(Schedule):
    """``schedule=inverse``: lr / (1 + t / half) after t steps, the 1/t of Robbins and Monro (1951)."""

    name: Literal["inverse"] = key("which schedule")
    half: int = key("steps after which the learning rate is half", least=1, most=10**12, later=10_000)


SCHEDULES = (Constant, Decay, Step, Inverse)


def parse_schedule(given: Any) -> Schedule:
    """The schedule of a name or of keys; of neither, as in a config from before there were schedules, the constant one.

    Raises ConfigError.
    """
    return parse_named(given or "constant", SCHEDULES)
