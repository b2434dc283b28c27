"""Nested keys by their full names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast


def leaves(values: Mapping[str, Any], levels: int | None = None) -> dict[str, Any]:
    """``{"data.margin": 0.0, ...}``: the values of nested keys by their full names, as on the command line.

    Args:
        levels: names have at most so many parts, and keys below them stay one value. None: any number.

    Keys that have none below them stay one value too, ``{}``.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value and levels != 1:
            inner = leaves(cast(dict[str, Any], value), levels and levels - 1)
            found |= {f"{name}.{key}": each for key, each in inner.items()}
        else:
            found[name] = value
    return found
