"""Short trainings of a few networks at once: what gradient descent finds beside what a theorem allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fractal_ifs.networks.mlp import MLP, mlp

# (parameters (M, ...), x (m, d), y (m,), steps, lr) -> trained parameters (M, ...)
Trainer = Callable[[Sequence[Tensor], np.ndarray, np.ndarray, int, float], list[Tensor]]


def initial(d: int, width: int, depth: int, seeds: Sequence[int], init: str = "paper") -> list[Tensor]:
    """Float64 parameters (M, ...) of one MLP per seed; depth counts hidden layers."""
    models = [
        MLP(d, width, depth, init, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in seeds
    ]
    return [torch.stack([p.detach() for p in group]) for group in zip(*(m.parameters() for m in models), strict=True)]


def train(
    parameters: Sequence[Tensor], x: np.ndarray, y: np.ndarray, steps: int, lr: float, seed: int = 0, batch: int = 100
) -> list[Tensor]:
    """M networks after `steps` of Adam on the hinge loss, in float32; x (m, d), y (m,). Returns float64 copies.

    All networks see the same batches; the sum of their losses gives each its own gradient.
    """
    rng = np.random.default_rng(seed)
    leaves = [p.float().clone().requires_grad_() for p in parameters]
    points, labels = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    optimizer = torch.optim.Adam(leaves, lr=lr, foreach=True)
    for _ in range(steps):
        at = torch.from_numpy(rng.integers(len(x), size=batch))
        f = mlp(leaves, points[at].expand(len(leaves[0]), -1, -1))
        loss = (1 - labels[at] * f).clamp(min=0).mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [p.detach().double() for p in leaves]


def error(parameters: Sequence[Tensor], x: np.ndarray, y: np.ndarray, chunk: int = 20_000) -> np.ndarray:
    """(M,): each network's share of wrong points (an output of 0 is wrong)."""
    wrong = torch.zeros(len(parameters[0]))
    with torch.no_grad():
        for i in range(0, len(x), chunk):
            points = torch.from_numpy(x[i : i + chunk]).to(parameters[0].dtype)
            f = mlp(parameters, points.expand(len(parameters[0]), -1, -1))
            wrong += (torch.from_numpy(y[i : i + chunk]) * f <= 0).sum(1)
    return (wrong / len(x)).numpy()
