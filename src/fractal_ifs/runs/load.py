"""A run read back from its directory."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn

from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError
from fractal_ifs.runs.build import build_network
from fractal_ifs.runs.checkpoints import read_checkpoint
from fractal_ifs.runs.records import HISTORY, RunRecord, read_record


class Finished(NamedTuple):
    """A run read back from its directory: its record, a row per evaluation, its config, its trained network."""

    record: RunRecord
    history: pd.DataFrame
    config: RunConfig
    model: nn.Module


def load(directory: str | Path) -> Finished:
    """Read a run: its record, its history (a row per evaluation), its config and its trained network.

    Raises ConfigError where the directory holds no run.
    """
    directory = Path(directory)
    record, state = read_record(directory), read_checkpoint(directory)
    if record is None or state is None:
        raise ConfigError(f"run={directory}: there is no finished run in this directory")
    network = build_network(record.config, state["d"])
    with torch.no_grad():
        nn.utils.vector_to_parameters(state["params"], network.parameters())
    return Finished(record, pd.read_csv(directory / HISTORY), record.config, network.eval())
