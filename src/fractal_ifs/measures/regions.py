"""The pieces of a line on which no unit of a network of ReLUs changes its state: at most so many are linear regions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fractal_ifs.data.seeds import stream
from fractal_ifs.measures.snapshot import Snapshot


def regions(snapshot: Snapshot) -> float:
    """The number of pieces of a line on each of which every hidden unit is 0 throughout, or positive throughout.

    The line goes through 0 from one side of the box [-1, 1]^d to the other, in a direction that is drawn from a stream
    of its own of the run's seed: the same at every evaluation. In layer-wise training the layers so far count.
    """
    draw = torch.Generator().manual_seed(stream(snapshot.config.seed, "measures"))
    direction = torch.randn(snapshot.d, generator=draw, dtype=torch.float64)
    end = direction / direction.abs().max()
    network: Any = snapshot.whole
    layers = [
        (layer.weight.detach().double().cpu(), layer.bias.detach().double().cpu())
        for layer in [*network.hidden][: snapshot.layers]
    ]
    sums = network.sum_last and len(network.hidden) >= 3 and snapshot.layers == len(network.hidden)
    return float(len(breaks(layers, -end, end, sums)) - 1)


def breaks(layers: list[tuple[Tensor, Tensor]], begin: Tensor, end: Tensor, sum_last: bool = False) -> Tensor:
    """The places (m + 1,) in [0, 1], rising from 0 to 1, between which a network is linear on the line x(t).

    Between two of them every unit is linear in t, so its values there tell where it changes its sign, exactly.

    Args:
        layers: weight (k, inputs) and bias (k,) of each hidden layer, float64.
        begin, end: x(0) and x(1), (d,).
        sum_last: the last layer reads the sum of all before it.
    """
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    x = torch.stack([begin, end])
    total: Tensor | None = None  # of the layers so far
    for number, (weight, bias) in enumerate(layers):
        z = (total if total is not None and number == len(layers) - 1 else x) @ weight.T + bias
        left, right = z[:-1], z[1:]
        crosses = left * right < 0
        share = left[crosses] / (left[crosses] - right[crosses])
        where = crosses.nonzero()[:, 0]
        both = torch.cat([t, t[where] + share * (t[where + 1] - t[where])]).sort().values
        finer = both[torch.cat([both.new_ones(1), both.diff()]) > 0]
        x = between(t, z, finer).relu()
        if sum_last:
            total = x if total is None else between(t, total, finer) + x
        t = finer
    return t


def between(t: Tensor, values: Tensor, at: Tensor) -> Tensor:
    """What is linear between the places t (m,), with ``values`` (m, k) there, at other places (l,): (l, k)."""
    right = torch.searchsorted(t, at, right=True).clamp(1, len(t) - 1)
    share = ((at - t[right - 1]) / (t[right] - t[right - 1]))[:, None]
    return values[right - 1] + share * (values[right] - values[right - 1])
