"""The batches of a run for Lightning: the same ones, in the same order, as every engine of this package sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fractal_ifs.data.seeds import permutation, stream


class Numbers(Sampler[int]):
    """The numbers of the batches, one epoch at a time; they go on rising from epoch to epoch.

    ``next`` is the number of the next batch: all that has to be known to go on, and it tells the epoch. Lightning calls
    ``set_epoch``; without it, the next iteration is the next epoch.
    """

    def __init__(self, per_epoch: int):
        self.per_epoch, self.next = per_epoch, 0

    def __len__(self) -> int:
        return self.per_epoch

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch, unless it is under way."""
        if self.next // self.per_epoch != epoch:
            self.next = epoch * self.per_epoch

    def __iter__(self) -> Iterator[int]:
        end = (self.next // self.per_epoch + 1) * self.per_epoch
        while self.next < end:
            self.next += 1
            yield self.next - 1


class OrderedLoader(DataLoader[Any]):
    """Training batches by their numbers. Its state is its place, so that Lightning can go on within an epoch.

    Args:
        batches: gives batch number i as item i, for any i >= 0.
    """

    def __init__(self, batches: Dataset[Any], per_epoch: int):
        self.numbers = Numbers(per_epoch)
        super().__init__(batches, batch_size=None, sampler=self.numbers)

    def state_dict(self) -> dict[str, int]:
        """The number of the next batch."""
        return {"next": self.numbers.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.numbers.next = state["next"]


class PointBatches(Dataset[tuple[Tensor, Tensor]]):
    """The batches (x (b, d), y (b,)) of all epochs. Each epoch has its own permutation, without its incomplete batch.

    Args:
        x, y: the training set.
        seed: the run's.
    """

    def __init__(self, x: Tensor, y: Tensor, seed: int, batch_size: int):
        self.x, self.y, self.batch_size = x, y, batch_size
        self.shuffle_seed, self.per_epoch = stream(seed, "shuffle"), len(y) // batch_size
        self.order = (-1, torch.empty(0))

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(number, self.per_epoch)
        if self.order[0] != epoch:
            order: np.ndarray = permutation(self.shuffle_seed, epoch, len(self.y))
            self.order = (epoch, torch.from_numpy(order).to(self.x.device))
        rows = self.order[1][position * self.batch_size : (position + 1) * self.batch_size]
        return self.x[rows], self.y[rows]
