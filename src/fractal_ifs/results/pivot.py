"""A table of any sweep: what varied as rows and columns, in each cell the best learning rate, its mean and spread."""

from __future__ import annotations

import difflib
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fractal_ifs.errors import ConfigError, counted, short
from fractal_ifs.measures.own import is_ours
from fractal_ifs.results.choice import (
    APART,
    Run,
    best_lr,
    order_of_doubles,
    pruned_at_rungs,
    unlike_sets,
    validation_sets,
)
from fractal_ifs.results.columns import is_measured
from fractal_ifs.results.numbers import BEST, CHOOSING, VALIDATION, Number, collapsed, looks, mean_of
from fractal_ifs.results.protocol import keys_of_difference
from fractal_ifs.results.rows import runs_of
from fractal_ifs.results.values import by_value, plain_value
from fractal_ifs.results.varied import DRAWN, KEYS, follows, varied
from fractal_ifs.runs.records import SOURCES, Status, field_of, key_of
from fractal_ifs.runs.sources import differ

if TYPE_CHECKING:
    import pandas as pd

COUNTED = (
    Status.FINISHED,
    Status.STOPPED,
)  # runs whose numbers make a mean; of others alone only if all have not ended
NOT_MEASURED = "not measured"
ELSEWHERE = "of another lr"  # of a seed whose run at the learning rate of the mean was pruned
MOST_COLUMNS = 12
TOLD = (
    "data",
    "fractal",
    "fractal_depth",
    "curve",
    "depth",
    "width",
    "lr",
    "steps_asked",
    "model",
    "loss",
    "optimizer",
)


@dataclass(frozen=True)
class Entry:
    """A cell: all runs with the same values of the keys in rows and columns."""

    group: Sequence[Run]  # all its runs
    runs: Sequence[Run]  # whose numbers the mean is of: the seeds of one learning rate
    mean: float | None  # None: no run has the number
    sd: float | None  # over seeds; None for one seed
    lr: float | None  # the learning rate with the best mean
    lrs: int  # of so many
    compared: int  # of which so many were compared, as ``results.choice`` has it
    edge: bool  # it is the smallest or the largest of several
    shared: bool  # whether it was chosen on seeds that all learning rates have
    unsteady: bool  # whether a run diverged or failed at one of the learning rates
    ended: bool  # whether the runs have come to their end
    apart: Mapping[str, int]  # the runs beside it that are in no mean, by what became of them

    @property
    def n(self) -> int:
        """Of how many runs the mean is."""
        return len(self.runs)

    @property
    def collapsed(self) -> int:
        """How many of these answer the same for every point."""
        return sum(map(collapsed, self.runs))

    @property
    def mixed(self) -> bool:
        """Whether these were computed from different sources of their own: a class was edited between them."""
        of_network = [name for name in SOURCES if name != "measure_source"]
        return any(differ(name, *(run.get(name) for run in self.runs)) for name in of_network)

    @property
    def measured_otherwise(self) -> bool:
        """Whether these were measured by different sources of measures of their own."""
        return differ("measure_source", *(run.get("measure_source") for run in self.runs))


@dataclass(frozen=True)
class Pivot:
    """The table. ``entries`` is by the values of ``rows``, then by that of ``column``."""

    number: Number
    rows: Sequence[str]  # keys, as on the command line
    column: str | None  # another; None: a single column of numbers
    over_lr: bool  # whether a cell is the best over learning rates
    entries: Mapping[tuple[Any, ...], Mapping[Any, Entry]]
    runs: int  # how many runs the table is of
    same: Mapping[str, str]  # keys that are the same in all of them
    notes: Sequence[str]  # on runs that are in no cell
    columns: Sequence[Any] = field(init=False)  # the values of ``column``

    def __post_init__(self) -> None:
        values = dict.fromkeys(value for line in self.entries.values() for value in line)  # in an order of its own
        object.__setattr__(self, "columns", sorted(values, key=by_value))

    @property
    def cells(self) -> list[Entry]:
        """All cells."""
        return [entry for line in self.entries.values() for entry in line.values()]


def pivot(
    table: pd.DataFrame, inner: Sequence[str], number: Number = BEST, column: str | None = None, doubles: str = ""
) -> Pivot:
    """The table of some runs.

    Of the keys in which they differ, one has its values as columns, and the others are rows. Over seeds a cell is the
    mean, and over learning rates it is at the one of ``results.choice.best_lr``, unless learning rates are all that
    differs.

    Args:
        table: a row per run, with the columns of ``results.columns`` and ``inner``.
        inner: keys of groups that are columns of the table.
        column: the key whose values are columns, by its name in a config or in the table. None: the last that differs,
            has at most 12 values, and that all runs have.
        doubles: a column that tells runs apart that differ in no key, which is then a row. Empty: of such runs the
            first counts, and a note says so.

    Raises ConfigError where ``column`` is no key that differs here.
    """
    names = varied(table, inner)
    runs: Sequence[Run] = runs_of(table)
    column = None if column is None else _asked(column, names, runs, inner)
    over = [name for name in DRAWN if name != column]
    keys = [name for name in names if name not in over]
    if not keys and "lr" in names:
        over, keys = ["seed"], ["lr"]
    notes: list[str] = []
    identity = [*keys, *(name for name in over if name not in keys)]
    if len({_key(run, identity) for run in runs}) < len(runs):
        if doubles:
            keys.append(doubles)
        else:
            runs = _without_doubles(runs, identity, notes)
    if column is None and len(keys) > 1:
        few = [name for name in keys if len({str(run[name]) for run in runs}) <= MOST_COLUMNS]
        of_all = [name for name in few if all(run[name] is not None for run in runs)]  # not only of some choices
        column = (of_all or few or keys)[-1] if keys[-1] != doubles else None
        # Most cells would be empty, as with a margin of each width.
        if column is not None and column in inner and _follows(runs, column, keys):
            column = next((name for name in reversed(of_all) if not _follows(runs, name, keys)), None)
    rows = [name for name in keys if name != column]
    unlike = {name for run in runs for name in keys_of_difference(run)} & set(KEYS) - set(TOLD)
    alone = {name: {plain_value(run[name]) for run in runs} for name in (*TOLD, *sorted(unlike), *inner)}
    same = {
        name: min(values) for name, values in alone.items() if name not in keys and len(values) == 1 and values != {"-"}
    }
    groups: dict[tuple[Any, ...], dict[Any, list[Run]]] = {}
    for run in runs:
        line = groups.setdefault(_key(run, rows), {})
        line.setdefault("" if column is None else plain_value(run[column]), []).append(run)
    entries = {
        key: {value: _entry(groups[key][value], number) for value in sorted(groups[key], key=by_value)}
        for key in sorted(groups, key=lambda values: [by_value(value) for value in values])
    }
    same = {key_of(name): value for name, value in same.items()}
    over_lr = "lr" in over and "lr" in names
    return Pivot(number, [*map(key_of, rows)], column and key_of(column), over_lr, entries, len(runs), same, notes)


def entry_text(entry: Entry, with_n: bool, with_lr: bool, digits: int = 4) -> str:
    """A cell as text: ``0.8712 ± 0.0042 n=3 lr=0.001^``, and what became of runs that are in no mean.

    Where the training or the validation accuracy was measured, a second line has them after the last step beside that
    of the test set: ``train 0.9512, test 0.8701``.

    Args:
        with_n: say of how many seeds the mean is, which need not be where it is the same in all cells.
        with_lr: say at which learning rate, also where only one was tried: other cells may be at others.
    """
    parts: list[str] = []
    if entry.mean is not None:
        parts.append(f"{entry.mean:.{digits}f}" + (f" ± {entry.sd:.{digits}f}" if entry.sd is not None else ""))
        if with_n:
            parts.append(f"n={entry.n}")
        if with_lr:
            parts.append(f"lr={plain_value(entry.lr)}{'^' * entry.edge}")
        parts += _how_they_ended(entry)
    parts += [f"{'+' if parts else ''}{n} {status}" for status, n in sorted(entry.apart.items())]
    beside = _beside(entry, digits)
    return " ".join(parts) + (f"\n{beside}" if beside else "")


def _after(entry: Entry) -> dict[str, list[float]]:
    """The accuracies on each set after the last step, of the runs that have measured them."""
    names = {"train": "final_train_acc", "test": "final_test_acc", "val": "final_val_acc"}
    return {name: [v for run in entry.runs if (v := run.get(at)) is not None] for name, at in names.items()}


def _beside(entry: Entry, digits: int) -> str:
    """The accuracies on each set after the last step, if any but the test set's was measured in all runs."""
    means = {name: mean_of(found) for name, found in _after(entry).items() if found and len(found) == entry.n}
    if not means.keys() - {"test"}:
        return ""
    return ", ".join(f"{name} {mean:.{digits}f}" for name, mean in means.items())


def grid(table: Pivot) -> tuple[list[str], list[list[str]]]:
    """The table as text: its head, and its lines."""
    with_n = len({entry.n for entry in table.cells if entry.mean is not None}) > 1
    columns = [f"{table.column}={value}" for value in table.columns] if table.column else [table.number.head]
    lines = [
        [*key, *(entry_text(line[value], with_n, table.over_lr) if value in line else "" for value in table.columns)]
        for key, line in table.entries.items()
    ]
    return [*table.rows, *columns], lines


def numbers(table: Pivot) -> pd.DataFrame:
    """The numbers of a table, a row for each cell: its keys, then mean, standard deviation, how many runs, and lr."""
    import pandas as pd

    beside = [table.column] if table.column else []
    rows = [
        [
            *map(_plainly, (*key, *([value] if table.column else []))),
            table.number.head,
            cell.mean,
            cell.sd,
            cell.n,
            cell.lr,
        ]
        for key, line in table.entries.items()
        for value, cell in line.items()
    ]
    of_cell = ["number", "mean", "sd", "n", *([] if "lr" in (*table.rows, *beside) else ["lr"])]
    names = [*map(field_of, (*table.rows, *beside)), *of_cell]  # as in the table of the runs
    return pd.DataFrame([row[: len(names)] for row in rows], columns=pd.Index(names))


def _plainly(shown: str) -> str | None:
    """The value of a key from how a table shows it. None where the cell hasn't got it."""
    return None if shown == plain_value(None) else shown


def title(table: Pivot) -> str:
    """What the table's numbers are: ``The best test accuracy of all measurements, 12 runs``."""
    text = table.number.said
    lacking = sum(entry.apart.get(NOT_MEASURED, 0) for entry in table.cells)
    of = f", {lacking} of them {NOT_MEASURED}" if lacking else ""
    return f"{text[0].upper()}{text[1:]}, {counted(table.runs, 'run')}{of}"


def legend(table: Pivot) -> list[str]:
    """The lines below the table: what its numbers are and of how many runs, and what its marks mean."""
    cells = table.cells
    shown = [entry for entry in cells if entry.mean is not None]
    lines = [f"In all runs: {', '.join(f'{key}={value}' for key, value in table.same.items())}."] if table.same else []
    if table.number == BEST:
        of_runs = {looks(run) for entry in shown for run in entry.runs}
        if (most := max(of_runs, default=0)) > 1:
            over = f"{min(of_runs)} to {most}" if len(of_runs) > 1 else str(most)
            lines.append(
                f"best: a maximum over {over} looks at the test set, which is optimistic; final and last10 are not."
            )
        elif most:
            lines.append("best: of one look at the test set in each run.")
    if seeds := sorted({entry.n for entry in shown if entry.n > 1}):
        said = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        alone = " Without ±: one seed." if any(entry.n == 1 for entry in shown) else ""
        lines.append(f"±: the standard deviation over n={said} seeds.{alone}")
    elif shown:
        lines.append("n=1: one seed in each cell, so nothing is known of the spread over seeds.")
    if table.over_lr and shown:
        lines.append(_of_rates(table, shown))
    if text := pruned_at_rungs([run for entry in cells for run in entry.group]):
        text = f"pruned: {text}; runs were compared there one by one, not by means."
        if partly := sum(map(_partly_pruned, shown)):
            text += (
                f" In {counted(partly, 'cell')} some seeds' runs at what is shown were pruned: the mean is over those "
                "seeds alone in which it was left."
            )
        lines.append(text)
    if number := sum(entry.collapsed for entry in shown):
        lines.append(
            f"collapsed: {counted(number, 'run')} of those in the table, whose network answers the same for every "
            "point, as measures=[balance] says, or whose last measurements are stuck at the share of a class."
        )
    if number := sum(entry.mixed for entry in shown):
        lines.append(
            f"sources: in {counted(number, 'cell')} the mean is over runs of different sources of their model or loss, "
            "or from different checkpoints or images."
        )
    if _is_own(table.number) and (number := sum(entry.measured_otherwise for entry in shown)):
        lines.append(
            f"sources: in {counted(number, 'cell')} the mean is over runs of different sources of their measures."
        )
    if text := unlike_sets([_validation_sets(table.number, entry) for entry in shown]):
        lines.append(f"{text}.")
    if any(_beside(entry, 4) for entry in shown):
        lines.append("train, test, val: the accuracies after the last step, which have no part in a choice.")
    if partly := sum(any(0 < len(found) < entry.n for found in _after(entry).values()) for entry in shown):
        text = f"In {counted(partly, 'cell')} not all runs have measured train, test or val, which are left out there."
        lines.append(text)
    if apart := in_no_mean(table):
        lines.append(f"In no mean: {apart}.")
    return [*lines, *table.notes]


def _of_rates(table: Pivot, shown: Sequence[Entry]) -> str:
    """How the learning rates of a table's cells were chosen."""
    most = max((entry.compared for entry in table.cells), default=0)
    of = f"mean {CHOOSING[table.number.chosen_by]}" if table.number.chosen_by else "mean"
    text = f"lr: the best of up to {most} learning rates, by the {of} over the seeds that all of them have."
    fewer = sum(entry.compared < entry.lrs for entry in shown)
    if most == 1:
        why = "with a run to compare" if fewer else "; cells have different ones"
        text = f"lr: the only learning rate of its cell{' ' * bool(fewer)}{why}."
    elif fewer:
        text += f" In {counted(fewer, 'cell')} others were tried that have no run to compare."
    if unshared := sum(not entry.shared for entry in shown):
        text += (
            f" In {counted(unshared, 'cell')} they have none in common: there of those with the most seeds, by the "
            "mean over their own."
        )
    if any(entry.unsteady and entry.lrs > 1 for entry in shown):
        text += " One at which a run diverged or failed comes after all others."
    if edges := sum(entry.edge for entry in shown):
        text += f" ^: at the edge of those tried, in {counted(edges, 'cell')}; a better one may lie beyond."
    return text


def _partly_pruned(entry: Entry) -> bool:
    """Whether the mean is over those seeds alone that weren't pruned where it is shown."""
    seeds = {run["seed"] for run in entry.group if run["status"] == Status.PRUNED and run["lr"] == entry.lr}
    return entry.ended and bool(seeds - {run["seed"] for run in entry.runs})


def _validation_sets(number: Number, entry: Entry) -> set[int]:
    """The sizes of the validation sets that have a part in a cell: in its choice, its mean, or what stands beside."""
    if number.chosen_by == VALIDATION:
        return validation_sets([run for run in entry.group if not entry.ended or run["status"] in COUNTED])
    shows = number.column.startswith("val_") or len(_after(entry)["val"]) == entry.n
    return validation_sets(entry.runs) if shows else set()


def _is_own(number: Number) -> bool:
    """Whether it is a number that a function of the user's own has measured."""
    return is_measured(number.column) and not is_ours(number.column.partition("@")[0])


def in_no_mean(table: Pivot) -> str:
    """How many runs are in no mean, by what became of them: ``2 diverged, 1 failed``. Empty where there is none."""
    apart = Counter[str]()
    for entry in table.cells:
        apart.update(entry.apart)
    return ", ".join(f"{n} {status}" for status, n in sorted(apart.items()))


def _follows(runs: Sequence[Run], name: str, keys: Sequence[str]) -> bool:
    """Whether the value of a key is known by those of the other keys."""
    others = [key for key in keys if key != name]
    return follows([plain_value(run[name]) for run in runs], [_key(run, others) for run in runs])


def _key(run: Run, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(plain_value(run[name]) for name in names)


def _asked(key: str, names: list[str], runs: Sequence[Run], inner: Sequence[str]) -> str:
    """The column of a key. It joins ``names``, the keys that differ, where it follows from them. Raises ConfigError."""
    column = field_of(key)
    if column not in names and column in (*KEYS, *inner) and len({plain_value(run[column]) for run in runs}) > 1:
        names.append(column)
    if column not in names:
        keys = [*map(key_of, names)]
        near = difflib.get_close_matches(key, keys, 1, 0.6)
        known = f"did you mean {near[0]}?" if near else ", ".join(keys) or "there is none"
        raise ConfigError(f"columns={short(key)}: must be a key in which these runs differ: {known}")
    return column


def _without_doubles(runs: Sequence[Run], identity: Sequence[str], notes: list[str]) -> list[Run]:
    """The runs, of those with the same values of all keys the first."""
    first: dict[tuple[str, ...], Run] = {}
    for run in sorted(runs, key=order_of_doubles):
        first.setdefault(_key(run, identity), run)
    notes.append(
        f"{counted(len(runs) - len(first), 'run')} left out: another has the same keys and seed, they differ in how "
        "they were computed"
    )
    return list(first.values())


def _entry(group: Sequence[Run], number: Number) -> Entry:
    """The cell of some runs."""
    valued = [
        (run, value)
        for run in group
        if run["status"] not in APART and (value := number.of(run)) is not None
        if number.score(run) is not None  # else it can't be chosen
    ]
    ended = [(run, value) for run, value in valued if run["status"] in COUNTED]
    taken = ended or valued
    choice = best_lr([run for run, _ in taken], group, number)
    if choice is None:
        lrs = len({run["lr"] for run in group})
        return Entry(
            group=group, runs=[], mean=None, sd=None, ended=False, apart=_statuses(group),
            lr=None, lrs=lrs, compared=lrs, edge=False, shared=True, unsteady=False,
        )  # fmt: skip
    chosen, had = {id(run) for run in choice.runs}, {id(run) for run, _ in taken}
    values = [value for run, value in taken if id(run) in chosen]
    mean = mean_of(values)
    sd = statistics.stdev(values) if len(values) > 1 else None
    apart = _statuses([run for run in group if id(run) not in had])
    if any(run["status"] == Status.PRUNED for run in group):  # then each seed may have been left at another rate
        seeds = {run["seed"] for run in choice.runs}
        if elsewhere := sum(run["seed"] not in seeds for run, _ in ended):
            apart[ELSEWHERE] = elsewhere
    return Entry(**choice._asdict(), group=group, mean=mean, sd=sd, ended=bool(ended), apart=apart)


def _statuses(runs: Sequence[Run]) -> dict[str, int]:
    """How many runs there are of each status; of those that ended well, that they have no such number."""
    return dict(Counter(NOT_MEASURED if run["status"] in COUNTED else str(run["status"]) for run in runs))


def _how_they_ended(entry: Entry) -> list[str]:
    """What is to be said of a mean's runs: those that stopped early or still run, and those that collapsed."""
    found = Counter(str(run["status"]) for run in entry.runs if run["status"] != Status.FINISHED)
    steps = f" at {entry.runs[0]['steps']:,.0f}" if entry.n == 1 and entry.runs[0]["steps"] is not None else ""
    parts = [f"{status}{steps}" if entry.n == 1 else f"{n} {status}" for status, n in found.items()]
    if entry.collapsed:
        parts.append("collapsed" if entry.n == 1 else f"{entry.collapsed} collapsed")
    return parts
