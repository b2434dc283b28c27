"""checkpoint.pt and the one before it: all that a run needs to go on bit for bit."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fractal_ifs.files import written

log = logging.getLogger(__name__)

CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")


def write_checkpoint(directory: Path, state: Mapping[str, Any]) -> None:
    """Keep the two newest checkpoints; where this one can't be written (a full disk), the two before it."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    newest, previous = (directory / name for name in CHECKPOINTS)
    with written(newest, buffer.getvalue()) as temporary:
        if newest.exists():
            os.replace(newest, previous)
        os.replace(temporary, newest)


def read_checkpoint(directory: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, without running code from it; None where there is none."""
    import torch

    for name in CHECKPOINTS:
        path = directory / name
        if path.exists():
            try:
                return torch.load(path, weights_only=True)
            except Exception as error:  # a torn file shows as many kinds of exception
                log.warning("%s can't be read (%s): falling back", path, type(error).__name__)
    return None
