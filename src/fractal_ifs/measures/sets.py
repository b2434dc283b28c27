"""Measures that are the accuracy and the loss on a set, which the engine of the run computes."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from fractal_ifs.config.measures import TRAIN_POINTS
from fractal_ifs.data.labelled import Labelled
from fractal_ifs.runs.run import Run


class OnSet(NamedTuple):
    """A set, and the columns that its accuracy and its loss have in the history."""

    there: Labelled
    accuracy: str
    loss: str | None = None


def train_acc(run: Run) -> list[OnSet]:
    """The first 10,000 training points. Of images the central crops."""
    there = Labelled(run.data.x_train[:TRAIN_POINTS], run.data.y_train[:TRAIN_POINTS])
    return [OnSet(there, "train_acc", "train_loss_now")]


def val_acc(run: Run) -> list[OnSet]:
    """The validation set, of ``data.val_size`` points."""
    return [OnSet(Labelled(run.data.x_val, run.data.y_val), "val_acc", "val_loss")]


def levels(run: Run) -> list[OnSet]:
    """The positives of the test set, and its negatives of each level 1 to n. A level without points has no column.

    Where every level has points, the mean of the accuracies, weighted with the numbers of points, is ``test_acc``.
    """
    data: Any = run.data
    level: Tensor = data.level_test
    n = run.config.fractal.depth
    columns = {n + 1: "acc_positive", **{j: f"acc_level_{j}" for j in range(1, n + 1)}}
    chosen = {column: level == j for j, column in columns.items()}
    return [OnSet(Labelled(data.x_test[which], data.y_test[which]), column) for column, which in chosen.items()]
