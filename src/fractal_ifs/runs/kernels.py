"""What torch computes with on a CPU, on which a run's bits rest; and whether they depend on the runs beside it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from fractal_ifs.mkl import EQUAL_BITS, VARIABLE, ask_for_equal_bits
from fractal_ifs.networks.mlp import MLP, mlp

log = logging.getLogger(__name__)

UNEQUAL = "bits depend on company"

# Dimension, points, widths: where processors of AMD differ unless MKL is asked for equal bits, and newer ones of Intel;
# and a single point.
TRIED = ((2, 33, (1, 5, 7, 11, 13, 17, 20, 33)), (1, 100, (7, 16, 33)), (2, 1, (20, 33)))


@lru_cache
def torch_kernels() -> str:
    """What multiplies matrices, in which mode, and the instruction set of the rest: ``MKL 2024.2 AUTO,STRICT, AVX512``.

    The mode is the user's own MKL_CBWR, if there is one. Where ``company_matters``, it says ``UNEQUAL``, and a warning
    says so once in a process. Of a library without modes (OpenBLAS on Arm, Accelerate) it says what was tried.
    """
    ask_for_equal_bits()
    built = torch.__config__.show()
    version = re.search(r"Math Kernel Library Version ([\d.]+)", built)
    blas = re.search(r"BLAS_INFO=(\w+)", built)
    found = [f"MKL {version[1]}" if version else f"BLAS {blas[1]}" if blas else "unknown BLAS"]
    own, unequal = os.environ.get(VARIABLE), company_matters()
    if version and (own or not unequal):
        found[0] += f" {own or EQUAL_BITS}"
    if unequal:
        found.append(UNEQUAL)
        cause = f"{VARIABLE}={own}" if own else "something had multiplied in this process before"
        advice = f" ({cause}): start the process with {VARIABLE}={EQUAL_BITS}" if version else ""
        log.warning("%s: a run's bits depend on the runs that train beside it%s", found[0], advice)
    elif not version:
        found.append("equal bits as far as tried")
    return ", ".join([*found, torch.backends.cpu.get_cpu_capability()])


def company_matters() -> bool:
    """Whether a network's bits depend here on the networks beside it: tried on some shapes, in 30 ms.

    They do if MKL has multiplied before it was asked for equal bits. Of other libraries we know what is tried here.
    """
    generator = torch.Generator().manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in training; several share out a sum as its length and place suggest
    try:
        with torch.autocast("cpu", enabled=False):
            return any(
                _differs_in_company(d, n, width, dtype, generator)
                for d, n, widths in TRIED
                for dtype in (torch.float32, torch.float64)
                for width in widths
            )
    finally:
        torch.set_num_threads(threads)


def _differs_in_company(d: int, n: int, width: int, dtype: torch.dtype, generator: torch.Generator) -> bool:
    shapes = [p.shape for p in MLP(d, width, 2).parameters()]
    params = [torch.randn(3, *shape, generator=generator, dtype=dtype) for shape in shapes]
    x = torch.randn(3, n, d, generator=generator, dtype=dtype)
    alone = [outputs_and_gradients(mlp, [p[m : m + 1] for p in params], x[m : m + 1]) for m in range(3)]
    return not torch.equal(outputs_and_gradients(mlp, params, x), torch.cat(alone))


def outputs_and_gradients(network: Callable[[list[Tensor], Tensor], Tensor], params: list[Tensor], x: Tensor) -> Tensor:
    """Of M networks side by side, as a function of params (M, ...) and x (M, n, d): (M, n + P)."""
    leaves = [p.detach().clone().requires_grad_() for p in params]
    with torch.enable_grad():
        f = network(leaves, x)
        gradients = torch.autograd.grad(f.square().sum(), leaves)
    return torch.cat([f.detach(), *(gradient.flatten(1) for gradient in gradients)], dim=1)
