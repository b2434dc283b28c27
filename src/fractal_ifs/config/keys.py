"""Typed keys: a dataclass per group of conf/, whose fields check their values and refuse bad ones in one line."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fractal_ifs.errors import ConfigError

G = TypeVar("G", bound="Group")


def key(
    doc: str,
    *,
    least: float | None = None,
    above: float | None = None,
    later: Any = dataclasses.MISSING,
    result: bool = True,
    allowed: str | None = None,
) -> Any:
    """A field of a ``Group``: what the key means, and what it may be.

    Args:
        doc: one line for its reader.
        least, above: a number must be >= ``least``, or > ``above``.
        later: the value of all runs that were made before there was this key. A run at that value has the fingerprint
            that it had without the key, so no finished run is forgotten. It is never changed; the default of new runs
            stands in conf/.
        result: whether the key can change what a run computes; only such keys are part of its fingerprint.
        allowed: what a refusal says is allowed, where the type doesn't tell.
    """
    metadata = {"doc": doc, "least": least, "above": above, "result": result, "allowed": allowed}
    return dataclasses.field(default=later, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """The keys of one group of conf/. Made from any values, it holds those of the fields' types, or raises ConfigError.

    A subclass adds in ``check`` what one field says of another.
    """

    PREFIX: ClassVar[str] = ""  # of its keys in a message: "trainer."

    def __post_init__(self) -> None:
        for field, hint in _fields(type(self)):
            value = checked(f"{self.PREFIX}{field.name}", getattr(self, field.name), hint, field.metadata)
            object.__setattr__(self, field.name, value)
        self.check()

    def check(self) -> None:
        """Refuse fields that don't go together. Raises ConfigError."""

    @classmethod
    def parse(cls: type[G], keys: Mapping[str, Any]) -> G:
        """From the keys of a composed config or a record. Raises ConfigError, also for unknown and missing keys."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name in keys:
            if name not in names:
                near = difflib.get_close_matches(str(name), names, 1, 0.6)
                hint = f"did you mean {near[0]}?" if near else f"keys are {', '.join(names)}"
                raise ConfigError(f"{cls.PREFIX}{name}={keys[name]}: there is no such key; {hint}")
        for field in dataclasses.fields(cls):
            if field.name not in keys and field.default is dataclasses.MISSING:
                raise ConfigError(f"{cls.PREFIX}{field.name}: must be given")
        return cls(**keys)

    def plain(self) -> dict[str, Any]:
        """Its keys and values as they stand in a record."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def identity(self) -> dict[str, Any]:
        """What of it is part of a run's fingerprint: no later key at the value that all runs before it had."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.metadata.get("result", True) and getattr(self, field.name) != field.default
        }


@cache
def _fields(group: type[Group]) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = get_type_hints(group)
    return [(field, hints[field.name]) for field in dataclasses.fields(group) if field.metadata]


def checked(name: str, value: Any, hint: Any, limits: Mapping[str, Any]) -> Any:
    """The value as the type that a field asks for. Raises ConfigError: ``width=0: must be a whole number >= 1``."""
    if get_origin(hint) in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        hint = next(choice for choice in get_args(hint) if choice is not type(None))
    found = _CONVERTERS.get(get_origin(hint) or hint, _as_it_is)(value, hint)
    least, above = limits.get("least"), limits.get("above")
    if found is None or (least is not None and found < least) or (above is not None and found <= above):
        raise ConfigError(f"{name}={_shown(value)}: must be {limits.get('allowed') or _allowed(hint, least, above)}")
    return found


def _shown(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _allowed(hint: Any, least: float | None, above: float | None) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    limit = f" >= {least:g}" if least is not None else f" > {above:g}" if above is not None else ""
    return {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}[hint] + limit


def _int(value: Any, _: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: Any, _: Any) -> float | None:
    """Also of text: YAML reads 1e-3 as such."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _bool(value: Any, _: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _str(value: Any, _: Any) -> str | None:
    return value if isinstance(value, str) else None


def _choice(value: Any, hint: Any) -> Any:
    return next((choice for choice in get_args(hint) if type(choice) is type(value) and choice == value), None)


def _tuple(value: Any, hint: Any) -> tuple[Any, ...] | None:
    """``tuple[float, float]``: so many numbers."""
    kinds = get_args(hint)
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(kinds):
        return None
    found = tuple(_CONVERTERS[kind](entry, kind) for entry, kind in zip(value, kinds, strict=True))
    return None if None in found else found


def _as_it_is(value: Any, _: Any) -> Any:
    return value


_CONVERTERS: dict[Any, Any] = {int: _int, float: _float, bool: _bool, str: _str, Literal: _choice, tuple: _tuple}
