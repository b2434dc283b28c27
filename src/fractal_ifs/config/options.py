"""How the options of commands without Hydra are read. A bad one is refused in one line, as a bad key is."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from fractal_ifs.config.keys import checked, described, shown
from fractal_ifs.config.logger import A_NAME, is_name
from fractal_ifs.config.machine import is_path

N = TypeVar("N", int, float)


def path(text: str) -> Path:
    """The type of an option that names a file or a directory, which need not exist."""
    if not is_path(text):
        raise argparse.ArgumentTypeError(f"={shown(text)}: must be a path")
    return Path(text)


def line(text: str) -> str:
    """The type of an option that is one line of text."""
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"={shown(text)}: must be a line of text")
    return text


def wandb_name(text: str) -> str:
    """The type of an option that names a project, a user or a team of W&B."""
    if not is_name(text):
        raise argparse.ArgumentTypeError(f"={shown(text)}: must be {A_NAME}")
    return text


def number(kind: type[N], least: float, most: float) -> Callable[[str], N]:
    """The type of an option that is a number from ``least`` to ``most``: whole, ``int``, or any, ``float``."""
    limits = {"least": least, "most": most}

    def read(text: str) -> N:
        try:
            return checked("", int(text) if text.isdecimal() else float(text), kind, limits)
        except ValueError:
            raise argparse.ArgumentTypeError(f"={shown(text)}: must be {described(kind, limits)}") from None

    return read


def some_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """The type of an option that is a list of known words, with commas between them."""

    def read(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if len(set(found)) < len(found) or not set(found) <= set(known):
            raise argparse.ArgumentTypeError(f"={shown(text)}: must be one or some of {', '.join(known)}")
        return found

    return read
