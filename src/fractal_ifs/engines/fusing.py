"""The network of M runs as one function, whatever its class: by hand for the paper's MLP, else by ``torch.func``.

Whether runs of a class can train together is tried on a few of its networks: in a stack each must have the outputs and
gradients that it has alone, bit by bit on a CPU. Otherwise they train one by one, by the same code.
"""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the types of autograd.grad and manual_seed)

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fractal_ifs.config.loss import OwnLoss
from fractal_ifs.config.own_class import once
from fractal_ifs.engines.own_loss import named
from fractal_ifs.errors import message, short
from fractal_ifs.networks.mlp import MLP, mlp
from fractal_ifs.runs.build import build_network
from fractal_ifs.runs.kernels import outputs_and_gradients
from fractal_ifs.runs.run import Run

STACKS = (3, 5)  # networks in the stacks that are tried: odd numbers, so that batches end within a vector register
BATCHES = 6  # on which each stack is tried: other bits may come seldom

Forward = Callable[[Sequence[Tensor], Tensor], Tensor]  # weights, each (M, ...), and x (M, n, d) to (M, n)


def forward(networks: Sequence[nn.Module], fused: bool = True) -> Forward:
    """The M networks of a stack as one function of their weights, which are in the order of ``parameters()``.

    Args:
        fused: whether ``why_not`` is None. If not, there is one network, which may change its buffers.
    """
    first = networks[0]
    if isinstance(first, MLP):
        return lambda weights, x: mlp(weights, x, first.sum_last)
    names = [name for name, _ in first.named_parameters()]
    first.train()

    def one(weights: Sequence[Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(first, (dict(zip(names, weights, strict=True)), buffers), (x,))

    if not fused:
        return lambda weights, x: one([w[0] for w in weights], {}, x[0])[None]
    # A lone network has a twin beside it, that gets no gradient: products of one matrix have other bits than those of
    # several at once.
    alone = len(networks) == 1
    networks = [*networks, *networks] if alone else networks
    buffers = {
        name: torch.stack([dict(n.named_buffers())[name] for n in networks]) for name, _ in first.named_buffers()
    }
    together = vmap(one)

    def of_all(weights: Sequence[Tensor], x: Tensor) -> Tensor:
        if alone:
            return together([torch.cat([w, w.detach()]) for w in weights], buffers, x.expand(2, *x.shape[1:]))[:1]
        return together(list(weights), buffers, x)

    return of_all


_found: dict[tuple[Any, ...], str | None] = {}


def out_of_memory(error: BaseException | None) -> bool:
    """Whether the error, or one that it came of, means that a device or this process is out of memory.

    Where memory ends while a CUDA graph is captured, torch raises another error of the capture that has failed.
    """
    if error is None:
        return False
    kinds = torch.OutOfMemoryError, MemoryError
    return isinstance(error, kinds) or says_out_of_memory(str(error)) or out_of_memory(error.__context__)


def says_out_of_memory(text: str) -> bool:
    """Whether an error says so in the words of this process's allocator, CUDA and PyTorch, or cuBLAS and cuDNN."""
    return any(words in text for words in ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED"))


def why_not(run: Run) -> str | None:
    """Why runs like this one can't train in one stack, in a few words; None if they can. Tried once in a process."""
    config, x = run.config, run.data.x_train[: run.config.batch_size].to(run.params.dtype)
    if isinstance(config.loss, OwnLoss):
        loss = named(config.loss)  # in a notebook there may be another one by the same name, as of the network's class
        if why := once(_loss_differs, loss, config.loss, len(x), x.dtype, x.device):
            return why
    if isinstance(run.model, MLP):
        return None
    kind: type[nn.Module] = run.model.__class__
    key = (kind, config.model.architecture, config.width, config.depth, tuple(x.shape), x.dtype, x.device.type)
    if key not in _found:
        try:
            _found[key] = _differs(run, x)
        except Exception as error:  # vmap refuses in many ways what it can't do
            if out_of_memory(error):
                raise
            _found[key] = _told(message(error))
    return _found[key]


def _told(refusal: str) -> str:
    """What vmap refuses, in a few words."""
    if "data-dependent control flow" in refusal or ".item()" in refusal:
        return "what it does depends on the values of tensors (an if, a loop, .item()): no data-dependent control flow"
    return short(refusal, 160)


@lru_cache
def _loss_differs(
    function: Callable[..., Tensor], loss: OwnLoss, n: int, dtype: torch.dtype, device: torch.device
) -> str | None:
    """The same of a user's own loss, on batches of n points: whether its numbers rest on their place in memory."""
    draw = torch.Generator().manual_seed(0)

    def numbers(f: Tensor, y: Tensor) -> Tensor:
        f = f.clone().requires_grad_()
        with torch.enable_grad():
            means = function(f, y, **loss.keys).mean(-1)
            [gradient] = torch.autograd.grad(means.sum(), [f])
        return torch.cat([means.detach()[:, None], gradient], 1)

    for _ in range(BATCHES):
        f = torch.randn(max(STACKS), n, generator=draw).to(device, dtype)
        y = torch.where(f.cos() > 0.5, 1, -1).to(dtype)
        alone = torch.cat([numbers(f[m : m + 1], y[m : m + 1]) for m in range(len(f))])
        if device.type == "cpu" and any(not numbers(f[:size], y[:size]).equal(alone[:size]) for size in STACKS):
            return f"the numbers of loss={loss.name} have other bits in company"
    return None


def _differs(run: Run, x: Tensor) -> str | None:
    configs = [dataclasses.replace(run.config, seed=seed) for seed in range(max(STACKS))]
    networks = [build_network(config, run.inputs).to(x.device) for config in configs]
    before = [buffer.clone() for buffer in networks[0].buffers()]
    networks[0].train()(x)
    if any(not torch.equal(a, b) for a, b in zip(before, networks[0].buffers(), strict=True)):
        return "it changes its buffers in training, as batch normalisation does"
    for number in range(BATCHES):
        points = torch.stack([x.roll(number + m, 0) + number / 64 for m in range(len(networks))])
        alone = torch.cat([_outputs_and_gradients([n], points[m : m + 1]) for m, n in enumerate(networks)])
        for size in STACKS:
            together = _outputs_and_gradients(networks[-size:], points[-size:])
            if not torch.allclose(together, alone[-size:], rtol=1e-3, atol=1e-5, equal_nan=True):
                return "it isn't a function of its parameters, buffers and points alone"
            if x.device.type == "cpu" and not torch.equal(together, alone[-size:]):
                return "its numbers have other bits in company"
    return None


def _outputs_and_gradients(networks: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Of M networks side by side at points x (M, n, d): (M, n + P)."""
    each = zip(*(network.parameters() for network in networks), strict=True)
    return outputs_and_gradients(forward(networks), [torch.stack(same) for same in each], x)
