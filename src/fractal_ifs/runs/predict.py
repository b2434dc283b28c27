"""What a trained network says of points."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch doesn't declare the types of Tensor.split)

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.numbers import Floats
from fractal_ifs.runs.load import load
from fractal_ifs.runs.records import RunRecord

PIECE = 2**15  # points at a time


class Trained(Protocol):
    """What ``load`` and ``fractal_ifs.run`` return of a run."""

    @property
    def record(self) -> RunRecord:
        """As in result.json."""
        ...

    @property
    def model(self) -> nn.Module:
        """The trained network."""
        ...


def predict(network: str | Path | Trained | nn.Module, x: Any, best: bool = False) -> Floats:
    """The outputs f(x) of a network at points, which it calls positive where f(x) > 0.

    Args:
        network: the directory of a finished run, or what ``load`` or ``run`` returned of it, or any module.
        x: points (n, d): an array, a tensor, a table, or nested lists.
        best: of a directory, the network at the best test accuracy rather than the last.

    Returns (n,), in the precision of the network. Raises ConfigError for a bad directory or points, as of another d.
    """
    if isinstance(network, nn.Module):
        return outputs(network, points(x)).numpy()
    if isinstance(network, str | os.PathLike):
        network = load(network, best)
    elif best:
        raise ConfigError("best=True: belongs to load(directory, best=True) here, which has read a network already")
    try:
        model, config = network.model, network.record.config
    except AttributeError:
        kind = type(network).__name__
        raise ConfigError(f"network: must be a directory, a module, or what load or run returned, not {kind}") from None
    return outputs(model, points(x, dimension(config))).numpy()


def dimension(config: RunConfig) -> int:
    """The dimension d of the points that a run's network takes. Raises ConfigError for a network on images."""
    if not config.synthetic:
        raise ConfigError(f"data={config.data.name}: must be a run on a fractal: this network takes images, not points")
    return config.fractal.ifs.d


def points(x: Any, d: int | None = None) -> Tensor:
    """Points (n, d) as a tensor of float64. Raises ConfigError for anything else, as for a nan."""
    try:
        array = x.detach().cpu() if isinstance(x, Tensor) else np.asarray(x)
        if array.is_complex() if isinstance(array, Tensor) else np.iscomplexobj(array):
            raise TypeError
        found = array.double() if isinstance(array, Tensor) else torch.tensor(array.astype(np.float64))
    except (TypeError, ValueError, OverflowError):
        raise ConfigError("x: must be points (n, d), real numbers only") from None
    if found.dim() != 2 or (d is not None and found.shape[1] != d):
        raise ConfigError(f"x: must have the shape (n, {'d' if d is None else d}), not {tuple(found.shape)}")
    if not bool(found.isfinite().all()):
        raise ConfigError("x: must be finite numbers")
    return found


@torch.no_grad()
def outputs(network: nn.Module, x: Tensor) -> Tensor:
    """The network's outputs (n,) at points x (n, d), on the CPU, in pieces that fit into memory.

    They are those in evaluation mode. The network is left as it was.
    """
    first = next(network.parameters(), torch.empty(0))
    in_training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        found = [network(piece.to(first.device, first.dtype)).cpu() for piece in x.split(PIECE)]
    finally:
        for module in in_training:  # each by itself: a part may be frozen
            module.training = True
    return torch.cat(found) if len(x) else torch.empty(0, dtype=first.dtype)
