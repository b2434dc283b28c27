"""The hidden layers of the networks whose form we know, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from fractal_ifs.networks.convnet import ConvNet
from fractal_ifs.networks.mlp import MLP


def hidden(network: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """What each hidden layer computes before its ReLU: (n, width), or of a CNN (n, width, h, w) before its pooling.

    Args:
        network: an ``MLP`` or a ``ConvNet``.
        x: points (n, d) or images (n, c, s, s).
    """
    layers = [*cast(nn.ModuleList, network.hidden)]
    sums = isinstance(network, MLP) and network.sum_last and len(layers) >= 3
    total: Tensor | None = None
    for number, layer in enumerate(layers):
        z: Tensor = layer(total if total is not None and sums and number == len(layers) - 1 else x)
        yield z
        if isinstance(network, ConvNet) and number < network.pools:
            z = F.max_pool2d(z, 2)
        x = z.relu()
        total = x if total is None or not sums else total + x
