"""Reads a run back from its directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd  # pyright: ignore[reportMissingTypeStubs]  (pandas has none)
import torch
from torch import nn

from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.runs.build import build_network
from fractal_ifs.runs.checkpoints import read_checkpoint
from fractal_ifs.runs.records import HISTORY, Evaluation, RunRecord, read_record


class Finished(NamedTuple):
    """A run read back from its directory."""

    record: RunRecord
    history: pd.DataFrame  # one row per evaluation
    config: RunConfig
    model: nn.Module  # the trained network


def load(directory: str | Path) -> Finished:
    """Read the record, history, config and trained network of the run in ``directory``.

    Raises ConfigError if there is no finished run, or its files don't belong together.
    """
    directory = Path(directory)
    record, state = read_record(directory), read_checkpoint(directory)
    if record is None or state is None:
        raise ConfigError(f"run={directory}: there is no finished run in this directory")
    if state["fingerprint"] not in record.config.fingerprints:
        raise ConfigError(f"run={directory}: its checkpoint is of another run than its result.json")
    network = build_network(record.config, state["d"])
    with torch.no_grad():
        nn.utils.vector_to_parameters(state["params"], network.parameters())
    return Finished(record, _history(directory), record.config, network.eval())


def _history(directory: Path) -> pd.DataFrame:
    try:
        table: Any = pd.read_csv(directory / HISTORY)
        return table[list(Evaluation._fields)].astype(float).astype({"step": int})
    except OSError as error:
        reason = error.strerror
    except (ValueError, KeyError) as error:  # pandas' own errors are ValueErrors
        reason = short(error)
    raise ConfigError(f"run={directory}: its {HISTORY} can't be read ({reason})")
