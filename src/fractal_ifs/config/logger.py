"""The config group ``logger``: where a run's measurements go, besides its own files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fractal_ifs.config.keys import Group, chosen, key, shown
from fractal_ifs.config.lightning import check_target
from fractal_ifs.config.written import NOTHING, Written
from fractal_ifs.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class _Logger(Group):
    """What loggers have in common."""

    others: Written = NOTHING  # Lightning's loggers by names of their own, as ``config.lightning.Callbacks``

    def plain(self) -> dict[str, Any]:
        """The keys and values as a record stores them, other loggers among them."""
        plain = super().plain()
        del plain["others"]
        return plain | self.others.plain()


@dataclass(frozen=True, kw_only=True)
class PlainLogger(_Logger):
    """``logger=csv`` and ``logger=none``: only history.csv, which every run writes."""

    PREFIX: ClassVar[str] = "logger."

    name: Literal["csv", "none"] = key("which logger", result=False)


A_GROUP = "null or a text of at most 128 characters"
TAGS = "a list of texts of at most 64 characters"
A_NAME = "a name of 1 to 128 characters without / \\ # ? % :"  # W&B's rule for projects


def is_name(text: str) -> bool:
    """Whether W&B takes a text as the name of a project, a user or a team."""
    return bool(text.strip()) and len(text) <= 128 and text.isprintable() and not set(text) & set("/\\#?%:")


@dataclass(frozen=True, kw_only=True)
class WandbLogger(_Logger):
    """``logger=wandb``: one W&B run per network."""

    PREFIX: ClassVar[str] = "logger."

    name: Literal["wandb"] = key("which logger", result=False)
    project: str = key("W&B's project", result=False, allowed=A_NAME)
    group: str | None = key("W&B's group; null: the name of the sweep", later=None, result=False, allowed=A_GROUP)
    tags: tuple[str, ...] = key(
        "W&B's tags, besides the fractal and the curve", empty=True, later=(), result=False, allowed=TAGS
    )
    notes: str | None = key("W&B's notes", later=None, result=False)
    entity: str | None = key("W&B's user or team; null: your default", result=False, allowed=f"null or {A_NAME}")
    mode: Literal["online", "offline", "disabled"] | None = key(
        "null: as WANDB_MODE says, else online for who is logged in, else offline", result=False
    )
    timeout: float = key("seconds to wait for W&B before falling back to offline", above=0, most=86400, result=False)

    def plain(self) -> dict[str, Any]:
        """As of all loggers, with the list that conf/ has."""
        return super().plain() | {"tags": list(self.tags)}

    def check(self) -> None:
        """Raises ConfigError for names that W&B refuses: it would only do so when the run begins."""
        if self.group is not None and not (self.group.strip() and len(self.group) <= 128):
            raise ConfigError(f"logger.group={shown(self.group)}: must be {A_GROUP}")
        for tag in self.tags:
            if not (tag.strip() and len(tag) <= 64):
                raise ConfigError(f"logger.tags={shown(tag)}: must be {TAGS}")
        for name, text in (("project", self.project), ("entity", self.entity)):
            if text is not None and not is_name(text):
                raise ConfigError(f"logger.{name}={shown(text)}: must be {A_NAME}")


Logger = PlainLogger | WandbLogger


def parse_logger(keys: Mapping[str, Any]) -> Logger:
    """The group of the kind that ``keys["name"]`` names, none where only Lightning's are chosen. Raises ConfigError."""
    others: dict[str, Any] = {name: value for name, value in keys.items() if isinstance(value, Mapping)}
    own = {name: value for name, value in keys.items() if name not in others}
    for name, value in others.items():
        check_target(f"logger.{name}", value)
    if "_target_" in own:
        raise ConfigError(f"logger._target_={shown(own['_target_'])}: must be below a name, logger.NAME._target_")
    if others and not own:
        own = {"name": "none"}
    logger = chosen(own, (WandbLogger, PlainLogger)).parse(own)
    return dataclasses.replace(logger, others=Written(others)) if others else logger
