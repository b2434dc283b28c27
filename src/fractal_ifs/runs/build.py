"""Builds the data and the network of a config."""

from __future__ import annotations

import torch

from fractal_ifs.config.data import FractalData, ImageData
from fractal_ifs.config.model import CNNModel
from fractal_ifs.config.run import RunConfig
from fractal_ifs.data.images import Images, image_sets
from fractal_ifs.data.points import Points, fractal_points
from fractal_ifs.data.seeds import generator
from fractal_ifs.networks.convnet import ConvNet
from fractal_ifs.networks.mlp import MLP


def build_data(config: RunConfig, device: str | torch.device = "cpu") -> Points | Images:
    """The training and test set of a run. Raises ConfigError if images can't be read or fetched."""
    if isinstance(config.data, FractalData):
        return fractal_points(config.fractal, config.curve, config.data, config.seed, device)
    return image_sets(config.data, device)


def build_network(config: RunConfig, d: int) -> MLP | ConvNet:
    """The network of a run, initialised from its seed. Inputs have dimension d, or d channels if they are images."""
    model, data = config.model, config.data
    dtype = torch.float64 if config.trainer.precision == "64-true" else torch.float32
    init = generator(config.seed, "init")
    if isinstance(model, CNNModel) and isinstance(data, ImageData):
        return ConvNet(
            config.depth,
            config.width,
            channels=d,
            size=data.crop,
            pools=model.pools,
            readout=model.readout,
            init=model.init,
            generator=init,
            dtype=dtype,
        )
    assert not isinstance(model, CNNModel)
    return MLP(d, config.width, config.depth, model.init, model.sum_last, init, dtype)
