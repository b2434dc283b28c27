"""What a class or a function of a user's own is in a config: its ``_target_``, and the other keys of its file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

from fractal_ifs.config.keys import checked, shown
from fractal_ifs.errors import ConfigError, short

TARGET = "_target_"


@dataclass(frozen=True, kw_only=True, eq=False)
class Own:
    """One choice of a group. Its keys are compared and fingerprinted as they are written."""

    PREFIX: ClassVar[str]  # of the group, with a dot
    IS: ClassVar[str]  # what ``_target_`` must be
    WHAT: ClassVar[str]  # whose arguments the keys are
    TAKEN: ClassVar[tuple[str, ...]]  # the names of our own choices
    OF_THE_RUN: ClassVar[tuple[str, ...]]  # the arguments that aren't keys

    name: str
    target: str
    keys: Mapping[str, Any]

    @classmethod
    def parse(cls, keys: Mapping[str, Any]) -> Self:
        """The group from its keys, of which the class or function may refuse some later. Raises ConfigError."""
        group, a_name = cls.PREFIX, "letters, digits, _ and -, and none of " + ", ".join(cls.TAKEN)
        target = checked(f"{group}{TARGET}", keys[TARGET], str, {"allowed": cls.IS})
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target):
            raise ConfigError(f"{group}{TARGET}={shown(target)}: must be {cls.IS}")
        name = checked(f"{group}name", keys.get("name", target.rpartition(".")[2]), str, {"allowed": a_name})
        if not re.fullmatch(r"[\w-]{1,60}", name) or name in cls.TAKEN:
            raise ConfigError(f"{group}name={shown(name)}: must be {a_name}")
        own = {str(key): value for key, value in keys.items() if key not in ("name", TARGET)}
        for argument, value in own.items():
            given = f"{group}{short(argument)}={short(value)}"
            if argument in cls.OF_THE_RUN:
                raise ConfigError(f"{given}: can't be a key of {cls.WHAT}: the run gives it")
            if not argument.isidentifier() or argument.startswith("_"):
                raise ConfigError(f"{given}: must be the name of an argument")
            if inner := _target_within(value, argument):
                raise ConfigError(f"{group}{inner}: can't stand here, nothing but {group}{TARGET} is called")
            if inner := _unnamed_within(value, argument):  # JSON has no others, so a record would say another one
                raise ConfigError(f'{group}{inner}: must be a name, as "1"')
        return cls(name=name, target=target, keys=own)

    def plain(self) -> dict[str, Any]:
        """The keys and values as a record stores them."""
        return {"name": self.name, TARGET: self.target, **self.keys}

    def identity(self) -> dict[str, Any]:
        """The keys that belong to a run's fingerprint: all of them."""
        return self.plain()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own) and type(other) is type(self) and self.plain() == other.plain()

    def __hash__(self) -> int:
        return hash(json.dumps(self.plain(), sort_keys=True))


def _target_within(value: Any, key: str) -> str | None:
    """The full name of a ``_target_`` below a key, if there is one."""
    for name, inner in _entries(value):
        if name == TARGET:
            return f"{key}.{TARGET}={short(inner)}"
        if found := _target_within(inner, f"{key}.{name}"):
            return found
    return None


def _unnamed_within(value: Any, key: str) -> str | None:
    """What below a key has a key that is no text: ``table: the key 1``."""
    for name, inner in _entries(value):
        if isinstance(value, Mapping) and not isinstance(name, str):
            return f"{key}: the key {short(name)}"
        if found := _unnamed_within(inner, f"{key}.{name}"):
            return found
    return None


def _entries(value: Any) -> list[tuple[Any, Any]]:
    """What is in a mapping or a list, with its key or its place."""
    if isinstance(value, Mapping):
        return list(cast(Mapping[Any, Any], value).items())
    return list(enumerate(cast(list[Any], value))) if isinstance(value, list) else []
