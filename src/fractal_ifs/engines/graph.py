"""Work on a GPU as a CUDA graph: all of its kernels are launched at once, which takes next to no time of a core."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM = 2  # times that work is done before it is captured: libraries allocate and compile at their first calls


def captured(work: Callable[[], None], state: Sequence[Tensor]) -> Callable[[], None]:
    """What does the work again, with the numbers that its tensors have by then.

    Args:
        work: changes tensors in place, and asks for no number of theirs.
        state: all that it changes. It is afterwards as it was, also where this fails.

    Raises RuntimeError where work can't be captured.
    """
    kept = [tensor.clone() for tensor in state]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(side):
            for _ in range(WARM):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
    finally:
        torch.cuda.current_stream().wait_stream(
            side
        )  # where a step fails there, those before it may still be under way
        for tensor, values in zip(state, kept, strict=True):
            tensor.copy_(values)
    return graph.replay
