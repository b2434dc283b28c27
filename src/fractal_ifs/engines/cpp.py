"""Engine ``native``: C++ on CPUs. Each network trains on one thread and lives in that core's cache for a whole chunk.

The result of a task depends on the task and the instruction set (``isa()``) alone: not on its partners, the number of
threads, the order of the tasks, or how its steps are cut into chunks.

The first call picks the best compiled module that the processor supports. The environment variable FRACTAL_IFS_ISA
(``avx512``, ``avx2`` or ``base``) asks for a certain one. The algorithm is in ``src/native/network.hpp``.
"""

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from fractal_ifs.config import environment
from fractal_ifs.config.environment import ISAS
from fractal_ifs.config.machine import cores

LOSSES = ("hinge", "logistic", "squared", "squared_hinge", "exponential")
OPTIMIZERS = ("adam", "adamw", "sgd")
EPS = 1e-30  # the least eps of Adam: a gradient that has always been zero (padding, dead units) steps by 0 / eps


class Unavailable(ImportError):
    """No compiled module can run here; the message says why."""


@dataclass
class Measuring:
    """A network and points to evaluate it on.

    ``params`` (P,) is the flat vector of the parameters in the order of ``MLP.parameters()``,
    P = d k + k + (T - 1)(k^2 + k) + k + 1 for width k and depth T; ``x`` (n, d); ``y`` (n,) in {-1, +1}, or any number
    with the squared loss. All float32, contiguous, on the CPU; numpy arrays or torch tensors, whose memory is shared.
    """

    params: Any
    d: int
    width: int
    depth: int
    x: Any
    y: Any
    loss: str = "hinge"
    sum_last: Any = False  # true or false

    def __post_init__(self):
        self.params, self.x, self.y = _array(self.params), _array(self.x), _array(self.y)


@dataclass
class Training(Measuring):
    """A network, its optimizer's state and its training set: ``advance`` trains it from ``step`` for ``steps`` steps.

    ``params``, ``exp_avg`` and ``exp_avg_sq`` (P,) change in place (the last two may be None with ``sgd`` without
    momentum): no part of their memory may be in another array, of this task or another; ``x`` and ``y`` may be shared.
    Batches are those of ``data.seeds.permutation(shuffle_seed, epoch, n)``; hyper-parameters mean what they do in
    ``torch.optim.Adam``, ``AdamW`` and ``SGD``, and ``clip`` what it does in ``torch.nn.utils.clip_grad_norm_``.

    ``rates`` (steps,), float64, are the learning rates of the steps of a call, in place of ``lr``. ``average`` (P,),
    float32, is an average of the parameters, which changes in place too: a step whose entry of ``shares`` (steps,),
    float64, is w makes it (1 - w) average + w params.

    ``advance`` sets ``step`` (optimizer steps done over the run), ``done`` (in this call) and ``loss_sum``: the mean
    batch loss summed over the steps of this call, NaN or infinite if the network diverged. ``step`` moves during the
    call too, for threads that show it.
    """

    exp_avg: Any = None
    exp_avg_sq: Any = None
    shuffle_seed: int = 0
    step: int = 0
    steps: int = 0
    batch_size: int = 100
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    optimizer: str = "adam"
    momentum: float = 0.0
    nesterov: Any = False  # true or false
    weight_decay: float = 0.0
    clip: float | None = None
    rates: Any = None
    average: Any = None
    shares: Any = None
    done: int = 0
    loss_sum: float = math.nan

    def __post_init__(self):
        super().__post_init__()
        self.exp_avg, self.exp_avg_sq, self.average = map(_array, (self.exp_avg, self.exp_avg_sq, self.average))


def advance(tasks: Sequence[Training], threads: int | None = None, stop: list[int] | None = None) -> None:
    """Trains every task by its ``steps`` on ``threads`` threads (None: as many as this process may use cores).

    Ctrl-C stops all within a step: every task is left consistent, with ``step``, ``done`` and ``loss_sum`` for what was
    done, and KeyboardInterrupt is raised. Where a signal's handler puts something into the list ``stop`` instead, they
    stop as well, and nothing is raised. Raises ValueError or TypeError, before anything trains, if a task can't be:
    wrong sizes, dtypes or layouts, parameters that are not finite, no steps to do, or two arrays that overlap, one
    of which is written.
    """
    tasks = list(tasks)
    for i, task in enumerate(tasks):
        try:
            _check_training(task)
        except (TypeError, ValueError) as error:
            raise type(error)(f"task {i}: {error}") from None
    module().advance(tasks, _threads(threads), [] if stop is None else stop)


def evaluate(evaluations: Sequence[Measuring], threads: int | None = None) -> list[tuple[int, float]]:
    """For every network: (number of points with y f(x) > 0, mean loss over the points). Raises as ``advance`` does."""
    evaluations = list(evaluations)
    for i, evaluation in enumerate(evaluations):
        try:
            _check(evaluation, finite=False)
        except (TypeError, ValueError) as error:
            raise type(error)(f"task {i}: {error}") from None
    return module().evaluate(evaluations, _threads(threads))


def supports(
    *,
    loss: str = "hinge",
    optimizer: str = "adam",
    dtype: Any = "float32",
    device: Any = "cpu",
) -> str | None:
    """Why this engine can't train such a run, in one line, or None if it can. Any width, depth and d is covered."""
    if loss not in LOSSES:
        return f"loss={loss}: the native engine has {', '.join(LOSSES)}"
    if optimizer not in OPTIMIZERS:
        return f"optimizer={optimizer}: the native engine has {', '.join(OPTIMIZERS)}"
    if str(dtype).removeprefix("torch.") != "float32":
        return f"precision {dtype}: the native engine computes in float32"
    if str(device) != "cpu":
        return f"device {device}: the native engine runs on CPUs"
    try:
        module()
    except Unavailable as error:
        return str(error)
    return None


def isa() -> str:
    """The instruction set that runs: ``avx512``, ``avx2`` or ``base`` (what every processor of the family has)."""
    return module().ISA


def build() -> str:
    """The compiler of the module that runs and its flags, on which all bits rest: ``GCC 12.2.0 -O3 -mavx2 ...``."""
    return f"{module().COMPILER} {module().FLAGS}"


def variants() -> dict[str, str]:
    """For each instruction set, best first: ``ok``, or why its module can't run here."""
    try:
        supported = _import("base").supported()
    except ImportError as error:
        return dict.fromkeys(ISAS, _reason(error))
    state: dict[str, str] = {}
    for name in ISAS:
        if name not in supported:
            state[name] = "not supported by this processor"
            continue
        try:
            _import(name)
            state[name] = "ok"
        except ImportError as error:
            state[name] = _reason(error)
    return state


def module(name: str | None = None) -> ModuleType:
    """The compiled module of an instruction set; by default $FRACTAL_IFS_ISA, or the best.

    Raises Unavailable where it can't run here, ConfigError where the variable names no instruction set.
    """
    return _module(name or environment.isa() or "")


@lru_cache
def _module(name: str) -> ModuleType:
    state = variants()
    usable = [n for n in ([name] if name else ISAS) if state[n] == "ok"]
    if not usable:
        raise Unavailable(f"the native engine can't run: {name or 'base'}: {state[name or 'base']}")
    return _import(usable[0])


def _import(name: str) -> ModuleType:
    return importlib.import_module(f"fractal_ifs._native_{name}")


def _reason(error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "not built (no C++ compiler at the time of the install?)"
    return f"can't be loaded: {error}"


def _threads(threads: int | None) -> int:
    return cores() if threads is None else _whole("threads", threads, 1)


def _array(value: Any) -> Any:
    """A torch tensor as the numpy array that shares its memory; anything else as it is."""
    if hasattr(value, "detach"):
        return value.detach().numpy()
    return value


def _whole(key: str, value: Any, least: int, most: int = 2**31 - 1) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{key}={value!r}: must be a whole number")
    value = int(value)  # pyright: ignore[reportUnknownArgumentType]
    if not least <= value <= most:
        raise ValueError(f"{key}={value}: must be from {least} to {most}")
    return value


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def _vector(key: str, value: Any, shape: tuple[int, ...], writable: bool = False, dtype: Any = np.float32) -> None:
    if not _is_array(value):
        raise TypeError(f"{key}: must be an array or a CPU tensor, got {type(value).__name__}")
    if value.dtype != dtype:
        raise TypeError(f"{key}: must be {np.dtype(dtype)}, got {value.dtype}")
    if value.shape != shape:
        raise ValueError(f"{key}: must have shape {shape}, got {value.shape}")
    if not value.flags.c_contiguous:
        raise ValueError(f"{key}: must be contiguous")
    if not value.flags.aligned:
        raise ValueError(f"{key}: must be aligned to whole floats")
    if writable and not value.flags.writeable:
        raise ValueError(f"{key}: must be writable")


def _check(asked: Measuring, finite: bool) -> int:
    """Raises where C++ would read past an array; returns P."""
    d, k, depth = _whole("d", asked.d, 1), _whole("width", asked.width, 1), _whole("depth", asked.depth, 1)
    size = d * k + k + (depth - 1) * (k * k + k) + k + 1
    _vector("params", asked.params, (size,), writable=finite)
    if finite and not np.isfinite(asked.params).all():
        raise ValueError("params: must be finite")
    points = len(asked.y) if _is_array(asked.y) else 0
    if not points:
        raise ValueError("y: must be an array of at least one point")
    _vector("y", asked.y, (_whole("points", points, 1, 2**32 - 1),))
    _vector("x", asked.x, (points, d))
    if asked.loss not in LOSSES:
        raise ValueError(f"loss={asked.loss}: must be one of {', '.join(LOSSES)}")
    if not isinstance(asked.sum_last, bool):
        raise TypeError(f"sum_last={asked.sum_last!r}: must be true or false")
    return size


def _check_training(task: Training) -> None:
    size = _check(task, finite=True)
    if task.optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer={task.optimizer}: must be one of {', '.join(OPTIMIZERS)}")
    for key in ("exp_avg", "exp_avg_sq"):
        if getattr(task, key) is not None or task.optimizer != "sgd":
            _vector(key, getattr(task, key), (size,), writable=True)
    if task.average is not None:
        _vector("average", task.average, (size,), writable=True)
    _whole("shuffle_seed", task.shuffle_seed, 0, 2**64 - 1)
    _whole("step", task.step, 0, 2**53)
    _whole("steps", task.steps, 1, 2**53)
    _whole("batch_size", task.batch_size, 1, len(task.y))
    if not (math.isfinite(task.lr) and task.lr >= 0):
        raise ValueError(f"lr={task.lr}: must be a finite number >= 0")
    if not isinstance(task.nesterov, bool):
        raise TypeError(f"nesterov={task.nesterov!r}: must be true or false")
    if not 0 <= task.momentum < 1 or (task.momentum and task.optimizer != "sgd"):
        raise ValueError(f"momentum={task.momentum}: must be a number in [0, 1), 0 unless optimizer=sgd")
    if task.nesterov and not task.momentum:
        raise ValueError("nesterov=True: needs momentum > 0")
    if task.momentum and task.exp_avg is None:
        raise TypeError("exp_avg: must be an array or a CPU tensor, got NoneType")
    if not 0 <= task.weight_decay < math.inf:
        raise ValueError(f"weight_decay={task.weight_decay}: must be a finite number >= 0")
    if task.clip is not None and not 0 < task.clip < math.inf:
        raise ValueError(f"clip={task.clip}: must be None or a finite number > 0")
    for key, most in (("rates", math.inf), ("shares", 1.0)):
        values = getattr(task, key)
        if values is not None:
            _vector(key, values, (task.steps,), dtype=np.float64)
            if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= most):
                raise ValueError(f"{key}: must be finite numbers >= 0{' and <= 1' if most == 1 else ''}")
    if (task.average is None) != (task.shares is None):
        raise ValueError("shares: must be given with an average, and only then")
    if task.optimizer != "sgd":
        if not all(0 <= beta < 1 for beta in task.betas) or len(task.betas) != 2:
            raise ValueError(f"betas={task.betas}: must be two numbers in [0, 1)")
        if not EPS <= task.eps < math.inf:
            raise ValueError(f"eps={task.eps}: must be a finite number >= {EPS}")
