"""The files of a run: result.json, and begun.json until there is one. ``runs.history`` has history.csv.

result.json is a public contract with a format number. ``_UPGRADES`` turn records of older formats into the current one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, Self, cast, get_args, get_origin, get_type_hints

from fractal_ifs.config.run import RunConfig, placement
from fractal_ifs.errors import ConfigError, Damaged, Refused, reason, short
from fractal_ifs.files import append, read, read_yaml, write

log = logging.getLogger(__name__)

FORMAT = 2
MOST_BYTES = 1 << 24  # of a file in JSON
RESULT = "result.json"
HISTORY = "history.csv"
WANDB = "wandb"  # the directory of W&B's files of a run
BEGUN = "begun.json"  # identifies a run that has no record yet
LOG = "train.log"
MOST_NAMED = 3  # runs of a sweep that a refusal names
SWEEP = "multirun.yaml"  # the config of a sweep, in its directory
TABLE = "results.csv"  # its runs


class Status(StrEnum):
    """The state of a run: still training, or how it ended."""

    RUNNING = "running"
    FINISHED = "finished"
    DIVERGED = "diverged"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped"  # by its own key stop.accuracy or stop.patience
    PAUSED = "paused"  # at a rung of a sweep with hydra/sweeper=halving, which may take it further
    PRUNED = "pruned"  # by that sweep, which doesn't; another command may

    @property
    def ended(self) -> bool:
        """Whether the run is complete, so that it is never trained further."""
        return self in (Status.FINISHED, Status.DIVERGED, Status.STOPPED)

    @property
    def well(self) -> bool:
        """Whether the run came as far as it was to come now."""
        return self in (Status.FINISHED, Status.STOPPED, Status.PAUSED, Status.PRUNED)


class NotUnderstood(Refused):
    """An intact record that this version can't read: it has a later format or unknown keys."""


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
    last10_test_acc: float | None = of_run("the mean test accuracy of the last ten evaluations")
    chosen_test_acc: float | None = of_run("the test accuracy where val_acc was best; none without that measure")
    chosen_step: int | None = of_run("the step at which it was measured")
    best_val_acc: float | None = of_run("the largest val_acc of all evaluations")
    val_points: int | None = of_run("the number of points on which val_acc was measured")
    final_train_acc: float | None = of_run("the training accuracy of the last evaluation, if that was measured")
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
    init: str | None = of_config("initial weights; none of a network of one's own")
    training: str = of_config("joint or layerwise", kept=False)  # the table of finished runs says so in ``differs``
    precision: str = of_config("precision of numbers")
    engine: str | None = of_run("what computed the steps")
    isa: str | None = of_run("instruction set of the native engine")
    native_build: str | None = of_run("compiler and flags of the native engine", kept=False)
    torch_kernels: str | None = of_run("what torch computed with on a CPU, see ``runs.kernels``", kept=False)
    fingerprint: str = of_config("hash of everything that can change the result")
    torch: str | None = of_run("version of torch")
    fractal_ifs: str | None = of_run("version of this package")
    git_commit: str | None = of_run("commit of the source tree")
    git_modified: bool | None = of_run("whether a tracked file differed from that commit", kept=False)
    model_source: str | None = of_run("hash of the file that a network of one's own comes from")
    loss_source: str | None = of_run("hash of the file that a loss of one's own comes from")
    ckpt_source: str | None = of_run("hash of the checkpoint of Lightning's that it began from")
    measure_source: str | None = of_run("MODULE=HASH of each file that measures of one's own come from")
    data_source: str | None = of_run("hash of the images it was trained on, where they needn't be the published ones")
    error: str | None = of_run("why it failed", kept=False)
    measured: Mapping[str, float] | None = of_run("what measures found at the last evaluation", kept=False)
    stopped: str | None = of_run("what ended it before its last step: a key of stop, or a sweep's rung", kept=False)
    config: RunConfig

    @classmethod
    def of(cls, config: RunConfig, status: Status, **values: Any) -> Self:
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


# Of what a run's numbers come from, besides its config and this package.
SOURCES = ("model_source", "loss_source", "ckpt_source", "measure_source", "data_source")

_NAMES = tuple(field.name for field in dataclasses.fields(RunRecord))
COLUMNS = tuple(name for name in _NAMES if name not in ("config", "measured"))
NOT_KEPT = tuple(field.name for field in dataclasses.fields(RunRecord) if not field.metadata.get("kept", True))
KEYS = tuple(field.name for field in dataclasses.fields(RunRecord) if field.metadata.get("of_config"))
_KEY_OF = {  # fields that have other names than their keys
    "data": "data.name",
    "fractal": "fractal.name",
    "fractal_depth": "fractal.depth",
    "curve": "curve.name",
    "model": "model.name",
    "loss": "loss.name",
    "optimizer": "optimizer.name",
    "init": "model.init",
    "precision": "trainer.precision",
    "steps_asked": "steps",
}
# The fields that only training can fill, and their types.
OF_RUN: dict[str, type] = {
    name: get_origin(kind := get_args(hint)[0]) or kind
    for name, hint in get_type_hints(RunRecord).items()
    if name in _NAMES and name not in (*KEYS, "status", "config")
}


_VALUE_OF = {name: attrgetter(_KEY_OF.get(name, name)) for name in KEYS}


def keys_of(config: RunConfig) -> dict[str, Any]:
    """The fields of a record that are computed from its config alone: ``KEYS``."""
    lacking = () if config.synthetic else ("fractal", "fractal_depth", "curve")
    return {name: None if name in lacking else value(config) for name, value in _VALUE_OF.items()}


def field_of(key: str) -> str:
    """The field of a record that has the value of a config's key: ``steps_asked`` has that of ``steps``."""
    return next((field for field, its in _KEY_OF.items() if its == key), key)


def key_of(field: str) -> str:
    """The key whose value a field of a record has, as one gives it on the command line: of ``fractal_depth`` it is
    ``fractal.depth``, of ``model`` that group's name."""
    return _KEY_OF.get(field, field).removesuffix(".name")


class Digests(NamedTuple):
    """SHA-256 of what belongs to a record, as it stores them; None where an earlier version wrote it."""

    weights: str | None = None  # of the parameters in its checkpoint
    history: str | None = None  # of the file history.csv
    best: str | None = None  # of the parameters at the best test accuracy; None too where there is no such network


class Stored(NamedTuple):
    """The content of result.json."""

    record: RunRecord
    digests: Digests

    @property
    def with_history(self) -> Stored | None:
        """What a history is compared with; None where the record says nothing of its content, or the run may go on."""
        return self if self.digests.history and self.record.status.ended else None


def write_record(directory: Path, record: RunRecord, digests: Digests | None = None) -> None:
    """Write result.json, with a digest of its own content. Raises OSError."""
    others = digests._asdict() if digests else {}
    content = {**record.plain(), "digests": {name: value for name, value in others.items() if value}}
    content["digests"]["record"] = _digest(content)
    write(directory / RESULT, (json.dumps(content, indent=1) + "\n").encode())


def _digest(content: Mapping[str, Any]) -> str:
    """The SHA-256 of a record's content, but for this digest itself."""
    others = {name: value for name, value in content["digests"].items() if name != "record"}
    return hashlib.sha256(json.dumps({**content, "digests": others}, sort_keys=True).encode()).hexdigest()


def version(directory: Path | None) -> tuple[int, int] | None:
    """What changes whenever the record in a directory is written. None where there is none."""
    if directory is None:
        return None
    try:
        found = (directory / RESULT).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def read_record(directory: Path) -> RunRecord | None:
    """The record of the run in ``directory``; None, and errors, as of ``stored``."""
    found = stored(directory)
    return found.record if found else None


def stored(directory: Path) -> Stored | None:
    """The content of result.json, or None if there is none or it is damaged.

    Raises NotUnderstood for a later format or an unknown key: this version must not overwrite such a record.
    """
    try:
        return read_stored(directory)
    except (FileNotFoundError, Damaged):
        return None


def read_stored(directory: Path) -> Stored:
    """The content of result.json. Raises FileNotFoundError if there is none, Damaged, and NotUnderstood."""
    path = directory / RESULT
    try:
        return _stored(json.loads(read(path, MOST_BYTES)))
    except FileNotFoundError:
        raise
    except NotUnderstood as error:
        raise NotUnderstood(f"{path}: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{path} can't be read: {reason(error)}") from None


def _stored(found: Any) -> Stored:
    """The record from the values in result.json. Raises Damaged, and NotUnderstood."""
    content = cast(dict[str, Any], found if isinstance(found, dict) else {})
    number: Any = content.get("format")
    if not (type(number) is int and number > 0):
        raise Damaged("not a record")
    if number > FORMAT:
        raise NotUnderstood(f"format {number}; this version reads up to {FORMAT}, update it")
    digests = _digests(content)
    for older in range(number, FORMAT):
        content = _UPGRADES[older](content)
    if missing := [name for name in ("status", "fingerprint", "config") if name not in content]:
        raise Damaged(f"it has no {missing[0]}")
    if content["status"] not in tuple(Status):
        raise Damaged(f"status={short(content['status'])}: must be one of {', '.join(Status)}")
    keys: Any = content["config"]
    if not isinstance(keys, dict):
        raise Damaged("its config can't be right")
    try:
        config = _config_of(cast(dict[str, Any], keys))
    except (ConfigError, TypeError, AttributeError) as error:
        raise NotUnderstood(f"can't be understood by this version: {short(error, 500)}") from None
    values = _values(content)
    # Of several spellings the one that tables may have, and of another run its own.
    if content["fingerprint"] in (*config.fingerprints, config.by_test):
        values["fingerprint"] = content["fingerprint"]
    else:
        for name, value in keys_of(config).items():
            former = "None" if name == "curve" else None  # what earlier versions called one without a name
            if name != "fingerprint" and content.get(name) not in (None, value, former):
                raise Damaged(f"{name}={short(content[name])}, but its config says {short(value)}")
    record = RunRecord.of(config, Status(content["status"]), **values)
    if record.status.ended and (record.best_test_acc is None or record.best_step is None):
        raise Damaged(f"status={record.status}, but it has no accuracy")
    return Stored(record, digests)


def _digests(content: Mapping[str, Any]) -> Digests:
    """The digests in a record, whose own is compared. Raises Damaged."""
    stored: Any = content.get("digests", {})
    found = cast(dict[str, Any], stored if isinstance(stored, dict) else {"record": None})
    if not all(isinstance(value, str) for value in found.values()):
        raise Damaged("its digests can't be right")
    if "digests" in content and found.get("record") != _digest(content):
        raise Damaged("its content has another digest (if you changed it, remove its digests)")
    return Digests(*(found.get(name) for name in Digests._fields))


def _values(content: Mapping[str, Any]) -> dict[str, Any]:
    """The values in a record that only training could fill. Raises Damaged for one that can't be right."""
    values: dict[str, Any] = {name: content.get(name) for name in OF_RUN}
    if values["error"] is not None:
        values["error"] = short(values["error"], 1000)
    for name, value in values.items():
        if value is not None and not _good(name, value):
            raise Damaged(f"{name}={short(value)}: can't be right")
    if values["final_test_acc"] is None and not Status(content["status"]).ended:
        values |= {"best_test_acc": None, "best_step": None}  # earlier versions wrote 0 before the first evaluation
    return values


def _good(name: str, value: Any) -> bool:
    """Whether a field of a record that only training could fill may have this value."""
    kind = OF_RUN[name]
    if kind is Mapping:
        return isinstance(value, dict) and all(
            column.isprintable() and type(each) in (int, float) and abs(each) <= sys.float_info.max
            for column, each in cast(dict[str, Any], value).items()
        )
    if kind is str:
        return isinstance(value, str) and value.isprintable()
    if kind is bool:
        return isinstance(value, bool)
    most = 1 if name.endswith("_acc") else sys.float_info.max
    return type(value) in (int, kind) and 0 <= value <= most


def _config_of(keys: dict[str, Any]) -> RunConfig:
    """The config in a record. What can't change a result need not be valid any more. Raises ConfigError."""
    try:
        return RunConfig.parse(keys)
    except ConfigError:
        needed = {name: value for name, value in keys.items() if name not in placement()}
        return RunConfig.parse(needed | {"logger": {"name": "none"}})


def understood(directory: Path) -> RunRecord | None:
    """As ``read_record``, but None, with a warning, for a record that is damaged or that this version can't read."""
    try:
        return read_stored(directory).record
    except FileNotFoundError:
        return None
    except (Damaged, NotUnderstood) as error:
        log.warning("left out: %s", error)
        return None


def _from_1(record: dict[str, Any]) -> dict[str, Any]:
    """Format 2 adds ``steps_asked``, which follows from the config, and ``native_build`` and ``git_modified``: None."""
    return record


_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}


class Begun(NamedTuple):
    """The content of begun.json: what identifies a run that has no record yet."""

    config: RunConfig
    wandb_id: str | None


def write_begun(directory: Path, begun: Begun) -> None:
    """Write begun.json. Raises OSError. Nobody waits for the disk: it is needed for a while only."""
    content = {"fingerprint": begun.config.fingerprint, "wandb_id": begun.wandb_id, "config": begun.config.plain()}
    write(directory / BEGUN, json.dumps(content).encode(), durable=False)


def read_begun(directory: Path) -> Begun | None:
    """The content of begun.json; None if it is missing or damaged."""
    try:
        found = json.loads(read(directory / BEGUN, MOST_BYTES))
        config, name = RunConfig.parse(found["config"]), found.get("wandb_id")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # a ConfigError is a ValueError
        return None
    good = found.get("fingerprint") in config.fingerprints
    return Begun(config, name if isinstance(name, str) and name.isalnum() else None) if good else None


def find(directory: Path) -> Iterator[tuple[Path, RunRecord]]:
    """Every record at or below a directory, in order of names. Warns of records that this version can't read."""
    for path, names in walk(directory, log.warning):
        if RESULT in names and (record := understood(path)):
            yield path, record


def walk(path: Path, unread: Callable[[str], None] | None = None) -> Iterator[tuple[Path, set[str]]]:
    """Those ``directories`` that may hold a run or are a sweep's. Arguments are theirs."""
    return (each for each in directories(path, unread) if of_run_or_sweep(each[1]))


def of_run_or_sweep(names: set[str]) -> bool:
    """Whether a directory with these names in it may be a run's, or is a sweep's."""
    return SWEEP in names or _may_be_run(names)


def _may_be_run(names: set[str]) -> bool:
    return not names.isdisjoint((RESULT, HISTORY, BEGUN, ".hydra"))


def directories(path: Path, unread: Callable[[str], None] | None = None) -> Iterator[tuple[Path, set[str]]]:
    """Every directory at or below a path, with the names in it, in order; but hidden ones, and those of W&B's.

    Links are followed: a run may have been moved to another disk. ``unread`` is called with a line on each directory
    that can't be read; those that disappear meanwhile are skipped.
    """
    roots = {Path(os.path.realpath(path))}  # and where the links lead

    def met(directory: Path) -> bool:
        """Whether a directory is walked anyway, or is a link that leads back."""
        if not directory.is_symlink():
            return len(roots) > 1 and Path(os.path.realpath(directory)) in roots
        target, here = Path(os.path.realpath(directory)), Path(os.path.realpath(directory.parent))
        above = next((each for each in (target, *target.parents) if each in roots), None)
        if here.is_relative_to(target) or (above and not any(map(_is_hidden, target.relative_to(above).parts))):
            return True
        roots.add(target)
        return False

    def tell(error: OSError) -> None:
        if unread and not isinstance(error, FileNotFoundError):
            unread(f"left out: {short(error.filename, 200)}: {reason(error)}")

    for directory, below, files in os.walk(path, onerror=tell, followlinks=True):
        names = {*files, *below}
        yield Path(directory), names
        hidden = {name for name in below if _is_hidden(name) and (name != WANDB or _may_be_run(names))}
        below[:] = [name for name in sorted({*below} - hidden) if not met(Path(directory, name))]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == WANDB


def what_is_there(directory: Path) -> str:
    """What a directory without a record is: perhaps that of a sweep."""
    names = sorted(path.parent.name for path in directory.glob(f"*/{RESULT}"))
    if not names:
        return f"there is no {'finished run in this' if directory.is_dir() else 'such'} directory"
    shown = ", ".join(short(name, 200) for name in names[:MOST_NAMED])
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return f"is the directory of a sweep: each of its runs has its own, here {shown}{more}"


def unmeasured(directory: Path) -> dict[Path, RunConfig]:
    """The jobs of sweeps at or below a directory that have neither a record nor a measurement, by their directories."""
    bare = (path for path, names in walk(directory) if RESULT not in names and not _measured(path / HISTORY))
    return {path.resolve(): config for path in bare if (config := asked_of(path))}


def asked_of(directory: Path) -> RunConfig | None:
    """The config of a run without a record: as it began, or as Hydra wrote it before. None where neither is there."""
    begun = read_begun(directory)
    return begun.config if begun else read_composed(directory)


def has_another(directory: Path, fingerprint: str) -> bool:
    """Whether a directory has another run than the one of a fingerprint, or files of a run that can't be told.

    False where it has none: nothing can be mistaken there.
    """
    if not os.path.isdir(directory):
        return False
    begun = read_begun(directory)
    if begun is None and _told(directory) == fingerprint:  # soon told, of thousands
        return False
    names = [begun.config.fingerprints] if begun else []
    try:
        record = read_stored(directory).record
        names.append((record.fingerprint, *record.config.fingerprints))
    except FileNotFoundError:
        pass
    except (Damaged, NotUnderstood):
        return True
    if not names and (composed := read_composed(directory)):
        names = [composed.fingerprints]
    return not all(fingerprint in each for each in names) if names else (directory / HISTORY).exists()


def _told(directory: Path) -> str | None:
    """The fingerprint that a record says, which isn't looked at for the rest."""
    try:
        return json.loads(read(directory / RESULT, MOST_BYTES))["fingerprint"]
    except (OSError, ValueError, TypeError, KeyError, Refused):
        return None


def _measured(history: Path) -> bool:
    """Whether a history.csv has a measurement after step 0."""
    try:
        return any(line and not line.startswith(b"0,") for line in read(history).split(b"\n")[1:])
    except OSError:
        return False


def read_composed(directory: Path) -> RunConfig | None:
    """The config that Hydra wrote for a job, which may not have begun; None if it isn't one of this package."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = read_yaml(directory / ".hydra" / "config.yaml", loader, MOST_BYTES)
        return RunConfig.parse(yaml.load(text, loader))
    except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError):
        return None


def warn(log: logging.Logger, directory: Path | None, text: str) -> None:
    """Log a warning of a run, and note it in the log in its directory, where Hydra hasn't written it already."""
    log.warning("%s", text if directory is None else f"{directory}: {text}")
    files = [each.baseFilename for each in logging.getLogger().handlers if isinstance(each, logging.FileHandler)]
    if directory is not None and str((directory / LOG).absolute()) not in files:
        note(directory, text)


def note(directory: Path | None, text: str, more: str = "") -> None:
    """Append a line to the log in a run's directory, the file that Hydra's launchers log to. None: do nothing.

    ``more`` follows in lines of its own, indented: no text can pass for another line of the log. Whoever can't write
    the log goes on, because a result doesn't depend on it.
    """
    if directory is None:
        return
    lines = [f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {short(text, 10_000)}", *(f"  {x}" for x in more.splitlines())]
    try:
        append(directory / LOG, "\n".join(lines) + "\n")
    except OSError as error:
        log.warning("%s can't be written: %s", directory / LOG, reason(error))
