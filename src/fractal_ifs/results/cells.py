"""The cells of the paper's tables, formed from the rows of runs."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fractal_ifs.errors import counted
from fractal_ifs.results.choice import (
    APART,
    Run,
    best_lr,
    order_of_doubles,
    pruned_at_rungs,
    unlike_sets,
    validation_sets,
)
from fractal_ifs.results.columns import ENDED, CellKey
from fractal_ifs.results.numbers import BEST, LAST10, VALIDATION, Number, collapsed, looks, mean_of
from fractal_ifs.results.protocol import PAPER_EVALUATIONS, PAPER_STEPS, parts_of_difference
from fractal_ifs.results.rows import runs_of
from fractal_ifs.results.values import plain_value
from fractal_ifs.runs.records import Status

if TYPE_CHECKING:
    import pandas as pd


class CellResult(NamedTuple):
    """What our runs found for one cell: a row of cells.csv. The first fields are those of ``CellKey``."""

    data: str
    fractal: str | None
    fractal_depth: float | None
    curve: str | None
    depth: int
    width: int
    accuracy: float  # of the ``number`` of ``Cells``, the mean over the seeds of the chosen learning rate
    spread: float | None  # the standard deviation over these seeds
    least: float
    most: float
    lr: float  # the chosen learning rate
    seeds: int  # how many of the chosen learning rate
    lrs: int  # how many learning rates were tried
    budget: int  # steps
    ended: bool
    whole: bool  # ended, and at the paper's budget
    differs: str  # how the runs differ from the paper's protocol
    params: int | None
    fingerprint: str  # of the first seed's run, for its learning curve and picture
    directory: str | None  # of the same run
    last10: float | None  # as ``accuracy``, of the mean of each run's last ten measurements
    edge: bool  # the learning rate is the smallest or the largest of several
    collapsed: int  # how many of the seeds' networks answer the same for every point
    looks: int  # measurements on the test set, of which the best accuracy is the largest

    @property
    def key(self) -> CellKey:
        """The cell's name."""
        return CellKey.of(self._asdict())


class Cells(dict[CellKey, CellResult]):
    """Our cells by their names."""

    def __init__(self, cells: Iterable[CellResult] = (), number: Number = BEST):
        super().__init__((cell.key, cell) for cell in cells)
        self.number = number  # what their accuracies are of: the best in the paper

    def frame(self) -> "pd.DataFrame":
        """The content of cells.csv, a row per cell."""
        import pandas as pd

        rows = [(*cell, self.number.name) for cell in self.values()]
        return pd.DataFrame(rows, columns=pd.Index([*CellResult._fields, "number"]))


def form_cells(runs: "pd.DataFrame", number: Number = BEST) -> tuple[Cells, list[str]]:
    """The cells of some runs, and notes on cells that several configs claim.

    Only runs of one setting and one budget form a cell. Of several settings, the one nearest to the paper's is chosen,
    then the paper's budget, and otherwise the largest. The budget is the steps asked for. For runs that have not
    ended, it is the steps that all of them have done.

    Runs that diverged or failed are in no mean, and the learning rate is the one of ``results.choice.best_lr``. The
    accuracy is the mean over all seeds of that learning rate, never a maximum over seeds.

    Args:
        runs: as ``results.rows.read_runs`` returns it.
        number: by which runs are compared, and of which the accuracies are. A run without it is in no cell.
    """
    groups: dict[CellKey, list[Run]] = {}
    every: dict[tuple[Any, ...], list[Run]] = {}  # with those that are in no mean
    lacking = 0
    for run in runs_of(runs):
        every.setdefault(_tried_as(run), []).append(run)
        if run["best_test_acc"] is None or not run["steps"] or run["status"] in APART:
            continue
        if number.of(run) is None or number.score(run) is None:
            lacking += 1
        else:
            groups.setdefault(CellKey.of(run), []).append(run)
    rows: list[CellResult] = []
    notes: list[str] = []
    if lacking:
        notes.append(f"{counted(lacking, 'run')} without {number.said}: in no cell")
    other_budgets = unshared = 0
    halved: list[Sequence[Run]] = []
    sets: list[set[int]] = []
    for key in sorted(groups, key=lambda values: [(isinstance(v, str), v or 0) for v in values]):
        group = groups[key]
        candidates: dict[tuple[Any, ...], list[Run]] = {}
        for run in group:
            part = tuple(run[k] for k in ("setting", "steps_asked", "eval_every"))
            candidates.setdefault((*part, run["status"] in ENDED), []).append(run)
        chosen = min(candidates.values(), key=_rank)
        first = chosen[0]
        other_budgets += sum(run["setting"] == first["setting"] and _asked(run) != _asked(first) for run in group)
        if others := [run for run in group if run["setting"] != first["setting"]]:
            ways = sorted({run["differs"] or "as the paper" for run in others})
            notes.append(
                f"{key}: {1 + len({run['setting'] for run in others})} different configs claim this cell; "
                f"shown: {first['differs'] or 'as the paper'}; "
                f"left out, {counted(len(others), 'run')}: {'; '.join(ways)}"
            )
        same = [run for run in group if all(run[k] == first[k] for k in ("setting", "steps_asked"))]
        if len(apart := sorted({run["eval_every"] for run in same})) > 1:
            notes.append(
                f"{key}: runs with eval_every={', '.join(f'{e:g}' for e in apart)} claim this cell; "
                f"shown: {first['eval_every']:g}"
            )
        result, doubles, shared = _result(key, chosen, every[_tried_as(first)], number)
        rows.append(result)
        sets.append(validation_sets(chosen) if number.chosen_by == VALIDATION else set())
        unshared += not shared
        if result.ended and any(run["status"] == Status.PRUNED for run in every[_tried_as(first)]):
            halved.append(every[_tried_as(first)])
        notes += [f"{key}: {double}" for double in doubles]
    if unshared:
        notes.append(
            f"in {counted(unshared, 'cell')} the learning rates have no seed in common: chosen among those of the most "
            "seeds"
        )
    if halved:
        notes.append(
            f"in {counted(len(halved), 'cell')} a sweep by halving pruned "
            f"{pruned_at_rungs([run for group in halved for run in group])}: the learning rate is one of those left, "
            "and the mean over the seeds in which it was"
        )
    if unlike := unlike_sets(sets):
        notes.append(unlike)
    if other_budgets:
        notes.append(f"{other_budgets} runs of another budget than that of their cell are left out of it")
    return Cells(rows, number), notes


def _rank(part: Sequence[Run]) -> tuple[Any, ...]:
    """Of several parts of a cell, the one of the least rank is shown."""
    return differences(part[0]), not _whole(part), -_budget(part), -len(part)


def _tried_as(run: Run) -> tuple[Any, ...]:
    """The same for runs that tell of each other's learning rates."""
    return *CellKey.of(run), run["setting"], run["steps_asked"]


def _asked(run: Run) -> tuple[Any, ...]:
    return run["steps_asked"], run["status"] in ENDED


def _whole(part: Sequence[Run]) -> bool:
    """Whether the runs have ended, at the paper's budget where it has one."""
    budget = _budget(part)
    return part[0]["status"] in ENDED and budget == PAPER_STEPS.get(part[0]["data"], budget)


def differences(run: Run) -> int:
    """In how many keys a run differs from the paper's protocol."""
    return len(parts_of_difference(run)) + _more_looks(run)


def _more_looks(run: Run) -> bool:
    """Whether its best is a maximum over more evaluations than the paper's: a different number, too."""
    evaluations = run["steps_asked"] / run["eval_every"]
    return evaluations > PAPER_EVALUATIONS.get(run["data"], evaluations)


def _differs(run: Run) -> str:
    """How a run differs from the paper's protocol."""
    more = f"eval_every={run['eval_every']:g}" if _more_looks(run) else ""
    return ", ".join(part for part in (run["differs"], more) if part)


def _budget(part: Sequence[Run]) -> int:
    return int(part[0]["steps_asked"] if part[0]["status"] in ENDED else min(run["steps"] for run in part))


def _result(
    key: CellKey, part: Sequence[Run], every: Sequence[Run], number: Number
) -> tuple[CellResult, list[str], bool]:
    """The best learning rate of runs of one setting and budget, and notes on runs of the same seed.

    And whether it was chosen on seeds that all learning rates have.
    """
    taken: dict[tuple[float, Any], Run] = {}
    doubles: list[str] = []
    for run in sorted(part, key=order_of_doubles):
        shown = taken.setdefault((run["lr"], run["seed"]), run)
        if shown is not run:
            doubles.append(
                f"two runs of lr={plain_value(run['lr'])} seed={plain_value(run['seed'])}, which differ in how they "
                f"were computed or whether their images were verified; shown: {number.of(shown):.4f}, left out: "
                f"{number.of(run):.4f}"
            )
    choice = best_lr(list(taken.values()), every, number)
    assert choice is not None
    of_lr = choice.runs
    chosen = [value for run in of_lr if (value := number.of(run)) is not None]
    last = [value for run in of_lr if (value := LAST10.of(run)) is not None]
    mean = mean_of(chosen)
    first = min(of_lr, key=lambda run: run["seed"])
    result = CellResult(
        **key._asdict(),
        accuracy=mean,
        spread=(sum((v - mean) ** 2 for v in chosen) / (len(chosen) - 1)) ** 0.5 if len(chosen) > 1 else None,
        least=min(chosen),
        most=max(chosen),
        lr=choice.lr,
        seeds=len(chosen),
        lrs=choice.lrs,
        budget=_budget(part),
        ended=part[0]["status"] in ENDED,
        whole=_whole(part),
        differs=_differs(part[0]),
        params=None if first["params"] is None else int(first["params"]),
        fingerprint=first["fingerprint"],
        directory=first["directory"],
        last10=mean_of(last) if len(last) == len(of_lr) else None,
        edge=choice.edge,
        collapsed=sum(map(collapsed, of_lr)),
        looks=max(map(looks, of_lr)),
    )
    return result, doubles, choice.shared
