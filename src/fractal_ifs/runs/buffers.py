"""What belongs to a network and isn't trained, as one vector of float64: constants, or running statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fractal_ifs.runs.vectors import views


def buffer_vector(network: nn.Module) -> Tensor | None:
    """All buffers, as a vector on the CPU; None where the network has none."""
    buffers = [buffer.detach().cpu().double().reshape(-1) for buffer in network.buffers()]
    return torch.cat(buffers) if buffers else None


@torch.no_grad()
def set_buffers(network: nn.Module, vector: Tensor | None) -> None:
    """Put the numbers of such a vector into the network's buffers, which convert them to their own types."""
    if vector is not None:
        for buffer, part in zip(network.buffers(), views(vector, network.buffers()), strict=True):
            buffer.copy_(part)
