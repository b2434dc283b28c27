"""The networks of the paper's experiments: fully connected, ReLU, one real output."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fractal_ifs.errors import ConfigError

INITS = ("paper", "theory", "pytorch")


class MLP(nn.Module):
    """``depth`` hidden ReLU layers of ``width`` units and a linear readout (section 5; the theory's t is depth + 1).

    Args:
        d: dimension of the input.
        width: units of every hidden layer, k.
        depth: number of hidden layers, T. Parameters: d k + k + (T - 1)(k^2 + k) + k + 1.
        init: ``paper``: weights normal with std 1/sqrt(fan in), cut at two of it, biases 0.1; ``theory``: weights
            uniform in +-1/(2 fan in), biases 1/2 (Theorem 5); ``pytorch``: that of ``nn.Linear``.
        sum_last: the last hidden layer reads the sum of all earlier hidden layers (differs for depth >= 3).
        generator: where the weights come from; the global generator is never used.

    Shapes: x (..., d) -> f(x) (...).
    """

    def __init__(
        self,
        d: int,
        width: int,
        depth: int,
        init: str = "paper",
        sum_last: bool = False,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        for key, value in (("d", d), ("width", width), ("depth", depth)):
            if value < 1:
                raise ConfigError(f"{key}={value}: must be a whole number >= 1")
        if init not in INITS:
            raise ConfigError(f"model.init={init}: must be one of {', '.join(INITS)}")
        self.d, self.width, self.depth, self.sum_last = d, width, depth, sum_last
        fan_ins = [d] + [width] * (depth - 1)
        self.hidden = nn.ModuleList(nn.utils.skip_init(nn.Linear, fan_in, width, dtype=dtype) for fan_in in fan_ins)
        self.readout = nn.utils.skip_init(nn.Linear, width, 1, dtype=dtype)
        generator = generator or torch.Generator().manual_seed(0)
        with torch.no_grad():
            for layer in [*self.hidden, self.readout]:
                _initialise(layer, init, generator)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        return mlp(list(self.parameters()), x, self.sum_last)


def mlp(parameters: Sequence[Tensor], x: Tensor, sum_last: bool = False) -> Tensor:
    """The network as a function of its parameters, for one or for M of one shape with a leading axis on everything.

    Shapes: weights (out, in) or (M, out, in), biases (out) or (M, out), in the order of ``MLP.parameters()``;
    x (..., d) or (M, batch, d) -> (...) or (M, batch).
    """
    *hidden, w_out, b_out = parameters
    depth = len(hidden) // 2
    total: Tensor | float = 0.0
    for j in range(depth):
        if sum_last and depth >= 3 and j == depth - 1:
            x = total  # pyright: ignore[reportAssignmentType]
        x = _affine(hidden[2 * j], hidden[2 * j + 1], x).relu()
        if sum_last:
            total = total + x
    return _affine(w_out, b_out, x).squeeze(-1)


def _affine(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    if weight.dim() == 2:
        return nn.functional.linear(x, weight, bias)
    return torch.baddbmm(bias.unsqueeze(-2), x, weight.mT)


def _initialise(layer: nn.Linear, init: str, generator: torch.Generator) -> None:
    fan_in = layer.in_features
    if init == "paper":
        std = 1 / math.sqrt(fan_in)
        nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
        layer.bias.fill_(0.1)
    elif init == "theory":
        layer.weight.uniform_(-0.5 / fan_in, 0.5 / fan_in, generator=generator)
        layer.bias.fill_(0.5)
    else:  # nn.Linear's own: uniform in +-1/sqrt(fan in) for both
        bound = 1 / math.sqrt(fan_in)
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
