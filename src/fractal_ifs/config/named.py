"""Groups that a config may name in one word, ``optimizer: adam``, as all configs did before the group had keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, cast

from fractal_ifs.config.keys import Group, check_chosen, checked, key, names_of, shown
from fractal_ifs.errors import ConfigError

N = TypeVar("N", bound="Named")


@dataclass(frozen=True, kw_only=True)
class Named(Group):
    """A group whose other keys all have a value ``later``, for which its name alone stands."""

    name: str = key("which one")

    def spelled(self) -> str | dict[str, Any]:
        """As a record stores it, and as it belongs to a fingerprint: the name, and the keys that aren't as usual."""
        found = _listed(self.identity())
        return self.name if len(found) == 1 else found

    def plain(self) -> dict[str, Any]:
        """All keys, with lists as conf/ has them."""
        return _listed(super().plain())


def _listed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: list(cast(tuple[Any, ...], value)) if isinstance(value, tuple) else value
        for name, value in values.items()
    }


def parse_named(given: object, kinds: tuple[type[N], ...]) -> N:
    """The group that its name, or its keys, stand for. Raises ConfigError, also for a key of another kind."""
    group = kinds[0].PREFIX.rstrip(".")
    keys = {"name": given} if isinstance(given, str) else dict(checked(group, given, Mapping[str, Any], {}))
    of = {name: kind for kind in kinds for name in names_of(kind)}
    where = group if isinstance(given, str) else f"{group}.name"
    if "name" not in keys and "_target_" in keys:
        raise ConfigError(
            f"{group}._target_={shown(keys['_target_'])}: can't be one's own, must be {group}={', '.join(of)}; "
            f"fractal_ifs.Classifier({group}=...) in a pl.Trainer of your own takes any"
        )
    name = cast(str, checked(where, keys.get("name"), Literal[tuple(of)], {}))
    own = [field.name for field in dataclasses.fields(of[name])]
    if not set(keys) <= set(own):  # a record has some of a group's own keys alone
        check_chosen(keys, of)
    for each in keys:
        others = choices_with(each, kinds)
        if each not in own and others:
            raise ConfigError(f"{group}.{each}={shown(keys[each])}: goes with {' or '.join(others)}, not with {name}")
    return of[name].parse(keys)


@cache
def choices_with(name: str, kinds: tuple[type[Named], ...]) -> list[str]:
    """The choices of a group that have a key: ``optimizer=sgd``."""
    return [
        f"{kind.PREFIX.rstrip('.')}={choice}"
        for kind in kinds
        if name in [field.name for field in dataclasses.fields(kind)]
        for choice in names_of(kind)
    ]
