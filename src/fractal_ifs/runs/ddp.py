"""One run on several devices of this machine (``trainer=ddp``): each process takes its share of every batch.

All hold the same network, average their gradients, and take the same steps. The first of them has the run's directory
and its loggers; the others only help. So a run's state, checkpoints and record are those of any other run.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from fractal_ifs.runs.run import Run


class Rank(NamedTuple):
    """A process among those that train a run: its number, how many they are, the file by which they find each other."""

    number: int
    ranks: int
    meeting: str


@contextlib.contextmanager
def joined(rank: Rank | None) -> Iterator[None]:
    """Within: this process trains together with the others; on its own if ``rank`` is None."""
    if rank is None:
        yield
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, f"file://{rank.meeting}", rank=rank.number, world_size=rank.ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


def together() -> bool:
    return dist.is_available() and dist.is_initialized()


def share(batch: Tensor, axis: int = 0) -> Tensor:
    """This process's part of a batch; batches are multiples of the number of processes."""
    if not together():
        return batch
    index = [slice(None)] * batch.dim()
    index[axis] = slice(dist.get_rank(), None, dist.get_world_size())
    return batch[tuple(index)]


def average(*tensors: Tensor) -> None:
    """Each the mean over the processes, in place: of gradients and losses that are means over equal shares."""
    if together():
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= dist.get_world_size()


def same_start(run: Run) -> None:
    """All go on from where the first is, the only one that has read a checkpoint."""
    if together():
        state = [run.state() if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(state)
        if state[0] is not None and dist.get_rank():
            run.restore(state[0])
