"""What a run leaves behind: result.json, history.csv, checkpoint.pt. A public contract with a format number.

Everything is written to a temporary name, flushed, and renamed: a reader never sees half a file.
"""

import contextlib
import io
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fractal_ifs.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig
    from torch import nn

FORMAT = 1
HISTORY = ("step", "seconds", "train_loss", "test_loss", "test_acc")


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


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
    for path in sorted(directory.rglob("result.json")):
        if record := read_result(path.parent):
            yield path.parent, record


CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")


def write_checkpoint(directory: Path, state: Mapping[str, Any]) -> None:
    """Keep the two newest checkpoints."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    newest, previous = (directory / name for name in CHECKPOINTS)
    if newest.exists():
        os.replace(newest, previous)
    write(newest, buffer.getvalue())


def read_checkpoint(directory: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, without running code from it; None where there is none."""
    import logging

    import torch

    for name in CHECKPOINTS:
        path = directory / name
        if path.exists():
            try:
                return torch.load(path, weights_only=True)
            except Exception as error:  # a torn file shows as many kinds of exception
                logging.getLogger(__name__).warning("%s can't be read (%s): falling back", path, type(error).__name__)
    return None


@lru_cache
def versions() -> dict[str, str | None]:
    """Versions of torch and of this package, and the git commit of a source tree."""
    from importlib.metadata import version

    import torch

    root = Path(__file__).resolve().parents[2]
    commit = None
    if (root / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            found = subprocess.run(
                ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
            )
            commit = found.stdout.strip() or None
    return {"torch": torch.__version__, "fractal_ifs": version("fractal_ifs"), "git_commit": commit}


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

    from fractal_ifs.runs import build_model

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
