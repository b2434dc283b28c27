"""Reads a run back from its directory."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd  # pyright: ignore[reportMissingTypeStubs]  (pandas has none)
import torch
from torch import nn

from fractal_ifs.config.data import ImageData
from fractal_ifs.config.machine import check_memory
from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError, Damaged, message, short
from fractal_ifs.mkl import ask_for_equal_bits
from fractal_ifs.runs import shapes
from fractal_ifs.runs.buffers import set_buffers
from fractal_ifs.runs.build import build_network
from fractal_ifs.runs.checkpoints import CHECKPOINTS, Checkpoint, evaluated, read_whole, weights_digest
from fractal_ifs.runs.history import Evaluation
from fractal_ifs.runs.records import RunRecord, Stored, read_stored
from fractal_ifs.runs.shapes import Shape


class Finished(NamedTuple):
    """A run read back from its directory."""

    record: RunRecord
    history: pd.DataFrame  # one row per evaluation
    config: RunConfig
    model: nn.Module  # the trained network


def load(directory: str | Path) -> Finished:
    """Read the record, history, config and trained network of the run in ``directory``.

    The network is the one that the record describes: with ``optimizer.average`` it has the average of the weights,
    whose accuracy the record tells. Raises ConfigError if there is no such run, or its record is
    damaged, or no checkpoint is left that holds this network.
    """
    directory = Path(directory)
    try:
        stored = read_stored(directory)
    except FileNotFoundError:
        raise ConfigError(f"run={directory}: there is no finished run in this directory") from None
    except ConfigError as error:
        raise ConfigError(f"run={directory}: {error}") from None
    state, network = _checkpoint(directory, stored)
    ask_for_equal_bits()  # in a notebook this network may be used before the next is trained
    with torch.no_grad():
        nn.utils.vector_to_parameters(evaluated(state), network.parameters())
        set_buffers(network, state.get("buffers"))
    rows = [Evaluation(*row)._replace(seconds=round(row[1], 3)) for row in state["history"]]
    history = pd.DataFrame(rows, columns=pd.Index(Evaluation._fields))
    return Finished(stored.record, history, stored.record.config, network.eval())


def _checkpoint(directory: Path, stored: Stored) -> tuple[Checkpoint, nn.Module]:
    """The checkpoint that holds what a record describes, and a network of its shape. Raises ConfigError."""
    config = stored.record.config
    check_memory(config)
    inputs = 3 if isinstance(config.data, ImageData) else config.fractal.ifs.d
    try:
        network = build_network(config, inputs)
    except Exception as error:  # of a class of a user's own
        raise ConfigError(f"run={directory}: its network can't be made: {short(message(error), 400)}") from None
    reasons: list[str] = []
    for name in CHECKPOINTS:
        try:
            state = read_whole(directory / name, Shape.of(config, network, inputs).most_bytes)
            if isinstance(config.data, ImageData) and state["d"] == 1:  # of grey images
                network, inputs = build_network(config, 1), 1
            if state["fingerprint"] not in config.fingerprints:
                raise Damaged("is of another config")
            shapes.check(state, Shape.of(config, network, inputs))
            _check_same(state, stored)
            return state, network
        except FileNotFoundError:
            reasons.append(f"{name} is missing")
        except ConfigError as error:
            reasons.append(f"{name}: {error}")
    raise ConfigError(f"run={directory}: no checkpoint holds the network of its record ({'; '.join(reasons)})")


def _check_same(state: Checkpoint, stored: Stored) -> None:
    """Raises Damaged where a checkpoint isn't the one that was written with the record."""
    record = stored.record
    step = state.get("layer", 0) * record.config.steps + state["step"]
    if step != record.steps:
        raise Damaged(f"is of step {step}, the record of step {record.steps}")
    if stored.digests.weights not in (None, weights_digest(state)):
        raise Damaged("holds other weights than those that the record names")
    if record.final_test_acc is not None and state["history"] and record.final_test_acc != state["history"][-1][4]:
        raise Damaged("has another accuracy than the record")
