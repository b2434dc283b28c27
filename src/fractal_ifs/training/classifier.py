"""Any network as a LightningModule, with a loss and an optimizer, for a ``pl.Trainer`` of one's own and for ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fractal_ifs.config.keys import checked
from fractal_ifs.config.run import RunConfig
from fractal_ifs.engines.losses import losses
from fractal_ifs.engines.optimizers import torch_optimizer, torch_schedule
from fractal_ifs.engines.own_loss import function_of
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.runs.build import build_network

Loss = Literal["hinge", "logistic", "squared", "squared_hinge", "exponential", "cross_entropy"]
Optimizer = Literal["adam", "adamw", "sgd"]
A_FUNCTION = "a function"  # what a checkpoint has in place of one
IGNORED = -100  # a label of no class, as torch.nn.functional.cross_entropy has it
KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


class Classifier(pl.LightningModule):
    """A network with a loss and an optimizer: ``pl.Trainer(max_steps=1000).fit(Classifier(MLP(2, 20, 5)), data)``.

    Logs ``train_loss`` for each batch, and ``test_loss`` and ``test_acc`` over the whole test set; ``val_loss`` and
    ``val_acc`` are the same numbers, as Lightning's users call them.

    Args:
        network: any module. Two kinds of output are known: (b,), whose sign is the answer, with labels -1 and +1; and
            (b, classes), whose largest entry is, with labels 0, 1, ... or shares of the classes. It may be what
            ``load_from_checkpoint`` finds in a checkpoint instead.
        loss: ``hinge``, ``squared_hinge``, ``logistic``, ``exponential``, ``squared`` or ``cross_entropy``, or a
            function of (f, y) that returns the loss of each point, (b,), or their mean.
        optimizer: ``adam``, ``adamw`` or ``sgd``, as torch.optim has them, or a function that makes an optimizer of the
            parameters, with a learning rate of its own.
        lr: that of ``adam``, ``adamw`` and ``sgd``, by default 1e-3.
        schedule: a function that makes a scheduler of the optimizer, which steps with it. None: a constant rate.

    ``Classifier.load_from_checkpoint(path)`` makes an ``MLP`` and the network of a run anew. It needs another network
    again: ``load_from_checkpoint(path, network=Mine())``; and functions, before the first use: without ``loss=mine`` it
    predicts, and measures and trains no more. Those of a run it finds by the run's config.

    Raises ConfigError, also for outputs and labels of other kinds when it meets them.
    """

    def __init__(
        self,
        network: nn.Module | Mapping[str, Any] | None = None,
        loss: Loss | Callable[[Tensor, Tensor], Tensor] = "hinge",
        optimizer: Optimizer | Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = "adam",
        lr: float | None = None,
        schedule: Callable[[torch.optim.Optimizer], Any] | None = None,
    ):
        super().__init__()
        self.network = network if isinstance(network, nn.Module) else _made(network)
        if callable(optimizer):
            if lr not in (None, 1e-3):  # which older checkpoints have beside any optimizer
                warnings.warn(f"lr={lr}: counts for nothing: an optimizer of one's own has its own", stacklevel=2)
            lr = None
        if isinstance(network, Mapping) and network["kind"] == "run":
            loss, optimizer, schedule = _of_config(RunConfig.parse(network["config"]), loss, optimizer, schedule)
        known = callable(loss) or loss == A_FUNCTION
        self.loss: Any = loss if known else checked("loss", loss, Loss, {})
        known = callable(optimizer) or optimizer == A_FUNCTION
        self.optimizer: Any = optimizer if known else checked("optimizer", optimizer, Optimizer, {})
        if not (schedule is None or schedule == A_FUNCTION or callable(schedule)):
            raise ConfigError(f"schedule={short(schedule)}: must be a function that makes a scheduler of the optimizer")
        lr = 1e-3 if lr is None and not known else lr
        self.lr = None if lr is None else checked("lr", lr, float, {"above": 0, "most": 1e38})
        self.schedule = cast(Any, schedule)
        self.save_hyperparameters({"network": network if isinstance(network, Mapping) else described(self.network)})
        given = {"loss": self.loss, "optimizer": self.optimizer, "lr": self.lr, "schedule": self.schedule}
        self.save_hyperparameters({name: A_FUNCTION if callable(each) else each for name, each in given.items()})

    def forward(self, x: Tensor) -> Tensor:
        """The network's outputs. Raises ConfigError for a column (b, 1), which is neither of the two kinds."""
        f = self.network(x)
        if f.dim() != 1 and not (f.dim() == 2 and f.shape[1] > 1):
            raise ConfigError(f"network: its output must be (b,) or (b, classes), not {tuple(f.shape)}")
        return f

    def loss_of(self, f: Tensor, y: Tensor) -> Tensor:
        """The mean loss of a batch: outputs f, labels y. Raises ConfigError for a loss that is neither (b,) nor one."""
        _check_given("loss", self.loss)
        if not isinstance(self.loss, str):
            found = self.loss(f, y)
            if found.numel() != 1 and found.shape != y.shape[:1]:
                raise ConfigError(f"loss: must be one number, or one for each point, not {tuple(found.shape)}")
            return found.mean()
        return F.cross_entropy(f, y) if self.loss == "cross_entropy" else losses(self.loss, f, y)

    def _check_labels(self, f: Tensor, y: Tensor, batch_idx: int) -> None:
        """Raises ConfigError for labels of another shape; with a loss of ours also for outputs that don't go with it,
        and in an epoch's first batch for labels of other values.
        """
        if y.shape not in (f.shape[:1], f.shape):
            raise ConfigError(f"labels: must be of shape ({len(f)},), not {tuple(y.shape)}")
        if not isinstance(self.loss, str) or self.loss == A_FUNCTION:
            return
        of_classes = self.loss == "cross_entropy"
        if f.dim() > 2 or (of_classes and y.dim() == 2):  # of a subclass; shares of the classes
            return
        if of_classes != (f.dim() == 2):
            needed, other = ("(b, classes)", "hinge") if of_classes else ("(b,)", "cross_entropy")
            raise ConfigError(
                f"loss={self.loss}: must have outputs {needed}, not {tuple(f.shape)}; those go with loss={other}"
            )
        if of_classes and y.is_floating_point():
            raise ConfigError(f"labels: must be whole numbers for outputs (b, classes), not {y.dtype}")
        if batch_idx:
            return
        if of_classes:
            allowed = f"0 to {f.shape[1] - 1} for outputs (b, {f.shape[1]})"
            wrong = ((y < 0) & (y != IGNORED)) | (y >= f.shape[1])
        else:
            allowed = "-1 and +1 for outputs (b,)"
            wrong = y == 0 if self.loss == "squared" else (y != 1) & (y != -1)  # squared also fits other numbers
        if bool(wrong.any()):
            raise ConfigError(f"labels: must be {allowed}, there is a {y[wrong][0].item():g}")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        x, y = batch
        f = self(x)
        self._check_labels(f, y, batch_idx)
        loss = self.loss_of(f, y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure a batch of the test set. f(x) = 0 counts as wrong, and so does nan."""
        x, y = batch
        f = self(x)
        self._check_labels(f, y, batch_idx)
        numbers = {"test_loss": self.loss_of(f, y), "test_acc": _right(f, y).double().mean()}
        self.log_dict(numbers | self.more_of(numbers), batch_size=len(y), sync_dist=True)

    def more_of(self, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is logged besides: numbers of the test set under the names that Lightning's users expect."""
        return {"val_loss": numbers["test_loss"], "val_acc": numbers["test_acc"]}

    test_step = validation_step

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The outputs for points, or for the points of a batch with labels."""
        return self(batch[0] if isinstance(batch, list | tuple) else batch)

    def configure_optimizers(self) -> Any:
        """The optimizer, and its scheduler if there is one."""
        _check_given("optimizer", self.optimizer)
        _check_given("schedule", self.schedule)
        parameters = self.network.parameters()
        named = isinstance(self.optimizer, str)
        optimizer = KINDS[self.optimizer](parameters, self.lr) if named else self.optimizer(parameters)
        if self.schedule is None:
            return optimizer
        return [optimizer], [{"scheduler": self.schedule(optimizer), "interval": "step"}]


def _right(f: Tensor, y: Tensor) -> Tensor:
    """Which answers are right, (b,): outputs f (b,) or (b, classes), labels y."""
    if f.dim() == 1:
        return y * f > 0
    return (f.argmax(1) == (y if y.dim() == 1 else y.argmax(1))) & ~f.isnan().any(1)


def described(network: nn.Module) -> dict[str, Any] | None:
    """Plain values of which ``Classifier`` makes the network again, without its weights; None for an unknown kind."""
    if type(network) is not MLP:
        return None
    shape = {"d": network.d, "width": network.width, "depth": network.depth, "sum_last": network.sum_last}
    return {"kind": "mlp", **shape, "dtype": str(network.readout.weight.dtype).removeprefix("torch.")}


def of_run(config: RunConfig, d: int) -> dict[str, Any]:
    """The same of the network of a run on inputs of dimension d."""
    return {"kind": "run", "config": config.plain(), "d": d}


def _check_given(name: str, value: Any) -> None:
    """Raises ConfigError for a function that ``load_from_checkpoint`` wasn't given again."""
    if value == A_FUNCTION:
        raise ConfigError(f"{name}: was a function, which no checkpoint holds: load_from_checkpoint(path, {name}=...)")


def _of_config(config: RunConfig, loss: Any, optimizer: Any, schedule: Any) -> tuple[Any, Any, Any]:
    """The loss, optimizer and schedule of a run, for those that its checkpoint couldn't hold."""
    return (
        function_of(config.loss) if loss == A_FUNCTION else loss,
        partial(torch_optimizer, config) if optimizer == A_FUNCTION else optimizer,
        partial(torch_schedule, config) if schedule == A_FUNCTION else schedule,
    )


def _made(found: Mapping[str, Any] | None) -> nn.Module:
    kind = found.get("kind") if isinstance(found, Mapping) else None
    if found is None or kind not in ("mlp", "run"):
        given = "???" if found is None else short(found)
        raise ConfigError(
            f"network={given}: must be a torch.nn.Module; load_from_checkpoint(path, network=...) needs it where it is "
            "no MLP and no run's"
        )
    if kind == "run":
        return build_network(RunConfig.parse(found["config"]), found["d"])
    shape = {name: found[name] for name in ("d", "width", "depth", "sum_last")}
    return MLP(**shape, dtype=getattr(torch, found["dtype"]))
