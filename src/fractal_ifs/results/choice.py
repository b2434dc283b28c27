"""At which learning rate a cell is shown: one rule for every table, and for sweeps that begin at a table's best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from fractal_ifs.errors import counted
from fractal_ifs.results.numbers import Number
from fractal_ifs.runs.records import Status

Run = Mapping[str, Any]  # a row of a table of runs, without missing values: None stands for these
APART = (Status.DIVERGED, Status.FAILED)  # never a number in a mean


class Choice(NamedTuple):
    """The learning rate of a cell."""

    lr: float
    runs: Sequence[Run]  # at it, one for each seed
    lrs: int  # how many learning rates were tried
    compared: int  # how many of them were compared: those with a run to compare, or one that diverged or failed
    edge: bool  # it is the smallest or the largest of several
    shared: bool  # whether it was chosen on seeds that all learning rates have
    unsteady: bool  # whether a run diverged or failed at one of the learning rates


def order_of_doubles(run: Run) -> tuple[bool, str]:
    """Sorts runs of the same keys and seed, which differ in how they were computed: the first of them counts."""
    return not run["verified"], str(run["fingerprint"])


def best_lr(compared: Sequence[Run], every: Sequence[Run], number: Number) -> Choice | None:
    """The best learning rate of a cell. None where there is nothing to compare.

    A learning rate at which a run diverged, or else failed, comes after all others: the mean of its other seeds is of
    those that were lucky. The others are compared by their means over the seeds that all of them have, as the paper
    compares on one seed. Where they have no seed in common, only those with the most seeds are compared, by the means
    over their own: the best of one seed each would be the luckiest. Of equal means the one of the most seeds wins,
    then the smallest.

    Args:
        compared: the cell's runs with a number, one for each learning rate and seed.
        every: all runs of the cell, those too that diverged, failed or ended early.
        number: the means are of its ``score``.
    """
    if not compared:
        return None
    by_lr: dict[float, dict[Any, Run]] = {}
    for run in compared:
        by_lr.setdefault(run["lr"], {})[run["seed"]] = run
    lost = Counter((run["lr"], run["status"]) for run in every)
    losses = {lr: tuple(lost[lr, status] for status in APART) for lr in by_lr}
    rivals = {lr: seeds for lr, seeds in by_lr.items() if losses[lr] == min(losses.values())}
    shared = set[Any].intersection(*map(set, rivals.values()))
    if not shared:
        most = max(map(len, rivals.values()))
        rivals = {lr: seeds for lr, seeds in rivals.items() if len(seeds) == most}

    def mean(lr: float) -> float:
        runs = [run for seed, run in rivals[lr].items() if not shared or seed in shared]
        return round(sum(number.score(run) or 0.0 for run in runs) / len(runs), 9)

    lr = max(rivals, key=lambda lr: (mean(lr), len(rivals[lr]), -lr))
    tried = {run["lr"] for run in every}
    edge = len(tried) > 1 and lr in (min(tried), max(tried))
    unsteady = any(run["status"] in APART for run in every)
    lost_at = {run["lr"] for run in every if run["status"] in APART}
    return Choice(lr, list(rivals[lr].values()), len(tried), len(by_lr.keys() | lost_at), edge, bool(shared), unsteady)


def pruned_at_rungs(runs: Sequence[Run]) -> str:
    """What a sweep by halving did to some runs: ``3 of 4 runs at rungs, by the best test_acc up to there``.

    Empty where it pruned none. Records of earlier versions don't say by what.
    """
    pruned = [run for run in runs if run["status"] == Status.PRUNED]
    by = sorted({str(run.get("stopped") or "").partition(", by ")[2] for run in pruned} - {""})
    what = " or ".join(by) or "the accuracy"
    return f"{len(pruned)} of {counted(len(runs), 'run')} at rungs, by {what} up to there" if pruned else ""


def validation_sets(runs: Sequence[Run]) -> set[int]:
    """On how many points some runs measured their validation accuracy. A record of before may not say it."""
    return {int(run["val_points"]) for run in runs if run["status"] not in APART and run.get("val_points") is not None}


def unlike_sets(cells: Sequence[Collection[int]]) -> str:
    """A line on the ``validation_sets`` of cells, where their sizes differ. Else empty."""
    sizes = sorted({size for cell in cells for size in cell})
    if len(sizes) < 2:
        return ""
    inside = sum(len(cell) > 1 for cell in cells)
    where = (
        f", in {counted(inside, 'cell')} unlike ones compared or averaged" if inside else ", each cell's of one size"
    )
    between = " and " if len(sizes) == 2 else " to "
    return (
        f"validation: sets of {sizes[0]:,}{between}{sizes[-1]:,} points{where}; the smaller a set, the more its best "
        "accuracy is luck"
    )
