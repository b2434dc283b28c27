"""history.csv of a run: a row per evaluation. Nothing here imports torch before a history is mended.

The first five columns are those of every run. Those of its measures follow, blank where a number is missing.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

from fractal_ifs.errors import Damaged, reason, short
from fractal_ifs.files import LARGEST, read, remove_abandoned, set_aside, write
from fractal_ifs.runs.checkpoints import CHECKPOINTS, Checkpoint, read_whole
from fractal_ifs.runs.records import HISTORY, RunRecord, Stored, note

log = logging.getLogger(__name__)

COLUMNS = ("step", "seconds", "train_loss", "test_loss", "test_acc")  # of every run
MOST_MEASURED = 1e100  # the largest number of a measure: the squares of larger ones have no sum


@dataclass(frozen=True)
class Evaluation:
    """A row of the history."""

    step: int  # optimizer steps done
    seconds: float  # the run's share of the wall time so far
    train_loss: float  # mean batch loss since the row before; at step 0, the loss on the training points
    test_loss: float  # mean over the test set
    test_acc: float  # share of the test set that is classified correctly
    measured: Mapping[str, float] = field(default_factory=dict[str, float], hash=False)  # by column; none if missing

    @property
    def numbers(self) -> tuple[int, float, float, float, float]:
        """Those of ``COLUMNS``, as a checkpoint holds them."""
        return self.step, self.seconds, self.train_loss, self.test_loss, self.test_acc

    @property
    def finite(self) -> bool:
        """Whether both losses are finite. If not, the run has diverged."""
        return math.isfinite(self.train_loss) and math.isfinite(self.test_loss)

    def value(self, column: str) -> float | None:
        """The number in a column, of the five or of a measure; None where it is missing."""
        return getattr(self, column) if column in COLUMNS else self.measured.get(column)

    def by_name(self) -> dict[str, Any]:
        """All numbers by their columns."""
        return {**dict(zip(COLUMNS, self.numbers, strict=True)), **self.measured}


def columns_of(history: Iterable[Evaluation]) -> list[str]:
    """The columns of measures that any row has, in the order in which they come."""
    return list(dict.fromkeys(name for row in history for name in row.measured))


class Summary(NamedTuple):
    """What a history says of its run beside the best and the final accuracy."""

    last10_test_acc: float | None  # mean over the last ten evaluations, or of as many as there are
    chosen_test_acc: float | None  # where ``val_acc`` was best; of equals, the first
    chosen_step: int | None
    best_val_acc: float | None  # ``val_acc`` there
    final_train_acc: float | None

    @classmethod
    def of(cls, history: Sequence[Evaluation], after: int = 0) -> Summary:
        """The summary of the evaluations after a step, which leaves out that of a network that isn't trained yet."""
        rows = [row for row in history if row.step > after]
        last = rows[-10:]
        validated = [row for row in rows if row.finite and row.value("val_acc") is not None]
        chosen = max(validated, key=lambda row: row.measured["val_acc"], default=None)
        return cls(
            math.fsum(row.test_acc for row in last) / len(last) if last else None,
            chosen.test_acc if chosen else None,
            chosen.step if chosen else None,
            chosen.measured["val_acc"] if chosen else None,
            rows[-1].value("train_acc") if rows else None,
        )


def best_row(history: Iterable[Evaluation], after: int) -> Evaluation | None:
    """The evaluation with the best test accuracy after a step, ``RunConfig.counts_from``; of equals, the first."""
    return max((row for row in history if row.step > after and row.finite), key=lambda row: row.test_acc, default=None)


def write_history(directory: Path, history: Sequence[Evaluation]) -> str:
    """Write history.csv: one row per evaluation. Returns the SHA-256 of the file. Raises OSError.

    Nobody waits for the disk: the checkpoint has the history, too.
    """
    content = _content(history)
    write(directory / HISTORY, content, durable=False)
    return hashlib.sha256(content).hexdigest()


def read_history(directory: Path, expected: Stored | None = None) -> list[Evaluation]:
    """The rows of history.csv, with all that ``expected`` says of them: the record of the same run.

    Raises FileNotFoundError if there is none, and Damaged.
    """
    path = directory / HISTORY
    try:
        return _rows(read(path), expected)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise Damaged(f"{path} can't be read: {reason(error)}") from None


def mend_history(directory: Path, stored: Stored) -> None:
    """Where the history.csv of a run that has ended isn't that of its record, write it anew from a checkpoint.

    Logs what it does, or why it can't: the record is a result all the same.
    """
    try:
        read_history(directory, stored)
        return
    except FileNotFoundError:
        why = f"{directory / HISTORY} is missing"
    except Damaged as error:
        why = str(error)
    remove_abandoned(directory, (HISTORY,))  # of one who was killed at the same
    reasons: list[str] = []
    for name in CHECKPOINTS:
        try:
            state = read_whole(directory / name, LARGEST + 100 * (stored.record.params or 0))
            if state["fingerprint"] not in stored.record.config.fingerprints:
                raise Damaged("is of another config")
            history = of_checkpoint(state)
            _rows(_content(history), stored)
            if (directory / HISTORY).is_dir():
                set_aside(directory / HISTORY)
            write_history(directory, history)
        except FileNotFoundError:
            reasons.append(f"{name} is missing")
        except (OSError, ValueError) as error:
            reasons.append(f"{name}: {reason(error)}")
        else:
            log.warning("%s: written anew from the checkpoint", why)
            return note(directory, f"{why}: written anew from the checkpoint")
    log.warning("%s, and can't be written anew: %s", why, "; ".join(reasons))


def of_checkpoint(state: Checkpoint) -> list[Evaluation]:
    """The history in a checkpoint that ``shapes.check`` accepts."""
    names, numbers = list[str](), list[float]()
    if "columns" in state and "measured" in state:
        names, numbers = [*state["columns"]], cast(Any, state["measured"]).tolist()
    rows: list[Evaluation] = []
    for number, row in enumerate(state["history"]):
        values = zip(names, numbers[number * len(names) : (number + 1) * len(names)], strict=True)
        rows.append(Evaluation(*row, measured={name: value for name, value in values if not math.isnan(value)}))
    return rows


def of_measures(history: Sequence[Evaluation]) -> tuple[dict[str, int], list[float]]:
    """The columns of measures, numbered, and their numbers row by row, nan where one is missing."""
    columns = {name: number for number, name in enumerate(columns_of(history))}
    return columns, [row.measured.get(name, math.nan) for row in history for name in columns]


def _content(history: Sequence[Evaluation]) -> bytes:
    names = columns_of(history)
    lines = [",".join([*COLUMNS, *names])]
    for row in history:
        s, t, a, b, c = row.numbers
        more = "".join(f",{row.measured[name]!r}" if name in row.measured else "," for name in names)
        lines.append(f"{s},{t:.3f},{a!r},{b!r},{c!r}{more}")
    return ("\n".join(lines) + "\n").encode()


def _rows(content: bytes, expected: Stored | None) -> list[Evaluation]:
    """The rows of a history. Raises ValueError where it can't be right, or isn't that of ``expected``."""
    if expected and expected.digests.history not in (None, hashlib.sha256(content).hexdigest()):
        raise ValueError("its content has another digest")
    lines = content.decode().splitlines()
    head = lines[0].split(",") if lines else []
    names = head[len(COLUMNS) :]
    if head != [*COLUMNS, *names] or len({*head}) < len(head) or not all(map(str.isidentifier, names)):
        raise ValueError("its head isn't that of a history")
    rows = [_evaluation(line, names) for line in lines[1:]]
    if any(row.step <= before.step for before, row in pairwise(rows)):
        raise ValueError("its steps don't rise")
    if expected and not _fits(rows, expected.record):
        raise ValueError("its last row isn't the record's")
    return rows


def _fits(rows: Sequence[Evaluation], record: RunRecord) -> bool:
    """Whether a history ends where a record does, as far as the record says."""
    if not rows:
        return record.final_test_acc is None
    return rows[-1].step == record.steps and record.final_test_acc in (None, rows[-1].test_acc)


def _evaluation(line: str, names: Sequence[str]) -> Evaluation:
    """A row of history.csv, with columns of measures. Raises ValueError."""
    step, *others = line.split(",")
    if len(others) != 4 + len(names):
        raise ValueError(f"a row is {short(line)}")
    measured = {name: float(text) for name, text in zip(names, others[4:], strict=True) if text}
    row = Evaluation(int(step), *map(float, others[:4]), measured=measured)
    if row.step < 0 or not 0 <= row.test_acc <= 1:
        raise ValueError(f"a row is {short(line)}")
    return row
