"""The reference engine: trains M runs of one shape as one batched program, with autograd, on any device.

Every weight has a first axis for the runs. A network's weights affect only its own loss, so the gradient of the sum of
the M losses holds each network's own gradient. Optimizers work elementwise. So each network trains as if alone.
"""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the types of compile, from_numpy, Tensor.backward and Tensor.tolist)

import gc
import logging
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fractal_ifs.data.labelled import Labelled
from fractal_ifs.data.points import Points
from fractal_ifs.engines.arithmetic import AUTOCAST, casting, on_gpu
from fractal_ifs.engines.fusing import forward, out_of_memory, why_not
from fractal_ifs.engines.losses import losses
from fractal_ifs.engines.own_loss import function_of
from fractal_ifs.engines.protocol import Engine, Measurement, Signals
from fractal_ifs.engines.stack import Stack
from fractal_ifs.engines.steps import StepRule
from fractal_ifs.engines.traced import LEAST
from fractal_ifs.errors import message, short
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.runs import ddp
from fractal_ifs.runs.records import note
from fractal_ifs.runs.run import Run
from fractal_ifs.runs.vectors import views
from fractal_ifs.runs.versions import ComputedBy

log = logging.getLogger(__name__)

CACHE = 4 << 20  # largest size of a stack on a CPU: bytes of parameters, moments and activations
FIRST = 256  # networks of a stack on a GPU before its memory is measured
MOST = 4096  # and after: each is saved by itself
ROOM = 0.8  # the share of a GPU's memory that they may fill
PASS = 1 << 26  # outputs of hidden units at a time where networks are measured on a GPU, 256 MB


class StackedEngine(Engine):
    """Trains runs of one shape in stacks, with PyTorch.

    Args:
        precision: as for ``pytorch_lightning.Trainer``.
        stack: largest number of runs in a stack; 0: as many as suit the cache or the GPU. In mixed precision on a CPU
            always one.
        compiled: compile the step with ``torch.compile``, which may add numbers in another order.
        graphs: do steps as CUDA graphs; None: on a GPU, where that can be.
        build: the compiler of the kernel that does a GPU's steps, if one does.
    """

    def __init__(
        self,
        precision: str = "32-true",
        stack: int = 0,
        compiled: bool = False,
        graphs: bool | None = False,
        build: str | None = None,
    ):
        self.stack_size, self.precision, self.graphs = stack, precision, graphs
        self.computed_by = ComputedBy(native_build=build, engine="torch")
        self._make = partial(Stack, precision=precision, compiled=compiled)
        self._room: int | None = None  # networks that a GPU has memory for, once that is measured
        self._pass = PASS
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

    def advance(self, runs: Sequence[Run], steps: Sequence[int], stop: Signals) -> list[float]:
        """Advance all runs by the smallest of ``steps``, since a stack moves as one.

        Where memory runs out, goes on without CUDA graphs, then halves the stacks, both for good. If even one run is
        too large, raises that error.
        """
        trained = [(run, run.data) for run in runs]  # in layer-wise training, the data change with the layer
        if self._trained != trained:
            self._unstack()
            self._runs, self._trained = list(runs), trained
        gpu = on_gpu(runs[0].params.device)
        if gpu and self._room is None:
            forget()
        sums = {id(run): run.loss_sum for run in runs}
        todo = {id(run): min(steps) for run in runs}
        while any(todo.values()) and not stop:
            try:
                if not self._stacks:
                    self._make_stacks(todo)
                for stack in self._stacks:
                    self._advance(stack, todo, sums, stop)
            except Exception as error:
                size = max((len(stack.runs) for stack in self._stacks), default=self._size())
                graphs = gpu and self.graphs is None
                if not out_of_memory(error) or not (graphs or size > 1):
                    self._unstack()
                    raise
            else:
                continue
            self._unstack()  # not within the exception, which holds what the step that has failed took up
            forget()
            if graphs:  # they hold memory of their own beside that of steps
                self.graphs = False
                log.warning("out of memory with %d networks in a stack: going on without CUDA graphs", size)
            else:
                self.stack_size = size // 2
                log.warning("out of memory with %d networks in a stack: going on with %d", size, size // 2)
        if gpu and self._room is None and not stop:
            self._room = room(len(runs), later(runs[0]))
        return [sums[id(run)] for run in runs]

    def _advance(self, stack: Stack, todo: dict[int, int], sums: dict[int, float], stop: Signals) -> None:
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
        """Stack neighbouring runs of one rule, input dimension and number of steps to go."""
        self._alone = why_not(self._runs[0])
        if self._alone and self._alone not in self._told:
            self._told.add(self._alone)
            text = f"model={self._runs[0].config.model.name}: its networks train one by one: {self._alone}"
            log.info("%s", text)
            for run in self._runs:  # a worker process has no terminal
                note(run.directory, text)

        def shape(run: Run) -> tuple[object, ...]:
            return todo[id(run)], run.data.x_train.shape[1], StepRule.of(run.config.optimizer)

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
        forget()  # not within the exception, which holds the stack that has failed
        return self._make(runs, fused=fused)

    def _unstack(self) -> None:
        """Give every run vectors of its own, and free the stacks' memory."""
        for stack in self._stacks:
            stack.close()
        self._stacks = []
        for run in self._runs:
            run.detach()

    @torch.no_grad()
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
        """Measure many runs at once: MLPs also on sets of other sizes, to the largest of which the others are padded.

        A user's own network may look at all points that it is given.
        """
        found = torch.empty(len(runs), 2, dtype=torch.float64, device=runs[0].params.device)
        shapes = [each.x.shape for each in sets]
        padded = isinstance(runs[0].model, MLP)
        left = sorted(range(len(runs)), key=lambda place: (shapes[place][1], shapes[place][0]), reverse=True)
        while left:
            most, inputs = shapes[left[0]]  # in layer-wise training runs may be at layers with other inputs
            size = max(1, self._pass // (most * runs[0].config.width))
            alike = [place for place in left[:size] if shapes[place][1] == inputs]
            places = alike if padded else [place for place in alike if shapes[place][0] == most]
            numbers: Tensor | None = None
            try:
                numbers = self._pass_of([runs[place] for place in places], [sets[place] for place in places])
            except Exception as error:
                if len(places) == 1 or not out_of_memory(error):
                    raise
            if numbers is None:  # not within the exception, which holds what there was
                self._pass = most * runs[0].config.width * (len(places) // 2)
                forget()
                continue
            found[torch.tensor(places, device=found.device)] = numbers
            left = left[len(places) :]
        return [Measurement(accuracy, loss) for accuracy, loss in cast(list[list[float]], found.tolist())]

    def _pass_of(self, runs: Sequence[Run], sets: Sequence[Labelled]) -> Tensor:
        """The accuracies and the losses of M runs on their sets, those of one size beside each other: (M, 2)."""
        f, y = self._outputs(runs, sets)
        loss = function_of(runs[0].config.loss)
        found = torch.empty(len(runs), 2, dtype=torch.float64, device=f.device)
        first = 0
        for n, equal in groupby(len(each.y) for each in sets):
            part = slice(first, first := first + len(list(equal)))
            found[part, 0] = (y[part, :n] * f[part, :n] > 0).double().mean(-1)
            found[part, 1] = losses(loss, f[part, :n], y[part, :n]).double()
        return found

    def _outputs(self, runs: Sequence[Run], sets: Sequence[Labelled]) -> tuple[Tensor, Tensor]:
        """The outputs f of some runs on their sets and the labels y, both (M, n): of smaller sets the rest is 0."""
        x = pad_sequence([each.x for each in sets], batch_first=True).to(runs[0].params.dtype)
        y = pad_sequence([each.y for each in sets], batch_first=True)
        model: nn.Module = runs[0].model
        network = forward([run.model for run in runs])
        weights = views(torch.stack([run.measured for run in runs]), model.parameters())
        model.eval()
        try:
            with casting(self.precision, x.device):
                return network(weights, x), y
        finally:
            model.train()


def forget() -> None:
    """Give back what this process holds of a GPU's memory and doesn't use, and measure its peak from now on."""
    gc.collect()
    if torch.cuda.is_initialized():  # not by this
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:  # of some versions of torch, after a capture that has failed
            log.debug("torch keeps its memory: %s", str(error))
        torch.cuda.reset_peak_memory_stats()


def later(run: Run) -> int:
    """Bytes that a run takes up later, besides what it does in its first steps: twice the inputs of a hidden layer."""
    points = len(run.data.y_train) if run.config.training == "layerwise" else 0
    return 2 * points * run.config.width * run.params.element_size()


def room(count: int, more: int) -> int:
    """For how many networks this process's GPU has memory, if its peak was that of ``count``.

    Args:
        more: bytes that each of them will take up besides.
    """
    free, _ = torch.cuda.mem_get_info()
    ours, peak = torch.cuda.memory_reserved(), torch.cuda.max_memory_reserved()
    return max(1, int(ROOM * (free + ours) / (peak / count + more)))
