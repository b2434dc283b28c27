"""The cuda engine: each network on a multiprocessor of a GPU of its own, for up to 2,000 steps of an epoch in a launch.

What a block does is in ``cuda_kernel.cuh``; here is what surrounds it: which networks one launch can train, their
points and orders on the device, launches one behind the other, and kernels that don't compile.

A run's bits rest on its config, its kernel and the instruction set alone: not on its partners, nor on how its steps
are cut into launches.
"""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the types of from_numpy and Tensor.tolist)

from __future__ import annotations

import dataclasses
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from ctypes import c_void_p
from fractions import Fraction
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fractal_ifs.config.optimizer import Adam, AdamW, Optimizer, Sgd
from fractal_ifs.config.run import RunConfig
from fractal_ifs.data.labelled import Labelled
from fractal_ifs.data.seeds import permutations
from fractal_ifs.engines.cuda_device import Device, Event, Kernel, NoKernel, device, unfit
from fractal_ifs.engines.cuda_kernel import SLICE, MLPProgram, uncovered
from fractal_ifs.engines.orders import SORTED, Order
from fractal_ifs.engines.protocol import Engine, Measurement, Signals
from fractal_ifs.engines.steps import BETAS, EPS, factors, shares, unbiasing
from fractal_ifs.runs.records import note
from fractal_ifs.runs.run import Run
from fractal_ifs.runs.versions import ComputedBy

log = logging.getLogger(__name__)

TRIAL = 50  # steps in which a kernel is compared with another engine, before a run that didn't ask for it rests on it
TRUSTED = 1e-4  # largest relative difference of the losses; that of float32 in another order is near 1e-6
TRIAL_EPS = 1e-4  # Adam's, at least, in these steps; 1e-8 made of round-off losses that differ by up to 6e-3
TURNS = 4  # runs for each multiprocessor, at least: those of a launch don't all end at once
STEPS = 2000  # most in a launch: a tenth of a second or so for each of its turns; a signal waits for two launches

POINTERS = ("params", "exp_avg", "exp_avg_sq", "average", "x", "y", "order", "numbers", "total")
_NUMBERS = ("lr", "beta1", "rest1", "beta2", "rest2", "eps", "direct", "through", "l2", "decoupled", "clip")
# struct Job and struct Test of cuda_kernel.cuh
JOB = np.dtype(
    [*((name, "u8") for name in POINTERS), ("at", "i4"), ("steps", "i4"), *((name, "f4") for name in _NUMBERS)],
    align=True,
)
TEST = np.dtype([*((name, "u8") for name in ("params", "x", "y", "found")), ("n", "i4")], align=True)


def supports(config: RunConfig) -> str | None:
    """Why this engine can't train a run here, in one line, or None if it can. Makes no context on a GPU.

    Of the model only width and depth are looked at.
    """
    inputs = config.fractal.ifs.d
    return uncovered(config, inputs) or unfit(MLPProgram.of(config, inputs), config.trainer.accelerator)


class CudaEngine(Engine):
    """Trains fully connected networks in float32, of any shapes side by side, on the GPU of this process.

    Args:
        instead: makes the engine of the runs with ``engine=auto`` whose kernel turns out not to compile, or to compute
            something else. With ``graphs=False`` one for a few steps, for which CUDA graphs wouldn't pay.
    """

    def __init__(self, instead: Callable[..., Engine]):
        self.device: Device = device()
        self.computed_by = ComputedBy(self.device.isa, self.device.build, engine="cuda")
        self._instead, self._others = instead, dict[_Kind, Engine]()
        self._trials = dict[MLPProgram, NoKernel | None]()
        self._orders = _Orders(self.device)
        self._stacks = dict[_Kind, _Stack]()

    def saturated(self, runs: Sequence[Run], waiting: int) -> bool:
        """Whether the runs fill all multiprocessors, in whole turns, with at least ``TURNS`` runs for each of them.

        Runs of several programs each count for their share of a multiprocessor.
        """
        if len(runs) < TURNS * self.device.multiprocessors:
            return False
        blocks = [self.device.blocks(MLPProgram.of(run.config, run.inputs)) for run in runs]
        return sum(Fraction(1, each * -(-TURNS // each)) for each in blocks) >= self.device.multiprocessors

    def advance(self, runs: Sequence[Run], steps: Sequence[int], stop: Signals) -> list[float]:
        """Advance each run by its ``steps``, unless ``stop`` ends them, as ``Engine`` says."""
        todo = {id(run): count for run, count in zip(runs, steps, strict=True)}
        stacks: dict[_Kind, _Stack] = {}
        sums: dict[int, float] = {}
        of_kind: dict[_Kind, list[Run]] = {}
        for run in runs:
            of_kind.setdefault(_kind(run), []).append(run)
        for kind, kernel in self._kernels(of_kind).items():
            alike = of_kind[kind]
            counts = [todo[id(run)] for run in alike]
            if kernel is None:
                found = self._others[kind].advance(alike, counts, stop)
                sums |= {id(run): total for run, total in zip(alike, found, strict=True)}
                continue
            there = self._stacks.get(kind)
            stacks[kind] = there if there and there.holds(alike) else _Stack(alike, kernel, self.device)
            stacks[kind].begin(counts)
        self._stacks = stacks
        while not stop and any([stack.launch(self._orders) for stack in stacks.values()]):
            self._orders.keep({key for stack in stacks.values() for key in stack.orders()})
        for stack in stacks.values():
            sums |= stack.end()
        return [sums[id(run)] for run in runs]

    def reached(self, run: Run) -> int:
        """The step up to which the GPU has been given work of a run."""
        for stack in list(self._stacks.values()):
            if (at := stack.given(run)) is not None:
                return at
        return run.step

    def evaluate(self, runs: Sequence[Run], sets: Sequence[Labelled]) -> list[Measurement]:
        """Measure each run, as ``Engine`` says."""
        found: dict[int, Measurement] = {}  # by place
        waiting: list[tuple[list[int], Tensor]] = []
        places: dict[_Kind, list[int]] = {}
        for place, run in enumerate(runs):
            places.setdefault(_kind(run), []).append(place)
        of_kind = {kind: [runs[place] for place in there] for kind, there in places.items()}
        for kind, kernel in self._kernels(of_kind).items():
            there, alike = places[kind], of_kind[kind]
            of = [sets[place] for place in there]
            if kernel is None:
                found |= dict(zip(there, self._others[kind].evaluate(alike, of), strict=True))
            else:
                waiting.append((there, _measure(kernel, alike, of, self.device)))
        for there, sums in waiting:
            of_runs = cast(list[list[tuple[float, float]]], sums.tolist())
            for place, slices in zip(there, of_runs, strict=True):
                n = len(sets[place].y)  # exact sums: their order would come with other runs' slices
                found[place] = Measurement(*(math.fsum(each) / n for each in zip(*slices, strict=True)))
        return [found[place] for place in range(len(runs))]

    def _kernels(self, runs: dict[_Kind, list[Run]]) -> dict[_Kind, Kernel | None]:
        """The kernels of runs; None: they have another engine. Raises NoKernel where they may not."""
        found: dict[_Kind, Kernel | None] = {}
        kernels = self.device.compile(list(dict.fromkeys(program for program, _ in runs)))
        for kind, alike in runs.items():
            program, asked = kind
            kernel = kernels[program]
            if not isinstance(kernel, NoKernel) and not asked:
                if program not in self._trials:
                    self._trials[program] = self._trial(alike[0], kernel)
                kernel = self._trials[program] or kernel
            found[kind] = None
            if not isinstance(kernel, NoKernel):
                found[kind] = kernel
                continue
            if asked:
                raise kernel
            if kind not in self._others:
                log.warning("engine=torch: %s", kernel)
                self._others[kind] = self._instead()
            other = self._others[kind].computed_by
            for run in (run for run in alike if run.computed_by.engine == "cuda"):
                run.computed_by = other._replace(torch_kernels=run.computed_by.torch_kernels)
                note(run.directory, f"engine=torch: {kernel}")
        return found

    def _trial(self, run: Run, kernel: Kernel) -> NoKernel | None:
        """Why a kernel isn't to be trusted: losses of a few small steps, or right answers, aren't the other engine's.

        Not the weights: where a gradient is nothing but round-off, Adam's steps are, too, and change no loss. What so
        few steps hardly show, it can't see: weight decay, averages that begin later, a clip that doesn't bind.
        """
        optimizer = run.config.optimizer
        if isinstance(optimizer, Adam):  # else it makes whole steps of gradients that are nothing but round-off
            optimizer = dataclasses.replace(optimizer, eps=max(optimizer.eps, TRIAL_EPS))
        small = dataclasses.replace(run.config, lr=min(run.config.lr, 1e-3), optimizer=optimizer)
        ours, theirs = (Run(small, None, run.params.device) for _ in range(2))
        there = Labelled(ours.data.x_test, ours.data.y_test)
        stack, other, steps = _Stack([ours], kernel, self.device), self._instead(graphs=False), min(TRIAL, small.steps)
        try:
            stack.begin([steps])
            while stack.launch(self._orders):
                pass
            pairs = [(stack.end()[id(ours)], other.advance([theirs], [steps], [])[0])]
            sums = _measure(kernel, [ours], [there], self.device)[0].sum(0) / len(there.y)
            right, loss = sums[0].item(), sums[1].item()
        except NoKernel as error:  # it can't be launched
            return error
        [found] = other.evaluate([theirs], [there])
        pairs.append((loss, found.loss))
        few = abs(right - found.accuracy) <= 0.002 + 2 / len(there.y)  # outputs near 0 may have either sign
        if few and all(abs(a - b) <= TRUSTED * abs(b) for a, b in pairs):
            return None
        told = ", ".join(f"{a:.6g} for {b:.6g}" for a, b in [*pairs, (right, found.accuracy)])
        whose = other.computed_by.engine
        return NoKernel(f"the kernel of width {small.width} computes other numbers than {whose}: {told}")


_Kind = tuple[MLPProgram, bool]  # and whether the cuda engine is asked for, so that no other may train in its place


def _kind(run: Run) -> _Kind:
    return MLPProgram.of(run.config, run.inputs), run.config.engine != "auto"


class _Orders:
    """The orders of the points that runs need, or will, sorted on a stream of their own: beside the training, as far as
    its blocks leave registers for that (at width 20 none on an H100), or between two launches.

    Runs of one seed share them.
    """

    def __init__(self, device: Device):
        self.device, self.stream = device, device.stream(first=True)
        self.there: dict[Order, tuple[int, Tensor, Event]] = {}

    def prepare(self, keys: Iterable[Order]) -> None:
        """Begin to sort those that aren't there."""
        missing = sorted({key for key in keys if key not in self.there}, key=lambda key: key[2])
        while missing:
            n = missing[0][2]
            some = [key for key in missing[: max(1, SORTED // n)] if key[2] == n]
            missing = missing[len(some) :]
            with self.stream:
                found = permutations([(seed, epoch) for seed, epoch, _ in some], n, self.device.kind)
                done = self.device.event()
            for row, key in enumerate(some):
                self.there[key] = found[row].data_ptr(), found, done

    def places(self, keys: Sequence[Order]) -> tuple[list[int], list[Tensor]]:
        """Where they are in memory, and what is to be held while they are read.

        What the current stream gets from now on waits until they are there.
        """
        self.prepare(keys)
        orders = {id(found): (found, done) for _, found, done in (self.there[key] for key in keys)}
        for _, done in orders.values():
            done.wait()
        return [self.there[key][0] for key in keys], [found for found, _ in orders.values()]

    def keep(self, keys: set[Order]) -> None:
        """Forget all others."""
        self.there = {key: found for key, found in self.there.items() if key in keys}


class _Stack:
    """Runs of one program, which are launched together."""

    def __init__(self, runs: Sequence[Run], kernel: Kernel, device: Device):
        self.runs, self.kernel, self.device, self.stream = list(runs), kernel, device, device.stream()
        self.jobs = np.zeros(len(runs), JOB)
        for job, run in zip(self.jobs, runs, strict=True):
            _describe(job, run)
        self.vectors = [_vectors(run) for run in runs]
        self.sizes = np.array([len(run.data.y_train) for run in runs])
        self.per_epoch = self.sizes // runs[0].config.batch_size
        asked = [_numbered(run.config) for run in runs]
        number = {each: place for place, each in enumerate(dict.fromkeys(asked))}
        self.numbered = np.array([number[each] for each in asked])
        self.steps = np.array([run.config.steps for run in runs])
        self.launched: deque[tuple[Event, list[Tensor]]] = deque()

    def holds(self, runs: Sequence[Run]) -> bool:
        """Whether these are its runs, and their vectors are where they were."""
        same = len(runs) == len(self.runs) and all(a is b for a, b in zip(runs, self.runs, strict=True))
        return same and all(_vectors(run) == were for run, were in zip(runs, self.vectors, strict=True))

    def begin(self, counts: Sequence[int]) -> None:
        """Take on so many steps of each run."""
        self.at = np.array([run.step for run in self.runs])
        self.todo = np.array(counts)
        ready = self.device.event()  # of points and weights that are new
        with self.stream:
            ready.wait()
            sums = torch.tensor([run.loss_sum for run in self.runs], dtype=torch.float64)
            self.totals = _on(self.device, sums)
        self.jobs["total"] = self.totals.data_ptr() + 8 * np.arange(len(self.runs))

    def given(self, run: Run) -> int | None:
        """The step up to which a run has been launched; None where it isn't here, or nothing is in progress."""
        places = [number for number, each in enumerate(self.runs) if each is run]
        return int(self.at[places[0]]) if places and self.launched else None

    def orders(self) -> list[Order]:
        """The keys of the orders of the epochs that the runs are in."""
        epochs = (self.at // self.per_epoch).tolist()
        return [(run.shuffle_seed, e, n) for run, e, n in zip(self.runs, epochs, self.sizes.tolist(), strict=True)]

    def launch(self, orders: _Orders) -> bool:
        """Let all runs do steps up to the end of their epochs. Returns whether there were any to do.

        At most two launches wait for the GPU at a time.
        """
        position = self.at % self.per_epoch
        count = np.minimum(np.minimum(self.todo, self.per_epoch - position), STEPS)
        if not count.any():
            return False
        if len(self.launched) > 1:
            self._wait()
        self.jobs["at"], self.jobs["steps"] = position, count
        active, keys = np.flatnonzero(count), self.orders()
        with self.stream:
            self.jobs["order"][active], held = orders.places([keys[number] for number in active])
            numbers = self._numbers(count)
            jobs = _on(self.device, torch.from_numpy(self.jobs.view(np.uint8).copy()))
            self.kernel("train", c_void_p(jobs.data_ptr()), len(self.runs))
            self.launched.append((self.device.event(), [jobs, numbers, *held]))
        self.at, self.todo = self.at + count, self.todo - count
        more = self.at < self.steps  # sorted while these steps are done, or the runs are measured
        orders.prepare(key for key, left in zip(self.orders(), more, strict=True) if left)
        return True

    def _numbers(self, count: NDArray[np.int64]) -> Tensor:
        """The numbers of the next steps, (all of them, 4), which equal runs share; sets the jobs' pointers."""
        alike, first, which = np.unique(
            np.stack([self.numbered, self.at, count], 1), axis=0, return_index=True, return_inverse=True
        )
        ranges = cast(list[tuple[int, int, int, int]], np.column_stack([first, alike]).tolist())
        found = [step_numbers(self.runs[run].config, at, steps) for run, _, at, steps in ranges]
        begins = np.concatenate([[0], np.cumsum(alike[:-1, 2])])
        numbers = _on(self.device, torch.from_numpy(np.concatenate(found).astype(np.float32)))
        self.jobs["numbers"] = numbers.data_ptr() + 16 * begins[which.ravel()]  # numpy 2.0 has another axis
        return numbers

    def _wait(self) -> None:
        """Wait for the first launch, whose memory may be another's only then."""
        self.launched[0][0].synchronize()
        self.launched.popleft()

    def end(self) -> dict[int, float]:
        """Wait for the launches, and move the runs. Returns their sums of losses."""
        while self.launched:
            self._wait()
        for run, at in zip(self.runs, self.at.tolist(), strict=True):
            run.step = at
        with self.stream:  # behind its copy to the device, also where nothing was launched
            totals = cast(list[float], self.totals.tolist())
        return {id(run): total for run, total in zip(self.runs, totals, strict=True)}


def _describe(job: np.void, run: Run) -> None:
    """What of a job is the same in all launches."""
    optimizer = run.config.optimizer
    beta1, beta2 = _betas(optimizer)
    for name in ("params", "exp_avg", "exp_avg_sq", "average"):
        vector = getattr(run, name)
        job[name] = 0 if vector is None else vector.data_ptr()
    job["x"], job["y"] = run.data.x_train.data_ptr(), run.data.y_train.data_ptr()
    job["lr"], job["clip"] = run.config.lr, optimizer.clip or 0
    job["beta1"], job["rest1"], job["beta2"], job["rest2"] = beta1, 1 - beta1, beta2, 1 - beta2
    job["eps"] = optimizer.eps if isinstance(optimizer, Adam) else EPS
    job["through"] = 1
    if isinstance(optimizer, Sgd):
        job["beta1"] = optimizer.momentum
        if optimizer.nesterov:
            job["direct"], job["through"] = 1, optimizer.momentum
    if isinstance(optimizer, AdamW):
        job["decoupled"] = run.config.lr * optimizer.weight_decay
    else:
        job["l2"] = optimizer.weight_decay


def _vectors(run: Run) -> tuple[int, ...]:
    vectors = (run.params, run.exp_avg, run.exp_avg_sq, run.average)
    return tuple(0 if vector is None else vector.data_ptr() for vector in vectors)


def _betas(optimizer: Optimizer) -> tuple[float, float]:
    return optimizer.betas if isinstance(optimizer, Adam) else BETAS


def _numbered(config: RunConfig) -> object:
    """What the ``step_numbers`` of a run rest on, besides the steps."""
    optimizer = config.optimizer
    average = optimizer.average, optimizer.average_decay, optimizer.average_begin
    return optimizer.name == "sgd", _betas(optimizer), config.schedule, config.steps, average


def step_numbers(config: RunConfig, first: int, count: int) -> NDArray[np.float64]:
    """The numbers of the ``count`` steps after step ``first``, (count, 4), as ``Job.numbers`` says.

    They don't rest on lr: runs that differ in it, or in seeds and data, share them.
    """
    found = np.ones((count, 4))
    found[:, 0] = found[:, 2] = factors(config.schedule, config.steps, first, count)
    if config.optimizer.name != "sgd":
        one, two = (each.numpy()[:, 0] for each in unbiasing([_betas(config.optimizer)], [first], count))
        found[:, 0] /= one
        found[:, 1] = 1 / np.sqrt(two)
    if (share := shares(config.optimizer, first, count)) is not None:
        found[:, 3] = share
    return found


def _measure(kernel: Kernel, runs: Sequence[Run], sets: Sequence[Labelled], device: Device) -> Tensor:
    """Per run and slice of its set: how many points are right, and the sum of the losses, (M, slices, 2)."""
    slices = max(-(-len(each.y) // SLICE) for each in sets)
    found = torch.zeros(len(runs), slices, 2, dtype=torch.float64, device=device.kind)
    tests = np.zeros(len(runs), TEST)
    for number, (test, run, there) in enumerate(zip(tests, runs, sets, strict=True)):
        test["params"], test["n"] = run.measured.data_ptr(), len(there.y)
        test["x"], test["y"] = there.x.data_ptr(), there.y.data_ptr()
        test["found"] = found[number].data_ptr()
    given = _on(device, torch.from_numpy(tests.view(np.uint8)))
    kernel("measure", c_void_p(given.data_ptr()), len(runs), slices)
    return found


def _on(device: Device, tensor: Tensor) -> Tensor:
    """A tensor on the device, copied in the current stream. From memory that stays in place, it needn't wait."""
    return tensor if device.kind == "cpu" else tensor.pin_memory().to(device.kind, non_blocking=True)
