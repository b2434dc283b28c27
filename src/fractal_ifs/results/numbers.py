"""Which number of its runs a table shows. The paper's is the best of all looks at the test set, which is optimistic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fractal_ifs.runs.records import Status


@dataclass(frozen=True)
class Number:
    """A number of a run, by which runs are compared, and which tables and figures show."""

    name: str  # as a user asks for it; of a measure its column, ``grad_snr@0``, or ``grad_snr@last`` of the last step
    said: str  # what it is: ``the test accuracy after the last step``, ``the measure grad_snr at step 0``
    head: str  # in a few words, for the head of a column or an axis: ``final test accuracy``, ``grad_snr at step 0``
    column: str  # of a run's row
    chosen_by: str | None = None  # the column by which learning rates are chosen; None: its own
    axis: str = "test accuracy"  # what stands at an axis with several numbers
    beside_paper: bool = True  # whether the paper's may stand beside it, which are test accuracies

    @classmethod
    def of_measure(cls, measure: str, step: str) -> Number:
        """A measure at a step, or at the ``last``. Nobody knows whether more is better: test accuracies choose."""
        column, at = f"{measure}@{step}", f" at step {step}"
        when, head = (" after the last step", "") if step == "last" else (at, at)
        said = f"the measure {measure}{when}"
        return cls(column, said, measure + head, column, BEST.column, axis=measure, beside_paper=False)

    def of(self, run: Mapping[str, Any]) -> float | None:
        """The number of a run's row, without missing values: None stands for these, and for a number not measured."""
        return _value(run, self.column)

    def score(self, run: Mapping[str, Any]) -> float | None:
        """What learning rates are chosen by. None where the run hasn't got it, so that it can't be chosen."""
        return _value(run, self.chosen_by or self.column)


BEST = Number("best", "the best test accuracy of all measurements", "best test accuracy", "best_test_acc")
FINAL = Number("final", "the test accuracy after the last step", "final test accuracy", "final_test_acc")
LAST10 = Number(
    name="last10",
    said="the mean test accuracy of the last ten measurements",
    head="mean of the last ten",
    column="last10_test_acc",
)
VALIDATION = "best_val_acc"
CHOSEN = Number(
    name="chosen",
    said="the test accuracy where the validation accuracy was best",
    head="test accuracy, chosen by validation",
    column="chosen_test_acc",
    chosen_by=VALIDATION,  # so the test set has no part in the choice
)
TRAIN = Number(
    name="train",
    said="the training accuracy after the last step",
    head="final training accuracy",
    column="final_train_acc",
    axis="training accuracy",
    beside_paper=False,
)
CHOOSING = {BEST.column: BEST.head, VALIDATION: "best validation accuracy"}  # ``chosen_by``, in words
NUMBERS = {number.name: number for number in (BEST, FINAL, LAST10, CHOSEN, TRAIN)}


def _value(run: Mapping[str, Any], column: str) -> float | None:
    found = run.get(column)
    if found is None and column == LAST10.column and run["status"] != Status.DIVERGED:  # an older record doesn't say it
        last = _of_last_layer(run)[-10:]
        return sum(last) / len(last) if last else None
    return found


def accuracies(run: Mapping[str, Any]) -> list[float]:
    """The test accuracies of a row's ``history``, of four digits, in the order of the measurements."""
    return [float(value) for value in str(run["history"] or "").split()]


def steps_to_measure(run: Mapping[str, Any]) -> list[int]:
    """The steps to measure at: every ``eval_every``, and the last. Layer by layer each layer has its own last."""
    every, last = int(run["eval_every"]), int(run["steps"] or 0)
    layer = int(run["steps_asked"]) if run.get("training") == "layerwise" else max(last, 1)
    ends = [range(begun + every, begun + layer + every, every) for begun in range(0, last, layer)]
    return sorted({min(at, (number + 1) * layer, last) for number, of_layer in enumerate(ends) for at in of_layer})


def learning_curve(run: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    """The steps and test accuracies of a row's ``history``; empty lists where it has none.

    Empty too where the row can't tell at which steps: of a run that began at a checkpoint of another.
    """
    steps, values = steps_to_measure(run), accuracies(run)
    if not Status(run["status"]).ended and len(values) == len(steps) - 1:
        steps.pop()  # it ended between two measurements
    return (steps, values) if len(steps) == len(values) else ([], [])


def mean_of(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return sum(values) / len(values)


def looks(run: Mapping[str, Any]) -> int:
    """Of how many measurements on the test set a run's best accuracy is the largest.

    Those of its history, or where a table lacks that, all until its last step, which is measured too. In layer-wise
    training those of the last layer count.
    """
    steps = int(run["steps"] or 0)
    if steps and run.get("training") == "layerwise":
        steps = (steps - 1) % int(run["steps_asked"]) + 1
    elif found := accuracies(run):
        return len(found)
    return math.ceil(steps / run["eval_every"])


def _of_last_layer(run: Mapping[str, Any]) -> list[float]:
    """The accuracies of the whole network: all of them, in layer-wise training those of the last layer."""
    found = accuracies(run)
    return found[-looks(run) :] if run.get("training") == "layerwise" else found


def collapsed(run: Mapping[str, Any], least: int = 3, most: int = 5) -> bool:
    """Whether a run's network answers the same for every point.

    By what ``measures=[balance]`` said last of its answers. Without it, where its accuracy is stuck at the share of a
    class, as it is then, though an untrained network's may be too: its last measurements, 5 or if there aren't so many
    at least 3, all have one value, or with two classes two that add up to 1 (it answers now one, now the other), near
    what one answer gets: 1/2 on fractals, 1/10 on images.
    """
    if (said := run.get("final_said_positive")) is not None and said == said:
        return said in (0, 1)
    last = _of_last_layer(run)[-most:]
    if len(last) < least:
        return False
    of_one_answer = 0.5 if run["data"] == "fractal" else 0.1
    near = all(abs(value - of_one_answer) < 0.03 for value in last)
    values = {round(value, 4) for value in last}
    flips = of_one_answer == 0.5 and len(values) == 2 and abs(sum(values) - 1) < 2e-4
    return near and (len(values) == 1 or flips)
