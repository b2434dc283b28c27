"""What a step does besides the gradient, in one place for all engines: its learning rate, and the formulas by element.

A step t = 1, 2, ... of parameters p with the gradient g of the batch's loss, by ``torch.optim``'s formulas:

    clip      g *= min(1, clip / (|g| + 1e-6)),  |g| over all parameters
    decay     g += weight_decay p,  but AdamW  p *= 1 - lr weight_decay
    SGD       b = momentum b + g,  p -= lr b,  with Nesterov's  p -= lr (g + momentum b)
    Adam      m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,
              p -= lr m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)
    average   a = (1 - w) a + w p,  with the share w of ``shares``

m, or b, is a run's vector ``exp_avg``, and v is ``exp_avg_sq``.
"""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the type of from_numpy)

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fractal_ifs.config.optimizer import Adam, AdamW, Optimizer, Sgd
from fractal_ifs.config.run import RunConfig
from fractal_ifs.config.schedule import Constant, Decay, Inverse, Schedule, Step

BETAS, EPS = (0.9, 0.999), 1e-8  # Adam's usual ones
UNBIASED = 40_000  # steps after which 1 - 0.999^t is 1 in float64
CLIP_EPS = 1e-6  # as torch.nn.utils.clip_grad_norm_ has it


def factors(schedule: Schedule, steps: int, first: int, count: int) -> NDArray[np.float64]:
    """The learning rate over its peak ``lr`` in the ``count`` steps after step ``first`` of ``steps``, (count,).

    Each depends on its step alone, not on where the range begins.
    """
    done = np.arange(first, first + count, dtype=np.float64)
    t = np.maximum(done - schedule.warmup, 0)  # steps since the warm-up
    if isinstance(schedule, Decay):
        share = t / max(steps - schedule.warmup, 1)
        fall = share if schedule.name == "linear" else (1 - np.cos(np.pi * share)) / 2
        found = 1 - (1 - schedule.final) * fall
    elif isinstance(schedule, Step):
        found = schedule.gamma ** (t // schedule.every)
    elif isinstance(schedule, Inverse):
        found = 1 / (1 + t / schedule.half)
    else:
        found = np.ones(count)
    return np.where(done < schedule.warmup, (done + 1) / max(schedule.warmup, 1), found)


def learning_rates(config: RunConfig, first: int, count: int) -> NDArray[np.float64] | None:
    """The learning rates of the ``count`` steps after step ``first``, (count,). None: all are ``config.lr``."""
    if isinstance(config.schedule, Constant) and not config.schedule.warmup:
        return None
    return config.lr * factors(config.schedule, config.steps, first, count)


def shares(optimizer: Optimizer, first: int, count: int) -> NDArray[np.float64] | None:
    """The share of each of the ``count`` steps after step ``first`` in the average of weights then, (count,).

    1 up to the first step of the average: it is the weights themselves until then. None: there is no average.
    """
    if optimizer.average == "none":
        return None
    averaged = np.arange(first, first + count) - optimizer.average_begin  # steps in it before this one
    if optimizer.average == "swa":
        return 1 / np.maximum(averaged + 1, 1).astype(np.float64)
    return np.where(averaged <= 0, 1.0, 1 - optimizer.average_decay)


class StepRule(NamedTuple):
    """What distinguishes two kinds of steps. Runs whose values differ, but not these, train in one stack."""

    name: str  # adam, adamw, sgd
    usual: bool  # Adam with its usual betas and eps, which are constants then
    momentum: bool
    nesterov: bool
    decay: bool  # as a part of the gradient
    clip: bool
    average: bool

    @classmethod
    def of(cls, optimizer: Optimizer) -> StepRule:
        """The rule of an optimizer."""
        sgd = isinstance(optimizer, Sgd)
        return cls(
            name=optimizer.name,
            usual=isinstance(optimizer, Adam) and (optimizer.betas, optimizer.eps) == (BETAS, EPS),
            momentum=sgd and optimizer.momentum > 0,
            nesterov=sgd and optimizer.nesterov,
            decay=optimizer.weight_decay > 0 and not isinstance(optimizer, AdamW),
            clip=optimizer.clip is not None,
            average=optimizer.average != "none",
        )


class Vectors(NamedTuple):
    """The state of M runs, a row each: all (M, P), changed in place."""

    params: Tensor
    grad: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    average: Tensor  # of no use to a rule without an average
    work: Tensor  # for anything in between


class Steps:
    """The steps of M runs of one ``StepRule``, each with its own numbers.

    Where a rule has more than the plain Adam and SGD of earlier versions it is made of sums, products, quotients
    and roots, which are rounded in one way only: so a run's bits don't depend on its place among others. Nothing is
    allocated in ``update``.
    """

    def __init__(self, configs: Sequence[RunConfig], like: Tensor):
        self.configs = configs
        self.optimizers = [config.optimizer for config in configs]
        self.rule = StepRule.of(self.optimizers[0])
        self.like = like
        numbers = {
            "momentum": [getattr(each, "momentum", 0.0) for each in self.optimizers],
            "decay": [each.weight_decay for each in self.optimizers],
            "clip": [each.clip or 0.0 for each in self.optimizers],
            "eps": [getattr(each, "eps", EPS) for each in self.optimizers],
        }
        self.betas: list[tuple[float, float]] = [getattr(each, "betas", BETAS) for each in self.optimizers]
        for number, name in enumerate(("beta1", "beta2")):
            numbers[name] = [each[number] for each in self.betas]
            numbers[f"rest{number + 1}"] = [1 - each[number] for each in self.betas]
        # columns (M, 1): a number of each run
        self.numbers = {name: self._column(torch.tensor(found, dtype=torch.float64)) for name, found in numbers.items()}

    def _column(self, found: Tensor) -> Tensor:
        """Numbers (..., M) of the runs as columns (..., M, 1), like the parameters."""
        return found[..., None].to(self.like).contiguous()  # as kernels read them

    def ahead(self, first: Sequence[int], count: int) -> list[Tensor]:
        """The numbers of ``count`` steps, of which run m has done ``first[m]``: each (count, M, 1), for ``update``.

        These are -lr over Adam's 1 - beta1^t and sqrt(1 - beta2^t); the share of the weights that AdamW leaves; and
        what the average keeps and takes. Those that the rule doesn't need are left out.
        """
        rates = np.empty((count, len(first)))
        for m, (config, done) in enumerate(zip(self.configs, first, strict=True)):
            found = learning_rates(config, done, count)
            rates[:, m] = config.lr if found is None else found
        lr = torch.from_numpy(rates)
        columns = [-lr]
        if self.rule.name != "sgd":
            one, two = unbiasing(self.betas, first, count)
            columns = [-lr / one, two.sqrt()]
        if isinstance(self.optimizers[0], AdamW):
            decay = torch.tensor([each.weight_decay for each in self.optimizers], dtype=torch.float64)
            columns.append(1 - lr * decay)
        if self.rule.average:
            parts = [shares(each, done, count) for each, done in zip(self.optimizers, first, strict=True)]
            share = torch.from_numpy(np.stack([part for part in parts if part is not None], 1))
            columns += [1 - share, share]
        return [self._column(each) for each in columns]

    def update(self, state: Vectors, *ahead: Tensor) -> None:
        """One step of all runs from their gradients, which are zero afterwards. ``ahead``: (M, 1) of ``self.ahead``."""
        rule, number, numbers = self.rule, self.numbers, list(ahead)
        params, grad, exp_avg, exp_avg_sq, average, work = state
        if rule.clip:
            self._clip(grad, work)
        size = numbers.pop(0)
        root = numbers.pop(0) if rule.name != "sgd" else None
        if rule.name == "adamw":
            params.mul_(numbers.pop(0))
        elif rule.decay:
            grad.add_(torch.mul(params, number["decay"], out=work))
        if root is not None:
            if rule.usual:
                exp_avg.lerp_(grad, 1 - BETAS[0])
                exp_avg_sq.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
            else:
                exp_avg.mul_(number["beta1"]).add_(torch.mul(grad, number["rest1"], out=work))
                torch.mul(grad, grad, out=work)
                exp_avg_sq.mul_(number["beta2"]).add_(work.mul_(number["rest2"]))
            torch.sqrt(exp_avg_sq, out=work)
            work.div_(root).add_(EPS if rule.usual else number["eps"])
            params.addcmul_(torch.div(exp_avg, work, out=work), size)
        elif rule.momentum:
            exp_avg.mul_(number["momentum"]).add_(grad)
            if rule.nesterov:
                params.addcmul_(grad.add_(torch.mul(exp_avg, number["momentum"], out=work)), size)
            else:
                params.addcmul_(exp_avg, size)
        else:
            params.addcmul_(grad, size)
        if rule.average:
            keep, share = numbers
            average.mul_(keep).add_(torch.mul(params, share, out=work))
        grad.zero_()

    def _clip(self, grad: Tensor, work: Tensor) -> None:
        """Scale gradients whose norm is too large. The squares are added in pairs, so that no order depends on M."""
        torch.mul(grad, grad, out=work)
        n = work.shape[1]
        while n > 1:
            half = n // 2
            work[:, :half].add_(work[:, n - half : n])
            n -= half
        norm = work[:, :1].sqrt_().add_(CLIP_EPS)
        grad.mul_(torch.div(self.numbers["clip"], norm, out=norm).clamp_(max=1))


@lru_cache
def _usual_unbiasing() -> tuple[Tensor, Tensor]:
    first, second = (torch.tensor([1 - b**t for t in range(UNBIASED + 1)], dtype=torch.float64) for b in BETAS)
    return first, second


def unbiasing(betas: Sequence[tuple[float, float]], first: Sequence[int], count: int) -> tuple[Tensor, Tensor]:
    """1 - b1^t and 1 - b2^t of Adam's steps t = first[m] + 1, ..., first[m] + count with betas[m], each (count, M).

    By Python, because torch's power of the last elements of a tensor has other bits than that of the others. The usual
    ones are in a table; up to ``UNBIASED``, from where on both are 1.
    """
    if all(each == BETAS for each in betas):
        t = torch.arange(1, count + 1)[:, None] + torch.tensor(first)
        one, two = (table[t.clamp(max=UNBIASED)] for table in _usual_unbiasing())
        return one, two
    of_runs = [(each, range(done + 1, done + count + 1)) for each, done in zip(betas, first, strict=True)]
    one, two = (
        torch.tensor([[1 - each[number] ** t for t in steps] for each, steps in of_runs], dtype=torch.float64).T
        for number in range(2)
    )
    return one, two
