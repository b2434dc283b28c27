"""Flat vectors of a network's numbers, and their parts in the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def views(vectors: Tensor, tensors: Iterable[Tensor]) -> list[Tensor]:
    """Parts of a vector (..., P) in the shapes of some tensors of P numbers: (..., *shape) each. They share its memory.

    Raises RuntimeError where the tensors have more or fewer numbers.
    """
    tensors = list(tensors)
    parts = vectors.split_with_sizes([each.numel() for each in tensors], dim=-1)
    return [part.view(part.shape[:-1] + each.shape) for part, each in zip(parts, tensors, strict=True)]
