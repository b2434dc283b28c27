"""The keys of conf/hydra/sweeper/checked.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fractal_ifs.config.keys import Group, key


@dataclass(frozen=True, kw_only=True)
class Grid(Group):
    """The keys of conf/hydra/sweeper/checked.yaml."""

    PREFIX: ClassVar[str] = "hydra.sweeper."

    max_batch_size: int | None = key("jobs that are launched at a time; null: all", least=1)
    params: Mapping[str, Any] | None = key("words of the grid, below those of the command line")
    best_lr: str | None = key("a CSV of finished runs: of the learning rates only the best there, cell by cell")
