"""``training=layerwise``: the hidden layers are trained one after the other, each with its own linear readout.

A layer's input is the output of the trained layers before it. To an engine, the layer in training is an ordinary run of
a network with one hidden layer.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fractal_ifs.config.model import MLPModel
from fractal_ifs.config.run import RunConfig
from fractal_ifs.data.seeds import stream
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.runs.build import drawn_in
from fractal_ifs.runs.checkpoints import Checkpoint
from fractal_ifs.runs.history import Evaluation
from fractal_ifs.runs.records import RunRecord, Status
from fractal_ifs.runs.run import Run


class LayerwiseRun(Run):
    """A network trained layer by layer. Each layer gets ``steps`` steps and a fresh optimizer.

    ``network`` is the whole network; ``model``, ``params``, ``data`` and ``step`` belong to the layer in training.
    The hidden layers and the last readout start with the weights that they have in joint training. The readouts of
    earlier layers have their own random stream, and are dropped when their layer is done. The history counts the steps
    of all layers. The best test accuracy counts the last layer only, since its readout is the network's own.
    """

    def __init__(self, config: RunConfig, directory: Path | None, device: str | torch.device = "cpu"):
        super().__init__(config, directory, device)
        self.network, self.whole = self.model, self.params
        self.points: Any = self.data
        self.begin_layer(0)

    @property
    def trained(self) -> MLP:
        """The whole network, with the layers trained so far."""
        self.store()
        return self.network

    def weights(self) -> Tensor:
        """The parameters of the whole network, (P,)."""
        self.store()
        return self.whole

    @property
    def last(self) -> bool:
        """Whether the layer in training is the last one."""
        return self.layer == self.network.depth - 1

    @torch.no_grad()
    def begin_layer(self, layer: int) -> None:
        """Begin to train layer number ``layer``, from 0; the others keep their weights."""
        self.layer, self.step, self.steps_before = layer, 0, layer * self.config.steps
        inputs = (self._input(x) for x in (self.points.x_train, self.points.x_test))
        x_train, x_test = (x.contiguous() for x in inputs)
        self.data = dataclasses.replace(self.points, x_train=x_train, x_test=x_test)
        if self.points.x_val is not None:
            self.data.x_val = self._input(self.points.x_val).contiguous()
        own = torch.Generator().manual_seed(stream(self.config.seed, "readouts") + layer)
        hidden: Any = self.network.hidden[layer]
        assert isinstance(self.config.model, MLPModel)
        init, dtype = self.config.model.init, hidden.weight.dtype
        drawn = drawn_in(self.config)
        self.model = MLP(hidden.in_features, hidden.out_features, 1, init, generator=own, dtype=drawn).to(dtype)
        begin = [*hidden.parameters(), *(self.network if self.last else self.model).readout.parameters()]
        flat = torch.cat([p.detach().reshape(-1).to(self.whole.device) for p in begin])
        self.bind(flat, torch.zeros_like(flat), torch.zeros_like(flat))

    def _input(self, x: Tensor) -> Tensor:
        """The input of the layer in training for points x (n, d): x itself for the first layer, else (n, width)."""
        total = 0 * x[:, :1]
        for layer in list(self.network.hidden)[: self.layer]:
            x = layer(x.to(self.whole.dtype)).relu()
            total = total + x
        return total if self.network.sum_last and self.last and self.layer >= 2 else x

    @torch.no_grad()
    def store(self) -> None:
        """Copy the layer in training into the network, and its readout if it is the last layer."""
        into = [*self.network.hidden[self.layer].parameters()]
        into += self.network.readout.parameters() if self.last else []
        for there, here in zip(into, self.model.parameters(), strict=False):
            there.copy_(here)

    def evaluated(
        self,
        test_acc: float,
        test_loss: float,
        measured: Mapping[str, float] | None = None,
        train_loss: float | None = None,
    ) -> Evaluation:
        """Take a measurement, as ``Run`` does; after the last of a layer, begin the next layer."""
        row = super().evaluated(test_acc, test_loss, measured, train_loss)
        if not self.last:
            self.best_test_acc, self.best_step, self.best_params = 0.0, 0, None
            if self.status == Status.FINISHED:
                self.status = Status.RUNNING
                self.store()
                self.begin_layer(self.layer + 1)
        return row

    def state(self) -> Checkpoint:
        """The content of a checkpoint: the whole network, and the layer in training."""
        state = super().state()
        state["layer"], state["layer_params"] = self.layer, state["params"]
        state["params"] = self.weights().cpu().clone()
        return state

    def let_go(self) -> None:
        """Let go of the data, as ``Run`` does."""
        super().let_go()
        self.points = None

    def restore(self, state: Checkpoint) -> None:
        """Go on from a checkpoint of ``state``, with the same bits."""
        assert "layer" in state
        assert "layer_params" in state
        self.whole.copy_(state["params"])
        self.begin_layer(state["layer"])
        of_layer = state.copy()
        of_layer["params"] = state["layer_params"]
        super().restore(of_layer)

    def record(self) -> RunRecord:
        """The content of result.json; ``params`` counts the whole network."""
        return dataclasses.replace(super().record(), params=self.whole.numel())
