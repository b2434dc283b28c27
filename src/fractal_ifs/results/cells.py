"""Every run below some directories as one table, and the cells of the paper's tables formed from it."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractal_ifs.config.schema import CONF, NOT_IN_FINGERPRINT, SINCE
from fractal_ifs.errors import ConfigError
from fractal_ifs.runs import records

if TYPE_CHECKING:
    import pandas as pd

CELL = ["data", "fractal", "fractal_depth", "curve", "depth", "width"]  # what names a cell of a table
PAPER_STEPS = {"fractal": 1_000_000, "cifar10": 60_000}  # section 5; Figure 7
PAPER_EVALUATIONS = {"fractal": 100, "cifar10": 60}  # an accuracy is the best of as many, here as there
ENDED = ("finished", "diverged")  # such runs have used the budget they were given
COLUMNS = [*CELL, "lr", "seed", "best_test_acc", "best_step", "final_test_acc", "status", "steps", "steps_asked"]
COLUMNS += [
    "eval_every",
    "seconds",
    "params",
    "batch_size",
    "loss",
    "optimizer",
    "model",
    "init",
    "precision",
    "engine",
]
COLUMNS += ["isa", "fingerprint", "setting", "differs", "torch", "fractal_ifs", "git_commit", "error", "directory"]
COLUMNS += ["verified", "history"]
NUMBERS = ["fractal_depth", "depth", "width", "lr", "seed", "best_test_acc", "best_step", "final_test_acc", "steps"]
NUMBERS += ["steps_asked", "eval_every", "seconds", "params", "batch_size"]

# Not part of a run's setting: what names its cell, what a cell is formed over, and what can't change a result.
_OUTSIDE = {*NOT_IN_FINGERPRINT, "depth", "width", "lr", "seed", "steps", "eval_every", "trainer"}


def collect(paths: Iterable[Path]) -> tuple["pd.DataFrame", list[str]]:
    """One row per run, and what has to be said about them.

    Args:
        paths: directories with runs at any depth below them, or a ``results.csv`` that an earlier report wrote.

    A run that is still training, or was killed, has a row from its ``history.csv``. Two records of one fingerprint are
    one run: the one that went further is kept. Raises ConfigError where a path holds no run, and on a later format.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for path in paths:
        found = _read_csv(path) if path.suffix == ".csv" else _read_directory(path, notes)
        if not found and path.is_dir() and any(".hydra" in names for _, names in records.walk(path)):
            raise ConfigError(f"{path}: no run has a measurement yet; `report status {path}` says how far they are")
        if not found:
            raise ConfigError(
                f"{path}: there is no run in this directory; give one that a sweep wrote, as multirun/NAME"
            )
        rows += found
    table = pd.DataFrame(rows, columns=pd.Index(COLUMNS))
    for name in NUMBERS:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    if unverified := int((table.verified == False).sum()):  # noqa: E712 (there are missing ones)
        notes.append(f"{unverified} runs were trained on images without the published checksum (data.verify=false)")
    return _without_doubles(table, notes), notes


def _read_csv(path: Path) -> list[dict[str, Any]]:
    import pandas as pd

    try:
        text = ("curve", "setting", "differs", "fingerprint", "history")
        table = pd.read_csv(path, dtype=dict.fromkeys(text, str))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: can't be read ({str(error).splitlines()[0]})") from None
    if missing := [name for name in (*CELL, "best_test_acc", "fingerprint", "setting") if name not in table]:
        raise ConfigError(f"{path}: not the results.csv of a report, it has no column {missing[0]}")
    if (bad := table.index[table.fingerprint.isna() | table.setting.isna()]).size:
        raise ConfigError(f"{path}: line {bad[0] + 2} is no row of it: {table.iloc[bad[0], 0]}")
    table["differs"] = table["differs"].fillna("")
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _read_directory(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no such directory")
    rows, torn = [], []
    for directory, names in records.walk(path):
        found = None
        if "result.json" in names:
            record = records.read_result(directory)
            found = row(directory, record) if record else None
            if found is None:
                torn.append(directory)
        if found is None and "history.csv" in names:
            found = _unfinished(directory)
        if found is not None:
            rows.append(found)
    if torn:
        notes.append(f"{len(torn)} records can't be read and are left out, the first: {torn[0]}/result.json")
    return rows


def row(directory: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The columns of a run, by name; None where its record is not whole."""
    from fractal_ifs.runs.run import fractal_depth

    config = record.get("config")
    if not isinstance(config, dict) or "status" not in record:
        return None
    return {
        **{key: value for key, value in record.items() if key != "config"},
        "fractal_depth": fractal_depth(config),
        "steps_asked": config.get("steps"),
        "directory": str(directory),
        "verified": config["data"].get("verify"),  # of images: whether they have the published checksum
        "history": history(directory),
        **_setting(config),
    }


def history(directory: Path) -> str | None:
    """The test accuracy at each evaluation, every ``eval_every`` steps and at the last step: ``0.5012 0.6044``."""
    try:
        lines = (directory / "history.csv").read_text().splitlines()[1:]
        return " ".join(f"{float(line.rsplit(',', 1)[1]):.4f}" for line in lines) or None
    except (OSError, ValueError, IndexError):
        return None


def learning_curve(run: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    """(steps, test accuracies) of a row's ``history``; empty where it has none."""
    accuracies = [float(value) for value in str(run["history"] or "").split()]
    every, last = int(run["eval_every"]), int(run["steps"])
    return [min(every * (i + 1), last) for i in range(len(accuracies))], accuracies


def command(run: Mapping[str, Any]) -> str | None:
    """What trains a run of the paper's protocol alone, to the same numbers; None for a run of another protocol."""
    if run["data"] != "fractal" or run["differs"]:
        return None
    keys = {"fractal": run["fractal"], "fractal.depth": f"{run['fractal_depth']:g}", "curve": run["curve"]}
    keys |= {"depth": f"{run['depth']:.0f}", "width": f"{run['width']:.0f}"}
    keys |= {"lr": repr(float(run["lr"])), "seed": f"{run['seed']:.0f}"}
    budget = {"steps": f"{run['steps_asked']:.0f}", "eval_every": f"{run['eval_every']:.0f}"}
    usual = {"fractal.depth": "5", "steps": "1000000", "eval_every": "10000"}
    words = [f"{key}={value}" for key, value in {**keys, **budget}.items() if usual.get(key) != value]
    return " ".join(["python -m fractal_ifs.train", *words])


def _unfinished(directory: Path) -> dict[str, Any] | None:
    """The row of a run without a record: what its history and its config say."""
    import yaml

    from fractal_ifs.runs.run import keys_of

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        config = yaml.load((directory / ".hydra" / "config.yaml").read_text(), loader)
        config["lr"] = float(config["lr"])
        rows = [line.split(",") for line in (directory / "history.csv").read_text().splitlines()[1:]]
        best = max(rows, key=lambda line: float(line[4]))
        record = {
            "status": "running",
            "best_test_acc": float(best[4]),
            "best_step": int(best[0]),
            "final_test_acc": float(rows[-1][4]),
            "steps": int(rows[-1][0]),
            "seconds": float(rows[-1][1]),
            **keys_of(config),
            "config": config,
        }
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    return row(directory, record)


def _setting(config: Mapping[str, Any]) -> dict[str, str]:
    """What else a run was: a hash of all that names no cell, and how that differs from the paper's protocol."""
    flat = _flat({key: value for key, value in config.items() if key not in _OUTSIDE and SINCE.get(key) != value})
    if flat.get("data.name", "fractal") != "fractal":
        # Where images lie, and whether they were compared with the published checksum, is no protocol.
        skipped = ("fractal.", "curve.", "data.dir", "data.url", "data.verify")
        flat = {key: value for key, value in flat.items() if not key.startswith(skipped)}
    flat["trainer.precision"] = str(config.get("trainer", {}).get("precision", "32-true"))
    return dict(zip(("setting", "differs"), _compared(json.dumps(flat, sort_keys=True)), strict=True))


@lru_cache(maxsize=65536)
def _compared(text: str) -> tuple[str, str]:
    flat = json.loads(text)
    names = tuple(str(flat.get(f"{group}.name")) for group in ("fractal", "curve", "data", "model"))
    paper = _protocol(*names)
    differs = [f"{key}={value}" for key, value in sorted(flat.items()) if key not in paper or paper[key] != value]
    return hashlib.sha256(text.encode()).hexdigest()[:12], ", ".join(differs)


@lru_cache
def _protocol(*names: str) -> dict[str, Any]:
    """The flat keys of the paper's protocol: what conf/ holds, its defaults, under these names."""
    import yaml

    config = yaml.safe_load((CONF / "config.yaml").read_text())
    own = CONF / "protocol" / f"{names[2]}.yaml"
    config |= yaml.safe_load(own.read_text()) if own.exists() else {}
    flat = {key: value for key, value in config.items() if key not in (*_OUTSIDE, "defaults", "hydra")}
    for group, name in zip(("fractal", "curve", "data", "model"), names, strict=True):
        path = CONF / group / f"{name}.yaml"
        if path.exists():
            flat[group] = yaml.safe_load(path.read_text())
    return _flat(flat) | {"trainer.precision": "32-true"}


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """``{"data.name": ...}``, without the fractal's depth, which names the cell. Null is as good as absent."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{k}": v for k, v in value.items() if v is not None}
        elif value is not None:
            flat[key] = value
    flat.pop("fractal.depth", None)
    return flat


def _without_doubles(table: "pd.DataFrame", notes: list[str]) -> "pd.DataFrame":
    table = table.assign(ended=table.status.isin(ENDED)).sort_values(["ended", "steps"], kind="stable", ascending=False)
    ended = table.loc[table.ended & table.fingerprint.notna()]
    apart = ended.groupby("fingerprint").best_test_acc.agg(["min", "max", "size"])
    apart = apart.loc[apart["max"] > apart["min"]]
    if len(apart):
        notes.append(
            f"{len(apart)} runs are there twice with different accuracies (by up to "
            f"{(apart['max'] - apart['min']).max():.4f}; another engine or machine?), the first read is kept: "
            f"fingerprint {apart.index[0]}"
        )
    double = table.fingerprint.notna() & table.duplicated("fingerprint")
    here = table.dropna(subset=["fingerprint", "directory"])
    if again := int(here.duplicated("fingerprint").sum()):
        notes.append(f"{again} runs are there more than once, and counted once")
    where = here.drop_duplicates("fingerprint").set_index("fingerprint")
    table["directory"] = table.directory.fillna(table.fingerprint.map(where.directory))
    return table.loc[~double].sort_index().drop(columns="ended").reset_index(drop=True)


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
        if run["best_test_acc"] is not None and run["steps"] and run["status"] != "failed":
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
