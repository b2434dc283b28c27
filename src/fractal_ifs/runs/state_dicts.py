"""A run's networks as plain torch knows them: the state_dicts that a checkpoint holds beside its vectors."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from fractal_ifs.runs.checkpoints import Checkpoint, evaluated
from fractal_ifs.runs.vectors import views


def state_dict(network: nn.Module, params: Tensor, buffers: Tensor | None) -> OrderedDict[str, Tensor]:
    """``network.state_dict()`` as it is with the parameters ``params`` (P,), in the order of ``network.parameters()``.

    The parameters in it are views of ``params``, so torch.save stores their numbers once. ``buffers`` are those of
    ``runs.buffers``; what ``buffer_vector`` doesn't hold is the network's.
    """
    there = dict(zip(map(id, network.parameters()), views(params, network.parameters()), strict=True))
    if buffers is not None:
        parts = zip(network.buffers(), views(buffers, network.buffers()), strict=True)
        there |= {id(buffer): part.to(buffer.dtype) for buffer, part in parts}
    found: dict[str, Tensor] = network.state_dict(keep_vars=True)
    return OrderedDict((name, there.get(id(each), each.detach().cpu())) for name, each in found.items())


def with_state_dicts(state: Checkpoint, network: nn.Module) -> Checkpoint:
    """The content of a checkpoint, with the state_dicts of its networks: the last one, and the best if there is one."""
    found = state.copy()
    found["state_dict"] = state_dict(network, evaluated(state), state.get("buffers"))
    if "best_params" in state:
        found["best_state_dict"] = state_dict(network, state["best_params"], state.get("best_buffers"))
    return found
