"""Layers whose numbers are still to be drawn, from a generator of ours, and how they are."""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from fractal_ifs.errors import ConfigError

Layer = TypeVar("Layer", bound=nn.Module)


def undrawn(layer: Layer) -> Layer:
    """A layer that was made on "meta", where the global generator draws nothing for it, with memory for its numbers.

    As its ``to_empty(device="cpu")``, without sympy, which torch imports for that.
    """
    for name, parameter in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")))
    return layer


def linear(inputs: int, outputs: int, dtype: torch.dtype | None = None) -> nn.Linear:
    """A linear layer whose numbers are still to be drawn; ``dtype`` as of ``nn.Linear``, PyTorch's default if None."""
    return undrawn(nn.Linear(inputs, outputs, device="meta", dtype=dtype))


def check_init(init: str, allowed: Sequence[str]) -> None:
    """Raises ConfigError for an initialisation that a network doesn't have."""
    if init not in allowed:
        raise ConfigError(f"model.init={init}: must be one of {', '.join(allowed)}")


def initialise(layer: nn.Linear | nn.Conv2d, init: str, generator: torch.Generator, gain: float = 1.0) -> None:
    """Draw the weights and biases of a layer; ``init`` as of ``MLP`` and ``ConvNet``. Call it without gradients.

    ``gain``: for ``he``, whose weights have std gain/sqrt(fan in).
    """
    weight, bias = layer.weight, layer.bias
    assert bias is not None
    fan_in = weight[0].numel()
    if init == "paper":
        std = 1 / math.sqrt(fan_in)
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)
        bias.fill_(0.1)
    elif init == "theory":
        weight.uniform_(-0.5 / fan_in, 0.5 / fan_in, generator=generator)
        bias.fill_(0.5)
    elif init == "he":
        weight.normal_(std=gain / math.sqrt(fan_in), generator=generator)
        bias.zero_()
    else:  # as PyTorch does: uniform in +-1/sqrt(fan in), both
        bound = 1 / math.sqrt(fan_in)
        weight.uniform_(-bound, bound, generator=generator)
        bias.uniform_(-bound, bound, generator=generator)
