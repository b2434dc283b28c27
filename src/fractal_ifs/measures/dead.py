"""Units that a network has lost."""

from __future__ import annotations

import torch
from torch import Tensor

from fractal_ifs.measures.hidden import hidden
from fractal_ifs.measures.snapshot import Snapshot


@torch.no_grad()
def dead(snapshot: Snapshot) -> float:
    """The share of hidden units that are 0 at every point of the test set; of a CNN, of channels, in every pixel.

    Such a unit gets no gradient from these points. In layer-wise training, of the units of the layer in training.
    """
    alive: list[Tensor] = []
    for x in snapshot.inputs(snapshot.test):
        found = [(z > 0).transpose(0, 1).flatten(1).any(1) for z in hidden(snapshot.network, x)]
        alive = [a | b for a, b in zip(alive, found, strict=True)] if alive else found
    return 1 - torch.cat(alive).double().mean().item()
