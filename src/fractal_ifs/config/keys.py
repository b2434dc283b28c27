"""Typed keys: the base class of the config groups, whose fields check their values and refuse bad ones in one line."""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
import re
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from fractal_ifs.errors import ConfigError, short

G = TypeVar("G", bound="Group")

A_SEED = "a whole number >= 0 and < 2^63"  # what every generator takes


def key(
    doc: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    empty: bool = False,
    later: Any = dataclasses.MISSING,
    absent: Any = dataclasses.MISSING,
    result: bool = True,
    allowed: str | None = None,
) -> Any:
    """A field of a ``Group``: what the key means, and which values it may have.

    Args:
        doc: what the key means, in one line.
        least, above, most, below: a number, or each one of a list, must be >= ``least``, > ``above``, <= ``most`` and
            < ``below``.
        empty: a list may be empty.
        later: for a key that was added after runs had been made: the value that all those runs had. A run with this
            value keeps the fingerprint that it had without the key, so old results are still found. Never change it.
            The default of new runs is in conf/.
        absent: the value of a config that lacks the key, for one that the first records may lack. It belongs to the
            fingerprint all the same.
        result: whether the key can change what a run computes. Only such keys belong to the fingerprint.
        allowed: what an error message says is allowed, if the type doesn't say it well enough.
    """
    limits = {"least": least, "above": above, "most": most, "below": below, "empty": empty}
    metadata = {"doc": doc, "result": result, "allowed": allowed, "absent": absent, **limits}
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
        check_names(keys, [field.name for field in dataclasses.fields(cls)], cls.PREFIX)
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


class Described(NamedTuple):
    """A key as its type describes it."""

    name: str
    doc: str
    allowed: str  # which values; empty for any text
    values: tuple[str, ...]  # all of them, where they are few
    result: bool  # whether it can change what a run computes


def describe(group: type[Group]) -> list[Described]:
    """The keys of a group, described."""
    return [
        Described(
            field.name,
            field.metadata["doc"],
            "" if _allowed(hint, field.metadata) == "text" else described(hint, field.metadata),
            _few(hint),
            field.metadata["result"],
        )
        for field, hint in _fields(group)
    ]


def described(hint: Any, limits: Mapping[str, Any]) -> str:
    """What a type allows within a field's ``limits``, in the words of help and of error messages."""
    allowed = _allowed(hint, limits)
    nullable = _is_union(hint) and type(None) in get_args(hint) and "null" not in allowed.split()
    return f"{allowed}, or null" if nullable else allowed


def _few(hint: Any) -> tuple[str, ...]:
    """All values that a type has, as on the command line."""
    if _is_union(hint):
        few = [_few(choice) for choice in get_args(hint)]
        return tuple(value for values in few for value in values) if all(few) else ()
    if hint is type(None):
        return ("null",)
    if hint is bool:
        return ("true", "false")
    return tuple(map(str, get_args(hint))) if get_origin(hint) is Literal else ()


def allowed(group: type[Group], name: str) -> str | None:
    """What an error message says is allowed for a key of a group. None if the group has no such key."""
    found = {field.name: (hint, field.metadata) for field, hint in _fields(group)}.get(name)
    return found and described(*found)


def checked(name: str, value: Any, hint: Any, limits: Mapping[str, Any]) -> Any:
    """``value`` converted to the type ``hint``, within the field's ``limits`` (see ``key``).

    Raises ConfigError, for example ``width=0: must be a whole number >= 1``.
    """
    if value is None and _is_union(hint) and type(None) in get_args(hint):
        return None
    found = _converted(value, hint)
    if found is None or not _within(found, limits):
        raise ConfigError(f"{name}={shown(value)}: must be {described(hint, limits)}")
    return found


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _choices(hint: Any) -> list[Any]:
    """The types that a union consists of, without None."""
    return [choice for choice in get_args(hint) if choice is not type(None)]


def _converted(value: Any, hint: Any) -> Any:
    """``value`` as the type ``hint``, None if it can't be. Raises TypeError for a type that no converter knows."""
    if _is_union(hint):
        found = (_converted(value, choice) for choice in _choices(hint))
        return next((each for each in found if each is not None), None)
    converter = _CONVERTERS.get(get_origin(hint) or hint)
    if converter is None:
        raise TypeError(f"{hint}: a key can't have this type, no converter knows it")
    return converter(value, hint)


def _within(value: Any, limits: Mapping[str, Any]) -> bool:
    """Whether a number, or every number of a list, is within the limits."""
    if isinstance(value, tuple):
        entries = cast(tuple[Any, ...], value)
        return (len(entries) > 0 or bool(limits.get("empty"))) and all(_within(entry, limits) for entry in entries)
    return all(holds(value, limits[name]) for name, (_, holds) in _LIMITS.items() if limits.get(name) is not None)


def check_names(keys: Mapping[str, Any], names: Sequence[str], prefix: str = "") -> None:
    """Raises ConfigError for a key that isn't one of ``names``."""
    for name in keys:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, 1, 0.6)
            hint = f"did you mean {near[0]}?" if near else f"keys are {', '.join(names)}"
            raise ConfigError(f"{prefix}{short(name)}={shown(keys[name])}: there is no such key; {hint}")


@cache
def names_of(kind: type[Group]) -> tuple[str, ...]:
    """The names that a kind of a group may have: those of its field ``name``."""
    return get_args(get_type_hints(kind)["name"])


def chosen(keys: Mapping[str, Any], kinds: Sequence[type[G]]) -> type[G]:
    """The kind of a group that ``keys["name"]`` names. Raises ConfigError, also as ``check_chosen``."""
    by_name = {name: kind for kind in kinds for name in names_of(kind)}
    name = checked(f"{kinds[0].PREFIX}name", keys.get("name"), Literal[tuple(by_name)], {})
    check_chosen(keys, by_name)
    return by_name[name]


def check_chosen(keys: Mapping[str, Any], kinds: Mapping[str, type[Group]]) -> None:
    """Raises ConfigError for the keys of one kind of a group with the name of another: a name alone chooses no file.

    Args:
        keys: of the group, with a known ``name``.
        kinds: by the names.
    """
    name, given = str(keys["name"]), set(keys)
    fields = {each: {field.name for field, _ in _fields(kind)} for each, kind in kinds.items()}
    if fields[name] != given and given in fields.values():
        group = kinds[name].PREFIX.rstrip(".")
        other = " or ".join(each for each, names in fields.items() if names == given)
        raise ConfigError(f"{group}.name={name}: the keys here are those of {other}; {group}={name} brings its own")


def shown(value: Any) -> str:
    """A value as it appears in a message, with quotes where blanks would not be seen."""
    return repr(value) if isinstance(value, str) and value != value.strip() else short(value)


def _allowed(hint: Any, limits: Mapping[str, Any]) -> str:
    """What a type allows within a field's ``limits``, but for null."""
    kinds = get_args(hint)
    if limits.get("allowed"):
        return str(limits["allowed"])
    if _is_union(hint):
        return " or ".join(_allowed(choice, limits) for choice in _choices(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, kinds))
    if get_origin(hint) is tuple and kinds[-1] is not Ellipsis:
        return "[" + ", ".join(_allowed(kind, limits) for kind in kinds) + "]"
    if get_origin(hint) in (tuple, Sequence):
        return f"a list{'' if limits.get('empty') else ' that is not empty'}, each entry {_allowed(kinds[0], limits)}"
    if get_origin(hint) is Mapping:
        return "keys with values"
    bounds = [f"{sign} {_number(limits[name])}" for name, (sign, _) in _LIMITS.items() if limits.get(name) is not None]
    kind = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}[hint]
    return f"{kind} {' and '.join(bounds)}" if bounds and hint in (int, float) else kind


def _number(limit: float) -> str:
    """A limit as a user may type it: 1e12, 4294967295."""
    text = f"{limit:g}"
    return re.sub(r"e\+0*", "e", text) if float(text) == limit else str(limit)


def _int(value: Any, _: Any) -> int | None:
    """Accepts 1e5 as well, which YAML and Hydra read as a float, and digits as text, as ``oc.env`` gives them."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch("[0-9]{1,400}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: Any, _: Any) -> float | None:
    """Accepts text as well: YAML reads 1e-3 and 1/4 as text."""
    if isinstance(value, bool):
        return None
    try:
        top, slash, bottom = value.partition("/") if isinstance(value, str) else (value, "", "")
        found = float(top) / (float(bottom) if slash else 1)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return found if math.isfinite(found) else None


def _bool(value: Any, _: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _str(value: Any, _: Any) -> str | None:
    return value if isinstance(value, str) and not re.search("[\ud800-\udfff]", value) else None  # half a letter


def _choice(value: Any, hint: Any) -> Any:
    return next((choice for choice in get_args(hint) if type(choice) is type(value) and choice == value), None)


def _tuple(value: Any, hint: Any) -> tuple[Any, ...] | None:
    """A list of entries of one type, ``tuple[int, ...]``, or of one entry for each type: ``tuple[float, float]``."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    entries, kinds = cast(Sequence[Any], value), get_args(hint)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(entries)
    if len(entries) != len(kinds):
        return None
    found = tuple(_converted(entry, kind) for entry, kind in zip(entries, kinds, strict=True))
    return None if any(entry is None for entry in found) else found


def _sequence(value: Any, hint: Any) -> Sequence[Any] | None:
    """The list itself."""
    return None if _tuple(value, tuple[(*get_args(hint), ...)]) is None else value


def _mapping(value: Any, _: Any) -> Mapping[Any, Any] | None:
    return cast(Mapping[Any, Any], value) if isinstance(value, Mapping) else None


# How a message writes a limit of ``key``, and whether a number is within it.
_LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "least": (">=", operator.ge),
    "above": (">", operator.gt),
    "most": ("<=", operator.le),
    "below": ("<", operator.lt),
}

# Each returns None for a value that it can't convert.
_CONVERTERS: dict[Any, Callable[[Any, Any], Any]] = {
    int: _int,
    float: _float,
    bool: _bool,
    str: _str,
    Literal: _choice,
    tuple: _tuple,
    Sequence: _sequence,
    Mapping: _mapping,
}
