"""Layers whose numbers are still to be drawn, from a generator of ours."""

from typing import TypeVar

import torch
from torch import nn

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
