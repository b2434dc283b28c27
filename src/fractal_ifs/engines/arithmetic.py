"""How PyTorch multiplies numbers of float32: with all of their bits, or in TensorFloat-32, as ``trainer.tf32`` asks.

Torch has two ways to say so. Here it is the older, which sets the newer too: ``torch.compile`` and Lightning ask by it.
"""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the types of its settings)

import contextlib
from collections.abc import Callable, Generator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


class _Multiplies(Protocol):
    tf32: bool


E = TypeVar("E", bound=_Multiplies)


@contextlib.contextmanager
def multiplying(tf32: bool) -> Generator[None]:
    """Within: products and convolutions of a GPU are in TensorFloat-32, or in float32. Then all is as it was."""
    backends: Any = torch.backends
    cudnn = backends.cudnn
    kinds = [backends, cudnn, backends.cuda.matmul, backends.mkldnn.matmul, cudnn.conv, cudnn.rnn]
    before = [kind.fp32_precision for kind in kinds]
    try:
        products = torch.get_float32_matmul_precision()
    except RuntimeError:  # somebody has set the newer alone
        products = "high" if before[2] == "tf32" else "highest"
    for kind in kinds[:2]:  # what is said of everything, which would hold where a kind says nothing
        kind.fp32_precision = "none"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        cudnn.allow_tf32 = before[4] == "tf32"
        for kind, value in zip(kinds, before, strict=True):
            kind.fp32_precision = value


def multiplied(method: Callable[Concatenate[E, P], R]) -> Callable[Concatenate[E, P], R]:
    """A method of an engine, within ``multiplying`` as its ``tf32`` says."""

    @wraps(method)
    def within(self: E, *arguments: P.args, **keywords: P.kwargs) -> R:
        with multiplying(self.tf32):
            return method(self, *arguments, **keywords)

    return within
