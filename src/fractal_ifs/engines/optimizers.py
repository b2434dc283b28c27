"""The optimizer and the schedule of a config as ordinary objects of ``torch.optim``: for Lightning, CNNs and tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fractal_ifs.config.optimizer import Adam, AdamW, Sgd
from fractal_ifs.config.run import RunConfig
from fractal_ifs.engines.steps import factors


def torch_optimizer(config: RunConfig, params: Iterable[Tensor], **keys: Any) -> Optimizer:
    """The optimizer that takes a config's steps but for its clipping and its average, at the peak learning rate.

    Args:
        params: what it changes.
        keys: of torch's optimizer, such as ``fused=True``.
    """
    chosen, decay = config.optimizer, config.optimizer.weight_decay
    if isinstance(chosen, Adam):
        kind = torch.optim.AdamW if isinstance(chosen, AdamW) else torch.optim.Adam
        return kind(params, config.lr, chosen.betas, chosen.eps, weight_decay=decay, **keys)
    assert isinstance(chosen, Sgd)
    momentum, nesterov = chosen.momentum, chosen.nesterov
    return torch.optim.SGD(params, config.lr, momentum, weight_decay=decay, nesterov=nesterov, **keys)


def torch_schedule(config: RunConfig, optimizer: Optimizer) -> LambdaLR:
    """The schedule of a config over the steps of an optimizer: its ``step()`` follows each of the optimizer's."""
    return LambdaLR(optimizer, lambda step: float(factors(config.schedule, config.steps, step, 1)[0]))
