"""A CSV file of runs as text, line by line: a damaged line takes no other with it.

A text that a spreadsheet would take for a formula has a quote before it in the file.
"""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fractal_ifs import files
from fractal_ifs.errors import ConfigError, reason, short
from fractal_ifs.results.columns import ACCURACIES, CELL, COUNTS, NUMBERS
from fractal_ifs.results.values import number_of
from fractal_ifs.runs.records import Status

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile(r"'*[=+\-@]")  # what begins one, or begins so when a quote has been removed
FINGERPRINT = re.compile("[0-9a-f]{16}")

# What every row has, and the columns of every table of runs. The others may be of any version.
_ALWAYS = ("fingerprint", "data", "depth", "width", "lr", "seed", "status", "steps_asked", "eval_every", "setting")
_NEEDED = tuple(dict.fromkeys((*_ALWAYS, *CELL, "best_test_acc", "best_step")))
_AT_LEAST_1 = ("fractal_depth", "depth", "width", "steps_asked", "eval_every")  # no number is below 0


class TextTable(NamedTuple):
    """A table of runs in a CSV file, with all values as text."""

    names: list[str]  # its columns
    rows: dict[int, dict[str, str]]  # by the numbers of their lines
    damaged: list[str]  # a note for each line that is no row: ``line 7 is no row of it: <<<<<<< HEAD``


def read_text(path: Path, kind: str, where: Callable[[Mapping[str, str]], bool] | None = None) -> TextTable:
    """The rows of a CSV file with a run in each line.

    Each line is read by itself, so that a damaged one takes no other with it. It is left out, and ``damaged`` says so.
    Raises FileNotFoundError, and ConfigError where it lacks a column.

    Args:
        kind: what the file should be.
        where: whether a row is wanted. Of others nothing is said.
    """
    try:
        lines = files.read(path).decode("utf-8-sig", "replace").removesuffix("\n").split("\n")
        names = _values(lines[0].removesuffix("\r"))
    except FileNotFoundError:
        raise
    except (OSError, csv.Error) as error:
        raise ConfigError(f"{short(path, 200)}: can't be read ({reason(error)})") from None
    if missing := [name for name in _NEEDED if names.count(name) != 1]:
        raise ConfigError(f"{short(path, 200)}: not {kind}, it has no column {missing[0]}")
    rows: dict[int, dict[str, str]] = {}
    damaged: list[str] = []
    for number, line in enumerate(lines[1:], 2):
        row = _row(names, line.removesuffix("\r"))
        if row is not None and where and not where(row):
            continue
        if row is None:
            damaged.append(f"line {number} is no row of it: {short(line)}")
        elif wrong := _wrong(row):
            damaged.append(f"line {number} is no row of it: {wrong}={short(row[wrong])}")
        else:
            rows[number] = row
    return TextTable(names, rows, damaged)


def _row(names: Sequence[str], line: str) -> dict[str, str] | None:
    try:
        values = _values(line)
    except csv.Error:
        return None
    whole = len(values) == len(names) and line.isprintable() and "\ufffd" not in line
    return dict(zip(names, map(_unquoted, values), strict=True)) if whole else None


def _values(line: str) -> list[str]:
    """The values of a line. The history of a run may be longer than what csv takes by itself. Raises csv.Error."""
    before = csv.field_size_limit(max(len(line), 1))
    try:
        return next(csv.reader([line], strict=True), [])
    finally:
        csv.field_size_limit(before)


def csv_of(table: "pd.DataFrame") -> bytes:
    """A table as the content of a CSV file."""
    texts = table.select_dtypes(exclude=["number", "bool"])
    plain = {str(name): texts[name].map(quoted, na_action="ignore") for name in texts}
    return table.assign(**plain).to_csv(index=False).encode()


def may_replace(path: Path) -> bool:
    """Whether there is no file yet, or an empty one, or a table that a sweep or a report wrote and can write again.

    It says where its runs are. A kept table doesn't: it may be all that is left of them. Raises OSError.
    """
    try:
        content = files.read(path)
        return not content.strip() or b"directory" in content.partition(b"\n")[0].rstrip(b"\r").split(b",")
    except FileNotFoundError:
        return True


def quoted(value: Any) -> Any:
    """A value as a cell of a CSV file. Any text is read again as it was."""
    is_formula = isinstance(value, str) and _FORMULA.match(value) and number_of(value) is None
    return f"'{value}" if is_formula else value


def _unquoted(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _wrong(row: Mapping[str, str]) -> str | None:
    """The name of a value that can't be right."""
    if not FINGERPRINT.fullmatch(row["fingerprint"]):
        return "fingerprint"
    if row["status"] not in tuple(Status):
        return "status"
    for name in (*_ALWAYS, *(("fractal_depth",) if row["data"] == "fractal" else ())):
        if not row[name]:
            return name
    for name in NUMBERS:
        if text := row.get(name):
            number, least, most = number_of(text), name in _AT_LEAST_1, 1 if name in ACCURACIES else 1e38
            if number is None or not least <= number <= most or (name in COUNTS and not number.is_integer()):
                return name
    numbers = [number_of(value) for value in row.get("history", "").split()]
    if None in numbers:
        return "history"
    # The learning curve has the same accuracies again, in four digits, of which a spreadsheet drops the last zeros.
    curve = [f"{number:.4f}" for number in numbers]
    best, final = (number_of(row.get(name, "")) for name in ("best_test_acc", "final_test_acc"))
    if curve and row["status"] in (Status.FINISHED, Status.STOPPED):
        if best is not None and f"{best:.4f}" not in curve:
            return "best_test_acc"
        if final is not None and f"{final:.4f}" != curve[-1]:
            return "final_test_acc"
    return None
