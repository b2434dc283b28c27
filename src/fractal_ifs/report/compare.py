"""``python -m fractal_ifs.report compare FIRST SECOND``: what moved between two editions of the paper's tables."""

from collections.abc import Sequence
from pathlib import Path

from fractal_ifs.errors import ConfigError, counted
from fractal_ifs.report.tables import Cell, Table, difference, shown, signed, tables
from fractal_ifs.report.verdicts import Verdict, verdicts
from fractal_ifs.results.cells import CellResult, Cells, form_cells
from fractal_ifs.results.columns import CellKey
from fractal_ifs.results.numbers import BEST, Number
from fractal_ifs.results.rows import read_runs

MOVED = 0.02  # smaller moves are not listed


def compare(first: Path, second: Path, number: Number = BEST) -> str:
    """Markdown: of the cells of both, at the paper's protocol and budget, how far each is from the paper and the other.

    Args:
        first, second: as for ``results.rows.read_runs``.
        number: by which runs are compared, in both.

    Raises ConfigError where one holds no run, or they have no cell in common.
    """
    found = [_cells(path, number) for path in (first, second)]
    common = [key for key in found[0] if key in found[1]]
    for path, cells in zip((first, second), found, strict=True):
        if not cells:
            raise ConfigError(f"{path} has no cell at the paper's protocol and budget with {number.said}")
    if not common:
        raise ConfigError(f"{first} and {second} have no cell in common at the paper's protocol and budget")
    made = [tables(Cells((cells[key] for key in common), number)) for cells in found]
    lines = [
        f"Of {counted(len(common), 'cell')} that both have, at the paper's protocol and budget: {number.said}, the "
        "mean over the seeds of the best learning rate.",
        "",
        f"First: {first}. Second: {second}.",
        "",
        "| | cells | first: mean absolute difference from the paper (mean) | second | second over first | from, to |",
        "|---|---|---|---|---|---|",
    ]
    for one, other in zip(*(shown(every, whole=True) for every in made), strict=True):
        lines.append(_distance(one, other))
    lines += ["", *_rates([(found[0][key], found[1][key]) for key in common])]
    lines += ["", "| claim | first | second |", "|---|---|---|"]
    for one, other in zip(*map(verdicts, made), strict=True):
        if one.verdict != "not run":
            lines.append(f"| {one.claim} | {_said(one)} | {_said(other)} |")
    return "\n".join([*lines, "", *_moves([(key, found[0][key], found[1][key]) for key in common])])


def _cells(path: Path, number: Number) -> Cells:
    cells, _ = form_cells(read_runs([path])[0], number)
    return Cells((cell for cell in cells.values() if cell.whole and not cell.differs), number)


def _distance(one: Table, other: Table) -> str:
    pairs = [(a, b) for a, b in zip(one.cells, other.cells, strict=True) if a.result and b.result]
    moves = [b.result.accuracy - a.result.accuracy for a, b in pairs if a.result and b.result]
    away = " | ".join(_away([pair[i] for pair in pairs]) for i in (0, 1))
    mean = sum(moves) / len(moves)
    return (
        f"| {one.title.split(':')[0]} | {len(pairs)} | {away} | {signed(mean)} "
        f"| {signed(min(moves))}, {signed(max(moves))} |"
    )


def _away(cells: Sequence[Cell]) -> str:
    found = difference(cells)
    return "" if found is None else f"{found[1]:.3f} ({signed(found[2])})"


def _rates(pairs: Sequence[tuple[CellResult, CellResult]]) -> list[str]:
    """How the learning rates moved, on curve 1 for each depth, and how many are at an edge."""
    larger, smaller = (sum(sign * (b.lr - a.lr) > 0 for a, b in pairs) for sign in (1, -1))
    edges = [sum(pair[i].edge for pair in pairs) for i in (0, 1)]
    seeds = [f"{min(s)} to {max(s)}" for s in ([pair[i].seeds for pair in pairs] for i in (0, 1))]
    lines = [
        f"The second's learning rate is larger in {larger} cells, smaller in {smaller}, the same in "
        f"{len(pairs) - larger - smaller}. At the edge of a grid: {edges[0]} and {edges[1]} cells; a table with one "
        f"rate for a cell doesn't say what else was tried. Seeds of a cell: {seeds[0]} and {seeds[1]}."
    ]
    by_depth: dict[int, list[tuple[CellResult, CellResult]]] = {}
    for a, b in pairs:
        if a.curve == "1":
            by_depth.setdefault(a.depth, []).append((a, b))
    if len(by_depth) > 1:
        lines += ["", "| curve 1, depth | cells | second over first |", "|---|---|---|"]
        for depth, same in sorted(by_depth.items()):
            mean = sum(b.accuracy - a.accuracy for a, b in same) / len(same)
            lines.append(f"| {depth} | {len(same)} | {signed(mean)} |")
    return lines


def _said(verdict: Verdict) -> str:
    return f"**{verdict.verdict}**: {verdict.ours}".replace("+-", "±")


def _moves(cells: Sequence[tuple[CellKey, CellResult, CellResult]]) -> list[str]:
    moved = [(b.accuracy - a.accuracy, key, a, b) for key, a, b in cells if abs(b.accuracy - a.accuracy) > MOVED]
    lines = [f"{len(moved)} of {len(cells)} cells moved by more than {MOVED:g}:"]
    if moved:
        lines += ["", "| cell | first | its rate | second | its rate | |", "|---|---|---|---|---|---|"]
    for move, key, a, b in sorted(moved, key=lambda found: -abs(found[0])):
        lines.append(f"| {key} | {a.accuracy:.3f} | {a.lr:g} | {b.accuracy:.3f} | {b.lr:g} | {signed(move)} |")
    return lines
