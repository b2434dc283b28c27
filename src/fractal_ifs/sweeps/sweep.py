"""The jobs of a sweep, or one job: skip what is finished, train the rest group by group, and end with one table."""

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractal_ifs.config.schema import SINCE, Job, on_this_machine, steps_in_all
from fractal_ifs.results import finished_runs as kept
from fractal_ifs.runs import records
from fractal_ifs.runs.locks import Busy, Lock

if TYPE_CHECKING:
    import pandas as pd

    from fractal_ifs.training.rounds import Training


log = logging.getLogger(__name__)

swept: list[Path] = []  # the directories of this process's sweeps, whose tables are shown at its end
failed: dict[Path, dict[str, Any]] = {}  # the record of each job that failed under this process, by its directory


class JobsFailed(Exception):
    """Some jobs of a sweep failed; the others are finished."""


def finished(job: Job) -> dict[str, Any] | None:
    """The record of a job that needs no more training. Raises ConfigError where another config was trained there.

    Of a job that was not trained here but stands in its table ``kept``: what ``kept.find`` tells.
    """
    record = records.finished(job)
    if record is None and job.directory is not None and not job.config["overwrite"]:
        return None if records.read_result(job.directory) else kept.find(job.config)
    return record


def train_jobs(
    jobs: Sequence[Job], executor: str = "inline", stack: int = 0, together: bool = False
) -> list[dict[str, Any] | Exception]:
    """Train what is not finished; returns the record of every job, or the exception that it failed with.

    ``executor`` (``inline`` or ``local``) and ``stack`` are the keys of conf/hydra/launcher/fused.yaml; ``together`` as
    of ``training.train``.
    """
    results: dict[int, Any] = {number: record for number, job in enumerate(jobs) if (record := finished(job))}
    todo = [number for number in range(len(jobs)) if number not in results]
    keeper = kept.Keeper(jobs)
    keeper.add()
    if results:
        log.info("%d of %d jobs are finished already: skipped", len(results), len(jobs))
        for changed in sorted({records.other_versions(record) for record in results.values()} - {""}):
            log.warning("of these, some were trained by other versions: %s", changed)
    if todo:
        from fractal_ifs import engines
        from fractal_ifs.data.images import check_images
        from fractal_ifs.sweeps.executors import execute
        from fractal_ifs.sweeps.progress import Progress

        jobs = [on_this_machine(job) for job in jobs]
        for reason in sorted({str(engines.choose(jobs[number].config)[1]) for number in todo} - {"None"}):
            log.info("engine=torch: %s", reason)
        check_images([jobs[number].config for number in todo])
        progress = Progress(len(todo), sum(steps_in_all(jobs[number].config) for number in todo))

        def report(training: "Training") -> None:
            progress(training)
            keeper.add(every=60.0)

        try:
            for numbers, outcomes in execute([jobs[number] for number in todo], executor, stack, report, together):
                for number, outcome in zip(numbers, outcomes, strict=True):
                    results[todo[number]] = outcome
                    if isinstance(outcome, Exception):
                        report_failure(jobs[todo[number]], outcome)
                progress.group_ended(
                    sum(steps_in_all(jobs[todo[number]].config) for number in numbers),
                    len(numbers),
                    sum(isinstance(o, Exception) or o["status"] != "finished" for o in outcomes),
                )
                keeper.add()
        finally:
            progress.close()
            keeper.add()
    return [results[number] for number in range(len(jobs))]


def report_failure(job: Job, error: Exception) -> None:
    """Name it at once, and keep it for the end and for the table."""
    from fractal_ifs.training.rounds import failure

    log.error("%s: %s: %s", "busy" if isinstance(error, Busy) else "failed", job.directory, records.message(error))
    if job.directory is not None and not isinstance(error, Busy):
        failed[job.directory.absolute()] = failure(job, error)


def show_failed() -> None:
    """Name, at the end, every job that failed, with the path of its log."""
    if failed:
        print(f"{len(failed)} jobs failed; the same command trains these again:")
        for directory, record in failed.items():
            print(f"  {directory}: {record['error']} (see {directory / 'train.log'})")


@contextlib.contextmanager
def driving(directory: Path) -> Iterator[None]:
    """Hold a sweep's directory against a second driver. Raises Busy."""
    lock = Lock(directory, "sweep")
    try:
        yield
    finally:
        lock.release()


KEYS = ("fractal", "fractal_depth", "curve", "data", "model", "depth", "width", "lr", "seed", "batch_size", "loss")
KEYS += ("optimizer", "init", "training", "precision", "eval_every")


def frame(directory: Path) -> "pd.DataFrame":
    """A row per record below a sweep's directory."""
    import pandas as pd

    directory = directory.absolute()
    found = dict(records.find(directory))
    found |= {path: record for path, record in failed.items() if directory in path.parents}  # if not written there
    rows = [
        {"directory": str(path.relative_to(directory)), **SINCE, **{k: v for k, v in record.items() if k != "config"}}
        | {"steps_asked": record["config"]["steps"]}
        | leaves({group: record["config"][group] for group in ("fractal", "curve", "data", "model")})
        for path, record in sorted(found.items())
    ]
    table = pd.DataFrame(rows)
    # Of the keys within a group: those by which runs differ that are the same in all of KEYS.
    named = [key for key in (*KEYS, "steps_asked") if key in table]
    inner = [key for key in table if "." in str(key)]
    if inner:
        differ = table.groupby(named, dropna=False)[inner].nunique(dropna=False).max() > 1
        table = table.drop(columns=[key for key in inner if not bool(differ[key])])
    return table


def leaves(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"data.margin": 0.0, ...}``; lists as text."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value) if isinstance(value, list) else value
    return found


def show_table(directory: Path) -> None:
    """Print the sweep's table, the swept keys as rows and columns, and write all of it to results.csv."""
    table = frame(directory)
    if table.empty:
        return
    try:
        records.write(directory / "results.csv", table.to_csv(index=False).encode())
    except OSError as error:
        log.error("%s can't be written (%s)", directory / "results.csv", error.strerror)
    inner = [str(key) for key in table if "." in str(key)]
    swept = [
        key for key in (*KEYS, *inner, "steps_asked") if key in table and bool(table[key].nunique(dropna=False) > 1)
    ]
    swept = [
        key for key in swept if not (key == "fractal_depth" and len(swept) > 1 and bool(table[key].nunique() == 1))
    ]
    from rich.console import Console
    from rich.table import Table

    column = swept[-1] if len(swept) > 1 else None
    rows = swept[:-1] if column else swept
    columns = sorted(table[column].unique(), key=_order) if column else ["best test accuracy"]
    grid: dict[tuple, dict[Any, str]] = {}
    for line in table.to_dict("records"):
        accuracy = line.get("best_test_acc")
        cell = "" if accuracy is None or accuracy != accuracy else f"{accuracy:.4f}"
        cell += "" if line["status"] == "finished" else f" {line['status']}"
        key = tuple(line[row] for row in rows)
        grid.setdefault(key, {})[line[column] if column else columns[0]] = cell
    title = f"best test accuracy{f', columns: {column}' if column else ''}"
    if "precision" in table and (low := sorted(set(table["precision"].dropna()) - {"32-true"})):
        title += f"; precision {', '.join(low)}"
    out = Table(title=title)
    for name in [*rows, *columns]:
        out.add_column(str(name), justify="right")
    for key in sorted(grid, key=lambda values: [_order(v) for v in values]):
        out.add_row(*(str(v) for v in key), *(grid[key].get(c, "") for c in columns))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200).print(out)
    print(f"{directory / 'results.csv'}")


def _order(value: Any) -> tuple[int, float, str]:
    try:
        return (0, float(value), "")
    except (TypeError, ValueError):
        return (1, 0.0, str(value))
