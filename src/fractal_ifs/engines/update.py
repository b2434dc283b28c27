"""A stack's steps on a GPU as one kernel, which reads and writes each number once.

PyTorch's operations, one after the other, move 21 numbers for each parameter in a step of Adam, the kernel 8: counted,
not measured.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fractal_ifs.config.run import RunConfig
from fractal_ifs.engines import cuda_device
from fractal_ifs.engines.cuda_device import NoKernel
from fractal_ifs.engines.steps import StepRule, Steps, Vectors

log = logging.getLogger(__name__)

THREADS, EACH = 256, 4  # of a block, and the parameters of each of them
MOST_SLICES = 65_535  # of a network's parameters: a launch has at most so many blocks along y


class UpdateLayout(NamedTuple):
    """What a block of the kernel takes."""

    threads: int = THREADS
    bytes: int = 0  # of shared memory
    blocks: int = 8  # that a multiprocessor has room for


class Update(NamedTuple):
    """What distinguishes two kernels."""

    rule: StepRule
    double: bool

    functions = ("update",)

    @property
    def title(self) -> str:
        """What it is, for messages."""
        return f"the kernel of {self.rule.name}'s steps"

    def layout(self) -> UpdateLayout:
        """What its block takes."""
        return UpdateLayout()

    def source(self) -> str:
        """The whole source, for NVRTC or a C++ compiler."""
        rule = self.rule
        constants = {
            "ADAM": rule.name != "sgd",
            "DECOUPLED": rule.name == "adamw",
            "DECAY": rule.decay,
            "MOMENTUM": rule.momentum,
            "NESTEROV": rule.nesterov,
            "AVERAGE": rule.average,
            "THREADS": THREADS,
            "EACH": EACH,
        }
        lines = [f"constexpr int {name} = {int(value)};" for name, value in constants.items()]
        return "\n".join([f"using real = {'double' if self.double else 'float'};", *lines, _text()])


@lru_cache
def _text() -> str:
    return Path(__file__).with_name("update.cuh").read_text(encoding="utf-8")


class Arguments(ctypes.Structure):
    """``struct Update`` of update.cuh: the places of its tensors, and the length."""

    _fields_ = (("fields", ctypes.c_int64 * 18),)


class FusedSteps(Steps):
    """As ``Steps``, where a kernel can run. Raises NoKernel where none can."""

    def __init__(self, configs: Sequence[RunConfig], like: Tensor):
        """``like``: the parameters, (M, P), in float32 or float64."""
        super().__init__(configs, like)
        if like.device.type != (device := cuda_device.device()).kind:
            raise NoKernel(f"no kernels run on {like.device}")
        self.slices = -(-like.shape[1] // (THREADS * EACH))
        if self.slices > MOST_SLICES:
            raise NoKernel(f"a network has {like.shape[1]:,} parameters, more than a kernel covers")
        same = self.rule._replace(usual=False, clip=False)  # what these say isn't in the kernel
        update = Update(same, like.dtype == torch.float64)
        kernel = device.compile([update])[update]
        if isinstance(kernel, NoKernel):
            raise NoKernel(str(kernel))  # another, which holds no frame
        self.kernel = kernel

    def update(self, state: Vectors, *ahead: Tensor) -> None:
        """As of ``Steps``."""
        rule, numbers = self.rule, list(ahead)
        if rule.clip:
            self._clip(state.grad, state.work)
        size = numbers.pop(0)
        root = numbers.pop(0) if rule.name != "sgd" else None
        shrink = numbers.pop(0) if rule.name == "adamw" else None
        keep, share = numbers if rule.average else (None, None)
        of_runs = [self.numbers[name] for name in ("decay", "momentum", "eps", "beta1", "rest1", "beta2", "rest2")]
        tensors = [*state[:5], *of_runs, size, root, shrink, keep, share]
        fields = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        m, length = state.params.shape
        self.kernel("update", Arguments((*fields, length)), m, self.slices)


def steps(configs: Sequence[RunConfig], like: Tensor, fused: bool) -> Steps:
    """The steps of M runs with parameters ``like``, (M, P): with a kernel if that is asked for and one can run."""
    if fused:
        try:
            return FusedSteps(configs, like)
        except NoKernel as error:
            _tell(str(error))  # not the error, whose frames hold the stack for as long as somebody keeps the line
    return Steps(configs, like)


@lru_cache
def _tell(reason: str) -> None:
    """Tell it once, of however many stacks."""
    log.info("the optimizer's steps are those of PyTorch's operations: %s", reason)


def compiler() -> str | None:
    """What compiles kernels for this process's GPU; None where none can run."""
    try:
        return cuda_device.device().build
    except NoKernel:
        return None
