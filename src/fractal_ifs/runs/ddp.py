"""One run on several devices of this machine (``trainer=ddp``): each process computes a share of every batch.

All processes hold the same network, average their gradients and take the same steps. Only the first has the run's
directory and logger. So the run's state, checkpoints and record look like those of any other run.
"""

# pyright: reportUnknownMemberType=false
# (torch.distributed doesn't declare the types of all_reduce)

import contextlib
from collections.abc import Generator
from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from fractal_ifs.runs.checkpoints import Checkpoint
from fractal_ifs.runs.run import Run


class Rank(NamedTuple):
    """One of the processes that train a run together."""

    number: int  # from 0; the first process keeps the run's directory
    ranks: int  # how many processes there are
    meeting: str  # path of the file through which they find each other
    backend: str = "gloo"  # of torch.distributed; on GPUs nccl


@contextlib.contextmanager
def joined(rank: Rank | None) -> Generator[None]:
    """Within: this process trains together with the others, or alone if ``rank`` is None."""
    if rank is None:
        yield
        return
    dist.init_process_group(rank.backend, f"file://{rank.meeting}", rank=rank.number, world_size=rank.ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


def together() -> bool:
    """Whether this process trains together with others."""
    return dist.is_available() and dist.is_initialized()


def share(batch: Tensor, axis: int = 0) -> Tensor:
    """This process's share of a batch along ``axis``, whose length is a multiple of the number of processes."""
    if not together():
        return batch
    index = [slice(None)] * batch.dim()
    index[axis] = slice(dist.get_rank(), None, dist.get_world_size())
    return batch[tuple(index)]


def average(*tensors: Tensor) -> None:
    """Replace each tensor, in place, by its mean over the processes, whose shares of a batch are equal."""
    if together():
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= dist.get_world_size()


def first_says(*answers: bool) -> list[bool]:
    """The answers of the first process, in all of them."""
    if not together():
        return list(answers)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    told = torch.tensor(answers, dtype=torch.uint8, device=device)
    dist.broadcast(told, 0)
    return [bool(each) for each in told]


def same_start(run: Run) -> None:
    """Give every process the state of the first, which alone has read a checkpoint."""
    if together():
        state: list[Checkpoint | None] = [run.state() if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(state)
        if state[0] is not None and dist.get_rank():
            run.restore(state[0])
