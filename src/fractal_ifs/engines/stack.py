"""Runs of one shape side by side, as the stacked engine trains them: their vectors, batches and steps."""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the types of compile, from_numpy and Tensor.backward)

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor

from fractal_ifs.engines.arithmetic import AUTOCAST, casting, on_gpu
from fractal_ifs.engines.fusing import BATCHES, forward
from fractal_ifs.engines.graph import captured
from fractal_ifs.engines.losses import losses
from fractal_ifs.engines.orders import Orders
from fractal_ifs.engines.own_loss import function_of
from fractal_ifs.engines.protocol import Signals
from fractal_ifs.engines.steps import Vectors
from fractal_ifs.engines.traced import LEAST, Gradients, traced
from fractal_ifs.engines.update import steps
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.runs import ddp
from fractal_ifs.runs.run import Run
from fractal_ifs.runs.vectors import views

GRAPH = 16  # steps of a CUDA graph, between two of which a signal is heeded
ROWS = 1 << 24  # numbers of points whose places are held at a time, 128 MB


class Stack:
    """M runs of one shape. Their parameters are one tensor (M, P), and so are the moments. The runs' vectors are rows.

    ``total`` (M,) is each run's sum of batch losses; the engine says where it begins. A step is done completely or not
    at all: whatever can run out of memory comes before the first change of the state.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        precision: str = "32-true",
        compiled: bool = False,
        graphs: bool = False,
        fused: bool = True,
    ):
        """``graphs``: do steps as CUDA graphs. Raises RuntimeError where that can't be."""
        self.runs = list(runs)
        first = runs[0]
        self.device = first.params.device
        self.params = torch.stack([run.params for run in runs])
        self.exp_avg = torch.stack([run.exp_avg for run in runs])
        self.exp_avg_sq = torch.stack([run.exp_avg_sq for run in runs])
        self.grad, self.work = torch.zeros_like(self.params), torch.empty_like(self.params)
        self.total = torch.zeros(len(runs), dtype=torch.float64, device=self.device)
        self.loss = function_of(first.config.loss)
        averages = [run.average for run in runs if run.average is not None]
        self.average = torch.stack(averages) if averages else None
        self.steps = steps([run.config for run in runs], self.params, fused=on_gpu(self.device) and not compiled)
        self.network = forward([run.model for run in runs], fused)
        self.weights = [weight.detach().requires_grad_() for weight in views(self.params, first.model.parameters())]
        for weight, grad in zip(self.weights, views(self.grad, first.model.parameters()), strict=True):
            weight.grad = grad
        # Runs with the same points share them. All sets are concatenated, so that a batch is one gather.
        sets = {id(run.data): run.data for run in runs}
        sizes = np.cumsum([0] + [len(points.y_train) for points in sets.values()])
        first_row = dict(zip(sets, sizes, strict=False))
        self.first_row = torch.tensor([first_row[id(run.data)] for run in runs], device=self.device)[:, None]
        self.x = torch.cat([points.x_train for points in sets.values()]).to(self.params.dtype)
        self.y = torch.cat([points.y_train for points in sets.values()]).to(self.params.dtype)
        self.batch = first.config.batch_size
        self.epoch = [len(run.data.y_train) // self.batch for run in runs]
        self.orders = Orders(self.device)
        self.casting = casting(precision, self.device)
        if compiled:
            self.losses, self.update = torch.compile(self.losses), torch.compile(self.update)
        # Not the MLP, which needs no vmap; not what isn't fused, as it may change its buffers; not on a GPU, where a
        # step is a graph as it is.
        usual = isinstance(first.model, MLP) or compiled or precision in AUTOCAST or on_gpu(self.device)
        few = first.config.steps - first.step < LEAST
        self.flat = self._traced() if fused and not usual and not few else None
        self.graphs = self._graphs((GRAPH, 1)) if graphs else {}
        for m, run in enumerate(runs):  # last, so that a failure above leaves the runs unchanged
            average = None if self.average is None else self.average[m]
            run.bind(self.params[m], self.exp_avg[m], self.exp_avg_sq[m], average)

    def _traced(self) -> Gradients | None:
        """The losses and gradients as a flat program, tried on batches that any run might have."""
        rows = torch.arange(BATCHES * len(self.runs) * self.batch).view(BATCHES, len(self.runs), self.batch)
        batches = [(self.x[row], self.y[row]) for row in ddp.share(rows, axis=2) % len(self.y)]
        return traced(self._losses_of, views(self.params.clone(), self.runs[0].model.parameters()), batches)

    def rows(self, ahead: int) -> Tensor:
        """The rows of x of the next steps, (ahead, M, batch). No run's epoch ends among them."""
        pairs = list(zip(self.runs, self.epoch, strict=True))
        places = self.orders.places([(run.shuffle_seed, run.step // e, len(run.data.y_train)) for run, e in pairs])
        begin = [place + run.step % e * self.batch for place, (run, e) in zip(places, pairs, strict=True)]
        of_steps = torch.arange(ahead * self.batch, device=self.device)
        found = self.orders.flat[torch.tensor(begin, device=self.device)[:, None] + of_steps] + self.first_row
        return ddp.share(torch.unflatten(found, 1, (ahead, self.batch)), axis=2).transpose(0, 1)

    def advance(self, steps: int, stop: Signals) -> None:
        """Do ``steps`` steps of every run, or fewer if ``stop`` says so."""
        most = max(1, ROWS // (len(self.runs) * self.batch))
        while steps and not stop:
            left = min(e - run.step % e for run, e in zip(self.runs, self.epoch, strict=True))
            ahead = min(steps, left, most)
            rows, columns = self.rows(ahead), self.steps.ahead([run.step for run in self.runs], ahead)
            done = 0
            while done < ahead and not stop:
                count = next((count for count in self.graphs if count <= ahead - done), 1)
                part = slice(done, done + count)
                self.graphs.get(count, self._one)(rows[part], [column[part] for column in columns])
                for run in self.runs:
                    run.step += count
                done += count
            steps -= done

    def _losses_of(self, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
        with self.casting:
            return losses(self.loss, self.network(weights, x), y)

    def losses(self, row: Tensor) -> Tensor:
        """The losses (M,) of a batch: the points ``row`` (M, batch) of ``x``."""
        return self._losses_of(self.weights, self.x[row], self.y[row])

    def update(self, each: Tensor, *columns: Tensor) -> None:
        """The optimizer's step, from ``grad``. Allocates nothing; see the class."""
        self.total += each
        average = self.params if self.average is None else self.average
        state = Vectors(self.params, self.grad, self.exp_avg, self.exp_avg_sq, average, self.work)
        self.steps.update(state, *columns)

    def _backward(self, row: Tensor) -> Tensor:
        """The losses of a batch. Their gradients are added to ``grad``."""
        if self.flat is None:
            each = self.losses(row)
            each.sum().backward()
            return each
        with torch.no_grad():
            each, *gradients = self.flat(*self.weights, self.x[row], self.y[row])
            for weight, gradient in zip(self.weights, gradients, strict=True):
                cast(Tensor, weight.grad).add_(gradient)
        return each

    def _one(self, rows: Tensor, columns: Sequence[Tensor]) -> None:
        self._step(rows[0], *(column[0] for column in columns))

    def _step(self, row: Tensor, *columns: Tensor) -> None:
        each = self._backward(row)
        with torch.no_grad():
            ddp.average(each, self.grad)
            self.update(each, *columns)

    def _graphs(self, counts: Sequence[int]) -> dict[int, Callable[[Tensor, Sequence[Tensor]], None]]:
        """So many steps as one CUDA graph, for each of these counts."""
        most = max(counts)
        rows = torch.zeros(most, len(self.runs), self.batch, dtype=torch.int64, device=self.device)
        columns = self.steps.ahead([0] * len(self.runs), most)
        state = [self.params, self.exp_avg, self.exp_avg_sq, self.grad, self.total]
        state += [] if self.average is None else [self.average]
        state += tuple(buffer for run in self.runs for buffer in run.model.buffers())

        def work(count: int) -> None:
            for step in range(count):
                self._step(rows[step], *(column[step] for column in columns))

        def steps(replay: Callable[[], None], its_rows: Tensor, its_columns: Sequence[Tensor]) -> None:
            for here, values in zip((rows, *columns), (its_rows, *its_columns), strict=True):
                here[: len(values)].copy_(values)
            replay()

        replays = captured([partial(work, count) for count in counts], state)
        return {count: partial(steps, replay) for count, replay in zip(counts, replays, strict=True)}

    def close(self) -> None:
        """Let go of its memory, whoever still holds the stack."""
        vars(self).clear()
