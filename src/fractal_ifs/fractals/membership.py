"""Which K_j a point lies in, found by the inverse maps; this knows nothing of how points are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fractal_ifs.fractals.ifs import AffineIFS


def deepest(ifs: AffineIFS, x: Tensor, n: int) -> Tensor:
    """The largest j in 0..n with x in K_j, -1 outside K_0: x (m, d) to int64 (m,), on x's device and in float64.

    K_0 is closed, and so is every K_j. The images must lie in K_0 (Assumption 2).
    """
    x = x.to(torch.float64)
    normals, bounds = as_tensors(x.device, ifs.base.normals, ifs.base.bounds)
    inverses, offsets = as_tensors(x.device, np.linalg.inv(ifs.matrices), ifs.offsets)
    level = torch.full((len(x),), -1, device=x.device)
    for begin in range(0, len(x), 2**16):
        z = x[begin : begin + 2**16]
        point = torch.arange(begin, begin + len(z), device=x.device)
        for j in range(n + 1):
            inside = (z @ normals.T <= bounds).all(-1)
            point, z = point[inside], z[inside]
            level[point] = j
            # x lies in K_(j+1) iff one of its preimages lies in K_j; more than one does only where images meet.
            z = torch.einsum("iab,pib->pia", inverses, z[:, None] - offsets).reshape(-1, ifs.d)
            point = point.repeat_interleave(ifs.r)
    return level


def as_tensors(device: torch.device, *arrays: NDArray[Any]) -> tuple[Tensor, ...]:
    """The arrays as tensors on the device, of the same types."""
    return tuple(torch.as_tensor(array, device=device) for array in arrays)
