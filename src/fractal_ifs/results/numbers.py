"""Which number of its runs a table shows. The paper's is the best of all looks at the test set, which is optimistic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Number = str  # a name in NUMBERS, or a column of ``results.measured.with_measure``
NUMBERS: dict[Number, str] = {
    "best": "the best test accuracy of all measurements",
    "final": "the test accuracy after the last step",
    "last10": "the mean test accuracy of the last ten measurements",
    "chosen": "the test accuracy where the validation accuracy was best",
    "train": "the training accuracy after the last step",
}

BESIDE_PAPER = tuple(name for name in NUMBERS if name != "train")  # the paper's are test accuracies

_NAMES: dict[Number, str] = {
    "best": "best test accuracy",
    "final": "final test accuracy",
    "last10": "mean of the last ten",
    "chosen": "test accuracy, chosen by validation",
    "train": "final training accuracy",
}


def number_of_run(run: Mapping[str, Any], number: Number) -> float | None:
    """The number of a run's row, without missing values: None stands for these, and for a number not measured."""
    if number == "best":
        return run["best_test_acc"]
    if number == "final":
        return run["final_test_acc"]
    if number == "chosen":
        return run.get("chosen_test_acc")
    if number == "train":
        return run.get("final_train_acc")
    if number != "last10":
        return run.get(number)
    if (found := run.get("last10_test_acc")) is not None:
        return found
    last = accuracies(run)[-10:]  # an older record doesn't say it
    return sum(last) / len(last) if last else None


def score_of(run: Mapping[str, Any], number: Number) -> float | None:
    """What learning rates are chosen by: the number, but for ``chosen`` the best validation accuracy.

    So the test set has no part in a choice by validation: a run that lacks it has no score. Of a measure nobody knows
    whether more is better, so there it is the best test accuracy.
    """
    if number == "chosen":
        return run.get("best_val_acc")
    return number_of_run(run, number if number in NUMBERS else "best")


def said(number: Number) -> str:
    """What a number is: ``the test accuracy after the last step``, ``the measure grad_snr at step 0``."""
    if number in NUMBERS:
        return NUMBERS[number]
    measure, _, step = number.partition("@")
    return f"the measure {measure} {'after the last step' if step == 'last' else f'at step {step}'}"


def name_of(number: Number) -> str:
    """A number in a few words, for the head of a column or an axis: ``best test accuracy``, ``grad_snr at step 0``."""
    return _NAMES.get(number) or number.removesuffix("@last").replace("@", " at step ")


def of_axis(number: Number) -> str:
    """What stands at an axis with the number."""
    if number == "train":
        return "training accuracy"
    return "test accuracy" if number in NUMBERS else number.partition("@")[0]


def accuracies(run: Mapping[str, Any]) -> list[float]:
    """The test accuracies of a row's ``history``, of four digits, in the order of the measurements."""
    return [float(value) for value in str(run["history"] or "").split()]


def steps_measured(run: Mapping[str, Any]) -> list[int]:
    """The steps of ``accuracies``: every ``eval_every``, and the last. Layer by layer each layer has its own last."""
    every, last = int(run["eval_every"]), int(run["steps"] or 0)
    layer = int(run["steps_asked"]) if run.get("training") == "layerwise" else max(last, 1)
    ends = [range(begun + every, begun + layer + every, every) for begun in range(0, last, layer)]
    found = [min(at, (number + 1) * layer, last) for number, of_layer in enumerate(ends) for at in of_layer]
    return found[: len(accuracies(run))]


def looks(run: Mapping[str, Any]) -> int:
    """Of how many measurements on the test set a run's best accuracy is the largest.

    The last step is measured too, whatever ``eval_every``. In layer-wise training those of the last layer count.
    """
    steps = int(run["steps"] or 0)
    if steps and run.get("training") == "layerwise":
        steps = (steps - 1) % int(run["steps_asked"]) + 1
    return math.ceil(steps / run["eval_every"])


def collapsed(run: Mapping[str, Any], least: int = 3, most: int = 5) -> bool:
    """Whether a run's network answers the same for every point: its accuracy is stuck at the share of a class.

    That is, its last measurements, 5 or if there aren't so many at least 3, all have one value, or with two classes
    two that add up to 1 (it answers now one, now the other), near what one answer gets: 1/2 on fractals, 1/10 on
    images.
    """
    last = accuracies(run)[-most:]
    if len(last) < least:
        return False
    of_one_answer = 0.5 if run["data"] == "fractal" else 0.1
    near = all(abs(value - of_one_answer) < 0.03 for value in last)
    values = {round(value, 4) for value in last}
    flips = of_one_answer == 0.5 and len(values) == 2 and abs(sum(values) - 1) < 2e-4
    return near and (len(values) == 1 or flips)
