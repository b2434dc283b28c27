"""How the options of commands without Hydra are read. A bad one is refused in one line, as a bad key is."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from fractal_ifs.config.keys import shown
from fractal_ifs.config.logger import A_NAME, is_name
from fractal_ifs.config.machine import is_path


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


def whole(least: int, most: int) -> Callable[[str], int]:
    """The type of an option that is a whole number from ``least`` to ``most``."""

    def read(text: str) -> int:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not least <= found <= most or not found.is_integer():
            raise argparse.ArgumentTypeError(f"={shown(text)}: must be a whole number from {least} to {most}")
        return int(found) if "e" in text.lower() or "." in text else int(text)

    return read


def between(least: float, most: float) -> Callable[[str], float]:
    """The type of an option that is a number from ``least`` to ``most``."""

    def read(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not least <= found <= most:
            raise argparse.ArgumentTypeError(f"={shown(text)}: must be a number from {least:g} to {most:g}")
        return found

    return read


def some_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """The type of an option that is a list of known words, with commas between them."""

    def read(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if len(set(found)) < len(found) or not set(found) <= set(known):
            raise argparse.ArgumentTypeError(f"={shown(text)}: must be one or some of {', '.join(known)}")
        return found

    return read
