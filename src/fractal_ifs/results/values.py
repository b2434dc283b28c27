"""A value in a table: as a number, as it is shown, and its place among others."""

import math
from typing import Any


def number_of(text: str) -> float | None:
    """A finite number; None for any other text."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def plain_value(value: Any) -> str:
    """The value of a key as a table shows it: other values never look the same."""
    if value is None:
        return "-"
    if isinstance(value, float):
        text = f"{value:g}" if float(f"{value:g}") == value else repr(float(value))
        round_one = abs(value) >= 1e9 and len(text) <= 12  # 1e10, but 123456789012
        if value.is_integer() and abs(value) < 1e15 and not round_one:
            return str(int(value))
        return text.replace("e+", "e")
    return repr(value) if value in ("", "-") else str(value)


def by_value(value: Any) -> tuple[bool, float, str]:
    """What sorts the cells of a column: numbers by value, then texts."""
    number = number_of(str(value))
    return (True, 0.0, str(value)) if number is None else (False, number, "")
