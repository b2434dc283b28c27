"""The cells of the paper's tables, formed from rows of runs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fractal_ifs.results.rows import CELL, ENDED
from fractal_ifs.runs.records import Status

if TYPE_CHECKING:
    import pandas as pd

PAPER_STEPS = {"fractal": 1_000_000, "cifar10": 60_000}  # section 5; Figure 7
PAPER_EVALUATIONS = {"fractal": 100, "cifar10": 60}  # an accuracy is the best of as many, here as there


def cells(runs: "pd.DataFrame") -> tuple["pd.DataFrame", list[str]]:
    """One row per cell, and what is said of cells that several configs claim.

    Only runs of one setting and one budget form a cell: of the settings the nearest to the paper's, then the paper's
    budget, else the largest (the steps asked for; for runs that have not ended, the steps that all of them have done).
    Columns: ``CELL``, ``accuracy``, ``spread`` (standard deviation over seeds), ``least``, ``most``, ``lr``, ``seeds``,
    ``lrs``, ``budget``, ``ended``, ``whole`` (ended, at the paper's budget), ``differs`` (also where the maximum is of
    more evaluations than the paper's), ``params``, ``fingerprint`` and ``directory`` (of the first seed's run, for its
    learning curve and picture).

    The learning rate is the one with the best mean over the seeds that all of the cell's learning rates have, as the
    paper chooses on one seed; the accuracy is the mean over all seeds of that learning rate. No maximum over seeds.
    """
    import pandas as pd

    groups: dict[tuple, list[dict[str, Any]]] = {}
    for run in runs.astype(object).where(runs.notna(), None).to_dict("records"):
        if run["best_test_acc"] is not None and run["steps"] and run["status"] != Status.FAILED:
            groups.setdefault(tuple(run[key] for key in CELL), []).append(run)
    rows, notes, other_budgets = [], [], 0
    for key in sorted(groups, key=lambda values: [(isinstance(v, str), v or 0) for v in values]):
        group, cell = groups[key], dict(zip(CELL, key, strict=True))
        candidates: dict[tuple, list[dict[str, Any]]] = {}
        for run in group:
            part = tuple(run[k] for k in ("setting", "steps_asked", "eval_every"))
            candidates.setdefault((*part, run["status"] in ENDED), []).append(run)
        chosen = min(candidates.values(), key=_rank)
        first = chosen[0]
        other_budgets += sum(run["setting"] == first["setting"] and _asked(run) != _asked(first) for run in group)
        if others := [run for run in group if run["setting"] != first["setting"]]:
            ways = sorted({run["differs"] or "as the paper" for run in others})
            notes.append(
                f"{name(cell)}: {1 + len({run['setting'] for run in others})} different configs claim this cell; "
                f"shown: {first['differs'] or 'as the paper'}; left out, {len(others)} runs: {'; '.join(ways)}"
            )
        same = [run for run in group if all(run[k] == first[k] for k in ("setting", "steps_asked"))]
        if len(every := sorted({run["eval_every"] for run in same})) > 1:
            notes.append(
                f"{name(cell)}: runs with eval_every={', '.join(f'{e:g}' for e in every)} claim this cell; "
                f"shown: {first['eval_every']:g}"
            )
        best, doubles = _best(chosen)
        notes += [f"{name(cell)}: {double}" for double in doubles]
        state = {"budget": _budget(chosen), "ended": first["status"] in ENDED, "whole": _whole(chosen)}
        rows.append(cell | best | state | {"differs": _differs(first)})
    if other_budgets:
        notes.append(f"{other_budgets} runs of another budget than that of their cell are left out of it")
    return pd.DataFrame(rows, columns=pd.Index([*CELL, *CELL_VALUES])), notes


def _rank(part: Sequence[Mapping[str, Any]]) -> tuple:
    """The least of a cell's parts is shown."""
    differs = _differs(part[0])
    return len(differs.split(", ")) if differs else 0, not _whole(part), -_budget(part), -len(part)


def _asked(run: Mapping[str, Any]) -> tuple:
    return run["steps_asked"], run["status"] in ENDED


def _whole(part: Sequence[Mapping[str, Any]]) -> bool:
    """Ended, at the paper's budget where it has one."""
    budget = _budget(part)
    return part[0]["status"] in ENDED and budget == PAPER_STEPS.get(part[0]["data"], budget)


def _differs(run: Mapping[str, Any]) -> str:
    """How a run differs from the paper's protocol; a maximum over more evaluations is another number."""
    evaluations = run["steps_asked"] / run["eval_every"]
    more = evaluations > PAPER_EVALUATIONS.get(run["data"], evaluations)
    return ", ".join(part for part in (run["differs"], f"eval_every={run['eval_every']:g}" if more else "") if part)


def _budget(part: Sequence[Mapping[str, Any]]) -> int:
    return int(part[0]["steps_asked"] if part[0]["status"] in ENDED else min(run["steps"] for run in part))


CELL_VALUES = ["accuracy", "spread", "least", "most", "lr", "seeds", "lrs", "budget", "ended", "whole", "differs"]
CELL_VALUES += ["params", "fingerprint", "directory"]


def _best(part: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    values: dict[float, dict[Any, float]] = {}
    taken, doubles = [], []
    for run in sorted(part, key=lambda run: (not run["verified"], str(run["fingerprint"]))):
        seeds = values.setdefault(run["lr"], {})
        if run["seed"] in seeds:
            doubles.append(
                f"two runs of lr={run['lr']:g} seed={run['seed']:g}, which differ in how they were computed or whether "
                f"their images were verified; shown: {seeds[run['seed']]:.4f}, left out: {run['best_test_acc']:.4f}"
            )
            continue
        seeds[run["seed"]] = run["best_test_acc"]
        taken.append(run)
    shared = set.intersection(*(set(seeds) for seeds in values.values()))
    score = {
        lr: _mean([v for seed, v in seeds.items() if not shared or seed in shared]) for lr, seeds in values.items()
    }
    lr = max(score, key=lambda value: score[value])
    chosen = list(values[lr].values())
    mean = _mean(chosen)
    first = min((run for run in taken if run["lr"] == lr), key=lambda run: run["seed"])
    return {
        "accuracy": mean,
        "spread": (sum((v - mean) ** 2 for v in chosen) / (len(chosen) - 1)) ** 0.5 if len(chosen) > 1 else None,
        "least": min(chosen),
        "most": max(chosen),
        "lr": lr,
        "seeds": len(chosen),
        "lrs": len(values),
        "params": first["params"],
        "fingerprint": first["fingerprint"],
        "directory": first["directory"],
    }, doubles


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def name(cell: Mapping[str, Any]) -> str:
    """``vicsek n=5 curve 4 depth 5 width 20``."""
    depth = cell["fractal_depth"]
    where = f"{cell['fractal']} n={depth:g} curve {cell['curve']}" if cell["data"] == "fractal" else str(cell["data"])
    return f"{where} depth {cell['depth']:g} width {cell['width']:g}"
