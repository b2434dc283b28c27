"""The config group ``logger``: where a run's measurements go, besides its own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fractal_ifs.config.keys import Group, checked, key


@dataclass(frozen=True, kw_only=True)
class PlainLogger(Group):
    """``logger=csv`` and ``logger=none``: only history.csv, which every run writes."""

    PREFIX: ClassVar[str] = "logger."

    name: Literal["csv", "none"] = key("which logger", result=False)


@dataclass(frozen=True, kw_only=True)
class WandbLogger(Group):
    """``logger=wandb``: one W&B run per network."""

    PREFIX: ClassVar[str] = "logger."

    name: Literal["wandb"] = key("which logger", result=False)
    project: str = key("W&B's project", result=False)
    entity: str | None = key("W&B's user or team; null: your default", result=False)
    mode: Literal["online", "offline", "disabled"] | None = key(
        "null: as WANDB_MODE says, else online for who is logged in, else offline", result=False
    )
    timeout: float = key("seconds to wait for W&B before falling back to offline", above=0, result=False)


Logger = PlainLogger | WandbLogger


def parse_logger(keys: Mapping[str, Any]) -> Logger:
    """The group of the kind that ``keys["name"]`` names. Raises ConfigError."""
    name = checked("logger.name", keys.get("name"), Literal["wandb", "csv", "none"], {})
    return WandbLogger.parse(keys) if name == "wandb" else PlainLogger.parse(keys)
