"""The losses of the paper's networks, as formulas on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from fractal_ifs.engines.own_loss import Function


def losses(loss: str | Function, f: Tensor, y: Tensor) -> Tensor:
    """The loss of outputs f for labels y, both (..., n): means over the last axis, (...).

    Hinge max(0, 1 - y f), its square, logistic log(1 + exp(-y f)), exponential exp(-y f), squared (y - f)^2; or a
    user's own, as ``function_of`` gives it.
    """
    if not isinstance(loss, str):
        return loss(f, y)
    if loss == "hinge":
        return (1 - y * f).relu().mean(-1)
    if loss == "squared_hinge":
        return (1 - y * f).relu().square().mean(-1)
    if loss == "exponential":
        return (-y * f).exp().mean(-1)
    if loss == "logistic":  # not softplus, which computes the last elements of a tensor in another way than the others
        return -torch.nn.functional.logsigmoid(y * f).mean(-1)
    return (y - f).square().mean(-1)
