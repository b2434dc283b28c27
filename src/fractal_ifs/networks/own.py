"""Networks of a user's own: ``model._target_`` names the class, an ``nn.Module``, by this contract.

``__init__(self, d, width, depth, *, generator, **keys)``: d is the dimension of the points, ``keys`` are the other keys
of the file; ``generator`` draws all that is random. ``forward(x)`` takes points (n, d), and returns numbers (n,) that
are positive where the network says so.

``check`` tries that before a run begins: a class that breaks it is refused in one line. Nothing here imports torch
before a class of a user's own is asked for.
"""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the types of fork_rng, manual_seed and Tensor.backward)

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fractal_ifs.config.model import OwnModel
from fractal_ifs.config.own_class import check_arguments, resolve, telling
from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError
from fractal_ifs.mkl import ask_for_equal_bits

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

POINTS = 5  # that a class is tried on


def build(model: OwnModel, d: int, width: int, depth: int, generator: torch.Generator) -> nn.Module:
    """The network, in torch's default dtype. The global generator is left as it was. Raises ConfigError."""
    import torch

    kind = _class(model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return kind(d, width, depth, generator=generator, **model.keys)


def _class(model: OwnModel) -> Any:
    ask_for_equal_bits()  # before a user's code may multiply
    from torch import nn

    return resolve("model._target_", model.target, nn.Module)


def check_network(config: RunConfig) -> None:
    """Try the network of a config, if it is a user's own: once for each class, keys and shape. Raises ConfigError."""
    if not isinstance(config.model, OwnModel):
        return
    changes = check(config.model, config.fractal.ifs.d, config.width, config.depth)
    where = f"with model._target_={config.model.target}, which changes its buffers in training"
    if changes and config.optimizer.average != "none":
        raise ConfigError(f"optimizer.average={config.optimizer.average}: must be none {where}")
    if changes and config.trainer.devices > 1:
        raise ConfigError(f"trainer.devices={config.trainer.devices}: must be 1 {where}")


def check(model: OwnModel, d: int, width: int, depth: int) -> bool:
    """Try a class by a tiny forward and backward pass. Raises ConfigError if it isn't as the module says.

    Returns whether it changes its buffers in training, as batch normalisation does.
    """
    return _tried(_class(model), model, d, width, depth)


@lru_cache(maxsize=4096)
def _tried(kind: Any, model: OwnModel, d: int, width: int, depth: int) -> bool:
    """``check`` of a class, which in a notebook may be another one by the same name."""
    import torch

    told = f"model._target_={model.target}"
    check_arguments(told, kind, model)
    x = torch.rand(POINTS, d, generator=torch.Generator().manual_seed(1)) * 2 - 1
    networks: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        for number in (0, 0, 1):  # what is global differs in the last
            torch.default_generator.manual_seed(number)
            generator = torch.Generator().manual_seed(0)
            with telling(told, f"__init__(d={d}, width={width}, depth={depth}, ...)"):
                networks.append(kind(d, width, depth, generator=generator, **model.keys))
        first, again, other = networks
        _check_parameters(first, told)
        if not _same(first, again):
            raise ConfigError(f"{told}: isn't deterministic: the same generator gives other weights")
        if not _same(first, other):
            raise ConfigError(
                f"{told}: its weights depend on the global generator of torch: draw all of them with the argument "
                "generator, as by nn.init"
            )
        for mode in (True, False):
            answers = [_answer(network.train(mode), x, told) for network in (first, other)]
            if not mode:  # in training, buffers may change what comes next
                answers.append(_answer(first, x, told))
            if any(not torch.equal(answers[0].nan_to_num(), each.nan_to_num()) for each in answers[1:]):
                raise ConfigError(f"{told}: isn't deterministic: the same weights and points give other numbers")
        fewer = torch.cat([_answer(first, x[:2], told), _answer(first, x[2:], told)])
        if not torch.allclose(fewer.nan_to_num(), answers[0].nan_to_num(), rtol=1e-3, atol=1e-3 * _largest(fewer)):
            raise ConfigError(f"{told}: its number for a point depends on the other points of a batch (in eval mode)")
        before = [buffer.clone() for buffer in first.buffers()]
        _check_gradients(first.train(), x, told)
    pairs = zip(before, first.buffers(), strict=True)
    return any(not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def _largest(numbers: Tensor) -> float:
    return float(numbers.detach().nan_to_num().abs().max())


def _check_parameters(network: nn.Module, told: str) -> None:
    import torch
    from torch import nn

    parameters = list(network.parameters())
    if not parameters:
        raise ConfigError(f"{told}: has no parameters to train")
    if any(isinstance(each, nn.UninitializedParameter) for each in parameters):
        raise ConfigError(f"{told}: has lazy layers, whose weights aren't there yet: give them their sizes")
    if fixed := [name for name, each in network.named_parameters() if not each.requires_grad]:
        raise ConfigError(
            f"{told}: {', '.join(fixed[:3])} isn't trained (requires_grad=False): make it a buffer, by register_buffer"
        )
    if not all(each.dtype == torch.float32 and each.device.type == "cpu" for each in parameters):
        raise ConfigError(f"{told}: its parameters must be numbers of float32 on the CPU; the run moves them")
    if any(each.is_complex() or not each.is_contiguous() for each in network.buffers()):
        raise ConfigError(f"{told}: its buffers must be real numbers, each contiguous in memory")


def _same(first: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same weights and buffers."""
    import torch

    pairs = zip([*first.parameters(), *first.buffers()], [*other.parameters(), *other.buffers()], strict=False)
    return all(torch.equal(a.detach().nan_to_num(), b.detach().nan_to_num()) for a, b in pairs)


def _answer(network: nn.Module, x: Tensor, told: str) -> Tensor:
    """The network's numbers at points x (n, d). Raises ConfigError unless they are (n,)."""
    import torch

    with telling(told, "forward"):
        found = network(x)
    if not isinstance(found, torch.Tensor):
        raise ConfigError(f"{told}: forward must return a tensor, not {type(found).__name__}")
    if found.shape != x.shape[:-1]:
        hint = " (squeeze(-1) removes the last axis)" if found.shape == (*x.shape[:-1], 1) else ""
        raise ConfigError(
            f"{told}: forward must return shape (n,) for points (n, d), not {tuple(found.shape)} for "
            f"{tuple(x.shape)}{hint}"
        )
    if found.dtype != x.dtype:
        raise ConfigError(f"{told}: forward must return numbers of float32 for such points, not {found.dtype}")
    return found


def _check_gradients(network: nn.Module, x: Tensor, told: str) -> None:
    with telling(told, "the backward pass"):
        _answer(network, x, told).square().sum().backward()
    if missing := [name for name, each in network.named_parameters() if each.grad is None]:
        raise ConfigError(f"{told}: {', '.join(missing[:3])} gets no gradient: the output must rest on every parameter")
