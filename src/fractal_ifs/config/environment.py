"""The environment variables that this package reads, each checked as a key is. An empty one counts as unset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from fractal_ifs.config.keys import checked

ISAS = ("avx512", "avx2", "base")  # of the native engine, best first
_ISA = Literal["avx512", "avx2", "base"]
_PROGRESS = Literal["auto", "table", "line", "log", "off"]
_WANDB_MODE = Literal["online", "offline", "disabled", "shared", "run", "dryrun"]


def checkpoint_seconds() -> float:
    """FRACTAL_IFS_CHECKPOINT_SECONDS: seconds between two checkpoints of a run; 30 by default. Raises ConfigError."""
    return _read("FRACTAL_IFS_CHECKPOINT_SECONDS", float, 30.0, least=0, most=1e9)


def isa() -> str | None:
    """FRACTAL_IFS_ISA: the instruction set that the native engine must use, one of ``ISAS``. Raises ConfigError."""
    return _read("FRACTAL_IFS_ISA", _ISA, None)


def emulated_gpu() -> str | None:
    """FRACTAL_IFS_EMULATED_GPU: for tests, a folder for kernels that a CPU runs in place of a GPU."""
    return _read("FRACTAL_IFS_EMULATED_GPU", str, None)


def kernel_cache() -> Path | None:
    """The folder of compiled kernels, below XDG_CACHE_HOME or ~/.cache; None without a home."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "fractal_ifs", "kernels")
    return folder if folder.is_absolute() else None


def progress() -> str:
    """FRACTAL_IFS_PROGRESS: how training shows how far it is, ``auto`` by default. Raises ConfigError.

    ``table``: the runs in training, in a terminal. ``line``: one line there. ``log``: a line from time to time.
    ``off``: nothing. ``auto``: a table where a terminal has room for it, a line in any other, and else as ``log``.
    """
    return _read("FRACTAL_IFS_PROGRESS", _PROGRESS, "auto")


def slurm_cpus() -> int | None:
    """SLURM_CPUS_PER_TASK: the cores that Slurm has granted, None outside of Slurm. Raises ConfigError."""
    return _read("SLURM_CPUS_PER_TASK", int, None, least=1)


def slurm_restarts() -> int:
    """SLURM_RESTART_COUNT: how often Slurm has requeued this job. Raises ConfigError."""
    return _read("SLURM_RESTART_COUNT", int, 0, least=0)


def wandb_mode() -> str | None:
    """WANDB_MODE: the mode of W&B where ``logger.mode`` is null. Raises ConfigError."""
    return _read("WANDB_MODE", _WANDB_MODE, None)


def check_environment() -> None:
    """Raises ConfigError for a bad value of a variable that every command here reads: all but W&B's."""
    for read in (checkpoint_seconds, isa, progress, slurm_cpus, slurm_restarts):
        read()


def _read(name: str, hint: Any, default: Any, **limits: float) -> Any:
    text = os.environ.get(name, "")
    if not text:
        return default
    value = int(text) if hint is int and text.isdecimal() and len(text) < 20 else text
    return checked(name, value, hint, limits)
