"""The gradient of the training loss, and how far it stands out from the noise of batches."""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the type of autograd.grad)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from fractal_ifs.measures.snapshot import Snapshot
from fractal_ifs.networks.mlp import MLP, mlp

BATCHES = 100
NUMBERS = 4_000_000  # of gradients that are held at a time


def gradient(snapshot: Snapshot) -> dict[str, float]:
    """The norm |m| of the mean gradient over 100 batches, and the signal to noise of a batch's gradient.

    With the gradients g_1, ..., g_B of the batches, their mean m, and the variance of one,
    V = sum |g_i - m|^2 / (B - 1), the second is max(0, |m|^2 - V / B) / V: an estimate of |E g|^2 over the variance,
    in which V / B takes out what noise adds to |m|^2. Where no batch differs from another it has no value.
    """
    total: Tensor | float = 0.0
    squares = 0.0
    for each in gradients(snapshot):
        each = each.double()
        total = total + each.sum(0)
        squares += each.square().sum().item()
    of_mean = torch.as_tensor(total / BATCHES).square().sum().item()
    variance = (squares - BATCHES * of_mean) / (BATCHES - 1)
    found = {"grad_norm": of_mean**0.5}
    if variance > 1e-12 * of_mean:  # not the rounding of equal ones
        found["grad_snr"] = max(0.0, of_mean - variance / BATCHES) / variance
    return found


def gradients(snapshot: Snapshot) -> Iterator[Tensor]:
    """The gradients of the batches, some at a time: (m, P) with P parameters."""
    parameters = [p for p in snapshot.network.parameters() if p.requires_grad]
    size = max(1, NUMBERS // sum(p.numel() for p in parameters)) if isinstance(snapshot.network, MLP) else 1
    batches = snapshot.batches(BATCHES)
    while some := list(islice(batches, size)):
        with torch.enable_grad():
            yield _of_copies(snapshot, some) if size > 1 else _of_one(snapshot, parameters, *some[0])


def _of_one(snapshot: Snapshot, parameters: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
    loss = snapshot.loss(snapshot.network(x), y)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([each.reshape(1, -1) for each in found], 1)


def _of_copies(snapshot: Snapshot, batches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Of an MLP as many copies side by side, each with a batch: one pass in place of many small ones."""
    network = snapshot.network
    assert isinstance(network, MLP)
    x, y = (torch.stack(each) for each in zip(*batches, strict=True))
    copies = [p.detach().expand(len(x), *p.shape).clone().requires_grad_() for p in network.parameters()]
    found = torch.autograd.grad(snapshot.loss(mlp(copies, x, network.sum_last), y).sum(), copies)
    return torch.cat([each.flatten(1) for each in found], 1)
