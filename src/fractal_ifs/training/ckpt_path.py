"""``trainer.ckpt_path=FILE``: a run begins at the step of a checkpoint of Lightning's.

The weights, the state of the optimizer and that of callbacks are the checkpoint's; the learning rate, the schedule and
the batches are those that the run itself has from that step on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from fractal_ifs.config.data import ImageData
from fractal_ifs.config.optimizer import Sgd
from fractal_ifs.config.own_class import file_digest
from fractal_ifs.config.run import RunConfig
from fractal_ifs.engines.optimizers import torch_optimizer, torch_schedule
from fractal_ifs.errors import ConfigError, reason, short
from fractal_ifs.runs.build import build_network
from fractal_ifs.runs.run import Run

NETWORK = "network."  # what the names of weights begin with, of a ``Classifier``


class Start(NamedTuple):
    """What a run takes of a checkpoint. Vectors (P,) are in the order of the network's parameters."""

    step: int
    state_dict: dict[str, Tensor]
    exp_avg: Tensor
    exp_avg_sq: Tensor
    callbacks: Mapping[str, Any]  # their states


def read(config: RunConfig, network: nn.Module) -> Start:
    """What a config's checkpoint has for a network of the config's. Raises ConfigError."""
    path = config.trainer.ckpt_path
    assert path is not None
    try:
        if Path(path).exists() and not Path(path).is_file():  # reading a pipe would wait for ever
            raise ConfigError("must be a file")
        start = _start(_loaded(path, file_digest(path)), config, network)
        if start.step >= config.steps:
            raise ConfigError(f"is at step {start.step}, which must be < steps={config.steps}")
        return start
    except ConfigError as error:
        told = str(error)
    except Exception:  # entries of other kinds
        told = "must be a checkpoint of Lightning's"
    raise ConfigError(f"trainer.ckpt_path={short(path, 200)}: {told}")


def check(config: RunConfig) -> None:
    """Raises ConfigError where a config's checkpoint can't be read, or isn't of a network like the config's."""
    images = isinstance(config.data, ImageData)
    read(config, build_network(config, 3 if images else config.fractal.ifs.d))


def begin(run: Run, trainer: pl.Trainer, callbacks: Iterable[Callback]) -> dict[str, Any]:
    """Bring a new run to the step of its checkpoint, as if it had come there itself.

    Args:
        trainer: the run's, before its fit.
        callbacks: those of the run's config that can change a result; what others kept is of another run's files.

    Returns what Lightning goes on from, in the form of a checkpoint of its own. Raises ConfigError.
    """
    config, start = run.config, read(run.config, run.model)
    run.model.load_state_dict(start.state_dict)
    run.exp_avg.copy_(start.exp_avg)
    run.exp_avg_sq.copy_(start.exp_avg_sq)
    run.step = start.step
    keys = {callback.state_key for callback in callbacks}
    optimizer = torch_optimizer(config, [nn.Parameter(torch.zeros(1))])
    return {
        "pytorch-lightning_version": version("pytorch-lightning"),
        "global_step": start.step,
        "epoch": start.step * config.trainer.batches_per_step // _per_epoch(config),
        "callbacks": {key: state for key, state in start.callbacks.items() if key in keys},
        "lr_schedulers": _scheduled(optimizer, config, start.step),
        "optimizer_states": [optimizer.state_dict()],
        "loops": {"fit_loop": come_to(trainer.fit_loop.state_dict(), config, start.step)},
    }


def come_to(fit: dict[str, Any], config: RunConfig, step: int) -> dict[str, Any]:
    """The state of Lightning's loop over epochs, of a run that has come to a step.

    It stands in ``on_train_batch_end`` of the last batch before, where Lightning's own checkpoints are written. Its own
    counts aren't right at the second epoch's end at which a run goes on: it doesn't count an epoch as begun after the
    first, and so would take the batches of one again.

    Args:
        fit: the state of such a loop, which is changed.
    """
    share, per_epoch = config.trainer.batches_per_step, _per_epoch(config)
    batches = step * share
    epochs = -(-batches // per_epoch)  # begun ones
    within = batches - (epochs - 1) * per_epoch
    fit["state_dict"] = {"combined_loader": [{"next": batches}]}
    fit["epoch_loop.state_dict"] = {"_batches_that_stepped": step - 1}
    _fill(fit["epoch_progress"], epochs, epochs)
    for each in fit["epoch_progress"].values():
        each |= {"processed": epochs - 1, "completed": epochs - 1}
    _fill(fit["epoch_loop.batch_progress"], batches, within)
    fit["epoch_loop.batch_progress"]["total"]["completed"] = batches - 1
    fit["epoch_loop.batch_progress"]["current"]["completed"] = within - 1
    fit["epoch_loop.batch_progress"]["is_last_batch"] = within == per_epoch
    for each in fit["epoch_loop.automatic_optimization.optim_progress"]["optimizer"].values():
        _fill(each, step, within // share)
    return fit


def _scheduled(optimizer: Optimizer, config: RunConfig, step: int) -> list[dict[str, Any]]:
    """The state of the schedule at a step, which this brings the optimizer to; none of a constant rate."""
    if config.schedule.spelled() == "constant":
        return []
    scheduler = torch_schedule(config, optimizer)
    rate = config.lr * cast(Any, scheduler).lr_lambdas[0](step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return [scheduler.state_dict() | {"last_epoch": step, "_step_count": step + 1, "_last_lr": [rate]}]


def _per_epoch(config: RunConfig) -> int:
    """Batches of an epoch."""
    return config.data.train_size // config.batch_size


def _fill(progress: dict[str, Any], total: int, current: int) -> None:
    for name, number in (("total", total), ("current", current)):
        progress[name] = dict.fromkeys(progress[name], number)


@lru_cache(maxsize=8)
def _loaded(path: str, _digest: str | None) -> Any:
    """The content of a file. Code in it is never run. Raises ConfigError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"can't be read ({reason(error)})") from None
    except Exception as error:  # a file of another kind can raise almost anything
        raise ConfigError(f"must be a checkpoint of Lightning's ({reason(error).partition('.')[0]})") from None


def _start(found: Any, config: RunConfig, network: nn.Module) -> Start:
    """Raises ConfigError."""
    needed = ("global_step", "state_dict", "optimizer_states", "callbacks")
    if not isinstance(found, dict) or not isinstance(cast(Any, found).get("pytorch-lightning_version"), str):
        raise ConfigError("must be a checkpoint of Lightning's")
    state = cast(dict[str, Any], found)
    if missing := [name for name in needed if name not in state]:
        raise ConfigError(f"has no {missing[0]}: it holds weights alone, and can't be gone on from")
    weights = {name.removeprefix(NETWORK): each for name, each in state["state_dict"].items()}
    own = network.state_dict()
    if any(w.layout != torch.strided or w.is_meta for w in weights.values()):
        raise ConfigError("must be a checkpoint of Lightning's")
    if {n: (w.shape, w.dtype) for n, w in own.items()} != {n: (w.shape, w.dtype) for n, w in weights.items()}:
        raise ConfigError(f"is of another network: {_difference(own, weights)}")
    if type(state["global_step"]) is not int or state["global_step"] < 0:
        raise ConfigError("its global_step can't be right")
    first, second = _moments(state, config, [*network.parameters()])
    return Start(state["global_step"], weights, first, second, dict(state["callbacks"]))


def _difference(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    for name in (*own, *weights):
        there, here = (
            "none" if s is None else f"{[*s.shape]} of {s.dtype}" for s in (weights.get(name), own.get(name))
        )
        if there != here:
            return f"{short(name)} is {there} there, {here} here"
    raise AssertionError


def _moments(state: Mapping[str, Any], config: RunConfig, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The state of the optimizer, as a run keeps it. Raises ConfigError for one of another kind of optimizer."""
    zeros = torch.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype)
    chosen = config.optimizer
    names = ("momentum_buffer",) if isinstance(chosen, Sgd) else ("exp_avg", "exp_avg_sq")
    if state["global_step"] == 0:
        return zeros, zeros.clone()
    states = state["optimizer_states"]
    kept = [states[0]["state"].get(n, {}) for n in range(len(parameters))] if len(states) == 1 else [{}]
    there = {name for each in kept for name, value in each.items() if name != "step" and value is not None}
    if isinstance(chosen, Sgd) and not chosen.momentum:
        names = ()
    if there != {*names}:
        raise ConfigError(f"its optimizer is another than {chosen.name}")
    if not all(name in each for each in kept for name in names):
        raise ConfigError("its optimizer has other parameters than the network")
    vectors = [torch.cat([each[name].reshape(-1) for each in kept]) for name in names]
    if any(vector.shape != zeros.shape for vector in vectors):
        raise ConfigError("its optimizer is of another network")
    first, second, *_ = [*(vector.to(zeros) for vector in vectors), zeros, zeros.clone()]
    return first, second
