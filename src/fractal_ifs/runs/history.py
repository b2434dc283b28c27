"""history.csv of a run: a row per evaluation. Nothing here imports torch before a history is mended."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from fractal_ifs.errors import Damaged, reason, short
from fractal_ifs.files import LARGEST, read, remove_abandoned, set_aside, write
from fractal_ifs.runs.checkpoints import CHECKPOINTS, read_whole
from fractal_ifs.runs.records import HISTORY, RunRecord, Stored, note

log = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """A row of the history."""

    step: int  # optimizer steps done
    seconds: float  # the run's share of the wall time so far
    train_loss: float  # mean batch loss since the row before
    test_loss: float  # mean over the test set
    test_acc: float  # share of the test set that is classified correctly

    @property
    def finite(self) -> bool:
        """Whether both losses are finite. If not, the run has diverged."""
        return math.isfinite(self.train_loss) and math.isfinite(self.test_loss)


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
            history = [Evaluation(*row) for row in state["history"]]
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


def _content(history: Sequence[Evaluation]) -> bytes:
    lines = [",".join(Evaluation._fields)] + [f"{s},{t:.3f},{a!r},{b!r},{c!r}" for s, t, a, b, c in history]
    return ("\n".join(lines) + "\n").encode()


def _rows(content: bytes, expected: Stored | None) -> list[Evaluation]:
    """The rows of a history. Raises ValueError where it can't be right, or isn't that of ``expected``."""
    if expected and expected.digests.history not in (None, hashlib.sha256(content).hexdigest()):
        raise ValueError("its content has another digest")
    lines = content.decode().splitlines()
    if not lines or lines[0] != ",".join(Evaluation._fields):
        raise ValueError("its head isn't that of a history")
    rows = [_evaluation(line) for line in lines[1:]]
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


def _evaluation(line: str) -> Evaluation:
    """A row of history.csv. Raises ValueError."""
    step, *others = line.split(",")
    row = Evaluation(int(step), *map(float, others)) if len(others) == 4 else None
    if row is None or row.step < 0 or not 0 <= row.test_acc <= 1:
        raise ValueError(f"a row is {short(line)}")
    return row
