"""Errors of Hydra, OmegaConf and this package, shown as one line instead of a traceback."""

import contextlib
import dataclasses
import difflib
import os
import re
import sys
from collections.abc import Generator

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError


@contextlib.contextmanager
def refusals() -> Generator[None]:
    """Within: an error that the user can fix ends the command with one line instead of a traceback."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its exceptions, so that we print them
    try:
        yield
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        sys.exit(f"error: {error if isinstance(error, ConfigError) else one_line(error)}")
    except OSError as error:
        sys.exit(f"error: {error}")
    except ValueError as error:
        if not str(error).startswith("Only one of --run"):  # how Hydra refuses `-m --cfg job`
            raise
        sys.exit(f"error: {error}")


def one_line(error: BaseException) -> str:
    """An error of Hydra or OmegaConf in one line, with the closest names if a name is unknown."""
    text = str(error)
    if match := re.search(r"Could not find '([^'/]+(?:/[^'/]+)*)/([^'/]+)'", text):
        group, value = match.groups()
        options = [line.strip() for line in text.split("Available options", 1)[-1].splitlines()[1:] if line.strip()]
        options = [option for option in options if ":" not in option and " " not in option]
        near = difflib.get_close_matches(value, options, 3, 0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"{group}={value}: must be one of {', '.join(options)}{hint}"
    if text.startswith("hydra.mode changed"):  # by an experiment; Hydra 1.4 doesn't follow it
        return "this experiment is a sweep: add -m"
    cause = error.__cause__
    if isinstance(cause, ConfigError):  # of a launcher's keys: Hydra says where it made the launcher
        return str(cause)
    if match := re.search(r"LexerNoViableAltException: (\S+=~\S*)", text):
        return f"{match.group(1)}: ~ can't stand here, write $HOME"
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match.group(1)
        names = [field.name for field in dataclasses.fields(RunConfig)]
        near = [] if key in names else difflib.get_close_matches(key, names, 1, 0.6)
        hint = f"; did you mean {near[0]}?" if near else f"; to add one: +{key}=..." if key.startswith("hydra.") else ""
        return f"{key}: there is no such key{hint}"
    if match := re.search(r"In 'experiment/(\w+)'.*Key '(\w+)' not in", text, re.DOTALL):
        return f"experiment={match.group(1)}: sets {match.group(2)}, which is not a key of this command"
    if match := re.search(r"Error merging override (\S+)", text):
        return f"{match.group(1)}: {str(cause).splitlines()[0]}"
    first = " ".join(line.strip() for line in text.splitlines() if line.strip())
    if cause is not None and str(cause).splitlines() and str(cause).splitlines()[0] not in first:
        first += ": " + str(cause).splitlines()[0]
    key = re.search(r"full_key: (\S+)", text + " " + str(cause))
    first = re.sub(r"\s*full_key: \S+|\s*object_type=\S+|\s*reference_type=\S+", "", first)
    return f"{first} (key {key.group(1)})" if key and key.group(1) not in first else first
