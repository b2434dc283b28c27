"""How PyTorch multiplies: in float32 with all bits or in TensorFloat-32 (``trainer.tf32``), or in a lower precision.

Torch has two ways to say so. Here it is the older, which sets the newer too: ``torch.compile`` and Lightning ask by it.
"""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the types of its settings)

import contextlib
from collections.abc import Generator
from typing import Any

import torch

AUTOCAST = {"bf16-mixed": torch.bfloat16}


def on_gpu(device: torch.device) -> bool:
    """Whether numbers may differ in company, as on a GPU, where a call takes longer than what it computes."""
    return device.type != "cpu"


def casting(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Within: products in the lower precision of ``trainer.precision``, if it names one. May be entered repeatedly."""
    # No cache of the cast weights: it would miss that the weights change in place.
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype, cache_enabled=False) if dtype else contextlib.nullcontext()


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
