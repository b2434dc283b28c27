"""Reads a run back from its directory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd  # pyright: ignore[reportMissingTypeStubs]  (pandas has none)
import torch
from torch import nn

from fractal_ifs.config.data import ImageData
from fractal_ifs.config.machine import check_memory
from fractal_ifs.config.own import Own
from fractal_ifs.config.own_class import source_digest
from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError, Damaged, counted, message, short
from fractal_ifs.mkl import ask_for_equal_bits
from fractal_ifs.runs import shapes
from fractal_ifs.runs.buffers import set_buffers
from fractal_ifs.runs.build import build_network
from fractal_ifs.runs.checkpoints import CHECKPOINTS, Checkpoint, evaluated, read_whole, weights_digest
from fractal_ifs.runs.history import COLUMNS, Evaluation, columns_of, of_checkpoint
from fractal_ifs.runs.records import RunRecord, Status, Stored, read_stored, what_is_there
from fractal_ifs.runs.shapes import Shape

log = logging.getLogger(__name__)


class _Read(NamedTuple):
    record: RunRecord
    history: pd.DataFrame
    config: RunConfig
    model: nn.Module


class Finished(_Read):
    """A run read back from its directory: ``record, history, config, model = load(directory)``.

    Attributes:
        record: as in result.json.
        history: one row per evaluation.
        model: a network of the run.
        step: which one: ``model`` has done so many optimizer steps, ``record.steps`` or with ``best`` ``best_step``.
        accuracy: the test accuracy that was measured there. None where training ended before a measurement.
    """

    step: int | None = None
    accuracy: float | None = None

    def __repr__(self) -> str:
        """A line; the values of a record, its config and a network fill screens."""
        which = "" if self.step is None else f"; model at step {self.step:,}"
        return f"Finished({in_a_line(self.record)}; history of {counted(len(self.history), 'row')}{which})"


def in_a_line(record: RunRecord) -> str:
    """``vicsek n=5 curve 1, mlp depth 5 width 20, lr 0.0005, seed 0: finished, best test accuracy 0.6492 at ...``."""
    data = f"{record.fractal} n={record.fractal_depth} curve {record.curve}" if record.config.synthetic else record.data
    keys = f"{data}, {record.model} depth {record.depth} width {record.width}, lr {record.lr:g}, seed {record.seed}"
    if record.best_test_acc is None:
        return f"{keys}: {record.status}, nothing measured"
    return f"{keys}: {record.status}, best test accuracy {record.best_test_acc:.4f} at step {record.best_step:,}"


def load(directory: str | Path, best: bool = False) -> Finished:
    """Read the record, history, config and trained network of the run in ``directory``.

    The network is the last one, that of the record's ``final_test_acc``; with ``best`` that of its ``best_test_acc``.
    With ``optimizer.average`` both have the average of the weights, which was measured. Raises ConfigError if there is
    no such run, or its record is damaged, or no checkpoint is left that holds this network, as those of earlier
    versions, which kept the last one alone. Where a class of one's own has changed since the run, a warning says so:
    the same weights may be another function in it.
    """
    directory = Path(directory)
    try:
        stored = read_stored(directory)
    except FileNotFoundError:
        raise ConfigError(f"run={directory}: {what_is_there(directory)}") from None
    except ConfigError as error:
        raise ConfigError(f"run={directory}: {error}") from None
    state, network = _checkpoint(directory, stored)
    record = stored.record
    _tell_of_another_source(directory, record)
    params = _best(directory, state, stored) if best else evaluated(state)
    ask_for_equal_bits()  # in a notebook this network may be used before the next is trained
    with torch.no_grad():
        nn.utils.vector_to_parameters(params, network.parameters())
    set_buffers(network, state.get("best_buffers") if "best_params" in state and best else state.get("buffers"))
    history = table_of(of_checkpoint(state))
    found = Finished(record, history, record.config, network.eval())
    found.step = record.best_step if best else record.steps
    found.accuracy = record.best_test_acc if best else record.final_test_acc
    if not best and record.status == Status.DIVERGED:
        found.accuracy = None  # the record has 0.0, and nothing was measured
    return found


def _tell_of_another_source(directory: Path, record: RunRecord) -> None:
    there, own = record.model_source, record.config.model
    here = source_digest(own.target) if isinstance(own, Own) else None
    if None not in (there, here) and there != here:
        log.warning(
            "%s: was trained with another source of its model (model_source %s there, %s here): its weights may be "
            "another function in this one",
            directory,
            there,
            here,
        )


def table_of(history: Sequence[Evaluation]) -> pd.DataFrame:
    """A history as a table, one row per evaluation, with the columns of history.csv and its seconds."""
    rows = [row.by_name() | {"seconds": round(row.seconds, 3)} for row in history]
    return pd.DataFrame(rows, columns=pd.Index([*COLUMNS, *columns_of(history)]))


def _best(directory: Path, state: Checkpoint, stored: Stored) -> torch.Tensor:
    """The parameters (P,) at the record's best test accuracy. Raises ConfigError where they aren't there."""
    record, there = stored.record, state.get("best_params")
    # Of other runs, step 0 is what earlier versions wrote where all accuracies were 0; they kept no best network.
    if record.best_step is None or (record.best_step == 0 and record.status == Status.DIVERGED):
        raise ConfigError(f"run={directory}: no accuracy was measured in it, so it has no best network")
    if there is not None and state["best"] == (record.best_test_acc, record.best_step):
        return there
    if record.best_step == record.steps:
        return evaluated(state)
    raise ConfigError(
        f"run={directory}: its best network (step {record.best_step:,}) wasn't kept by the version that trained it; "
        "overwrite=true trains it again"
    )


def _checkpoint(directory: Path, stored: Stored) -> tuple[Checkpoint, nn.Module]:
    """The checkpoint that holds what a record describes, and a network of its shape. Raises ConfigError."""
    config = stored.record.config
    check_memory(config)
    inputs = 3 if isinstance(config.data, ImageData) else config.fractal.ifs.d
    try:
        network = build_network(config, inputs)
    except (Exception, SystemExit) as error:  # of a class of a user's own
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
    if stored.digests.weights not in (None, weights_digest(evaluated(state))):
        raise Damaged("holds other weights than those that the record names")
    if "best_params" in state and stored.digests.best not in (None, weights_digest(state["best_params"])):
        raise Damaged("holds another best network than the one that the record names")
    if record.final_test_acc is not None and state["history"] and record.final_test_acc != state["history"][-1][4]:
        raise Damaged("has another accuracy than the record")
