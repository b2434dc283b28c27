"""What a class or a function of a user's own is in a config: its ``_target_``, and the other keys of its file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
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
            for where, key, inner in _below(value, f"{group}{argument}"):
                if key == TARGET:
                    given = f"{where}.{TARGET}={short(inner)}"
                    raise ConfigError(f"{given}: can't stand here, nothing but {group}{TARGET} is called")
                if not isinstance(key, str):  # JSON has no others, so a record would say another one
                    raise ConfigError(f'{where}: the key {short(key)}: must be a name, as "1"')
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


def _below(value: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """All that is in a mapping or a list, and below: the full name of what it is in, its key or its place, and it."""
    entries: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        entries = cast(Mapping[Any, Any], value).items()
    elif isinstance(value, list):
        entries = ((str(place), each) for place, each in enumerate(cast(list[Any], value)))
    for key, inner in entries:
        yield where, key, inner
        yield from _below(inner, f"{where}.{key}")
