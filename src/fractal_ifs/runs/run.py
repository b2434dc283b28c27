"""One network in training: its parameters and moments as flat vectors, its data, its position, its history."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fractal_ifs.config.schema import fingerprint
from fractal_ifs.data.points import fractal_points
from fractal_ifs.data.seeds import generator, stream
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.runs import records
from fractal_ifs.runs.locks import Lock


def build_data(config: dict[str, Any], device: str | torch.device) -> Any:
    """The training and test set of a resolved config: ``Points``, or ``Images``."""
    if config["data"]["name"] == "fractal":
        return fractal_points(config["fractal"], config["curve"], config["data"], config["seed"], str(device))
    from fractal_ifs.data.images import image_sets

    return image_sets(config["data"], device)


def build_model(config: dict[str, Any], d: int) -> Any:
    """The network of a resolved config for inputs of dimension d (images: of d channels), initialised from its seed."""
    model = config["model"]
    dtype = torch.float64 if config["trainer"]["precision"] == "64-true" else torch.float32
    init = generator(config["seed"], "init")
    if model["name"] == "cnn":
        from fractal_ifs.networks.convnet import ConvNet

        shape = {"channels": d, "size": config["data"]["crop"], "pools": model["pools"], "readout": model["readout"]}
        return ConvNet(config["depth"], config["width"], **shape, init=model["init"], generator=init, dtype=dtype)
    return MLP(d, config["width"], config["depth"], model["init"], model["sum_last"], init, dtype)


class Run:
    """A network in training.

    ``params``, ``exp_avg``, ``exp_avg_sq``: flat vectors (P,) in the order of ``model.parameters()``, whose tensors
    are views of the first; engines change them in place, or give them a new home by ``bind``. ``step``: steps done.
    """

    def __init__(self, config: dict[str, Any], directory: Path | None, device: str | torch.device = "cpu"):
        self.config, self.directory = config, directory
        self.data = build_data(config, device)
        self.model = build_model(config, self.data.d)
        flat = torch.cat([p.detach().reshape(-1) for p in self.model.parameters()]).to(device)
        self.params = self.exp_avg = self.exp_avg_sq = flat
        self.bind(flat, torch.zeros_like(flat), torch.zeros_like(flat))
        self.lr, self.batch_size = config["lr"], config["batch_size"]
        self.steps, self.eval_every = config["steps"], config["eval_every"]
        self.loss, self.optimizer = config["loss"], config["optimizer"]
        self.shuffle_seed = stream(config["seed"], "shuffle")
        self.step, self.steps_before = 0, 0  # steps done, and those of earlier layers in layer-wise training
        self.seconds = 0.0
        self.loss_sum, self.loss_steps = 0.0, 0  # since the last evaluation
        self.best_test_acc, self.best_step = 0.0, 0
        self.history: list[tuple] = []
        self.status = "running"
        self.engine = self.isa = None
        self.wandb_id: str | None = None
        self.lock: Lock | None = None
        self.checkpointed = time.monotonic()

    def bind(self, params: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor) -> None:
        """Give the flat vectors a new home that already holds their values; the module's tensors become its views."""
        self.params, self.exp_avg, self.exp_avg_sq = params, exp_avg, exp_avg_sq
        start = 0
        for p in self.model.parameters():
            p.data = params[start : start + p.numel()].view(p.shape)
            start += p.numel()

    @property
    def trained(self) -> MLP:
        """The network that a record of this run is of."""
        return self.model

    def detach(self) -> None:
        """Out of a shared stack, into vectors of its own."""
        self.bind(self.params.clone(), self.exp_avg.clone(), self.exp_avg_sq.clone())

    @property
    def done(self) -> bool:
        return self.status != "running"

    def steps_to_event(self) -> int:
        """Steps until the next evaluation or the end."""
        return min(self.eval_every - self.step % self.eval_every, self.steps - self.step)

    def advanced(self, steps: int, loss_sum: float, seconds: float) -> None:
        """An engine has done some steps: their losses' sum, and the run's share of the wall time."""
        self.loss_sum += loss_sum
        self.loss_steps += steps
        self.seconds += seconds

    @property
    def due(self) -> bool:
        return self.step % self.eval_every == 0 or self.step == self.steps or not math.isfinite(self.loss_sum)

    def evaluated(self, test_acc: float, test_loss: float) -> dict[str, float]:
        """Take a measurement of the test accuracy; returns the row of the history."""
        train_loss = self.loss_sum / max(self.loss_steps, 1)
        if not (math.isfinite(train_loss) and math.isfinite(test_loss)):
            self.status = "diverged"
        row = (self.steps_before + self.step, self.seconds, train_loss, test_loss, test_acc)
        self.history.append(row)
        if self.status == "running":
            if test_acc > self.best_test_acc:
                self.best_test_acc, self.best_step = test_acc, row[0]
            if self.step >= self.steps:
                self.status = "finished"
        self.loss_sum, self.loss_steps = 0.0, 0
        return dict(zip(records.HISTORY, row, strict=True))

    def state(self) -> dict[str, Any]:
        """All that a checkpoint must hold; shuffles need nothing, they are a function of seed and step."""
        return {
            "format": records.FORMAT,
            "fingerprint": fingerprint(self.config),
            "d": self.data.d,
            "params": self.params.detach().cpu().clone(),
            "exp_avg": self.exp_avg.cpu().clone(),
            "exp_avg_sq": self.exp_avg_sq.cpu().clone(),
            "step": self.step,
            "seconds": self.seconds,
            "loss_sum": self.loss_sum,
            "loss_steps": self.loss_steps,
            "best": (self.best_test_acc, self.best_step),
            "history": self.history,
            "wandb_id": self.wandb_id,
            "isa": self.isa,
            "versions": records.versions(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint, bit for bit."""
        for name in ("params", "exp_avg", "exp_avg_sq"):
            getattr(self, name).copy_(state[name])
        self.step, self.seconds = state["step"], state["seconds"]
        self.loss_sum, self.loss_steps = state["loss_sum"], state["loss_steps"]
        self.best_test_acc, self.best_step = state["best"]
        self.history = [tuple(row) for row in state["history"]]
        self.wandb_id = state["wandb_id"]
        if self.history and not all(math.isfinite(value) for value in self.history[-1][2:4]):
            self.status = "diverged"
        elif self.step >= self.steps:
            self.status = "finished"

    def record(self, error: str | None = None) -> dict[str, Any]:
        """The content of result.json."""
        c = self.config
        return {
            "status": self.status,
            "best_test_acc": self.best_test_acc,
            "best_step": self.best_step,
            "final_test_acc": self.history[-1][-1] if self.history else None,
            "steps": self.steps_before + self.step,
            "seconds": round(self.seconds, 3),
            "params": self.params.numel(),
            **keys_of(c),
            "engine": self.engine,
            "isa": self.isa,
            **records.versions(),
            "error": error,
            "config": c,
        }

    def save(self, checkpoint: bool = True) -> None:
        """Write what there is: history, and the checkpoint; ``result.json`` only once the run has ended."""
        if self.directory is None:
            return
        if checkpoint:
            records.write_checkpoint(self.directory, self.state())
            self.checkpointed = time.monotonic()
        records.write_history(self.directory, self.history)
        if self.done:
            records.write_result(self.directory, self.record())
            (self.directory / records.BEGUN).unlink(missing_ok=True)


def fractal_depth(config: dict[str, Any]) -> int | None:
    """n of a config's distribution, 5 where its file says nothing; None for images."""
    return config["fractal"].get("depth", 5) if config["data"]["name"] == "fractal" else None


def keys_of(config: dict[str, Any]) -> dict[str, Any]:
    """The flat keys of a config that a table of runs is made of."""
    synthetic = config["data"]["name"] == "fractal"
    return {
        "fractal": config["fractal"].get("name") if synthetic else None,
        "fractal_depth": fractal_depth(config),
        "curve": str(config["curve"].get("name")) if synthetic else None,
        "data": config["data"]["name"],
        "model": config["model"]["name"],
        **{
            key: config[key]
            for key in ("depth", "width", "lr", "seed", "batch_size", "loss", "optimizer", "eval_every")
        },
        "init": config["model"].get("init"),
        "training": config.get("training", "joint"),
        "precision": str(config["trainer"]["precision"]),
        "fingerprint": fingerprint(config),
    }
