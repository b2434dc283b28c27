"""The reference engine: M runs of one shape as one batched program, on any device, by autograd.

Every weight has a leading run axis; the sum of the M losses has each network's own gradient and Adam is elementwise, so
training the sum trains each as if alone.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fractal_ifs.models import mlp
from fractal_ifs.runs import Run
from fractal_ifs.seeds import permutation

BETAS, EPS = (0.9, 0.999), 1e-8
CACHE = 4 << 20  # bytes of parameters, moments and activations that a stack may fill on a CPU
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def losses(loss: str, f: Tensor, y: Tensor) -> Tensor:
    """Mean over the last axis of hinge max(0, 1 - y f), logistic log(1 + exp(-y f)) or squared (y - f)^2."""
    if loss == "hinge":
        return (1 - y * f).relu().mean(-1)
    if loss == "logistic":
        return torch.nn.functional.softplus(-y * f).mean(-1)
    return (y - f).square().mean(-1)


class Stack:
    """M runs of one shape with their state in one tensor (M, P) per kind; the runs' own vectors are its rows."""

    def __init__(self, runs: Sequence[Run]):
        self.runs = list(runs)
        first = runs[0]
        self.device = first.params.device
        self.params = torch.stack([run.params for run in runs])
        self.exp_avg = torch.stack([run.exp_avg for run in runs])
        self.exp_avg_sq = torch.stack([run.exp_avg_sq for run in runs])
        self.grad = torch.zeros_like(self.params)
        self.sum_last = first.model.sum_last
        self.weights: list[Tensor] = []
        start = 0
        for p in first.model.parameters():
            leaf = self.params[:, start : start + p.numel()].unflatten(1, p.shape).detach().requires_grad_()
            leaf.grad = self.grad[:, start : start + p.numel()].unflatten(1, p.shape)
            self.weights.append(leaf)
            start += p.numel()
        for m, run in enumerate(runs):
            run.bind(self.params[m], self.exp_avg[m], self.exp_avg_sq[m])
        # Runs on the same points share them; a batch is one gather from all sets laid end to end.
        sets = {id(run.data): run.data for run in runs}
        sizes = np.cumsum([0] + [len(points.y_train) for points in sets.values()])
        first_row = dict(zip(sets, sizes, strict=False))
        self.first_row = [int(first_row[id(run.data)]) for run in runs]
        self.x = torch.cat([points.x_train for points in sets.values()]).to(self.params.dtype)
        self.y = torch.cat([points.y_train for points in sets.values()]).to(self.params.dtype)
        self.batch = first.batch_size
        self.epoch = [len(run.data.y_train) // self.batch for run in runs]
        self.lr = torch.tensor([run.lr for run in runs], dtype=torch.float64)
        self.orders: list[tuple[int, Tensor]] = [(-1, torch.empty(0))] * len(runs)

    def order(self, m: int, epoch: int) -> Tensor:
        """The rows of x (n,) in the order of this epoch of run m."""
        if self.orders[m][0] != epoch:
            run = self.runs[m]
            order = permutation(run.shuffle_seed, epoch, len(run.data.y_train)) + self.first_row[m]
            self.orders[m] = (epoch, torch.from_numpy(order).to(self.device))
        return self.orders[m][1]

    def advance(self, steps: int, autocast: contextlib.AbstractContextManager, stop: list) -> Tensor:
        """So many steps of every run, fewer once ``stop`` is not empty; returns the sums of the batch losses (M,)."""
        total = torch.zeros(len(self.runs), dtype=torch.float64, device=self.device)
        while steps:
            positions = [run.step % epoch for run, epoch in zip(self.runs, self.epoch, strict=True)]
            ahead = min(steps, *(epoch - p for p, epoch in zip(positions, self.epoch, strict=True)))
            rows = torch.stack(
                [
                    self.order(m, run.step // self.epoch[m])[p * self.batch : (p + ahead) * self.batch]
                    for m, (run, p) in enumerate(zip(self.runs, positions, strict=True))
                ]
            ).unflatten(1, (ahead, self.batch))
            self._segment(rows, total, autocast, stop)
            steps = 0 if stop else steps - ahead
        return total

    def _segment(self, rows: Tensor, total: Tensor, autocast: contextlib.AbstractContextManager, stop: list) -> None:
        """The inner loop: rows (M, steps, batch) of the data."""
        adam, loss = self.runs[0].optimizer == "adam", self.runs[0].loss
        size, root = self._corrections(rows.shape[1]) if adam else (self.lr.to(self.grad)[None, :, None], None)
        size = -size
        done = 0
        for s, row in enumerate(rows.unbind(1)):
            if stop:
                break
            done = s + 1
            x, y = self.x[row], self.y[row]
            with autocast:
                each = losses(loss, mlp(self.weights, x, self.sum_last), y)
            each.sum().backward()
            with torch.no_grad():
                total += each
                if adam:
                    assert root is not None
                    self.exp_avg.lerp_(self.grad, 1 - BETAS[0])
                    self.exp_avg_sq.mul_(BETAS[1]).addcmul_(self.grad, self.grad, value=1 - BETAS[1])
                    denominator = self.exp_avg_sq.sqrt().div_(root[s]).add_(EPS)
                    self.params.addcmul_(torch.div(self.exp_avg, denominator, out=denominator), size[s])
                else:
                    self.params.addcmul_(self.grad, size[0])
                self.grad.zero_()
        for run in self.runs:
            run.step += done

    def _corrections(self, steps: int) -> tuple[Tensor, Tensor]:
        """Adam's step sizes lr / (1 - b1^t) and roots sqrt(1 - b2^t), each (steps, M, 1), from each run's own t."""
        done = torch.tensor([run.step for run in self.runs], dtype=torch.float64)
        t = torch.arange(1, steps + 1, dtype=torch.float64)[:, None] + done
        size = self.lr / (1 - BETAS[0] ** t)
        root = (1 - BETAS[1] ** t).sqrt()
        return size[..., None].to(self.grad), root[..., None].to(self.grad)


@contextlib.contextmanager
def _interrupts() -> Iterator[list]:
    """Signals that come within a step are kept in the list until it is whole: half a step can't be resumed."""
    caught: list = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    kinds = [kind for kind in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(kind))]
    handlers = [signal.signal(kind, lambda number, _: caught.append(number)) for kind in kinds]
    try:
        yield caught
    finally:
        for kind, handler in zip(kinds, handlers, strict=True):
            signal.signal(kind, handler)


class TorchEngine:
    """Stacks of runs of one shape, in PyTorch."""

    name, isa = "torch", None

    def __init__(self, precision: str = "32-true", stack: int = 0):
        self.precision, self.stack_size = precision, stack
        self._stack: Stack | None = None

    def window(self, run: Run) -> int:
        """How many runs of this shape train together: as many as a core's cache holds, or a GPU fills with."""
        if self.stack_size:
            return self.stack_size
        if run.params.device.type != "cpu":
            return 512
        activations = 2 * run.batch_size * run.config["width"] * run.config["depth"]
        return max(1, min(32, CACHE // (4 * (4 * run.params.numel() + activations))))

    def advance(self, runs: Sequence[Run], steps: Sequence[int]) -> list[float]:
        """Advance by the least of the steps asked for, since a stack moves as one."""
        if self._stack is None or self._stack.runs != list(runs):
            if self._stack is not None:
                for run in self._stack.runs:
                    run.detach()
            self._stack = Stack(runs)
        dtype = AUTOCAST.get(self.precision)
        device = self._stack.device.type
        # The cache of cast weights would go stale: the weights change in place.
        autocast = torch.autocast(device, dtype, cache_enabled=False) if dtype else contextlib.nullcontext()
        before = [run.step for run in runs]
        with _interrupts() as stop:
            sums = self._stack.advance(min(steps), autocast, stop).tolist()
        if stop:
            for run, was, total in zip(runs, before, sums, strict=True):
                run.advanced(run.step - was, total, 0.0)
            raise KeyboardInterrupt
        return sums

    @torch.no_grad()
    def evaluate(self, runs: Sequence[Run]) -> list[tuple[float, float]]:
        """Test accuracy (share of y f > 0) and mean loss of each run."""
        results = []
        for run in runs:
            x, y = run.data.x_test.to(run.params.dtype), run.data.y_test
            f = run.model(x)
            results.append(((y * f > 0).double().mean().item(), losses(run.loss, f, y).item()))
        return results
