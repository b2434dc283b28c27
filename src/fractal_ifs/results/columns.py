"""The columns of all tables of runs, and what names a cell of them."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, get_type_hints

from fractal_ifs.results.protocol import Setting
from fractal_ifs.runs import records
from fractal_ifs.runs.records import RunRecord, Status


class CellKey(NamedTuple):
    """What names a cell of a table. On images the fractal, its depth and the curve are None."""

    data: str
    fractal: str | None
    fractal_depth: int | None
    curve: str | None
    depth: int
    width: int

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> "CellKey":
        """The cell of a run, given its row or any mapping with these keys."""
        synthetic = run["data"] == "fractal"
        where = (run["fractal"], int(run["fractal_depth"]), str(run["curve"])) if synthetic else (None, None, None)
        return cls(run["data"], *where, int(run["depth"]), int(run["width"]))

    def __str__(self) -> str:
        """``vicsek n=5 curve 4 depth 5 width 20``."""
        synthetic = self.data == "fractal"
        where = f"{self.fractal} n={self.fractal_depth} curve {self.curve}" if synthetic else self.data
        return f"{where} depth {self.depth} width {self.width}"


CELL = CellKey._fields
ENDED = tuple(status for status in Status if status.ended)  # runs of such a status need no more training

_TYPES = get_type_hints(RunRecord)
_AFTER = records.COLUMNS.index("fingerprint") + 1
_BESIDE = ("directory", "verified", "history")  # what a row has besides the record and the setting
# The fields of a record, with its setting after the fingerprint.
COLUMNS = [*records.COLUMNS[:_AFTER], *Setting._fields, *records.COLUMNS[_AFTER:], *_BESIDE]
NUMBERS = [name for name in records.COLUMNS if _TYPES[name] in (int, float, int | None, float | None)]
COUNTS = [name for name in NUMBERS if _TYPES[name] in (int, int | None)]
BOOLS = [*(name for name in records.COLUMNS if _TYPES[name] == bool | None), "verified"]
ACCURACIES = tuple(name for name in records.COLUMNS if name.endswith("_acc"))
MEASURED = "final_"  # begins the columns of measures, which a table has besides where its runs have any


def measured_of(record: RunRecord) -> dict[str, float]:
    """What measures found at a run's last evaluation, by the columns of a table: ``final_acc_level_1``, ...

    Without the training accuracy, which every table has.
    """
    found = {f"{MEASURED}{name}": value for name, value in (record.measured or {}).items()}
    return {name: value for name, value in found.items() if name not in COLUMNS}


def is_measured(column: str) -> bool:
    """Whether a column of a table is that of a measure, ``final_grad_snr`` or ``grad_snr@0``, and not of a key."""
    at_a_step = re.search(r"@(\d+|last)$", column)  # a name in a key may have an @ too, callbacks.a@b.every
    return (column.startswith(MEASURED) or at_a_step is not None) and column not in COLUMNS


def last_of(column: str) -> str | None:
    """Of which measure a column has the number after the last step. None for any other column."""
    return column.removeprefix(MEASURED) if column.startswith(MEASURED) else None
