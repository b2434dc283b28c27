"""Networks of one real variable, exactly: they are piecewise affine, so their breakpoints say everything.

All functions work on M networks of one shape at once: `parameters` are those of `MLP.parameters()`, in float64 and
stacked along a first axis M (see `stacked`). On a line, a network of R^d is a network of one variable too (`along`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fractal_ifs.networks.mlp import mlp


def stacked(models: Sequence[nn.Module]) -> list[Tensor]:
    """The parameters of M models of one shape, each (M, ...): copies in float64, without gradients."""
    return [
        torch.stack([p.detach().double() for p in group])
        for group in zip(*(m.parameters() for m in models), strict=True)
    ]


def along(parameters: Sequence[Tensor], start: Tensor, direction: Tensor) -> list[Tensor]:
    """The networks on the lines start + s direction, as networks of s; start and direction (M, d)."""
    weight, bias, *rest = parameters
    slope = torch.einsum("mkd,md->mk", weight, direction)
    return [slope.unsqueeze(-1), bias + torch.einsum("mkd,md->mk", weight, start), *rest]


def breakpoints(parameters: Sequence[Tensor], low: float, high: float, values: Sequence[float] = ()) -> Tensor:
    """(M, B): where in [low, high] a hidden unit of each network turns on or off, or its output equals one of `values`.

    Each row is sorted, begins with `low` and ends with `high`, repeated in rows that have fewer breakpoints. Between
    two neighbours no unit changes its state, so the network is affine.
    """
    hidden = parameters[:-2]
    count = hidden[0].shape[0]
    x = torch.tensor([low, high], dtype=torch.float64).expand(count, 2)
    for j in range(len(hidden) // 2):
        below = _hidden(hidden[: 2 * j], x)
        x = _cut(x, torch.baddbmm(hidden[2 * j + 1].unsqueeze(-2), below, hidden[2 * j].mT), high)
    if len(values):
        f = mlp(parameters, x.unsqueeze(-1)).unsqueeze(-1)
        x = _cut(x, f - torch.tensor(values, dtype=torch.float64), high)
    return x


def _hidden(hidden: Sequence[Tensor], x: Tensor) -> Tensor:
    h = x.unsqueeze(-1)
    for weight, bias in zip(hidden[::2], hidden[1::2], strict=True):
        h = torch.baddbmm(bias.unsqueeze(-2), h, weight.mT).relu()
    return h


def _cut(x: Tensor, f: Tensor, high: float) -> Tensor:
    """x (M, B) with the zeros of f (M, B, k) added, which is affine between neighbours of x."""
    left, right = f[:, :-1], f[:, 1:]
    crosses = left * right < 0
    share = torch.where(crosses, left / (left - right), 0)
    zeros = x[:, :-1, None] + (x[:, 1:] - x[:, :-1]).unsqueeze(-1) * share
    zeros = torch.where(crosses, zeros, high).flatten(1)
    x = torch.cat([x, zeros], 1).sort(1).values
    return x[:, : int((x < high).sum(1).max()) + 1]


def patterns(parameters: Sequence[Tensor], x: Tensor) -> Tensor:
    """(M, B, units) bool: which hidden units are on at x (M, B, d)."""
    h, on = x, []
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        h = torch.baddbmm(bias.unsqueeze(-2), h, weight.mT).relu()
        on.append(h > 0)
    return torch.cat(on, -1)


def regions(parameters: Sequence[Tensor], low: float, high: float) -> Tensor:
    """(M,): the exact number of maximal intervals of [low, high] in which no hidden unit changes its state."""
    x = breakpoints(parameters, low, high)
    wide = x[:, 1:] - x[:, :-1] > 1e-13 * (high - low)  # two units that turn at one point meet there up to rounding
    on = patterns(parameters, ((x[:, 1:] + x[:, :-1]) / 2).unsqueeze(-1))
    counts = []
    for states, keep in zip(on, wide, strict=True):
        states = states[keep]
        counts.append(1 + (states[1:] != states[:-1]).any(1).sum())
    return torch.stack(counts)


def sign_changes(parameters: Sequence[Tensor], low: float, high: float) -> Tensor:
    """(M,): the exact number of times that the output changes its sign on [low, high]."""
    x = breakpoints(parameters, low, high, values=[0.0])
    wide = x[:, 1:] - x[:, :-1] > 1e-13 * (high - low)
    f = mlp(parameters, ((x[:, 1:] + x[:, :-1]) / 2).unsqueeze(-1))
    counts = []
    for value, keep in zip(f > 0, wide, strict=True):
        value = value[keep]
        counts.append((value[1:] != value[:-1]).sum())
    return torch.stack(counts)
