"""Which files a run keeps, and that no output of another command takes their place."""

import os
from pathlib import Path

from fractal_ifs.errors import ConfigError
from fractal_ifs.runs.checkpoints import CHECKPOINTS
from fractal_ifs.runs.records import BEGUN, HISTORY, RESULT

FILES = (RESULT, HISTORY, BEGUN, *CHECKPOINTS)  # each written whole


def check_output(output: Path) -> None:
    """Raises ConfigError if a file that a user asks for would replace one of a run, which nothing brings back."""
    if output.name in FILES and os.path.lexists(output) and _is_run(output.parent):
        raise ConfigError(f"-o {output}: must be another file: this one is part of a run")


def _is_run(directory: Path) -> bool:
    return any((directory / name).exists() for name in (RESULT, BEGUN))
