"""The orders in which runs go through their points, where these are: on a GPU they are drawn and sorted there."""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the type of from_numpy)

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from fractal_ifs.data.seeds import permutation, permutations
from fractal_ifs.engines.arithmetic import on_gpu

SORTED = 1 << 24  # points whose orders are drawn on a GPU at a time, which takes under 1 GB

Order = tuple[int, int, int]  # of a run's points: its shuffle seed, the epoch, how many they are


class Orders:
    """The orders that were last asked for, one behind the other in ``flat``. Runs of one seed share them."""

    def __init__(self, device: torch.device):
        self.device = device
        self.flat = torch.empty(0, dtype=torch.int32, device=device)
        self._places: dict[Order, int] = {}

    def places(self, keys: Sequence[Order]) -> list[int]:
        """Where each of these begins in ``flat``. All others are forgotten."""
        wanted = set(keys)
        if wanted != self._places.keys():
            there = [(key, self.flat[place : place + key[2]]) for key, place in self._places.items() if key in wanted]
            self._places = {}
            # Where all is new, as at the end of an epoch, the old isn't held beside it.
            self.flat = torch.empty(0, dtype=torch.int32)
            flat = torch.empty(sum(key[2] for key in wanted), dtype=torch.int32, device=self.device)
            end = 0
            for key, order in (*there, *self._drawn(sorted(wanted - {key for key, _ in there}))):
                self._places[key], begin, end = end, end, end + key[2]
                flat[begin:end] = order
            self.flat = flat
        return [self._places[key] for key in keys]

    def _drawn(self, keys: Sequence[Order]) -> Iterator[tuple[Order, Tensor]]:
        """The ``permutation`` of each key, (n,): on a GPU many at a time."""
        if not on_gpu(self.device):
            yield from ((key, torch.from_numpy(permutation(*key))) for key in keys)
            return
        for n, alike in groupby(sorted(keys, key=lambda key: key[2]), lambda key: key[2]):
            left, size = list(alike), max(1, SORTED // n)
            for some in (left[first : first + size] for first in range(0, len(left), size)):
                yield from zip(some, permutations([key[:2] for key in some], n, self.device), strict=True)
