"""Plain values of a config beside the annotations of the function that takes them: those of other libraries."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from fractal_ifs.config.keys import shown
from fractal_ifs.errors import ConfigError

_NO = object()  # where a value doesn't fit

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


def fitted(prefix: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as a function annotates them: a whole number that was written 1e3 is an int.

    An annotation that says nothing of plain values, or that can't be read, lets any value pass. Raises ConfigError, as
    ``callbacks.early_stopping.patience=foo: must be a whole number``; ``prefix`` stands before the name.
    """
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError, AttributeError, SyntaxError):  # of names that only a type checker imports
        return dict(arguments)
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        found[name] = _fit(value, hints[name]) if name in hints else value
        if found[name] is _NO:
            raise ConfigError(f"{prefix}{name}={shown(value)}: must be {_allowed(hints[name])}")
    return found


def _fit(value: Any, hint: Any) -> Any:
    """The value as an annotation has it, ``_NO`` where it isn't of that type."""
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return next((each for kind in get_args(hint) if (each := _fit(value, kind)) is not _NO), _NO)
    if origin is Literal:
        return value if any(type(each) is type(value) and each == value for each in get_args(hint)) else _NO
    if origin is int:
        whole = isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
        return int(value) if whole else _NO
    if origin is float:
        return value if isinstance(value, int | float) and not isinstance(value, bool) else _NO
    if not isinstance(origin, type) or origin is object:  # Any, a TypeVar
        return value
    if isinstance(value, list) and issubclass(origin, Iterable) and not issubclass(origin, str | Mapping):
        kinds = get_args(hint)
        if len(kinds) != 1:
            return cast(list[Any], value)
        entries = [_fit(each, kinds[0]) for each in cast(list[Any], value)]
        return _NO if any(each is _NO for each in entries) else entries
    if isinstance(value, dict) and issubclass(origin, Mapping):
        return cast(dict[str, Any], value)
    fits = isinstance(value, origin) or (isinstance(value, str) and issubclass(origin, PurePath))
    return cast(Any, value) if fits else _NO


def _allowed(hint: Any) -> str:
    """What an annotation allows, of what can be written in a config."""
    kinds = dict.fromkeys(_writable(hint))
    if "a number" in kinds:
        kinds.pop("a whole number", None)
    return " or ".join(kinds) or f"a {getattr(hint, '__name__', hint)}, which can't be written"


def _writable(hint: Any) -> list[str]:
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return [text for kind in get_args(hint) for text in _writable(kind)]
    if origin is Literal:
        return ["null" if each is None else str(each).lower() if isinstance(each, bool) else str(each)
                for each in get_args(hint)]  # fmt: skip
    if origin in _KINDS:
        return [_KINDS[origin]]
    if isinstance(origin, type) and issubclass(origin, PurePath):
        return ["text"]
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return ["keys with values" if issubclass(origin, Mapping) else "a list"]
    return []
