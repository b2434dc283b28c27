"""What a checkpoint must hold to be that of a config's run: how many numbers, of which type, how far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import Damaged
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.runs.checkpoints import Checkpoint

ROW_BYTES = 200  # of a row of the history in a checkpoint, at most, without its numbers of measures
COLUMNS = 1000  # of measures in a history, at most
OTHER_BYTES = 1 << 20  # of all else besides the vectors, at most


class Shape(NamedTuple):
    """The sizes of a run's vectors, with the bounds of its counts."""

    d: int
    params: int  # of the whole network
    trained: tuple[int, ...]  # parameters that train together: of all, or in layer-wise training of each layer
    buffers: int  # numbers that belong to the network and aren't trained
    dtype: torch.dtype
    steps: int  # of each layer in layer-wise training, else of all
    eval_every: int
    layerwise: bool
    average: bool  # of the weights is kept beside them

    @classmethod
    def of(cls, config: RunConfig, network: nn.Module, d: int) -> Shape:
        """The shape of the checkpoints of a config's run, which trains ``network`` on inputs of dimension d."""
        size = _size(network)
        layerwise = config.training == "layerwise"
        trained = (size,)
        if layerwise:
            assert isinstance(network, MLP)
            trained = tuple(_size(layer) + _size(network.readout) for layer in network.hidden)
        return cls(
            d=d,
            params=size,
            trained=trained,
            buffers=sum(buffer.numel() for buffer in network.buffers()),
            dtype=next(network.parameters()).dtype,
            steps=config.steps,
            eval_every=config.eval_every,
            layerwise=layerwise,
            average=config.optimizer.average != "none",
        )

    @property
    def most_bytes(self) -> int:
        """More bytes than a checkpoint's file has."""
        rows = len(self.trained) * (self.steps // self.eval_every + 2)
        numbers = 2 * self.params + (3 + self.average) * max(self.trained)
        return numbers * self.dtype.itemsize + 24 * self.buffers + rows * (ROW_BYTES + 8 * COLUMNS) + OTHER_BYTES


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def check(state: Checkpoint, shape: Shape) -> None:
    """Raises Damaged if a whole checkpoint can't be one of a run of this shape."""
    if ("layer" in state, "layer_params" in state) != (shape.layerwise, shape.layerwise):
        raise Damaged("of joint training" if shape.layerwise else "of layer-wise training")
    if ("average" in state) != shape.average:
        raise Damaged("of a run with an average of the weights" if "average" in state else "it has no average")
    layer = state.get("layer", 0)
    if state["d"] != shape.d or layer >= len(shape.trained):
        raise Damaged("of another network")
    size = shape.trained[layer]
    vectors = {
        "params": (state["params"], shape.params),
        "exp_avg": (state["exp_avg"], size),
        "exp_avg_sq": (state["exp_avg_sq"], size),
    }
    if "average" in state:
        vectors["average"] = (state["average"], size)
    if "layer_params" in state:
        vectors["layer_params"] = (state["layer_params"], size)
    if "best_params" in state:
        vectors["best_params"] = (state["best_params"], shape.params)
    for name, (vector, needed) in vectors.items():
        if vector.numel() != needed or vector.dtype != shape.dtype:
            found = f"{vector.numel()} numbers of {vector.dtype}"
            raise Damaged(f"its {name} has {found}, the network needs {needed} of {shape.dtype}")
    there = {"buffers": True, "best_buffers": "best_params" in state}
    for name in (name for name, held in there.items() if held or name in state):
        if len(state.get(name, ())) != shape.buffers:
            raise Damaged(f"its {name} aren't those of the network")
    if len(state.get("measured", ())) != len(state.get("columns", ())) * len(state["history"]):
        raise Damaged("its measured numbers aren't those of its history")
    done = layer * shape.steps + state["step"]
    last = state["history"][-1][0] if state["history"] else 0
    since = state["loss_steps"]  # steps since the last evaluation
    if state["step"] > shape.steps or done - last != since or since > shape.eval_every or state["best"][1] > last:
        raise Damaged("its steps can't be right")
    if "digest" not in state:
        _check_values(state, {name: vector for name, (vector, _) in vectors.items()})


def _check_values(state: Checkpoint, vectors: Mapping[str, torch.Tensor]) -> None:
    """Raises Damaged for numbers that training hardly leaves. Only where no digest says that it did leave them."""
    diverged = bool(state["history"]) and not all(map(math.isfinite, state["history"][-1][2:4]))
    for name, vector in vectors.items():
        if not (diverged or bool(vector.isfinite().all())):
            raise Damaged(f"its {name} has numbers that aren't finite")
    if bool((state["exp_avg_sq"] < 0).any()):
        raise Damaged("its exp_avg_sq has numbers below 0")
