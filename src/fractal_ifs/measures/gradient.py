"""The gradient of the training loss, and how far it stands out from the noise of batches."""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the type of autograd.grad)

from __future__ import annotations

import torch
from torch import Tensor

from fractal_ifs.measures.snapshot import Snapshot

BATCHES = 32


def gradient(snapshot: Snapshot) -> dict[str, float]:
    """The norm |m| of the mean gradient over 32 batches, and the signal to noise of a batch's gradient.

    With the gradients g_1, ..., g_B of the batches, their mean m, and the variance of one,
    V = sum |g_i - m|^2 / (B - 1), the second is max(0, |m|^2 - V / B) / V: an estimate of |E g|^2 over the variance,
    in which V / B takes out what noise adds to |m|^2. Where no batch differs from another it has no value.
    """
    total: Tensor | None = None
    squares = 0.0
    parameters = [p for p in snapshot.network.parameters() if p.requires_grad]
    for x, y in snapshot.batches(BATCHES):
        with torch.enable_grad():
            loss = snapshot.loss(snapshot.network(x), y)
            parts = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        g = torch.cat([part.reshape(-1).double() for part in parts])
        squares += g.square().sum().item()
        total = g if total is None else total + g
    assert total is not None
    of_mean = (total / BATCHES).square().sum().item()
    variance = (squares - BATCHES * of_mean) / (BATCHES - 1)
    found = {"grad_norm": of_mean**0.5}
    if variance > 0:
        found["grad_snr"] = max(0.0, of_mean - variance / BATCHES) / variance
    return found
