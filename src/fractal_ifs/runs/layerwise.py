"""``training=layerwise``: each hidden layer in turn, with a readout of its own, on what the layers before it make of x.

To an engine the layer in training is an ordinary run: a network of one hidden layer whose input is the layer's input.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fractal_ifs.config.run import RunConfig
from fractal_ifs.data.points import Points
from fractal_ifs.data.seeds import stream
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.runs.records import Evaluation, RunRecord, Status
from fractal_ifs.runs.run import Run


class LayerwiseRun(Run):
    """A network trained layer by layer, each layer for ``steps`` steps by an optimizer that begins anew.

    ``network`` is the whole of it; ``model``, ``params``, ``data`` and ``step`` are those of the layer in training. Its
    weights begin as they do in joint training; so does the last readout, those of earlier layers are drawn apart and
    are dropped with the end of their layer. The history counts the steps of all layers; the best test accuracy is that
    of the last layer's readout, which is the one of a network of this depth.
    """

    def __init__(self, config: RunConfig, directory: Path | None, device: str | torch.device = "cpu"):
        super().__init__(config, directory, device)
        self.network, self.whole, self.points = self.model, self.params, self.data
        self.begin_layer(0)

    @property
    def trained(self) -> MLP:
        """The whole network, as far as it is trained."""
        self.store()
        return self.network

    @property
    def last(self) -> bool:
        return self.layer == self.network.depth - 1

    @torch.no_grad()
    def begin_layer(self, layer: int) -> None:
        """Leave the layer in training as it is, and train another one from its beginning."""
        self.layer, self.step, self.steps_before = layer, 0, layer * self.config.steps
        inputs = (self._input(x) for x in (self.points.x_train, self.points.x_test))
        x_train, x_test = (x.contiguous() for x in inputs)
        self.data = Points(x_train, self.points.y_train, x_test, self.points.y_test)
        own = torch.Generator().manual_seed(stream(self.config.seed, "readouts") + layer)
        hidden: Any = self.network.hidden[layer]
        init, dtype = self.config.model.init, hidden.weight.dtype
        self.model = MLP(hidden.in_features, hidden.out_features, 1, init, generator=own, dtype=dtype)
        begin = [*hidden.parameters(), *(self.network if self.last else self.model).readout.parameters()]
        flat = torch.cat([p.detach().reshape(-1).to(self.whole.device) for p in begin])
        self.bind(flat, torch.zeros_like(flat), torch.zeros_like(flat))

    def _input(self, x: Tensor) -> Tensor:
        """What the layer in training reads, of points x (n, d): (n, width), of the first layer x itself."""
        total = 0 * x[:, :1]
        for layer in list(self.network.hidden)[: self.layer]:
            x = layer(x.to(self.whole.dtype)).relu()
            total = total + x
        return total if self.network.sum_last and self.last and self.layer >= 2 else x

    @torch.no_grad()
    def store(self) -> None:
        """Write the layer in training into the network; its readout, if it is the last."""
        into = [*self.network.hidden[self.layer].parameters()]
        into += self.network.readout.parameters() if self.last else []
        for there, here in zip(into, self.model.parameters(), strict=False):
            there.copy_(here)

    def evaluated(self, test_acc: float, test_loss: float) -> Evaluation:
        row = super().evaluated(test_acc, test_loss)
        if not self.last:
            self.best_test_acc, self.best_step = 0.0, 0
            if self.status == Status.FINISHED:
                self.status = Status.RUNNING
                self.store()
                self.begin_layer(self.layer + 1)
        return row

    def state(self) -> dict[str, Any]:
        self.store()
        of_layer = {"layer": self.layer, "layer_params": self.params.detach().cpu().clone()}
        return super().state() | {"d": self.points.d, "params": self.whole.cpu().clone(), **of_layer}

    def restore(self, state: dict[str, Any]) -> None:
        self.whole.copy_(state["params"])
        self.begin_layer(state["layer"])
        super().restore(state | {"params": state["layer_params"]})

    def record(self) -> RunRecord:
        return dataclasses.replace(super().record(), params=self.whole.numel())
