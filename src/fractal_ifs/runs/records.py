"""The files of a run: result.json, history.csv, and begun.json until there is a result.

result.json is a public contract with a format number. ``_UPGRADES`` turn records of older formats into the current one.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from fractal_ifs.config.keys import checked
from fractal_ifs.config.run import RunConfig, placement
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.files import write

log = logging.getLogger(__name__)

FORMAT = 2
RESULT = "result.json"
HISTORY = "history.csv"
BEGUN = "begun.json"  # identifies a run that has no record yet
LOG = "train.log"


class Status(StrEnum):
    """The state of a run: still training, or how it ended."""

    RUNNING = "running"
    FINISHED = "finished"
    DIVERGED = "diverged"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def ended(self) -> bool:
        """Whether the run is complete, so that it is never trained further."""
        return self in (Status.FINISHED, Status.DIVERGED)


class NotUnderstood(ConfigError):
    """An intact record that this version can't read: it has a later format or unknown keys."""


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


def of_config(doc: str, kept: bool = True) -> Any:
    """A field of ``RunRecord`` that follows from the config. ``kept``: it is a column of the table of finished runs."""
    return dataclasses.field(metadata={"doc": doc, "of_config": True, "kept": kept})


def of_run(doc: str, kept: bool = True) -> Any:
    """A field of ``RunRecord`` that only training can fill, else None. ``kept``: as in ``of_config``."""
    return dataclasses.field(default=None, metadata={"doc": doc, "kept": kept})


@dataclass(frozen=True, kw_only=True, eq=False)
class RunRecord(Mapping[str, Any]):
    """The content of result.json. It can also be read as a mapping: ``record["best_test_acc"]``.

    The columns of all tables of runs follow from these fields and their order.
    """

    data: str = of_config("which data")
    fractal: str | None = of_config("the fractal's name")
    fractal_depth: int | None = of_config("n of K_n")
    curve: str | None = of_config("the curve's name")
    depth: int = of_config("hidden layers")
    width: int = of_config("units of a hidden layer")
    lr: float = of_config("learning rate")
    seed: int = of_config("seed")
    best_test_acc: float | None = of_run("the largest test accuracy of all evaluations")
    best_step: int | None = of_run("the step at which it was measured")
    final_test_acc: float | None = of_run("the test accuracy of the last evaluation")
    status: Status
    steps: int | None = of_run("optimizer steps done")
    steps_asked: int = of_config("the steps that the config asks for; in layer-wise training, of each layer")
    eval_every: int = of_config("steps between evaluations")
    seconds: float | None = of_run("the run's share of the wall time")
    params: int | None = of_run("number of weights and biases")
    batch_size: int = of_config("points in a batch")
    loss: str = of_config("loss")
    optimizer: str = of_config("optimizer")
    model: str = of_config("which network")
    init: str = of_config("initial weights")
    training: str = of_config("joint or layerwise", kept=False)  # the table of finished runs says so in ``differs``
    precision: str = of_config("precision of numbers")
    engine: str | None = of_run("what computed the steps")
    isa: str | None = of_run("instruction set of the native engine")
    native_build: str | None = of_run("compiler and flags of the native engine", kept=False)
    fingerprint: str = of_config("hash of everything that can change the result")
    torch: str | None = of_run("version of torch")
    fractal_ifs: str | None = of_run("version of this package")
    git_commit: str | None = of_run("commit of the source tree")
    git_modified: bool | None = of_run("whether a tracked file differed from that commit", kept=False)
    error: str | None = of_run("why it failed", kept=False)
    config: RunConfig

    @classmethod
    def of(cls, config: RunConfig, status: Status, **values: Any) -> RunRecord:
        """The record of a run of this config. ``values``: the fields that only training can fill."""
        return cls(**{**keys_of(config), **values}, status=status, config=config)

    def plain(self) -> dict[str, Any]:
        """The content as result.json stores it."""
        return {"format": FORMAT, "status": self.status, **self}

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self}

    def __getitem__(self, name: str) -> Any:
        if name not in _NAMES:
            raise KeyError(name)
        value = getattr(self, name)
        return value.plain() if name == "config" else value

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)

    def __hash__(self) -> int:
        return hash((self.fingerprint, self.status, self.steps))


_NAMES = tuple(field.name for field in dataclasses.fields(RunRecord))
_NUMBERS = ("best_test_acc", "best_step", "final_test_acc", "steps", "seconds", "params")
COLUMNS = tuple(name for name in _NAMES if name != "config")
NOT_KEPT = tuple(field.name for field in dataclasses.fields(RunRecord) if not field.metadata.get("kept", True))
KEYS = tuple(field.name for field in dataclasses.fields(RunRecord) if field.metadata.get("of_config"))


def keys_of(config: RunConfig) -> dict[str, Any]:
    """The fields of a record that are computed from its config alone: ``KEYS``."""
    synthetic = config.synthetic
    special = {
        "data": config.data.name,
        "fractal": config.fractal.name if synthetic else None,
        "fractal_depth": config.fractal.depth if synthetic else None,
        "curve": config.curve.name if synthetic else None,
        "model": config.model.name,
        "init": config.model.init,
        "precision": config.trainer.precision,
        "steps_asked": config.steps,
    }
    return {name: special[name] if name in special else getattr(config, name) for name in KEYS}


def write_record(directory: Path, record: RunRecord) -> None:
    """Write result.json. Raises OSError."""
    write(directory / RESULT, (json.dumps(record.plain(), indent=1) + "\n").encode())


def read_record(directory: Path) -> RunRecord | None:
    """The record of the run in ``directory``, or None if there is none or it is torn.

    Raises NotUnderstood for a later format or an unknown key: this version must not overwrite such a record.
    """
    path = directory / RESULT
    try:
        found = json.loads(path.read_text())
        number = int(found["format"])
        if number < 1 or (number <= FORMAT and not {"status", "fingerprint", "config"} <= found.keys()):
            return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if number > FORMAT:
        raise NotUnderstood(f"{path}: format {number}; this version reads up to {FORMAT}, update it")
    for older in range(number, FORMAT):
        found = _UPGRADES[older](found)
    try:
        status = Status(found["status"])
    except ValueError:
        return None
    try:
        config = _config_of(found["config"])
    except (ConfigError, TypeError, AttributeError) as error:
        raise NotUnderstood(f"{path}: can't be understood by this version: {error}") from None
    values = {name: found.get(name) for name in _NAMES if name not in (*KEYS, "status", "config")}
    for name in _NUMBERS:
        if not (values[name] is None or (isinstance(values[name], int | float) and not isinstance(values[name], bool))):
            reason = f"{name}={short(values[name])}: must be a number"
            raise NotUnderstood(f"{path}: can't be understood by this version: {reason}")
    if found["fingerprint"] in config.fingerprints:  # of several spellings the one that tables may have
        values["fingerprint"] = found["fingerprint"]
    return RunRecord.of(config, status, **values)


def _config_of(keys: dict[str, Any]) -> RunConfig:
    """The config in a record. What can't change a result need not be valid any more. Raises ConfigError."""
    checked("config", keys, Mapping[str, Any], {})
    try:
        return RunConfig.parse(keys)
    except ConfigError:
        needed = {name: value for name, value in keys.items() if name not in placement()}
        return RunConfig.parse(needed | {"logger": {"name": "none"}})


def understood(directory: Path) -> RunRecord | None:
    """As ``read_record``, but None, with a warning, for a record that this version doesn't understand."""
    try:
        return read_record(directory)
    except NotUnderstood as error:
        log.warning("left out: %s", error)
        return None


def _from_1(record: dict[str, Any]) -> dict[str, Any]:
    """Format 2 adds ``steps_asked``, which follows from the config, and ``native_build`` and ``git_modified``: None."""
    return record


_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}


def write_history(directory: Path, history: Sequence[Evaluation]) -> None:
    """Write history.csv: one row per evaluation. Raises OSError."""
    lines = [",".join(Evaluation._fields)] + [f"{s},{t:.3f},{a!r},{b!r},{c!r}" for s, t, a, b, c in history]
    write(directory / HISTORY, ("\n".join(lines) + "\n").encode())


def read_history(directory: Path) -> list[Evaluation]:
    """The rows of history.csv. Raises OSError or ValueError if it can't be read."""
    lines = (directory / HISTORY).read_text().splitlines()[1:]
    rows = [line.split(",") for line in lines]
    return [Evaluation(int(row[0]), *map(float, row[1:5])) for row in rows]


class Begun(NamedTuple):
    """The content of begun.json: what identifies a run that has no record yet."""

    config: RunConfig
    wandb_id: str | None


def write_begun(directory: Path, begun: Begun) -> None:
    """Write begun.json. Raises OSError."""
    content = {"fingerprint": begun.config.fingerprint, "wandb_id": begun.wandb_id, "config": begun.config.plain()}
    write(directory / BEGUN, json.dumps(content).encode())


def read_begun(directory: Path) -> Begun | None:
    """The content of begun.json; None if it is missing or can't be read."""
    try:
        found = json.loads((directory / BEGUN).read_text())
        return Begun(RunConfig.parse(found["config"]), found.get("wandb_id"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # a ConfigError is a ValueError
        return None


def find(directory: Path) -> Iterator[tuple[Path, RunRecord]]:
    """Every record at or below a directory, in order of names. Warns of records that this version can't read."""
    for path, names in walk(directory):
        if RESULT in names and (record := understood(path)):
            yield path, record


def walk(path: Path) -> Iterator[tuple[Path, set[str]]]:
    """Every directory at or below a path that may hold a run, with the names in it, in order.

    Directories that disappear meanwhile are skipped.
    """
    for directory, below, files in os.walk(path):
        names = {*files, *below}
        if RESULT in names or HISTORY in names or ".hydra" in names:
            yield Path(directory), names
        below[:] = sorted(name for name in below if not name.startswith(".") and name != "wandb")


def read_composed(directory: Path) -> RunConfig | None:
    """The config that Hydra wrote for a job, which may not have begun; None if it isn't one of this package."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return RunConfig.parse(yaml.load((directory / ".hydra" / "config.yaml").read_text(), loader))
    except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError):
        return None


def note(directory: Path | None, text: str) -> None:
    """Append a line to the log in a run's directory, the file that Hydra's launchers log to. None: do nothing."""
    if directory is not None:
        with open(directory / LOG, "a", encoding="utf-8") as file:
            file.write(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}\n")
