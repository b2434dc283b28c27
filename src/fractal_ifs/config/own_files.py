"""What is wrong in YAML files of a user's own, told with the file: Hydra often doesn't say in which one it is."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def fault(words: Sequence[str], folders: Iterable[Path]) -> str | None:
    """The first file in some directories that a command's words lead to and Hydra can't use, and why, in one line.

    Those that are named are looked at first, then those that they name.
    """
    files = [path for folder in folders for path in sorted(folder.glob("**/*.yaml"))]
    named = " ".join(words)
    while reached := [path for path in files if re.search(rf"(?<![\w-]){re.escape(path.stem)}(?![\w-])", named)]:
        for path in reached:
            if reason := _fault(path):
                return f"{path}{reason}"
        named = " ".join(path.read_text("utf-8") for path in reached)
        files = [path for path in files if path not in reached]
    return None


def _fault(path: Path) -> str | None:
    try:
        content = OmegaConf.load(path)
        text = path.read_text("utf-8")
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return f"{line}: is not YAML ({' '.join(str(error.problem).split())})"
    except (yaml.YAMLError, UnicodeDecodeError):
        return ": is not YAML, which is text in UTF-8"
    except (OSError, OmegaConfBaseException) as error:
        return f": can't be read ({' '.join(str(error).split())})"
    if not isinstance(content, DictConfig):
        return ": must be keys with values"
    if path.parent.name == "experiment" and not re.search(r"^#\s*@package\s+_global_\s*$", text, re.MULTILINE):
        return ": must begin with the line # @package _global_"
    defaults: Any = cast(dict[str, Any], OmegaConf.to_container(content)).get("defaults", [])
    if not isinstance(defaults, list):
        return ": defaults must be a list"
    for item in cast(list[Any], defaults):
        chosen = cast(dict[Any, Any], item) if isinstance(item, dict) else {item: None}
        for group, value in chosen.items():
            values = cast(list[Any], value) if isinstance(value, list) else [value]
            for each in (group, *values):
                if not (each is None or isinstance(each, str)):
                    return f": {group}: {each} must be quoted in a list of defaults, '{each}'"
    return None
