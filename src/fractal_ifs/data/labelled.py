"""A set that a network is measured on: points or packed images, with their labels."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Labelled(NamedTuple):
    """n points (n, d) with labels -1 and +1, or n images of ``data.images`` (n, h, w) with labels 0 to 9."""

    x: Tensor
    y: Tensor  # (n,)
