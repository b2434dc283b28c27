"""Short trainings of a few networks at once: what gradient descent finds, beside what a theorem allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fractal_ifs.engines import cpp
from fractal_ifs.networks.mlp import MLP, mlp
from fractal_ifs.runs.vectors import views
from fractal_ifs.theorems.keys import BATCH

# (parameters (M, ...), x (m, d), y (m,), steps, learning rate) -> trained parameters (M, ...)
Trainer = Callable[[Sequence[Tensor], np.ndarray, np.ndarray, int, float], list[Tensor]]


def seeded_networks(d: int, width: int, depth: int, seeds: Sequence[int], init: str = "paper") -> list[Tensor]:
    """The parameters (M, ...) of an MLP for each seed, float64; depth counts hidden layers."""
    models = [
        MLP(d, width, depth, init, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in seeds
    ]
    return [torch.stack([p.detach() for p in group]) for group in zip(*(m.parameters() for m in models), strict=True)]


def train(
    parameters: Sequence[Tensor], x: np.ndarray, y: np.ndarray, steps: int, lr: float, seed: int = 0, batch: int = BATCH
) -> list[Tensor]:
    """M networks (M, ...) after so many steps of Adam on the hinge loss, in float32, returned as float64.

    x (m, d), y (m,). All networks see the same batches; the gradient of the sum of their losses is each one's own.
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


def train_natively(parameters: Sequence[Tensor], x: np.ndarray, y: np.ndarray, steps: int, lr: float) -> list[Tensor]:
    """The same by the native engine, whose batches are others; some ten times faster on networks of this size."""
    count, (width, d), depth = len(parameters[0]), parameters[0].shape[1:], len(parameters) // 2 - 1
    points, labels = x.astype(np.float32), y.astype(np.float32)
    flat = torch.cat([p.reshape(count, -1) for p in parameters], 1).float().numpy()
    tasks = [
        cpp.Training(
            params=params,
            d=d,
            width=width,
            depth=depth,
            x=points,
            y=labels,
            exp_avg=np.zeros_like(params),
            exp_avg_sq=np.zeros_like(params),
            steps=steps,
            lr=lr,
        )
        for params in flat
    ]
    cpp.advance(tasks, 1)
    return views(torch.from_numpy(flat).double(), [p[0] for p in parameters])


def fastest() -> Trainer:
    """The native engine where it can run, else torch."""
    try:
        cpp.isa()
    except cpp.Unavailable:
        return train
    return train_natively


def error_on(parameters: Sequence[Tensor], x: np.ndarray, y: np.ndarray, chunk: int = 20_000) -> np.ndarray:
    """(M,): the share of the points x (m, d), y (m,) that each network gets wrong; an output of 0 is wrong."""
    wrong = torch.zeros(len(parameters[0]))
    with torch.no_grad():
        for i in range(0, len(x), chunk):
            points = torch.from_numpy(x[i : i + chunk]).to(parameters[0].dtype)
            f = mlp(parameters, points.expand(len(parameters[0]), -1, -1))
            wrong += (torch.from_numpy(y[i : i + chunk]) * f <= 0).sum(1)
    return (wrong / len(x)).numpy()
