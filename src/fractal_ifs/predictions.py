"""``python -m fractal_ifs.predict DIR POINTS``: what the network of a finished run says of the points of a CSV file."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fractal_ifs.config.options import path
from fractal_ifs.errors import ConfigError, short, told
from fractal_ifs.help.layout import Examples, Parser, program
from fractal_ifs.streams import command

ADDED = ("f", "sign")  # what the output has besides the points
_LIKE_A_NUMBER = re.compile(r"[-+.\d][-+.,/\d_ef]*$|(nan|inf|infinity)$", re.I)  # no name, but a point that is mistaken


def parser() -> Parser:
    """The command's options."""
    text = """
        Say what the network of a finished run makes of points: f(x) for each, and its sign, 1 where f(x) > 0, else -1.
        Where the network's numbers overflow, in a run that diverged or at a point like 1e300, f(x) is inf or nan; nan
        has no sign.

        POINTS is a CSV file with a point per line, its d coordinates separated by commas, with or without a line of
        names; - reads standard input. The output has the same lines with the columns f and sign.
        """
    given: Examples = (
        ("multirun/one/RUN points.csv -o out.csv", ""),
        ("multirun/one/RUN points.csv --best", "the network at the best test accuracy, not the last"),
    )
    out = Parser(program("predict"), text, given)
    out.add_argument("run", type=path, metavar="DIR", help="the directory of a finished run")
    out.add_argument("points", type=path, metavar="POINTS", help="a CSV file, or - for standard input")
    out.add_argument("-o", "--output", type=path, metavar="FILE", help="default: standard output")
    out.add_argument("--best", action="store_true", help="the network at the run's best test accuracy; else the last")
    return out


class Table(NamedTuple):
    """The points of a CSV file, as they are written there and as numbers."""

    names: list[str]
    rows: list[list[str]]
    values: list[list[float]]


def read(lines: Iterable[str], name: str, d: int) -> Table:
    """The points (n, d) of a CSV file called ``name``. Raises ConfigError for a line that isn't a point."""
    names = [f"x{number}" for number in range(1, d + 1)]
    rows: list[list[str]] = []
    values: list[list[float]] = []
    reader = csv.reader(line.removeprefix("\ufeff") for line in lines)  # a mark of the encoding is no letter
    try:
        for row in reader:
            row = [entry.strip() for entry in row]
            if not any(row):
                continue
            numbers = [_number(entry) for entry in row]
            if not rows and len(row) == d and not any(re.match(_LIKE_A_NUMBER, entry) for entry in row):
                if not set(row).isdisjoint(ADDED):
                    raise ConfigError(
                        f"{name}: line {reader.line_num} must name no column f or sign: the output has these"
                    )
                names = row
                continue
            if len(row) != d or not all(number is not None and math.isfinite(number) for number in numbers):
                what = "a finite number" if d == 1 else f"{d} finite numbers with commas between them"
                raise ConfigError(f"{name}: line {reader.line_num} must be {what}, not {short(','.join(row))}")
            rows.append(row)
            values.append([number for number in numbers if number is not None])
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: can't be read as CSV ({short(error)})") from None
    if not rows:
        raise ConfigError(f"{name}: has no points")
    return Table(names, rows, values)


def _number(text: str) -> float | None:
    with contextlib.suppress(ValueError):
        return None if "_" in text else float(text)  # Python reads 1_000
    return None


def predictions(run: Path, points: Path, best: bool = False) -> str:
    """The points of a CSV file with the outputs of a run's network, as CSV. Raises ConfigError, and OSError."""
    from fractal_ifs.files import opened
    from fractal_ifs.runs.load import load
    from fractal_ifs.runs.predict import dimension, predict

    found = load(run, best)
    d = dimension(found.config)
    if str(points) == "-":
        table = read(sys.stdin, "standard input", d)
    else:
        with opened(points) as file:
            table = read(io.TextIOWrapper(file, "utf-8", newline=""), str(points), d)
    f = predict(found, table.values)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*table.names, *ADDED])
    writer.writerows([*row, str(value), _sign(value)] for row, value in zip(table.rows, f, strict=True))
    return out.getvalue()


def _sign(value: float) -> str:
    """That of an output; none of nan, which training counts as wrong whatever the label."""
    return "" if math.isnan(value) else "1" if value > 0 else "-1"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = parser().parse_args(arguments)
    with told():
        if given.output is not None:
            from fractal_ifs.runs.files import check_output

            check_output(given.output)
            if str(given.points) != "-" and given.output.resolve() == given.points.resolve():
                raise ConfigError(f"-o {given.output}: must be another file than POINTS, which it would replace")
        found = predictions(given.run, given.points, given.best)
        if given.output is None:
            sys.stdout.write(found)
        else:
            from fractal_ifs.files import write

            write(given.output, found.encode())


if __name__ == "__main__":
    command(main)
