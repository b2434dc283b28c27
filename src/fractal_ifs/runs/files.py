"""Which files a run or a sweep keeps, and that no output of another command takes their place."""

import os
from pathlib import Path

from fractal_ifs.errors import ConfigError
from fractal_ifs.runs.checkpoints import CHECKPOINTS
from fractal_ifs.runs.records import BEGUN, HISTORY, LOG, RESULT, SWEEP, TABLE, of_run_or_sweep

FILES = (RESULT, HISTORY, BEGUN, *CHECKPOINTS)  # each written whole
_NAMES = (*FILES, LOG, SWEEP, TABLE)  # those of a run and of a sweep


def check_output(output: Path) -> None:
    """Raises ConfigError if a file that a user asks for would replace one of a run or a sweep."""
    if not os.path.lexists(output) or output.is_dir():
        return
    of_run = output.name in _NAMES and of_run_or_sweep(set(os.listdir(output.parent)) - {output.name})
    if of_run or output.parent.name == ".hydra":
        raise ConfigError(f"-o {output}: must be another file: this one is part of a run or a sweep")


def check_folder(output: Path) -> None:
    """Raises ConfigError if files for a directory that a user asks for would lie among those of a run or a sweep."""
    try:
        names = set(os.listdir(output))
    except OSError:  # it isn't there yet, or whoever writes there says why it can't be
        return
    if of_run_or_sweep(names):
        raise ConfigError(
            f"output directory {output}: must be another, this is a run's or a sweep's own; {output / 'report'} may be"
        )
