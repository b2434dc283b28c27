"""What a measure is given: the network of a run at an evaluation, with its data. All are copies."""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the type of from_numpy)

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fractal_ifs.config.data import ImageData
from fractal_ifs.config.measures import TRAIN_POINTS
from fractal_ifs.config.run import RunConfig
from fractal_ifs.data import augment
from fractal_ifs.data.images import Batches
from fractal_ifs.data.labelled import Labelled
from fractal_ifs.data.seeds import stream, uniforms
from fractal_ifs.engines.losses import losses
from fractal_ifs.engines.own_loss import function_of
from fractal_ifs.runs.layerwise import LayerwiseRun
from fractal_ifs.runs.run import Run

PIECE = 2**13  # points at a time


class Snapshot:
    """A network at an evaluation. In layer-wise training the layer in training, whose points are what it reads."""

    def __init__(self, run: Run):
        self._run = run

    @property
    def config(self) -> RunConfig:
        """All keys of the run."""
        return self._run.config

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self._run.steps_before + self._run.step

    @cached_property
    def network(self) -> nn.Module:
        """The network in evaluation mode, with the weights that are evaluated."""
        with self._run.averaged():
            return copy.deepcopy(self._run.model).eval()

    @cached_property
    def whole(self) -> nn.Module:
        """The same network; in layer-wise training all of it, with the layers that are still to be trained."""
        return copy.deepcopy(self._run.trained).eval() if isinstance(self._run, LayerwiseRun) else self.network

    @property
    def layers(self) -> int:
        """How many hidden layers of ``whole`` are trained, or in training."""
        return self._run.layer + 1 if isinstance(self._run, LayerwiseRun) else self.config.depth

    @property
    def d(self) -> int:
        """The dimension of the points that ``whole`` takes, or the channels of images."""
        return self._run.inputs

    @property
    def train(self) -> Labelled:
        """The first 10,000 training points, as ``train_acc`` has them."""
        return self._set("train", TRAIN_POINTS)

    @property
    def test(self) -> Labelled:
        """The test set."""
        return self._set("test")

    @property
    def val(self) -> Labelled | None:
        """The validation set, if there is one."""
        return None if self._run.data.x_val is None else self._set("val")

    @property
    def level(self) -> Tensor | None:
        """The levels of the test set, (m,) int64: 1 to n of a negative, n + 1 of a positive. None for images."""
        found: Tensor | None = getattr(self._run.data, "level_test", None)
        return None if found is None else found.clone()

    def _set(self, name: str, most: int | None = None) -> Labelled:
        data: Any = self._run.data
        x, y = getattr(data, f"x_{name}"), getattr(data, f"y_{name}")
        return Labelled(x[:most].clone(), y[:most].clone())

    def inputs(self, there: Labelled) -> Iterator[Tensor]:
        """A set as ``network`` takes it, in pieces: points, or images as central crops."""
        c, dtype = self.config, self._run.params.dtype
        if isinstance(c.data, ImageData):
            return (x for x, _ in Batches(self._run.data, c.data, c.seed, c.batch_size, dtype).of(*there))
        return (there.x[first : first + PIECE].to(dtype) for first in range(0, len(there.x), PIECE))

    @torch.no_grad()
    def outputs(self, there: Labelled) -> Tensor:
        """The outputs of ``network`` on a set: f(x) (n,) of points, or the logits (n, 10) of images."""
        return torch.cat([self.network(x) for x in self.inputs(there)])

    def batches(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """So many batches of ``batch_size`` training points, drawn with replacement: the same at every evaluation.

        They come from a stream of their own of the run's seed. Images are central crops.
        """
        c, data = self.config, self._run.data
        draws = uniforms(stream(c.seed, "measures"), 0, number, c.batch_size)
        for draw in torch.from_numpy(draws).to(data.y_train.device):
            rows = (draw * len(data.y_train)).long()
            if isinstance(c.data, ImageData):
                x = augment.central(data.x_train, data.channels, rows, c.data.crop, self._run.params.dtype)
            else:
                x = data.x_train[rows].to(self._run.params.dtype)
            yield x, data.y_train[rows]

    def loss(self, f: Tensor, y: Tensor) -> Tensor:
        """The mean loss of outputs for their labels, as the run has it."""
        if isinstance(self.config.data, ImageData):
            return F.cross_entropy(f, y)
        return losses(function_of(self.config.loss), f, y)
