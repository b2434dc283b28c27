"""Work on a GPU as CUDA graphs: all kernels of one are launched at once, which takes next to no time of a core."""

import contextlib
import warnings
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

WARM = 2  # times that work is done before it is captured: libraries allocate and compile at their first calls


def captured(works: Sequence[Callable[[], None]], state: Sequence[Tensor]) -> list[Callable[[], None]]:
    """What does each work again, with the numbers that its tensors have by then. The graphs share their memory.

    Args:
        works: they change tensors in place, and ask for no number of theirs.
        state: all that they change. It is afterwards as it was, also where this fails.

    Raises RuntimeError where work can't be captured.
    """
    kept = [tensor.clone() for tensor in state]
    side = _side(torch.cuda.current_device())
    side.wait_stream(torch.cuda.current_stream())
    graphs: list[torch.cuda.CUDAGraph] = []
    try:
        for work in works:
            with torch.cuda.stream(side):
                for _ in range(WARM - 1):
                    work()
                with _waiting_for_nothing():
                    work()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            capture = torch.cuda.graph(graph, pool=graphs[0].pool() if graphs else None, stream=side)
            with torch.cuda.stream(torch.cuda.current_stream()), capture:  # which, where it fails, stays in its stream
                work()
            graphs.append(graph)
    finally:
        torch.cuda.current_stream().wait_stream(side)  # where a step fails there, those before it may be under way
        for tensor, values in zip(state, kept, strict=True):
            tensor.copy_(values)
    return [graph.replay for graph in graphs]


@lru_cache
def _side(device: int) -> torch.cuda.Stream:
    """The stream of all captures on a GPU: for each, cuBLAS keeps a workspace of its own."""
    return torch.cuda.Stream(device)


@contextlib.contextmanager
def _waiting_for_nothing() -> Generator[None]:
    """Within: work that waits for the GPU raises RuntimeError, in all of this process.

    If it did so in a capture, torch could afterwards neither use nor give back the memory that it holds unused.
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
