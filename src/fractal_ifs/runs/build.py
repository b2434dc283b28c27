"""Builds the data and the network of a config."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch
from torch import nn

from fractal_ifs.config.data import FractalData, ImageData
from fractal_ifs.config.model import CNNModel, MLPModel, OwnModel, ResMLPModel, Theorem1Model, TransformerModel
from fractal_ifs.config.run import RunConfig, theorem1_margin
from fractal_ifs.data.images import Images, image_sets
from fractal_ifs.data.points import Points, fractal_points
from fractal_ifs.data.seeds import generator
from fractal_ifs.networks import own
from fractal_ifs.networks.convnet import ConvNet
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.networks.theorem1 import theorem1_start
from fractal_ifs.networks.transformer import Transformer
from fractal_ifs.networks.varied import ResMLP, VariedMLP


def build_data(config: RunConfig, device: str | torch.device = "cpu") -> Points | Images:
    """The training and test set of a run. Raises ConfigError if images can't be read or fetched."""
    if isinstance(config.data, FractalData):
        return fractal_points(config.fractal, config.curve, config.data, config.seed, device)
    return image_sets(config.data, device)


def drawn_in(config: RunConfig) -> torch.dtype:
    """The numbers in which a run's network draws its weights, before it is cast to those that it trains in."""
    double = config.trainer.precision == "64-true" and config.trainer.draw == "precision"
    return torch.float64 if double else torch.float32


def build_network(config: RunConfig, d: int) -> nn.Module:
    """The network of a run, initialised from its seed. Inputs have dimension d, or d channels if they are images.

    With trainer.precision=64-true it is the network of 32-true, cast, but for the older trainer.draw=precision. Raises
    ConfigError for a class of a user's own that can't be imported, or not be made.
    """
    model, data = config.model, config.data
    dtype, drawn = torch.float64 if config.trainer.precision == "64-true" else torch.float32, drawn_in(config)
    init = generator(config.seed, "init")
    if isinstance(model, CNNModel) and isinstance(data, ImageData):
        network = ConvNet(
            config.depth,
            config.width,
            channels=d,
            size=data.crop,
            pools=model.pools,
            readout=model.readout,
            init=model.init,
            generator=init,
            dtype=drawn,
        )
        return network.to(dtype)
    shape = (d, config.width, config.depth)
    if isinstance(model, Theorem1Model):
        fractal, (gamma, noise) = config.fractal, (theorem1_margin(model, data), model.noise)
        return theorem1_start(fractal.ifs, fractal.depth, gamma, config.width, config.depth, noise, init, dtype)
    if isinstance(model, MLPModel) and not model.varied:
        return MLP(*shape, model.init, model.sums, init, drawn).to(dtype)
    with _default_dtype(drawn):  # whatever it is where this is called
        if isinstance(model, OwnModel):
            return own.build(model, *shape, init).to(dtype)
        if isinstance(model, ResMLPModel):
            keys: dict[str, Any] = {"activation": model.activation, "norm": model.norm, "expansion": model.expansion}
            return ResMLP(*shape, generator=init, init=model.init, **keys).to(dtype)
        if isinstance(model, TransformerModel):
            keys = {"activation": model.activation, "base": model.base, "levels": model.levels}
            return Transformer(*shape, generator=init, init=model.init, **keys).to(dtype)
        assert isinstance(model, MLPModel)
        keys = {"activation": model.activation, "norm": model.norm, "residual": model.skip == "residual"}
        return VariedMLP(*shape, generator=init, init=model.init, sum_last=model.sums, **keys).to(dtype)


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Generator[None]:
    """Within: layers that are made have such numbers, unless they say otherwise."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
