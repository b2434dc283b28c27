"""What a run leaves behind: result.json, history.csv, checkpoint.pt. A public contract with a format number.

Every file is whole or not there (`files.write`).
"""

import contextlib
import io
import json
import logging
import os
import subprocess
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fractal_ifs.config.schema import NOT_IN_FINGERPRINT, Job, fingerprint
from fractal_ifs.errors import ConfigError
from fractal_ifs.files import write as write  # others still say records.write
from fractal_ifs.files import written

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig
    from torch import nn

log = logging.getLogger(__name__)

FORMAT = 1
HISTORY = ("step", "seconds", "train_loss", "test_loss", "test_acc")


def write_result(directory: Path, record: Mapping[str, Any]) -> None:
    write(directory / "result.json", (json.dumps({"format": FORMAT, **record}, indent=1) + "\n").encode())


def write_history(directory: Path, history: list[tuple]) -> None:
    lines = [",".join(HISTORY)] + [f"{s},{t:.3f},{a!r},{b!r},{c!r}" for s, t, a, b, c in history]
    write(directory / "history.csv", ("\n".join(lines) + "\n").encode())


def read_result(directory: Path) -> dict[str, Any] | None:
    """The record of a run, or None where there is none or it is torn. Raises ConfigError on a later format."""
    try:
        record = json.loads((directory / "result.json").read_text())
        number = int(record["format"])
        if number <= FORMAT and not {"status", "fingerprint", "config"} <= record.keys():
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if number > FORMAT:
        raise ConfigError(f"{directory}/result.json: format {number}; this version reads up to {FORMAT}, update it")
    return record


def find(directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every record at or below a directory, in the order of the names."""
    for path, names in walk(directory):
        if "result.json" in names and (record := read_result(path)):
            yield path, record


def walk(path: Path) -> Iterator[tuple[Path, set[str]]]:
    """Every directory at or below a path that may be a run's, with its names, in order; others may go meanwhile."""
    for directory, below, files in os.walk(path):
        names = {*files, *below}
        if "result.json" in names or "history.csv" in names or ".hydra" in names:
            yield Path(directory), names
        below[:] = sorted(name for name in below if not name.startswith(".") and name != "wandb")


CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")
BEGUN = "begun.json"  # what a run is, for as long as it has no record


def write_checkpoint(directory: Path, state: Mapping[str, Any]) -> None:
    """Keep the two newest checkpoints; where this one can't be written (a full disk), the two before it."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    newest, previous = (directory / name for name in CHECKPOINTS)
    with written(newest, buffer.getvalue()) as temporary:
        if newest.exists():
            os.replace(newest, previous)
        os.replace(temporary, newest)


def read_checkpoint(directory: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, without running code from it; None where there is none."""
    import torch

    for name in CHECKPOINTS:
        path = directory / name
        if path.exists():
            try:
                return torch.load(path, weights_only=True)
            except Exception as error:  # a torn file shows as many kinds of exception
                log.warning("%s can't be read (%s): falling back", path, type(error).__name__)
    return None


def finished(job: Job) -> dict[str, Any] | None:
    """The record of a job that needs no more training. Raises ConfigError where another config was trained there."""
    if job.directory is None or job.config["overwrite"]:
        return None
    record = read_result(job.directory)
    if record is not None:
        check_same(job, record["fingerprint"], record["config"])
        return record if record["status"] in ("finished", "diverged") else None
    half = any((job.directory / name).exists() for name in CHECKPOINTS)  # killed before it had a record
    if half and (begun := read_begun(job.directory)):
        check_same(job, begun["fingerprint"], begun["config"])
    return None


def read_begun(directory: Path) -> dict[str, Any]:
    """What a run without a record was begun as: ``fingerprint``, ``config``, ``wandb_id``; empty if there is none."""
    try:
        begun = json.loads((directory / BEGUN).read_text())
        return begun if {"fingerprint", "config"} <= begun.keys() else {}
    except (OSError, ValueError, AttributeError):
        return {}


def check_same(job: Job, there: str, config: dict[str, Any]) -> None:
    """Refuse to go on in the directory of another config, with the keys that differ. Raises ConfigError."""
    if there != fingerprint(job.config):
        raise ConfigError(
            f"{job.directory}: holds a run of another config ({difference(config, job.config)}); "
            "overwrite=true trains it again"
        )


def difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    """``lr=0.001 there, 0.01 asked`` for every key that differs."""
    parts = []
    for key in sorted({*old, *new} - (set() if prefix else set(NOT_IN_FINGERPRINT))):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            parts.append(difference(a, b, f"{prefix}{key}."))
        elif a != b:
            parts.append(f"{prefix}{key}={a} there, {b} asked")
    return ", ".join(part for part in parts if part)


class Failed(Exception):
    """How a run failed elsewhere: the message that its process sent."""


def message(error: BaseException) -> str:
    """An exception in one line: ``OSError: [Errno 28] No space left on device``."""
    if isinstance(error, (Failed, ConfigError)):
        return str(error)
    return (f"{type(error).__name__}: {error}".splitlines() or [""])[0]


def other_versions(there: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> str:
    """``torch 2.12.0 there, 2.13.0 here`` for each version by which a run's differ from ours; empty if none does."""
    here = {**versions(), **(more or {})}
    return ", ".join(
        f"{name} {there[name]} there, {here[name]} here"
        for name in here
        if there.get(name) is not None and here[name] is not None and there[name] != here[name]
    )


@lru_cache
def versions() -> dict[str, str | None]:
    """Versions of torch and of this package, and the git commit of a source tree."""
    from importlib.metadata import version

    import torch

    root = Path(__file__).resolve().parents[3]
    commit = None
    if (root / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            found = subprocess.run(
                ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
            )
            commit = found.stdout.strip() or None
    elif (copied := (Path(__file__).parents[1] / "commit")).exists():  # of a Slurm job, see ``slurm.snapshot``
        commit = copied.read_text() or None
    return {"torch": str(torch.__version__), "fractal_ifs": version("fractal_ifs"), "git_commit": commit}


class Finished(NamedTuple):
    """A run read back from its directory."""

    record: dict[str, Any]
    history: "pd.DataFrame"
    config: "DictConfig"
    model: "nn.Module"


def load(directory: str | Path) -> Finished:
    """Read a run: its record, its history (a row per evaluation), its config and its trained network.

    Raises ConfigError where the directory holds no run.
    """
    import pandas as pd
    import torch
    from omegaconf import OmegaConf

    from fractal_ifs.runs.run import build_model

    directory = Path(directory)
    record, state = read_result(directory), read_checkpoint(directory)
    if record is None or state is None:
        raise ConfigError(f"run={directory}: there is no finished run in this directory")
    config = OmegaConf.create(record["config"])
    model = build_model(record["config"], state["d"])
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(state["params"], model.parameters())
    history = pd.read_csv(directory / "history.csv")
    return Finished(record, history, config, model.eval())  # pyright: ignore[reportArgumentType]
