"""A command's arguments: its options, its other words, and the directories of a user's own choices that these name.

``help.options.options_and_words`` gives options their long form, ``--config-dir=DIR``, which is all that is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fractal_ifs.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


def split(arguments: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The options, each with its value or "", and the other words."""
    options = [argument.partition("=") for argument in arguments if argument.startswith("-")]
    words = [argument for argument in arguments if not argument.startswith("-")]
    return [(name, value) for name, _, value in options], words


def parsed(word: str) -> Override | None:
    """A word as Hydra reads it, None where it can't. Raises ConfigError where ``words.read`` does."""
    from hydra.core.override_parser.overrides_parser import OverridesParser  # help and completion seldom need it
    from hydra.errors import HydraException

    try:
        [override] = OverridesParser.create().parse_overrides([word])
    except ConfigError:
        raise
    except (HydraException, RecursionError, ValueError, ArithmeticError):
        return None
    return override


def own_places(arguments: Sequence[str]) -> list[str]:
    """What ``--config-dir=DIR`` and ``hydra.searchpath=[DIR]`` name, without ``file://``. It need not be there."""
    options, words = split(arguments)
    places = [value for name, value in options if name == "--config-dir"]
    for override in (parsed(word) for word in words if "hydra.searchpath" in word.partition("=")[0]):
        if override and override.key_or_group == "hydra.searchpath" and not override.is_delete():
            value = override.value()
            places += [str(place).removeprefix("file://") for place in value] if isinstance(value, list) else []
    return places


def own_folders(arguments: Sequence[str]) -> list[Path]:
    """The directories among ``own_places``: not a Python package, ``pkg://NAME``."""
    return [Path(place) for place in own_places(arguments) if "://" not in place]


def composed_folders(config: DictConfig) -> list[Path]:
    """All directories that a composed config, with its node ``hydra``, was made from."""
    return [Path(source.path) for source in config.hydra.runtime.config_sources if source.schema == "file"]
