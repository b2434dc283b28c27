"""The reference engine: trains M runs of one shape as one batched program, with autograd, on any device.

Every weight has a first axis for the runs. A network's weights affect only its own loss, so the gradient of the sum of
the M losses holds each network's own gradient. Optimizers work elementwise. So each network trains as if alone.
"""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the types of compile, from_numpy, Tensor.backward and Tensor.tolist)

import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fractal_ifs.data.labelled import Labelled
from fractal_ifs.data.points import Points
from fractal_ifs.data.seeds import permutation, permutations
from fractal_ifs.engines.arithmetic import multiplied
from fractal_ifs.engines.fusing import BATCHES, forward, out_of_memory, why_not
from fractal_ifs.engines.graph import captured
from fractal_ifs.engines.own_loss import Function, function_of
from fractal_ifs.engines.protocol import Measurement, Stop
from fractal_ifs.engines.steps import Program, Steps, Vectors
from fractal_ifs.engines.traced import LEAST, Gradients, traced
from fractal_ifs.errors import message, short
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.runs import ddp
from fractal_ifs.runs.records import note
from fractal_ifs.runs.run import Run

log = logging.getLogger(__name__)

CACHE = 4 << 20  # largest size of a stack on a CPU: bytes of parameters, moments and activations
FIRST, MOST = (
    256,
    4096,
)  # networks of a stack on a GPU: before its memory is measured, and at most; they are saved one by one
ROOM = 0.8  # the share of a GPU's memory that they may fill
GRAPH = 16  # steps of a CUDA graph, between two of which a signal is heeded
ROWS = 1 << 24  # numbers of points whose places are held at a time, 128 MB
SORTED = 1 << 24  # points whose orders are drawn on a GPU at a time, which takes under 1 GB
PASS = 1 << 26  # outputs of hidden units at a time where networks are measured on a GPU, 256 MB
AUTOCAST = {"bf16-mixed": torch.bfloat16}


def on_gpu(device: torch.device) -> bool:
    """Whether numbers may differ in company, as on a GPU, where a call takes longer than what it computes."""
    return device.type != "cpu"


def losses(loss: str | Function, f: Tensor, y: Tensor) -> Tensor:
    """The loss of outputs f for labels y, both (..., n): means over the last axis, (...).

    Hinge max(0, 1 - y f), its square, logistic log(1 + exp(-y f)), exponential exp(-y f), squared (y - f)^2; or a
    user's own, as ``function_of`` gives it.
    """
    if not isinstance(loss, str):
        return loss(f, y)
    if loss == "hinge":
        return (1 - y * f).relu().mean(-1)
    if loss == "squared_hinge":
        return (1 - y * f).relu().square().mean(-1)
    if loss == "exponential":
        return (-y * f).exp().mean(-1)
    if loss == "logistic":  # not softplus, which computes the last elements of a tensor in another way than the others
        return -torch.nn.functional.logsigmoid(y * f).mean(-1)
    return (y - f).square().mean(-1)


def casting(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Within: products in the lower precision of ``trainer.precision``, if it names one. May be entered repeatedly."""
    # No cache of the cast weights: it would miss that the weights change in place.
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype, cache_enabled=False) if dtype else contextlib.nullcontext()


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
        self.steps = Steps([run.config for run in runs], self.params)
        self.network = forward([run.model for run in runs], fused)
        self.weights = [weight.detach().requires_grad_() for weight in by_parameter(first.model, self.params)]
        for weight, grad in zip(self.weights, by_parameter(first.model, self.grad), strict=True):
            weight.grad = grad
        # Runs with the same points share them. All sets are concatenated, so that a batch is one gather.
        sets = {id(run.data): run.data for run in runs}
        sizes = np.cumsum([0] + [len(points.y_train) for points in sets.values()])
        first_row = dict(zip(sets, sizes, strict=False))
        self.first_row = [int(first_row[id(run.data)]) for run in runs]
        self.x = torch.cat([points.x_train for points in sets.values()]).to(self.params.dtype)
        self.y = torch.cat([points.y_train for points in sets.values()]).to(self.params.dtype)
        self.batch = first.config.batch_size
        self.epoch = [len(run.data.y_train) // self.batch for run in runs]
        self.orders: dict[Order, Tensor] = {}
        self.casting = casting(precision, self.device)
        self.losses, self.update = self._losses, self._update
        if compiled:
            self.losses, self.update = torch.compile(self._losses), torch.compile(self._update)
        # Not the MLP, which needs no vmap; not what isn't fused, as it may change its buffers; not on a GPU, where a
        # step is a graph as it is.
        usual = isinstance(first.model, MLP) or compiled or precision in AUTOCAST or self.device.type != "cpu"
        few = first.config.steps - first.step < LEAST
        self.flat = self._traced() if fused and not usual and not few else None
        self.units = {count: self._graph(count) for count in (GRAPH, 1)} if graphs else {1: self._one}
        for m, run in enumerate(runs):  # last, so that a failure above leaves the runs unchanged
            average = None if self.average is None else self.average[m]
            run.bind(self.params[m], self.exp_avg[m], self.exp_avg_sq[m], average)

    def _traced(self) -> Gradients | None:
        """The losses and gradients as a flat program, tried on batches that any run might have."""
        rows = torch.arange(BATCHES * len(self.runs) * self.batch).view(BATCHES, len(self.runs), self.batch)
        batches = [(self.x[row], self.y[row]) for row in ddp.share(rows, axis=2) % len(self.y)]
        return traced(self._losses_of, by_parameter(self.runs[0].model, self.params.clone()), batches)

    def rows(self, ahead: int) -> Tensor:
        """The rows of x of the next steps, (ahead, M, batch). No run's epoch ends among them."""
        keys = [(r.shuffle_seed, r.step // e, len(r.data.y_train)) for r, e in zip(self.runs, self.epoch, strict=True)]
        there = {key: order for key, order in self.orders.items() if key in keys}
        self.orders = there | orders(sorted(set(keys) - there.keys()), self.device)
        found: list[Tensor] = []
        for run, epoch, key, first_row in zip(self.runs, self.epoch, keys, self.first_row, strict=True):
            position = run.step % epoch * self.batch
            found.append(self.orders[key][position : position + ahead * self.batch] + first_row)
        rows = torch.unflatten(torch.stack(found), 1, (ahead, self.batch))
        return ddp.share(rows, axis=2).transpose(0, 1)

    def advance(self, steps: int, stop: Stop) -> None:
        """Do ``steps`` steps of every run, or fewer if ``stop`` says so."""
        most = max(1, ROWS // (len(self.runs) * self.batch))
        while steps and not stop:
            left = min(e - run.step % e for run, e in zip(self.runs, self.epoch, strict=True))
            ahead = min(steps, left, most)
            rows, columns = self.rows(ahead), self.steps.ahead([run.step for run in self.runs], ahead)
            done = 0
            while done < ahead and not stop:
                count = next(count for count in self.units if count <= ahead - done)
                part = slice(done, done + count)
                self.units[count](rows[part], [column[part] for column in columns])
                for run in self.runs:
                    run.step += count
                done += count
            steps -= done

    def _losses_of(self, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
        with self.casting:
            return losses(self.loss, self.network(weights, x), y)

    def _losses(self, row: Tensor) -> Tensor:
        """The losses (M,) of a batch: the points ``row`` (M, batch) of ``x``."""
        return self._losses_of(self.weights, self.x[row], self.y[row])

    def _update(self, each: Tensor, *columns: Tensor) -> None:
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

    def _graph(self, count: int) -> Callable[[Tensor, Sequence[Tensor]], None]:
        """So many steps as one CUDA graph."""
        rows = torch.zeros(count, len(self.runs), self.batch, dtype=torch.int64, device=self.device)
        columns = self.steps.ahead([0] * len(self.runs), count)
        state = [self.params, self.exp_avg, self.exp_avg_sq, self.grad, self.total]
        state += [] if self.average is None else [self.average]
        state += tuple(buffer for run in self.runs for buffer in run.model.buffers())

        def work() -> None:
            for step in range(count):
                self._step(rows[step], *(column[step] for column in columns))

        replay = captured(work, state)

        def steps(its_rows: Tensor, its_columns: Sequence[Tensor]) -> None:
            for here, values in zip((rows, *columns), (its_rows, *its_columns), strict=True):
                here.copy_(values)
            replay()

        return steps


Order = tuple[int, int, int]  # of a run's points: its shuffle seed, the epoch, how many they are


def orders(keys: Sequence[Order], device: torch.device) -> dict[Order, Tensor]:
    """The ``permutation`` of each key, (n,), on a device: on a GPU sorted there, many at a time."""
    if not on_gpu(device):
        return {key: torch.from_numpy(permutation(*key)) for key in keys}
    found: dict[Order, Tensor] = {}
    for n, alike in groupby(sorted(keys, key=lambda key: key[2]), lambda key: key[2]):
        left, size = list(alike), max(1, SORTED // n)
        for some in (left[first : first + size] for first in range(0, len(left), size)):
            found |= zip(some, permutations([key[:2] for key in some], n, device), strict=True)
    return found


def by_parameter(model: nn.Module, vectors: Tensor) -> list[Tensor]:
    """Vectors (M, P) as the parameters of M such networks, each (M, ...). They share their memory."""
    parameters = list(model.parameters())
    ends = np.cumsum([p.numel() for p in parameters])
    return [
        torch.unflatten(vectors[:, end - p.numel() : end], 1, p.shape)
        for end, p in zip(ends.tolist(), parameters, strict=True)
    ]


class StackedEngine:
    """Trains runs of one shape in stacks, with PyTorch.

    Args:
        precision: as for ``pytorch_lightning.Trainer``.
        stack: largest number of runs in a stack; 0: as many as suit the cache or the GPU. In mixed precision on a CPU
            always one.
        compiled: compile the step with ``torch.compile``, which may add numbers in another order.
        graphs: do steps as CUDA graphs; None: on a GPU, where that can be.
        tf32: products in TensorFloat-32 on a GPU.
    """

    name, isa, build = "torch", None, None

    def __init__(
        self,
        precision: str = "32-true",
        stack: int = 0,
        compiled: bool = False,
        graphs: bool | None = False,
        tf32: bool = False,
    ):
        self.stack_size, self.precision, self.graphs, self.tf32 = stack, precision, graphs, tf32
        self._make = partial(Stack, precision=precision, compiled=compiled)
        self._room: int | None = None  # networks that a GPU has memory for, once that is measured
        self._runs: list[Run] = []
        self._trained: list[tuple[Run, Points]] = []
        self._stacks: list[Stack] = []
        self._alone: str | None = None  # why the runs don't train in one stack
        self._told = set[str]()

    def saturated(self, runs: Sequence[Run], waiting: int) -> bool:
        """Whether the runs fill the largest stack: ``stack`` runs, or what a GPU's memory or a core's cache holds."""
        run = runs[0]
        if self.stack_size:
            return len(runs) >= self.stack_size
        if on_gpu(run.params.device):
            return len(runs) >= min(MOST, self._room or FIRST)
        activations = 2 * run.config.batch_size * run.config.width * run.config.depth
        return len(runs) >= min(32, CACHE // (4 * (4 * run.params.numel() + activations)))

    @multiplied
    def advance(self, runs: Sequence[Run], steps: Sequence[int], stop: Stop) -> list[float]:
        """Advance all runs by the smallest of ``steps``, since a stack moves as one.

        Halves the stacks, for good, when memory runs out. If even one run is too large, raises that error.
        """
        trained = [(run, run.data) for run in runs]  # in layer-wise training, the data change with the layer
        if self._trained != trained:
            self._unstack()
            self._runs, self._trained = list(runs), trained
        sums = {id(run): run.loss_sum for run in runs}
        todo = {id(run): min(steps) for run in runs}
        while any(todo.values()) and not stop:
            try:
                if not self._stacks:
                    self._make_stacks(todo)
                for stack in self._stacks:
                    self._advance(stack, todo, sums, stop)
                if self._room is None and on_gpu(runs[0].params.device):
                    self._room = room(len(runs))
            except Exception as error:
                size = max((len(stack.runs) for stack in self._stacks), default=self._size())
                self._unstack()
                if size == 1 or not out_of_memory(error):
                    raise
                self.stack_size = size // 2
                log.warning("out of memory with %d networks in a stack: going on with %d", size, size // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
        return [sums[id(run)] for run in runs]

    def _advance(self, stack: Stack, todo: dict[int, int], sums: dict[int, float], stop: Stop) -> None:
        was = stack.runs[0].step
        # goes on from the sum so far: then its bits don't depend on where the steps since the last evaluation were cut
        stack.total.copy_(torch.tensor([sums[id(run)] for run in stack.runs], dtype=torch.float64))
        try:
            stack.advance(todo[id(stack.runs[0])], stop)
        finally:
            done = stack.runs[0].step - was
            totals = cast(list[float], stack.total.tolist())
            for run, total in zip(stack.runs, totals, strict=True):
                todo[id(run)] -= done
                sums[id(run)] = total

    def _size(self) -> int:
        if self.precision in AUTOCAST and self._runs[0].params.device.type == "cpu":
            return 1  # the bits of oneDNN's products in bfloat16 depend on how many there are
        if self._alone:
            return 1
        return min(self.stack_size or len(self._runs), len(self._runs))

    def _make_stacks(self, todo: dict[int, int]) -> None:
        """Stack neighbouring runs of one program, input dimension and number of steps to go."""
        self._alone = why_not(self._runs[0])
        if self._alone and self._alone not in self._told:
            self._told.add(self._alone)
            text = f"model={self._runs[0].config.model.name}: its networks train one by one: {self._alone}"
            log.info("%s", text)
            for run in self._runs:  # a worker process has no terminal
                note(run.directory, text)

        def shape(run: Run) -> tuple[object, ...]:
            return todo[id(run)], run.data.x_train.shape[1], Program.of(run.config.optimizer)

        for _, alike in groupby(self._runs, shape):
            left = list(alike)
            while left:
                self._stacks.append(self._stack(left[: self._size()]))
                left = left[self._size() :]

    def _stack(self, runs: Sequence[Run]) -> Stack:
        """A stack, with CUDA graphs where they are asked for, or likely to gain more than they take."""
        fused, graphs, first = self._alone is None, self.graphs, runs[0]
        if graphs is None:
            enough = first.config.steps - first.step >= LEAST
            graphs = fused and enough and on_gpu(first.params.device) and not ddp.together()
        try:
            return self._make(runs, graphs=graphs, fused=fused)
        except Exception as error:
            if self.graphs is not None or not graphs or out_of_memory(error):
                raise
            log.warning("trainer.cuda_graphs=false: a step can't be captured: %s", short(message(error), 160))
            self.graphs = False
            return self._make(runs, fused=fused)

    def _unstack(self) -> None:
        """Give every run vectors of its own, and free the stacks' memory."""
        for run in self._runs:
            run.detach()
        self._stacks = []

    def reached(self, run: Run) -> int:
        """The step that a run has come to: ``advance`` moves it with every step."""
        return run.step

    @torch.no_grad()
    @multiplied
    def evaluate(self, runs: Sequence[Run], sets: Sequence[Labelled]) -> list[Measurement]:
        """Measure each run, as ``Engine`` says. On a GPU many at once."""
        if runs and on_gpu(runs[0].params.device) and why_not(runs[0]) is None:
            return self._together(runs, sets)
        results: list[Measurement] = []
        for run, there in zip(runs, sets, strict=True):
            x, y = there.x.to(run.params.dtype), there.y
            with casting(self.precision, run.params.device), run.averaged():
                f = run.model.eval()(x)
            run.model.train()
            results.append(
                Measurement((y * f > 0).double().mean().item(), losses(function_of(run.config.loss), f, y).item())
            )
        return results

    def _together(self, runs: Sequence[Run], sets: Sequence[Labelled]) -> list[Measurement]:
        found = torch.empty(len(runs), 2, dtype=torch.float64, device=runs[0].params.device)
        shapes = [each.x.shape for each in sets]
        left = sorted(range(len(runs)), key=lambda place: (shapes[place][1], shapes[place][0]), reverse=True)
        while left:
            n, inputs = shapes[left[0]]  # in layer-wise training runs may be at layers with other inputs
            size = max(1, PASS // (n * runs[0].config.width))
            places = [place for place in left[:size] if shapes[place][1] == inputs]
            left = left[len(places) :]
            f, y = self._outputs([runs[place] for place in places], [sets[place] for place in places])
            loss = function_of(runs[0].config.loss)
            first = 0
            for n, alike in groupby(len(sets[place].y) for place in places):
                part = slice(first, first := first + len(list(alike)))
                its = torch.tensor(places[part], device=found.device)
                found[its, 0] = (y[part, :n] * f[part, :n] > 0).double().mean(-1)
                found[its, 1] = losses(loss, f[part, :n], y[part, :n]).double()
        return [Measurement(accuracy, loss) for accuracy, loss in cast(list[list[float]], found.tolist())]

    def _outputs(self, runs: Sequence[Run], sets: Sequence[Labelled]) -> tuple[Tensor, Tensor]:
        """The outputs f of some runs on their sets and the labels y, both (M, n): of smaller sets the rest is 0."""
        x = pad_sequence([each.x for each in sets], batch_first=True).to(runs[0].params.dtype)
        y = pad_sequence([each.y for each in sets], batch_first=True)
        model: nn.Module = runs[0].model
        network = forward([run.model for run in runs])
        weights = by_parameter(model, torch.stack([run.measured for run in runs]))
        model.eval()
        try:
            with casting(self.precision, x.device):
                return network(weights, x), y
        finally:
            model.train()


def room(count: int) -> int:
    """For how many networks this process's GPU has memory, if all that it has ever held was that of ``count``."""
    free, _ = torch.cuda.mem_get_info()
    ours = torch.cuda.memory_reserved()
    return max(1, int(ROOM * (free + ours) * count / max(1, torch.cuda.max_memory_allocated())))
