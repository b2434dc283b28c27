"""The reference engine: M runs of one shape as one batched program, on any device, by autograd.

Every weight has a leading run axis; the sum of the M losses has each network's own gradient and Adam is elementwise, so
training the sum trains each as if alone.
"""

import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fractal_ifs.data.points import Points
from fractal_ifs.data.seeds import permutation
from fractal_ifs.engines.protocol import Measurement
from fractal_ifs.networks.mlp import mlp
from fractal_ifs.runs import ddp
from fractal_ifs.runs.run import Run

log = logging.getLogger(__name__)

BETAS, EPS = (0.9, 0.999), 1e-8
CACHE = 4 << 20  # bytes of parameters, moments and activations that a stack may fill on a CPU
AUTOCAST = {"bf16-mixed": torch.bfloat16}


def losses(loss: str, f: Tensor, y: Tensor) -> Tensor:
    """Mean over the last axis of hinge max(0, 1 - y f), logistic log(1 + exp(-y f)) or squared (y - f)^2."""
    if loss == "hinge":
        return (1 - y * f).relu().mean(-1)
    if loss == "logistic":
        return torch.nn.functional.softplus(-y * f).mean(-1)
    return (y - f).square().mean(-1)


class Stack:
    """M runs of one shape with their state in one tensor (M, P) per kind; the runs' own vectors are its rows.

    ``total`` (M,) sums the batch losses since ``begin``. A step happens whole or not at all: all that it may fail for
    want of memory comes before the first change of the state.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        precision: str = "32-true",
        compiled: bool = False,
        graphs: bool = False,
        together: bool = False,
    ):
        self.runs = list(runs)
        first = runs[0]
        self.device = first.params.device
        if together and len(runs) == 1 and self.device.type == "cpu":
            runs = [first, first]
        self.rows = list(runs)
        self.params = torch.stack([run.params for run in runs])
        self.exp_avg = torch.stack([run.exp_avg for run in runs])
        self.exp_avg_sq = torch.stack([run.exp_avg_sq for run in runs])
        self.grad, self.work = torch.zeros_like(self.params), torch.empty_like(self.params)
        self.total = torch.zeros(len(runs), dtype=torch.float64, device=self.device)
        self.loss, self.adam, self.sum_last = first.config.loss, first.config.optimizer == "adam", first.model.sum_last
        self.weights: list[Tensor] = []
        start = 0
        for p in first.model.parameters():
            leaf = self.params[:, start : start + p.numel()].unflatten(1, p.shape).detach().requires_grad_()
            leaf.grad = self.grad[:, start : start + p.numel()].unflatten(1, p.shape)
            self.weights.append(leaf)
            start += p.numel()
        # Runs on the same points share them; a batch is one gather from all sets laid end to end.
        sets = {id(run.data): run.data for run in runs}
        sizes = np.cumsum([0] + [len(points.y_train) for points in sets.values()])
        first_row = dict(zip(sets, sizes, strict=False))
        self.first_row = [int(first_row[id(run.data)]) for run in runs]
        self.x = torch.cat([points.x_train for points in sets.values()]).to(self.params.dtype)
        self.y = torch.cat([points.y_train for points in sets.values()]).to(self.params.dtype)
        self.batch = first.config.batch_size
        self.epoch = [len(run.data.y_train) // self.batch for run in runs]
        self.lr = torch.tensor([run.config.lr for run in runs], dtype=torch.float64)
        self.orders: list[tuple[int, Tensor]] = [(-1, torch.empty(0))] * len(runs)
        dtype = AUTOCAST.get(precision)
        # The cache of cast weights would go stale: the weights change in place.
        self.autocast = (
            torch.autocast(self.device.type, dtype, cache_enabled=False) if dtype else contextlib.nullcontext()
        )
        self.losses, self.update = self._losses, self._update
        if compiled:
            self.losses, self.update = torch.compile(self._losses), torch.compile(self._update)
        self.step = self._graph() if graphs else self._step
        for m, run in enumerate(self.runs):  # last: whatever fails above leaves the runs as they were
            run.bind(self.params[m], self.exp_avg[m], self.exp_avg_sq[m])

    def order(self, m: int, epoch: int) -> Tensor:
        """The rows of x (n,) in the order of this epoch of run m."""
        if self.orders[m][0] != epoch:
            run = self.rows[m]
            order = permutation(run.shuffle_seed, epoch, len(run.data.y_train)) + self.first_row[m]
            self.orders[m] = (epoch, torch.from_numpy(order).to(self.device))
        return self.orders[m][1]

    def advance(self, steps: int, stop: list[Any]) -> None:
        """So many steps of every run, fewer once ``stop`` is not empty."""
        while steps and not stop:
            positions = [run.step % epoch for run, epoch in zip(self.rows, self.epoch, strict=True)]
            ahead = min(steps, *(epoch - p for p, epoch in zip(positions, self.epoch, strict=True)))
            rows = torch.stack(
                [
                    self.order(m, run.step // self.epoch[m])[p * self.batch : (p + ahead) * self.batch]
                    for m, (run, p) in enumerate(zip(self.rows, positions, strict=True))
                ]
            ).unflatten(1, (ahead, self.batch))
            rows = ddp.share(rows, axis=2)
            size, root = self._corrections(ahead)
            for s, row in enumerate(rows.unbind(1)):
                if stop:
                    break
                self.step(row, size[s], root[s])
                for run in self.runs:
                    run.step += 1
            steps -= ahead

    def _losses(self, row: Tensor) -> Tensor:
        """The losses (M,) of the points ``row`` (M, batch) of the data."""
        with self.autocast:
            return losses(self.loss, mlp(self.weights, self.x[row], self.sum_last), self.y[row])

    def _update(self, each: Tensor, size: Tensor, root: Tensor) -> None:
        """The optimizer's step from ``grad``; allocates nothing."""
        self.total += each.float()  # sums of which are exact, so interrupted or not
        if self.adam:
            self.exp_avg.lerp_(self.grad, 1 - BETAS[0])
            self.exp_avg_sq.mul_(BETAS[1]).addcmul_(self.grad, self.grad, value=1 - BETAS[1])
            torch.sqrt(self.exp_avg_sq, out=self.work)
            self.work.div_(root).add_(EPS)
            self.params.addcmul_(torch.div(self.exp_avg, self.work, out=self.work), size)
        else:
            self.params.addcmul_(self.grad, size)
        self.grad.zero_()

    def _step(self, row: Tensor, size: Tensor, root: Tensor) -> None:
        each = self.losses(row)
        each.sum().backward()
        with torch.no_grad():
            ddp.average(each, self.grad)
            self.update(each, size, root)

    def _graph(self) -> Callable[[Tensor, Tensor, Tensor], None]:
        """A step as one CUDA graph: the same kernels, launched at once."""
        row = torch.zeros(len(self.rows), self.batch, dtype=torch.int64, device=self.device)
        size, root = torch.zeros_like(self.params[:, :1]), torch.ones_like(self.params[:, :1])
        state = self.params, self.exp_avg, self.exp_avg_sq, self.total
        kept = [tensor.clone() for tensor in state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # allocations and compilations settle before the capture
            for _ in range(3):
                self._step(row, size, root)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(row, size, root)
        for tensor, values in zip(state, kept, strict=True):
            tensor.copy_(values)

        def replay(*inputs: Tensor) -> None:
            for here, values in zip((row, size, root), inputs, strict=True):
                here.copy_(values)
            graph.replay()

        return replay

    def _corrections(self, steps: int) -> tuple[Tensor, Tensor]:
        """Step sizes -lr / (1 - b1^t) and roots sqrt(1 - b2^t) of Adam, each (steps, M, 1), from each run's own t."""
        done = torch.tensor([run.step for run in self.rows], dtype=torch.float64)
        t = torch.arange(1, steps + 1, dtype=torch.float64)[:, None] + done
        size = -self.lr / (1 - BETAS[0] ** t) if self.adam else (-self.lr).expand(t.shape)
        root = (1 - BETAS[1] ** t).sqrt()
        return size[..., None].to(self.grad), root[..., None].to(self.grad)


def out_of_memory(error: Exception) -> bool:
    """Whether a device, or this process, had no memory left."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


class StackedEngine:
    """Stacks of runs of one shape, in PyTorch.

    Args:
        precision: as ``pytorch_lightning.Trainer``'s.
        stack: runs in a stack at most; 0: chosen for the cache or the GPU.
        compiled: let ``torch.compile`` make the step; sums may then be taken in another order.
        graphs: replay the step as a CUDA graph.
        together: on a CPU, a network that is alone in its stack has a twin. PyTorch multiplies two or more matrices in
            the same way, and a single one in another, so a run's bits would tell whether its partners have ended.
    """

    name, isa, build = "torch", None, None

    def __init__(
        self,
        precision: str = "32-true",
        stack: int = 0,
        compiled: bool = False,
        graphs: bool = False,
        together: bool = False,
    ):
        self.stack_size = stack
        self._make = partial(Stack, precision=precision, compiled=compiled, graphs=graphs, together=together)
        self._runs: list[Run] = []
        self._trained: list[tuple[Run, Points]] = []
        self._stacks: list[Stack] = []

    def saturated(self, runs: Sequence[Run], waiting: int) -> bool:
        """As many runs of one shape train together as a core's cache holds, or a GPU fills with."""
        run = runs[0]
        if self.stack_size:
            return len(runs) >= self.stack_size
        if run.params.device.type != "cpu":
            return len(runs) >= 512
        activations = 2 * run.config.batch_size * run.config.width * run.config.depth
        return len(runs) >= min(32, CACHE // (4 * (4 * run.params.numel() + activations)))

    def advance(self, runs: Sequence[Run], steps: Sequence[int], stop: list[Any]) -> list[float]:
        """Advance by the least of the steps asked for, since a stack moves as one.

        Where memory runs out, by stacks half as large from there on; raises what it ran out by where one run is
        too large.
        """
        trained = [(run, run.data) for run in runs]  # a layer's data are its own
        if self._trained != trained:
            self._part()
            self._runs, self._trained = list(runs), trained
        sums = dict.fromkeys(map(id, runs), 0.0)
        todo = {id(run): min(steps) for run in runs}
        while any(todo.values()) and not stop:
            try:
                if not self._stacks:
                    self._split(todo)
                for stack in self._stacks:
                    self._advance(stack, todo, sums, stop)
            except Exception as error:
                size = max((len(stack.runs) for stack in self._stacks), default=self._size())
                self._part()
                if size == 1 or not out_of_memory(error):
                    raise
                self.stack_size = size // 2
                log.warning("out of memory with %d networks in a stack: going on with %d", size, size // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
        return [sums[id(run)] for run in runs]

    def _advance(self, stack: Stack, todo: dict[int, int], sums: dict[int, float], stop: list[Any]) -> None:
        was = stack.runs[0].step
        stack.total.zero_()
        try:
            stack.advance(todo[id(stack.runs[0])], stop)
        finally:
            done = stack.runs[0].step - was
            for run, total in zip(stack.runs, stack.total.tolist(), strict=False):  # not that of a twin
                todo[id(run)] -= done
                sums[id(run)] += total

    def _size(self) -> int:
        return min(self.stack_size or len(self._runs), len(self._runs))

    def _split(self, todo: dict[int, int]) -> None:
        """Stacks of runs that are next to each other and have as many steps to go."""
        for _, alike in groupby(self._runs, lambda run: (todo[id(run)], run.model.d)):
            left = list(alike)
            while left:
                self._stacks.append(self._make(left[: self._size()]))
                left = left[self._size() :]

    def _part(self) -> None:
        """Every run into vectors of its own, and the stacks' memory free."""
        for run in self._runs:
            run.detach()
        self._stacks = []

    @torch.no_grad()
    def evaluate(self, runs: Sequence[Run]) -> list[Measurement]:
        """As of ``Engine``."""
        results: list[Measurement] = []
        for run in runs:
            x, y = run.data.x_test.to(run.params.dtype), run.data.y_test
            f = run.model(x)
            results.append(Measurement((y * f > 0).double().mean().item(), losses(run.config.loss, f, y).item()))
        return results
