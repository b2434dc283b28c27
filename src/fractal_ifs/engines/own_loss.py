"""Losses of a user's own: ``loss._target_`` names the function, ``soft(f, y, **keys)``, by this contract.

``f`` are outputs of any shape, ``y`` their labels, -1 or 1, of the same shape; ``keys`` are the other keys of the file.
What it returns has this shape too: the loss of each point, which depends on no other point. We take the mean.

``check`` tries that before a run begins: a function that breaks it is refused in one line. Its first two parameters
must have these names. So a file of keys can't call what was never meant as a loss.
"""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the types of manual_seed and autograd.grad)

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from fractal_ifs.config.loss import AnyLoss, OwnLoss
from fractal_ifs.config.own_class import check_arguments, once, resolve, telling
from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError
from fractal_ifs.mkl import ask_for_equal_bits

if TYPE_CHECKING:
    from torch import Tensor

Function = Callable[["Tensor", "Tensor"], "Tensor"]  # outputs (..., n) and labels (..., n) to means (...)

OUTPUTS = (-2.5, -1.0, -0.3, 0.0, 0.3, 1.0, 2.5)  # that a function is tried on, with both labels


def function_of(loss: AnyLoss) -> str | Function:
    """The name of a loss of ours; of another its function, with its keys and the mean over the last axis.

    Raises ConfigError.
    """
    if not isinstance(loss, OwnLoss):
        return loss.name
    found, keys = named(loss), dict(loss.keys)
    return lambda f, y: found(f, y, **keys).mean(-1)


def named(loss: OwnLoss) -> Callable[..., Tensor]:
    """The function itself, without its keys. Raises ConfigError."""
    ask_for_equal_bits()  # before a user's code may multiply
    return resolve("loss._target_", loss.target)


def check_loss(config: RunConfig) -> None:
    """Try the loss of a config, if it is a user's own: once for each function and keys. Raises ConfigError."""
    if isinstance(config.loss, OwnLoss):
        check(config.loss)


def check(loss: OwnLoss) -> None:
    """Try a function on a few outputs. Raises ConfigError if it isn't as the module says."""
    once(_try, named(loss), loss)


@lru_cache(maxsize=4096)
def _try(found: Callable[..., Tensor], loss: OwnLoss) -> None:
    """``check`` of a function, which in a notebook may be another one by the same name."""
    import torch

    told = f"loss._target_={loss.target}"
    try:
        first = [*inspect.signature(found).parameters][:2]
    except (TypeError, ValueError):
        first = []
    if first != ["f", "y"]:
        raise ConfigError(f"{told}: its first two parameters must be f and y, the outputs and their labels")
    check_arguments(told, found, loss)

    def losses(f: Tensor, y: Tensor) -> Tensor:
        given = f.detach().clone(), y.clone()
        with telling(told, "it"):
            answer = found(f, y, **loss.keys)
        if not (torch.equal(f, given[0]) and torch.equal(y, given[1])):
            raise ConfigError(f"{told}: must not change f or y in place")
        return _checked(answer, f, told)

    f = torch.tensor(OUTPUTS).repeat(2)
    y = torch.tensor([-1.0, 1.0]).repeat_interleave(len(OUTPUTS))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        answers: list[Tensor] = []
        for number in (0, 1):
            torch.manual_seed(number)
            answers.append(losses(f, y))
        if not _near(answers[0], answers[1]):
            raise ConfigError(f"{told}: isn't deterministic: the same outputs and labels give other losses")
        _check_gradients(losses, f, y, told)
        alone = torch.cat([losses(f[n : n + 1], y[n : n + 1]) for n in range(len(f))])
        several = losses(torch.stack([f, f.flip(0)]), torch.stack([y, -y]))
        if not (_near(answers[0], alone) and _near(answers[0], several[0])):
            raise ConfigError(f"{told}: must be elementwise: a point's loss depends on the points beside it")


def _checked(answer: object, f: Tensor, told: str) -> Tensor:
    """The losses of outputs f. Raises ConfigError unless they are numbers of its shape and type."""
    import torch

    if not isinstance(answer, torch.Tensor):
        raise ConfigError(f"{told}: must return a tensor, not {type(answer).__name__}")
    if answer.shape != f.shape:
        hint = "; the mean is ours to take" if answer.shape == f.shape[:-1] else ""
        raise ConfigError(
            f"{told}: must return a loss for each output, {tuple(f.shape)}, not {tuple(answer.shape)}{hint}"
        )
    if answer.dtype != f.dtype:
        raise ConfigError(f"{told}: must return numbers of float32 for such outputs, not {answer.dtype}")
    return answer


def _check_gradients(losses: Function, f: Tensor, y: Tensor, told: str) -> None:
    import torch

    f = f.clone().requires_grad_()
    each = losses(f, y)
    gradient = None
    if each.requires_grad:
        with telling(told, "the backward pass"):
            [gradient] = torch.autograd.grad(each.sum(), [f], allow_unused=True)
    if gradient is None or not gradient.any():
        raise ConfigError(f"{told}: isn't differentiable: f gets no gradient")
    for what, values in (("loss", each), ("gradient", gradient)):
        if not values[f == 0].isfinite().all():
            raise ConfigError(f"{told}: its {what} must be finite where f is 0")


def _near(one: Tensor, other: Tensor) -> bool:
    import torch

    return torch.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)
