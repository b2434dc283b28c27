"""The keys of conf/hydra/sweeper/halving.yaml, and which runs compete where. Nothing here imports torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fractal_ifs.config.keys import Group, key
from fractal_ifs.config.run import RunConfig, placement
from fractal_ifs.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Halving(Group):
    """Successive halving (Jamieson and Talwalkar, AISTATS 2016), in each cell of a sweep for itself.

    Of the n runs that have reached a rung, the ceil(n / eta) best go on, to a rung eta times as far. The last one goes
    on to its end. What is compared is the accuracy that the key ``objective`` names: by default that of the test set.
    """

    PREFIX: ClassVar[str] = "hydra.sweeper."

    params: Mapping[str, Any] | None = key("words of the grid, below those of the command line")
    over: tuple[str, ...] = key("the keys that compete; each choice of all others is a cell, with its own winner")
    eta: int = key("of so many runs one goes on, and so many times as far", least=2, most=1000)
    least: int | None = key("steps to the first rung, a multiple of eval_every; null: eval_every", least=1, most=10**12)
    by: Literal["best", "last"] = key("what is compared, of the accuracies up to the rung")

    def check(self, configs: Sequence[RunConfig] = ()) -> None:
        """Raises ConfigError where jobs of these configs can't be halved."""
        given = f"hydra.sweeper.over=[{', '.join(self.over)}]"
        for name in ("steps", "eval_every"):
            if name in self.over:
                raise ConfigError(f"{given}: can't have {name}: runs of one cell meet at the same rungs")
        for config in configs:
            if config.training == "layerwise":
                raise ConfigError("training=layerwise: must be joint with hydra/sweeper=halving")
            if config.kept:
                raise ConfigError(f"kept={config.kept}: must be empty with hydra/sweeper=halving: a table has no rungs")
            if (self.least or 0) % config.eval_every:
                raise ConfigError(
                    f"hydra.sweeper.least={self.least}: must be a multiple of eval_every={config.eval_every}"
                )
            if self.first(config) >= config.steps:
                raise ConfigError(f"hydra.sweeper.least={self.first(config)}: must be less than steps={config.steps}")
        names = {name for config in configs for name in config.leaves()}  # some choices of a group have a key
        for name in self.over if configs else ():
            if not any(_within(each, (name,)) for each in names):
                raise ConfigError(f"{given}: there is no key {name}")
        if configs and all(len(cell) == 1 for cell in self.cells(configs)):
            raise ConfigError(f"{given}: no two jobs of this sweep differ in these keys alone")

    def first(self, config: RunConfig) -> int:
        """The step of a run's first rung."""
        return self.least or config.eval_every

    def rung(self, config: RunConfig, number: int) -> int | None:
        """The step of a run's rung, counted from 1. None where the run ends before it."""
        step = self.first(config) * self.eta ** (number - 1)
        return step if step < config.steps else None

    def cells(self, configs: Sequence[RunConfig]) -> list[list[int]]:
        """The numbers of the configs that compete with each other. Raises ConfigError where they can't be paused."""
        if any(config.engine == "lightning" for config in configs):
            raise ConfigError("engine=lightning: goes with another sweeper than halving, which pauses runs")
        found: dict[str, list[int]] = {}
        outside = (*self.over, *placement())
        for number, config in enumerate(configs):
            rest = {name: value for name, value in config.leaves().items() if not _within(name, outside)}
            found.setdefault(json.dumps(rest, sort_keys=True, default=str), []).append(number)
        return list(found.values())


def _within(name: str, keys: Sequence[str]) -> bool:
    """Whether a key is one of some, or in a group that is."""
    return any(f"{name}.".startswith(f"{key}.") for key in keys)
