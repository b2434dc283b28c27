"""The directories of a user's own choices that a command names."""

from collections.abc import Iterator, Sequence
from pathlib import Path


def own_folders(arguments: Sequence[str]) -> Iterator[Path]:
    """The directories of ``--config-dir DIR`` and ``hydra.searchpath=[DIR]``, whether they are there or not."""
    for before, argument in zip(("", *arguments), arguments, strict=False):
        option, _, value = argument.partition("=")
        if option == "hydra.searchpath":
            yield from (Path(each.strip().removeprefix("file://")) for each in value.strip("[]'\"").split(","))
        elif option in ("--config-dir", "-cd") and value:
            yield Path(value)
        elif before in ("--config-dir", "-cd"):
            yield Path(argument)
