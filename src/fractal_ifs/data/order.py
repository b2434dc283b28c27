"""The batches of a run for Lightning: the same ones, in the same order, as every engine of this package sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from fractal_ifs.data.seeds import permutation, stream
from fractal_ifs.errors import ConfigError


class Numbers(DistributedSampler[int]):
    """The numbers of the batches, one epoch at a time; they go on rising from epoch to epoch.

    ``next`` is the number of the next batch: all that has to be known to go on, and it tells the epoch. Lightning calls
    ``set_epoch``; without it, the next iteration is the next epoch, wherever the last was left. Several processes have
    the same numbers, as each takes its share of a batch; the base class tells Lightning to put no other sampler here.
    """

    def __init__(self, per_epoch: int):
        self.per_epoch, self.next = per_epoch, 0
        self.loaded = False  # and no batch was taken since
        self.begun = False  # an iteration, since the epoch was
        self.ahead = 0  # of Lightning's count of epochs, which may be one off where it goes on at the end of one

    def __len__(self) -> int:
        return self.per_epoch

    def load(self, number: int) -> None:
        """Go on with this batch."""
        self.next, self.loaded, self.begun = number, True, False

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch, or what was loaded, whatever Lightning calls its epoch."""
        if self.loaded:
            self.ahead = self.next // self.per_epoch - epoch
        else:
            self.ahead = self.ahead if epoch else 0  # another fit
            self.next = (epoch + self.ahead) * self.per_epoch
        self.begun = False

    def __iter__(self) -> Iterator[int]:
        epochs = -(-self.next // self.per_epoch) if self.begun else self.next // self.per_epoch
        self.next, self.begun = max(self.next, epochs * self.per_epoch), True
        while self.next < (epochs + 1) * self.per_epoch:
            self.next, self.loaded = self.next + 1, False
            yield self.next - 1


class OrderedLoader(DataLoader[Any]):
    """Training batches by their numbers. Its state is its place, so that Lightning can go on within an epoch.

    Args:
        batches: gives batch number i as item i, for any i >= 0.
        sampler: other numbers, as Lightning gives for ``overfit_batches``: the first ones, in every epoch.
        shuffle, batch_sampler: what Lightning gives beside it, which asks for nothing.
    """

    def __init__(
        self,
        batches: Dataset[Any],
        per_epoch: int,
        sampler: Sampler[int] | None = None,
        shuffle: bool = False,
        batch_sampler: None = None,
    ):
        self.numbers = Numbers(per_epoch)
        super().__init__(batches, batch_size=None, sampler=self.numbers if sampler is None else sampler)

    def state_dict(self) -> dict[str, int]:
        """The number of the next batch."""
        return {"next": self.numbers.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.numbers.load(state["next"])


class Shares(Dataset[tuple[Tensor, Tensor]]):
    """Of each batch (x (b, ...), y (b,)) the rows of one of several processes: every n-th one, from its number on.

    So the mean gradient of all is that of the batch. Raises ConfigError where they can't have equally many rows.
    """

    def __init__(self, batches: Dataset[tuple[Tensor, Tensor]], batch_size: int, number: int, n: int):
        if batch_size % n:
            raise ConfigError(
                f"batch_size={batch_size}: must be a multiple of {n}, the processes that share each batch"
            )
        self.batches, self.number, self.n = batches, number, n

    def __len__(self) -> int:
        return len(cast(Any, self.batches))

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        x, y = self.batches[number]
        return x[self.number :: self.n], y[self.number :: self.n]


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

    def __len__(self) -> int:
        """Those of an epoch."""
        return self.per_epoch

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(number, self.per_epoch)
        if self.order[0] != epoch:
            order: np.ndarray = permutation(self.shuffle_seed, epoch, len(self.y))
            self.order = (epoch, torch.from_numpy(order).to(self.x.device))
        rows = self.order[1][position * self.batch_size : (position + 1) * self.batch_size]
        return self.x[rows], self.y[rows]
