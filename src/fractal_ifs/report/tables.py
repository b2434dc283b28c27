"""Tables 1 and 2 and the grids of Figures 6 and 7, with our numbers beside the paper's."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractal_ifs.errors import counted
from fractal_ifs.results.cells import CellResult, Cells
from fractal_ifs.results.columns import CellKey
from fractal_ifs.results.numbers import BEST, Number

if TYPE_CHECKING:
    import pandas as pd

FRACTALS = {
    "sierpinsky": "Sierpinsky triangle",
    "cantor2d": "2D Cantor set",
    "pentaflake": "Pentaflake",
    "vicsek": "Vicsek",
}
CURVES = tuple("123456")


@lru_cache
def paper() -> dict[str, Any]:
    """The content of paper.json: the paper's numbers, as its appendix prints them, or read off its figures."""
    return json.loads((Path(__file__).parent / "paper.json").read_bytes())


@dataclass(frozen=True)
class Cell:
    """A place in a table: the paper's number, and ours."""

    theirs: float | None  # None: the paper has no number here
    ours: float | None = None  # None: not run
    budget: int = 0  # steps of ours
    partial: bool = False  # ours has another budget than the paper's, or has not ended
    differs: str = ""  # how the protocol of ours differs from the paper's
    digits: int = 2  # of the paper's number
    result: CellResult | None = None  # all that is known of ours
    key: CellKey | None = None  # its name

    @classmethod
    def of(cls, key: CellKey, ours: CellResult | None, theirs: float | None, digits: int = 2) -> "Cell":
        """The place of a cell that we have run, or have not (None)."""
        if ours is None:
            return cls(theirs, digits=digits, key=key)
        return cls(theirs, ours.accuracy, ours.budget, not ours.whole, ours.differs, digits, ours, key)

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's. None where one of them is missing."""
        return None if self.ours is None or self.theirs is None else self.ours - self.theirs

    @property
    def comparable(self) -> bool:
        """Whether ours and the paper's are of the same protocol at its full budget."""
        return self.difference is not None and not self.partial and not self.differs

    @property
    def marks(self) -> str:
        """``*`` for another budget, ``†`` for another protocol; ``legend`` explains them."""
        return ("*" if self.partial else "") + ("†" if self.differs else "")


@dataclass(frozen=True)
class Table:
    """A table: one grid of cells per fractal."""

    title: str
    row: str  # what the rows are: depth, or curve
    rows: Sequence[int]
    widths: Sequence[int]  # of the columns
    blocks: Mapping[str, Sequence[Sequence[Cell]]]  # by fractal: a row per entry of ``rows``, a column per width
    number: Number = BEST  # what ours are
    cells: Sequence[Cell] = field(init=False)  # all of them

    def __post_init__(self) -> None:
        flat = [cell for block in self.blocks.values() for line in block for cell in line]
        object.__setattr__(self, "cells", flat)


def tables(ours: Cells) -> list[Table]:
    """Tables 1 and 2, the grid of Figure 6, for which the paper prints no numbers, and that of Figure 7 if it was run.

    Beside training accuracies no number of the paper's stands: it has none of these.
    """
    *found, seven = _every_table(ours)
    return [*found, seven] if any(key.data == "cifar10" for key in ours) else found


def _every_table(ours: Cells) -> list[Table]:
    numbers, number = paper(), ours.number
    widths, depths, curves = numbers["widths"], numbers["table1"]["rows"], numbers["table2"]["rows"]
    seven = numbers["figure7"]

    def grid(
        values: Any, key: Callable[[int, int], CellKey], rows: Sequence[int], columns: Sequence[int], digits: int = 2
    ) -> list[list[Cell]]:
        theirs = values if values and number.beside_paper else [[None] * len(columns)] * len(rows)
        return [
            [Cell.of(key(r, w), ours.get(key(r, w)), v, digits) for w, v in zip(columns, line, strict=True)]
            for r, line in zip(rows, theirs, strict=True)
        ]

    one = {
        f: grid(v, lambda r, w, f=f: CellKey("fractal", f, 5, "1", r, w), depths, widths) for f, v in _values("table1")
    }
    two = {
        f: grid(v, lambda r, w, f=f: CellKey("fractal", f, 5, str(r), 5, w), curves, widths)
        for f, v in _values("table2")
    }
    six = {"vicsek": grid(None, lambda r, w: CellKey("fractal", "vicsek", 6, "4", r, w), depths, widths)}
    layers, channels = seven["rows"], seven["channels"]
    images = grid(seven["values"], lambda r, w: CellKey("cifar10", None, None, None, r, w), layers, channels, digits=3)
    return [
        Table("Table 1: curve 1, fractals of depth 5", "depth", depths, widths, one, number),
        Table("Table 2: networks of depth 5, fractals of depth 5", "curve", curves, widths, two, number),
        Table('Figure 6: "fine" Vicsek (curve 4) of depth 6', "depth", depths, widths, six, number),
        Table("Figure 7: CIFAR-10, width is channels", "depth", layers, channels, {"CIFAR-10": images}, number),
    ]


def shown(tables: Sequence[Table], whole: bool, least: float = 0.0) -> list[Table]:
    """Those that some of our cells belong to, of the paper's protocol and budget.

    Args:
        whole: False: also those that at least this share of cells of another budget belongs to.
        least: the share.
    """

    def belongs(table: Table) -> bool:
        ours = [cell for cell in table.cells if cell.ours is not None and not cell.differs]
        other_budgets = not whole and len(ours) >= least * len(table.cells)
        return any(other_budgets or not cell.partial for cell in ours)

    return list(filter(belongs, tables))


def places() -> dict[CellKey | None, float | None]:
    """The names of all cells of the paper's tables and grids, and the paper's number in each, if it has one."""
    return {cell.key: cell.theirs for table in _every_table(Cells()) for cell in table.cells}


def tell_all(runs: "pd.DataFrame", cells: Cells) -> bool:
    """Whether the paper's tables have a place for each of our runs, so that no other table is needed.

    Args:
        runs: as ``results.rows.read_runs`` returns it.
        cells: as ``results.cells.form_cells`` does.
    """
    known = places()
    of_one = runs.groupby(list(CellKey._fields), dropna=False)[["setting", "steps_asked", "eval_every"]].nunique()
    return (
        len(of_one) == len(cells)
        and all(key in known and not cell.differs for key, cell in cells.items())
        and bool((of_one <= 1).to_numpy().all())
    )


def _values(name: str) -> list[tuple[str, Any]]:
    values = paper()[name]["values"]
    return [(fractal, values[fractal]) for fractal in FRACTALS]


def difference(cells: Sequence[Cell]) -> tuple[int, float, float] | None:
    """How many cells can be compared, the mean absolute difference from the paper, and the mean difference.

    None where no cell can be compared.
    """
    values = [c.difference for c in cells if c.comparable and c.difference is not None]
    if not values:
        return None
    return len(values), sum(map(abs, values)) / len(values), sum(values) / len(values)


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign: ``+0.019``, or ``−0.019`` with the sign of a minus, not a hyphen."""
    return f"{value:+.{digits}f}".replace("-", "−")


def text(cell: Cell) -> str:
    """A cell as text, ``0.871* (0.89) −0.019``: ours, the paper's, the difference. Empty where ours was not run."""
    if cell.ours is None:
        return ""
    ours = f"{cell.ours:.3f}{cell.marks}"
    return ours if cell.theirs is None else f"{ours} ({cell.theirs:.{cell.digits}f}) {signed(cell.ours - cell.theirs)}"


def legend(table: Table) -> list[str]:
    """The lines under a table: what its marks mean, and how far it is from the paper in all."""
    lines = []
    run = [c for c in table.cells if c.ours is not None]
    blank = "; the others are blank" if len(run) < len(table.cells) else ""
    lines.append(f"{len(run)} of {len(table.cells)} cells run{blank}.")
    if partial := [c for c in run if c.partial]:
        budgets = sorted({c.budget for c in partial})
        shown = f"{budgets[0]:,}" + (f" to {budgets[-1]:,}" if len(budgets) > 1 else "")
        lines.append(
            f"* {counted(len(partial), 'cell')} of another budget or not ended: {shown} steps instead of the paper's."
        )
    if other := [c for c in run if c.differs]:
        lines.append(
            f"† {counted(len(other), 'cell')} of another protocol: {'; '.join(sorted({c.differs for c in other}))}."
        )
    lines += _honest([c.result for c in run if c.result], table.number)
    if (found := difference(table.cells)) is not None:
        n, absolute, mean = found
        lines.append(
            f"Mean absolute difference from the paper: {absolute:.3f} over {counted(n, 'cell')} at the full budget "
            f"(mean difference {signed(mean)})."
        )
    elif any(c.theirs is not None for c in table.cells):
        lines.append("Mean absolute difference from the paper: no cell at the full budget yet.")
    return lines


def _honest(cells: Sequence[CellResult], number: Number) -> list[str]:
    """What is to be known of the numbers of some cells: that they are maxima, of how many seeds, at which rates."""
    lines: list[str] = []
    if not number.beside_paper:
        lines.append(f"A number is {number.said}; the paper has none of these.")
    elif number != BEST:
        lines.append(f"A number is {number.said}; the paper's is the best of all looks at the test set.")
    elif gaps := [cell.accuracy - cell.last10 for cell in cells if cell.last10 is not None]:
        looks = max(cell.looks for cell in cells)
        lines.append(
            f"A number is, as the paper's, the best of up to {looks} looks at the test set, which is optimistic: the "
            f"mean of the last ten is lower by {sum(gaps) / len(gaps):.3f} on average, by {max(gaps):.3f} at most."
            if looks > 1
            else "A number is of one look at the test set."
        )
    parts = [
        (sum(cell.seeds == 1 for cell in cells), "of one seed (n=1)"),
        (sum(cell.edge for cell in cells), "at the edge of the learning rates tried"),
        (sum(cell.lrs == 1 for cell in cells), "of one learning rate"),
        (sum(cell.collapsed > 0 for cell in cells), "with a network that answers the same for every point"),
    ]
    if said := [f"{n} {what}" for n, what in parts if n]:
        lines.append(f"Of {counted(len(cells), 'cell')}: {', '.join(said)}.")
    return lines


def missing(table: Table) -> str | None:
    """One line that says how many cells of a table were not run, by width. None where all were run."""
    by_width = {w: [block[i][j] for block in table.blocks.values() for i in range(len(table.rows))]
                for j, w in enumerate(table.widths)}  # fmt: skip
    gaps = [f"width {w}: {sum(c.ours is None for c in cells)} of {len(cells)}" for w, cells in by_width.items()
            if any(c.ours is None for c in cells)]  # fmt: skip
    return f"{table.title.split(':')[0]}: {', '.join(gaps)} cells not run" if gaps else None
