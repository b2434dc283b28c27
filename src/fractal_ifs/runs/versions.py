"""What a run's bits depend on besides its config: versions of torch and this package, commit, compiler."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import fractal_ifs

PACKAGE = Path(__file__).parents[1]


class Versions(NamedTuple):
    """Versions as a record stores them. ``git_modified``: whether a tracked file differs from the commit."""

    torch: str | None = None
    fractal_ifs: str | None = None
    git_commit: str | None = None
    git_modified: bool | None = None


class ComputedBy(NamedTuple):
    """What computes a run, as its record and its checkpoints store it. None: its bits don't rest on that."""

    isa: str | None = None  # the instruction set
    native_build: str | None = None  # the compiler and its flags
    torch_kernels: str | None = None  # what torch computes with on a CPU, see ``runs.kernels``
    engine: str | None = None

    @classmethod
    def of(cls, state: Mapping[str, Any], otherwise: ComputedBy) -> ComputedBy:
        """What a checkpoint names. Those of earlier versions lack some: these are taken from ``otherwise``."""
        return cls(**{name: state.get(name, value) for name, value in otherwise._asdict().items()})


@lru_cache
def versions() -> Versions:
    """The versions in this process."""
    commit, modified = _git()
    return Versions(torch=_torch(), fractal_ifs=fractal_ifs.__version__, git_commit=commit, git_modified=modified)


def _torch() -> str:
    """Read from a file of torch's: importing it takes a second, which a sweep that is finished shall not wait for."""
    spec = importlib.util.find_spec("torch")
    if "torch" not in sys.modules and spec and spec.origin:
        with contextlib.suppress(OSError):
            text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
            if found := re.search(r"^__version__ = '([^']+)'$", text, re.MULTILINE):
                return found[1]
    import torch

    return str(torch.__version__)


def _git() -> tuple[str | None, bool | None]:
    """The commit, and whether a tracked file differs from it; None where git can't tell."""
    root = PACKAGE.resolve().parents[1]
    if (root / ".git").exists():
        commit = _output(root, "rev-parse", "HEAD")
        changes = _output(root, "status", "--porcelain", "--untracked-files=no") if commit else None
        return commit or None, None if changes is None else bool(changes)
    if (copied := PACKAGE / "commit").exists():  # in a Slurm job, see ``sweeps.slurm.snapshot``
        commit, _, modified = copied.read_text(encoding="utf-8").strip().partition(" ")
        return commit or None, bool(modified)
    return None, None


def _output(root: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def commit_line() -> str:
    """The content of the file ``commit`` in a copy of this package: the commit, and whether the tree was modified."""
    here = versions()
    return f"{here.git_commit or ''}{' modified' if here.git_modified else ''}"


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """``torch 2.12.0 there, 2.13.0 here`` for every entry that is known on both sides and differs, else empty."""
    return ", ".join(
        f"{name} {there[name]} there, {here[name]} here"
        for name in here
        if there.get(name) is not None and here[name] is not None and there[name] != here[name]
    )


def bits_rest_on() -> dict[str, str | None]:
    """What can make two runs of one config differ in their bits, besides ``ComputedBy``, with its values here."""
    here = versions()
    return {"torch": here.torch, "fractal_ifs": here.fractal_ifs, "git_commit": here.git_commit}
