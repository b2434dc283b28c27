"""The losses and gradients of a stack as one flat program: the operations that vmap and autograd come to, written down.

Both work out anew in every step which operations come next, which takes longer than the operations of small networks.
So one step is watched by ``make_fx``, and from then on its operations are called one after the other. They are the same
operations on the same numbers, so every bit stays; that is tried on a few batches before the program is used.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch doesn't declare the types of autograd.grad, and few of fx)

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from fractal_ifs.engines.fusing import out_of_memory

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

LEAST = 2000  # steps that gain more than what it takes to write one down: a second, most of it for an import

aten: Any = torch.ops.aten
VIEWS = (aten.alias, aten.detach, aten.expand, aten.view, aten._unsafe_view)  # they do nothing if the shape stays

Losses = Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]  # weights, x, y to losses (M,)
Gradients = Callable[..., Sequence[Tensor]]  # *weights, x, y to losses (M,) and the gradients of their sum


def gradients(losses: Losses) -> Gradients:
    """What is to be written down, by autograd."""

    def found(*inputs: Tensor) -> list[Tensor]:
        *weights, x, y = inputs
        with torch.enable_grad():
            weights = [weight.detach().requires_grad_() for weight in weights]
            each = losses(weights, x, y)
            return [each.detach(), *torch.autograd.grad(each.sum(), weights)]

    return found


def traced(losses: Losses, weights: Sequence[Tensor], batches: Sequence[tuple[Tensor, Tensor]]) -> Gradients | None:
    """``gradients(losses)`` for inputs of these shapes and strides as a flat program, to be called without gradients.

    None if there is none: another version of torch, or what it does depends on more than its inputs, or it writes into
    tensors. ``batches`` of x and y are those that it is tried on.
    """
    expected = gradients(losses)
    try:
        from torch.fx.experimental.proxy_tensor import make_fx  # it takes a second, for a user's own network alone

        module = make_fx(expected)(*weights, *batches[0])
        if not _simplify(module):
            return None
        program: Gradients = module.forward
        with torch.no_grad():
            same = all(
                _bits(a).equal(_bits(b))
                for x, y in batches
                for a, b in zip(program(*weights, x, y), expected(*weights, x, y), strict=True)
            )
    except Exception as error:  # it refuses in many ways what can't be written down
        if out_of_memory(error):
            raise
        return None
    return program if same else None


def _bits(numbers: Tensor) -> Tensor:
    return numbers.contiguous().view(torch.uint8)


def _simplify(module: GraphModule) -> bool:
    """Leave out what changes nothing, and call operations by their short names. False: tensors are written in place."""
    for node in list(module.graph.nodes):
        if node.op != "call_function":
            continue
        target: Any = node.target
        name = getattr(target, "overloadpacket", target).__name__
        if (schema := getattr(target, "_schema", None)) is not None and schema.is_mutable:
            return False
        if _does_nothing(node):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
        elif name in ("expand", "view"):
            node.op, node.target = "call_method", name
        elif inspect.isbuiltin(short := getattr(torch, name, None)):
            node.target = short
    module.graph.eliminate_dead_code()
    module.recompile()
    return True


def _does_nothing(node: Node) -> bool:
    """Whether an operation gives its first argument: a view of the same shape, or the product with 1."""
    before = getattr(node.args[0] if node.args else None, "meta", {}).get("val")
    after, target = node.meta.get("val"), cast(Any, node.target)
    if not (isinstance(before, Tensor) and isinstance(after, Tensor)):
        return False
    if (before.shape, before.dtype) != (after.shape, after.dtype):
        return False
    if target is aten.mul.Scalar:
        return bool(node.args[1] == 1)
    return getattr(target, "overloadpacket", None) in VIEWS and before.stride() == after.stride()
