"""Work on a GPU as CUDA graphs: all kernels of one are launched at once, which takes next to no time of a core."""

from collections.abc import Callable, Sequence

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
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    graphs: list[torch.cuda.CUDAGraph] = []
    try:
        for work in works:
            with torch.cuda.stream(side):
                for _ in range(WARM):
                    work()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=graphs[0].pool() if graphs else None):
                work()
            graphs.append(graph)
    finally:
        torch.cuda.current_stream().wait_stream(side)  # where a step fails there, those before it may be under way
        for tensor, values in zip(state, kept, strict=True):
            tensor.copy_(values)
    return [graph.replay for graph in graphs]
