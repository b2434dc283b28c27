"""Fully connected networks beside the paper's: other activations, layer normalisation, residual layers and blocks.

They keep the contract of ``networks.own``, so they are examples of how a network of one's own is written.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fractal_ifs.networks.mlp import INITS
from fractal_ifs.networks.undrawn import check_init, initialise, linear


def gelu(x: Tensor) -> Tensor:
    """The tanh form of GELU, x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), to train in stacks.

    Torch's own computes the last elements of a tensor in another way than the others.
    """
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky": partial(F.leaky_relu, negative_slope=0.01),
    "gelu": gelu,
    "tanh": torch.tanh,
    "sine": torch.sin,
}


class VariedMLP(nn.Module):
    """``depth`` hidden layers of ``width`` units and a linear readout, like ``MLP``.

    A layer is h = activation(norm(W x + b)), and with ``residual`` x + h from the second layer on.

    Args:
        d, width, depth, init, sum_last, generator: as of ``MLP``.
        activation: one of ``ACTIVATIONS``.
        norm: ``layer`` normalises the units of each layer, with weights 1 and biases 0 at first; ``none``.
    """

    def __init__(
        self,
        d: int,
        width: int,
        depth: int,
        *,
        generator: torch.Generator,
        init: str = "paper",
        activation: str = "relu",
        norm: str = "none",
        residual: bool = False,
        sum_last: bool = False,
    ):
        super().__init__()
        self.activation, self.residual, self.sum_last = ACTIVATIONS[activation], residual, sum_last
        self.hidden = nn.ModuleList(linear(inputs, width) for inputs in [d] + [width] * (depth - 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm == "layer" else nn.Identity() for _ in self.hidden)
        self.readout = linear(width, 1)
        draw([*self.hidden, self.readout], init, generator)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs f(x): (..., d) to (...)."""
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for j, (layer, norm) in enumerate(zip(self.hidden, self.norms, strict=True)):
            read = total if self.sum_last and 1 < j == len(self.hidden) - 1 else x
            h = self.activation(norm(layer(read)))
            x = read + h if self.residual and j > 0 else h
            total = total + x
        return self.readout(x).squeeze(-1)


class ResMLP(nn.Module):
    """A linear layer, ``depth`` residual blocks x + W_2 activation(W_1 norm(x)), and a linear readout.

    Args:
        d, width, depth, init, generator: as of ``MLP``; ``width`` is that of x, ``depth`` the number of blocks.
        activation, norm: as of ``VariedMLP``.
        expansion: units between the two layers of a block, as a multiple of ``width``.
    """

    def __init__(
        self,
        d: int,
        width: int,
        depth: int,
        *,
        generator: torch.Generator,
        init: str = "paper",
        activation: str = "relu",
        norm: str = "layer",
        expansion: float = 1,
    ):
        super().__init__()
        inner = max(1, round(expansion * width))
        self.activation = ACTIVATIONS[activation]
        self.first, self.readout = linear(d, width), linear(width, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm == "layer" else nn.Identity() for _ in range(depth))
        self.up = nn.ModuleList(linear(width, inner) for _ in range(depth))
        self.down = nn.ModuleList(linear(inner, width) for _ in range(depth))
        draw([self.first, *self.up, *self.down, self.readout], init, generator)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs f(x): (..., d) to (...)."""
        x = self.first(x)
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            x = x + down(self.activation(up(norm(x))))
        return self.readout(x).squeeze(-1)


@torch.no_grad()
def draw(layers: Sequence[nn.Module], init: str, generator: torch.Generator) -> None:
    """Draw the weights of linear layers; ``init`` as of ``MLP``. Raises ConfigError for an unknown one."""
    check_init(init, INITS)
    for layer in layers:
        assert isinstance(layer, nn.Linear)
        initialise(layer, init, generator)
