"""The networks of the paper's experiments: fully connected, ReLU, one real output."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fractal_ifs.fractals.numbers import whole
from fractal_ifs.networks.undrawn import check_init, initialise, linear

INITS = ("paper", "theory", "pytorch")


class MLP(nn.Module):
    """``depth`` hidden ReLU layers of ``width`` units and a linear readout (Section 5); the theory's t is depth + 1.

    Args:
        d: dimension of the input.
        width: units of every hidden layer, k.
        depth: number of hidden layers, T. Parameters: d k + k + (T - 1)(k^2 + k) + k + 1.
        init: ``paper``: weights normal of std 1/sqrt(fan in), cut off at two std, biases 0.1; ``theory``: weights
            uniform in +-1/(2 fan in), biases 1/2 (Theorem 5); ``pytorch``: as ``nn.Linear`` does.
        sum_last: the last hidden layer reads the sum of all hidden layers before it, which differs for depth >= 3.
        generator: what draws the weights, one of seed 0 if not given; never the global one.

    Raises ConfigError for a number below 1 or an unknown init.
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
            whole(value, key, 1)
        check_init(init, INITS)
        self.d, self.width, self.depth, self.sum_last = d, width, depth, sum_last
        fan_ins = [d] + [width] * (depth - 1)
        layers = [linear(fan_in, width, dtype) for fan_in in fan_ins]
        self.hidden, self.readout = nn.ModuleList(layers), linear(width, 1, dtype)
        generator = generator or torch.Generator().manual_seed(0)
        with torch.no_grad():
            for layer in [*layers, self.readout]:
                initialise(layer, init, generator)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs f(x): (..., d) to (...)."""
        return mlp(list(self.parameters()), x, self.sum_last)


def mlp(parameters: Sequence[Tensor], x: Tensor, sum_last: bool = False) -> Tensor:
    """The network as a function of its parameters: of one network, or of M of one shape, stacked along a first axis.

    Shapes: weights (out, in) or (M, out, in), biases (out) or (M, out), in the order of ``MLP.parameters()``;
    x (..., d) -> (...), or x (M, batch, d) -> (M, batch).
    """
    *hidden, w_out, b_out = parameters
    depth = len(hidden) // 2
    total: Tensor | None = None  # of the hidden layers so far
    for j in range(depth):
        if total is not None and depth >= 3 and j == depth - 1:
            x = total
        x = _affine(hidden[2 * j], hidden[2 * j + 1], x).relu()
        if sum_last:
            total = x if total is None else total + x
    return _of_one_unit(w_out, b_out, x)


def _affine(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    if weight.dim() == 2:
        return nn.functional.linear(x, weight, bias)
    if weight.shape[1] == 1:
        return _of_one_unit(weight, bias, x).unsqueeze(-1)
    if x.shape[1] == 1 and not x.is_cuda:  # see _of_one_unit: with a second row it is a product of matrices
        return torch.baddbmm(bias.unsqueeze(-2), x.expand(-1, 2, -1), weight.mT)[:, :1]
    return torch.baddbmm(bias.unsqueeze(-2), x, weight.mT)


def _of_one_unit(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    if weight.dim() == 2:
        return nn.functional.linear(x, weight, bias).squeeze(-1)
    if x.is_cuda:  # one launch
        return torch.baddbmm(bias.unsqueeze(-1), weight, x.mT).squeeze(-2)
    # One product of a matrix and a row or column has other bits in MKL than several at once, so none is asked of it.
    return ((x * weight).sum(-1) + bias).to(x.dtype)  # with autocast x is less precise than the weight
