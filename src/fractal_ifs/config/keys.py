"""Typed keys: the base class of the config groups, whose fields check their values and refuse bad ones in one line."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from fractal_ifs.errors import ConfigError, short

G = TypeVar("G", bound="Group")


def key(
    doc: str,
    *,
    least: float | None = None,
    above: float | None = None,
    later: Any = dataclasses.MISSING,
    absent: Any = dataclasses.MISSING,
    result: bool = True,
    allowed: str | None = None,
) -> Any:
    """A field of a ``Group``: what the key means, and which values it may have.

    Args:
        doc: what the key means, in one line.
        least, above: a number must be >= ``least``, or > ``above``.
        later: for a key that was added after runs had been made: the value that all those runs had. A run with this
            value keeps the fingerprint that it had without the key, so old results are still found. Never change it.
            The default of new runs is in conf/.
        absent: the value of a config that lacks the key, for one that the first records may lack. It belongs to the
            fingerprint all the same.
        result: whether the key can change what a run computes. Only such keys belong to the fingerprint.
        allowed: what an error message says is allowed, if the type doesn't say it well enough.
    """
    metadata = {"doc": doc, "least": least, "above": above, "result": result, "allowed": allowed, "absent": absent}
    return dataclasses.field(default=later, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """The keys of one group of conf/. The constructor converts values to the fields' types, or raises ConfigError.

    A subclass overrides ``check`` for rules that involve several fields.
    """

    PREFIX: ClassVar[str] = ""  # stands before the group's keys in error messages: "trainer."

    def __post_init__(self) -> None:
        for field, hint in _fields(type(self)):
            value = checked(f"{self.PREFIX}{field.name}", getattr(self, field.name), hint, field.metadata)
            object.__setattr__(self, field.name, value)
        self.check()

    def check(self) -> None:
        """Raises ConfigError if fields contradict each other."""

    @classmethod
    def parse(cls: type[G], keys: Mapping[str, Any]) -> G:
        """The group from the keys of a config or a record. Raises ConfigError for bad, unknown and missing keys."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name in keys:
            if name not in names:
                near = difflib.get_close_matches(str(name), names, 1, 0.6)
                hint = f"did you mean {near[0]}?" if near else f"keys are {', '.join(names)}"
                raise ConfigError(f"{cls.PREFIX}{name}={keys[name]}: there is no such key; {hint}")
        absent = {field.name: field.metadata.get("absent", dataclasses.MISSING) for field in dataclasses.fields(cls)}
        keys = {name: value for name, value in absent.items() if value is not dataclasses.MISSING} | dict(keys)
        for field in dataclasses.fields(cls):
            if field.name not in keys and field.default is dataclasses.MISSING:
                raise ConfigError(f"{cls.PREFIX}{field.name}: must be given")
        return cls(**keys)

    def plain(self) -> dict[str, Any]:
        """The keys and values as a record stores them."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def identity(self) -> dict[str, Any]:
        """The keys that belong to a run's fingerprint: those that can change a result.

        Keys whose value is their ``later`` are left out, because older runs don't have them.
        """
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
    """``value`` converted to the type ``hint``, within the field's ``limits`` (see ``key``).

    Raises ConfigError, for example ``width=0: must be a whole number >= 1``.
    """
    if get_origin(hint) in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        choices = [choice for choice in get_args(hint) if choice is not type(None)]
    else:
        choices = [hint]
    found = next((f for c in choices if (f := _CONVERTERS[get_origin(c) or c](value, c)) is not None), None)
    least, above = limits.get("least"), limits.get("above")
    if found is None or (least is not None and found < least) or (above is not None and found <= above):
        shown = repr(value) if isinstance(value, str) and value != value.strip() else short(value)
        raise ConfigError(f"{name}={shown}: must be {limits.get('allowed') or _allowed(choices[0], least, above)}")
    return found


def _allowed(hint: Any, least: float | None, above: float | None) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    limit = f" >= {least:g}" if least is not None else f" > {above:g}" if above is not None else ""
    kinds = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
    kinds |= {list: "a list of texts", dict: "a mapping of names to values"}
    return kinds[get_origin(hint) or hint] + limit


def _int(value: Any, _: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: Any, _: Any) -> float | None:
    """Accepts text as well: YAML reads 1e-3 as text."""
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
    """A sequence of as many entries as ``hint`` has types, such as ``tuple[float, float]``."""
    kinds = get_args(hint)
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    entries = cast(Sequence[Any], value)
    if len(entries) != len(kinds):
        return None
    found = tuple(_CONVERTERS[kind](entry, kind) for entry, kind in zip(entries, kinds, strict=True))
    return None if None in found else found


def _texts(value: Any, _: Any) -> list[str] | None:
    """``list[str]``."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    entries = list(cast(Sequence[Any], value))
    return entries if all(isinstance(entry, str) for entry in entries) else None


def _mapping(value: Any, _: Any) -> dict[str, Any] | None:
    """``dict[str, Any]``."""
    return (
        {str(name): entry for name, entry in cast(Mapping[Any, Any], value).items()}
        if isinstance(value, Mapping)
        else None
    )


# Each returns None for a value that it can't convert.
_CONVERTERS: dict[Any, Callable[[Any, Any], Any]] = {
    int: _int,
    float: _float,
    bool: _bool,
    str: _str,
    Literal: _choice,
    tuple: _tuple,
    list: _texts,
    dict: _mapping,
}
