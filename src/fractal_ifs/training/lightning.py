"""``engine=lightning``: one ``pl.Trainer.fit`` trains a run from beginning to end, as Lightning's users know it.

A callback of ours, the last one, measures the network where any engine does, and keeps the run's record, history and
checkpoints. What only Lightning knows (its loops, callbacks and schedulers) is text in our checkpoint. Lightning gives
and takes it as a checkpoint of its own, by a ``CheckpointIO``, which is its public way.
"""

from __future__ import annotations

import json
import logging
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.profilers import AdvancedProfiler, SimpleProfiler
from torch import Tensor

from fractal_ifs.config.data import ImageData
from fractal_ifs.config.environment import checkpoint_seconds
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.data.labelled import Labelled
from fractal_ifs.data.modules import CIFAR10DataModule, FractalDataModule
from fractal_ifs.engines.conv import ConvEngine
from fractal_ifs.engines.optimizers import torch_optimizer, torch_schedule
from fractal_ifs.engines.own_loss import function_of
from fractal_ifs.engines.protocol import Engine, Measurement, Signals
from fractal_ifs.engines.stacked import StackedEngine
from fractal_ifs.errors import Refused
from fractal_ifs.measures.sets import val_acc
from fractal_ifs.measures.take import take
from fractal_ifs.runs import ddp
from fractal_ifs.runs.records import Status, note, warn
from fractal_ifs.runs.run import Run
from fractal_ifs.runs.vectors import views
from fractal_ifs.runs.versions import ComputedBy
from fractal_ifs.training import ckpt_path, fsdp
from fractal_ifs.training.classifier import Classifier, of_run
from fractal_ifs.training.fsdp import Sharded
from fractal_ifs.training.lightning_parts import (
    check_parts,
    ended_by,
    make_callbacks,
    make_loggers,
    only_looks,
    quiet,
    quietly,
    remove_later,
)
from fractal_ifs.training.rounds import SweepRounds
from fractal_ifs.training.wandb_run import WandbRun

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = checkpoint_seconds()
OURS = "a checkpoint of fractal_ifs"  # the path by which Lightning gives us its state, and asks for it
MOST_OF_A_CALLBACK = 20_000  # letters of its state; a checkpoint takes half a million in all
EARLY = "a flag or callback of Lightning's"  # ended the run before its last step, where it can't be told which
KEPT = ("loops", "callbacks", "lr_schedulers", "epoch", "global_step", "pytorch-lightning_version")


PROFILERS: dict[Any, Any] = {"simple": SimpleProfiler, "advanced": AdvancedProfiler}

CHOSEN = (
    r".*Checkpoint directory .* exists and is not empty"  # as where a run goes on
    r"|.*GPU available|.*isinstance.treespec|.*many workers|.*`srun` command|.*logging interval"
)


class Stopped(Exception):
    """A signal has come, or the run has diverged: its state is whole, and Lightning is left."""


class LightningEngine(Engine):
    """What the records say of a run that Lightning trains, and its measurements: those of the other engines."""

    computed_by = ComputedBy(engine="lightning")

    def __init__(self, config: RunConfig):
        trainer = config.trainer
        cnn = config.model.name == "cnn"
        conv = ConvEngine(trainer.precision, trainer.channels_last)
        self._measures = conv if cnn else StackedEngine(trainer.precision)

    def advance(self, runs: Sequence[Run], steps: Sequence[int], stop: Signals) -> list[float]:
        """Never called: ``LightningRounds`` trains a run at once."""
        raise NotImplementedError

    def evaluate(self, runs: Sequence[Run], sets: Sequence[Labelled]) -> list[Measurement]:
        """Measure each run, as ``Engine`` says."""
        return self._measures.evaluate(runs, sets)


class LightningRounds(SweepRounds):
    """Trains jobs one after the other, each by a Trainer of its own. All else is as with the other engines."""

    def train_all(self) -> None:
        """As of ``SweepRounds``, without the warnings of Lightning that say what we have chosen."""
        with quietly(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=CHOSEN)
            super().train_all()

    def _train(self, stop: Signals) -> None:
        for number, (run, wandb) in list(self.active.items()):
            try:
                self._fit(number, run, wandb, stop)
            except Stopped:
                pass
            except Exception as error:
                self._lose(number, error)

    def _fit(self, number: int, run: Run, wandb: WandbRun, stop: Signals) -> None:
        if run.step and run.lightning is None:
            raise Refused(f"{run.directory}: was begun by another engine than lightning: go on with that, engine=auto")
        if run.lightning and (ended := json.loads(run.lightning)["ended"]):  # killed before it had a record
            run.status, run.ended_by = Status.STOPPED, EARLY if ended is True else ended  # True: of earlier versions
            return
        keeper = Keeper(self, run, wandb, stop)
        with tempfile.TemporaryDirectory() as nowhere:
            trainer = trainer_of(run, keeper, run.directory or Path(nowhere))
            if run.config.trainer.ckpt_path and run.lightning is None:
                begun = ckpt_path.begin(run, trainer, keeper.deciding)
                note(run.directory, f"begins at step {run.step}, from {run.config.trainer.ckpt_path}")
                keeper.from_step = self.first[number] = run.step
                if run.config.measure_start or run.step:
                    self._measure([number])
                if run.done:  # by what this measurement found
                    return
                if run.step:
                    trainer.strategy.checkpoint_io.save_checkpoint(begun, OURS)
            keeper.module = RunModule(run, self.engine)  # before the fit: a Timer whose time is up lets nothing begin
            try:
                trainer.fit(keeper.module, datamodule=data_of(run), ckpt_path=OURS if run.step else None)
            finally:
                run.bind(run.params, run.exp_avg, run.exp_avg_sq)  # Lightning has moved the network to the CPU
        keeper.end(trainer)


def rounds_of(jobs: Sequence[Job], report: Callable[[SweepRounds], None] | None) -> LightningRounds:
    """The rounds of jobs of ``engine=lightning``. Raises ConfigError for parts that Lightning won't take."""
    check_parts(jobs)
    return LightningRounds(jobs, LightningEngine(jobs[0].config), report)


def data_of(run: Run) -> pl.LightningDataModule:
    """The run's batches and test set, on the run's device."""
    c = run.config
    if isinstance(c.data, ImageData):
        images = CIFAR10DataModule(c.data, c.seed, c.batch_size, str(run.params.device))
        images.prepare_data_per_node = False  # processes of one machine are nodes to Lightning
        images.shares = False
        return images
    module = FractalDataModule(c.fractal, c.curve, c.data, c.seed, c.batch_size)
    module.points, module.shares = run.data, False
    return module


def trainer_of(run: Run, keeper: Keeper, directory: Path) -> pl.Trainer:
    """The Trainer of a run. Raises ConfigError."""
    config, trainer = run.config, run.config.trainer
    loggers = make_loggers(config.logger.others.keys, directory, run.step)
    flags = quiet(trainer)
    if config.optimizer.clip is not None:
        flags["gradient_clip_val"] = config.optimizer.clip
    if (profiler := PROFILERS.get(flags.get("profiler"))) is not None:  # else it would tell a logger that shows nothing
        flags["profiler"] = profiler(dirpath=str(directory), filename="profile")
    plugins: list[Any] = [Environment() if ddp.together() else LightningEnvironment(), KeptIO(run, keeper)]
    keeper.parts = dict(zip(config.callbacks.keys, make_callbacks(config.callbacks.keys, directory), strict=True))
    return pl.Trainer(
        accelerator=trainer.accelerator,
        devices=1,  # each process sees one, as on a machine of its own
        num_nodes=trainer.devices,
        strategy=Sharded() if trainer.strategy == "fsdp" else "ddp" if ddp.together() else "auto",
        precision=trainer.precision,
        max_steps=config.steps,
        max_epochs=-1,
        val_check_interval=config.eval_every * trainer.batches_per_step,
        check_val_every_n_epoch=None,
        use_distributed_sampler=False,
        logger=loggers or False,
        callbacks=[*keeper.parts.values(), keeper],
        default_root_dir=str(directory),
        plugins=plugins,
        **flags,
    )


class RunModule(Classifier):
    """A run's network in training. Its optimizer works on the run's own vectors, so these are always up to date.

    ``total`` is the sum of the batch losses since the last evaluation, float64. With ``objective=val_acc`` callbacks
    and loggers are given the validation accuracy by that name, which ``engine`` measures.
    """

    def __init__(self, run: Run, engine: Engine):
        c = run.config
        changing = c.schedule.spelled() != "constant"
        super().__init__(
            run.model,
            cast(Any, function_of(c.loss)),
            partial(torch_optimizer, c),
            schedule=partial(torch_schedule, c) if changing else None,
        )
        self.save_hyperparameters({"network": of_run(c, run.inputs), "lr": c.lr})
        self._run, self.engine = [run], engine  # in a list, so that it is no part of the module
        self.validates = c.objective == "val_acc"
        self.total = torch.tensor(run.loss_sum, dtype=torch.float64, device=run.params.device)
        self.channels_last = c.trainer.channels_last
        self.sharded = c.trainer.strategy == "fsdp"
        self.share = 1 / c.trainer.batches_per_step

    def configure_model(self) -> None:
        """Before the fit: keep a share of the weights alone, where the strategy asks for that."""
        if self.sharded:
            self.network = fsdp.sharded(self.network, self.trainer.strategy.root_device)

    def gather(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Bring the run's weights up to date, and its moments, where these are shared out."""
        if self.sharded:
            fsdp.gather(self._run[0], self.network, optimizer)

    def more_of(self, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The accuracy alone, where there is no validation set to choose by."""
        return {} if self.validates else {"val_acc": numbers["test_acc"]}

    def on_validation_epoch_end(self) -> None:
        """Measure the validation set, where callbacks choose by it."""
        if self.validates:
            self.gather()
            [on_set] = val_acc(self._run[0])
            with torch.inference_mode(False), torch.no_grad():
                [found] = self.engine.evaluate(self._run, [on_set.there])
            self.log("val_acc", torch.tensor(found.accuracy, dtype=torch.float64), rank_zero_only=False)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch, or of this process's share of it."""
        x, y = map(ddp.share, batch)
        if x.dim() == 4 and self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        loss = super().training_step((x, y), batch_idx)
        mean = loss.detach()
        if ddp.together():
            ddp.average(mean := mean.clone())
        self.total.add_(mean, alpha=self.share)
        return loss

    def configure_optimizers(self) -> Any:
        """The optimizer, with its state in the run's vectors."""
        [run] = self._run
        found = super().configure_optimizers()
        optimizer: torch.optim.Optimizer = found if isinstance(found, torch.optim.Optimizer) else found[0][0]
        if self.sharded:
            if run.step:
                fsdp.scatter(run, self.network, optimizer)
            return found
        parameters = list(self.network.parameters())
        moments = (views(vector, parameters) for vector in (run.exp_avg, run.exp_avg_sq))
        for p, first, second in zip(parameters, *moments, strict=True):
            if isinstance(optimizer, torch.optim.Adam):  # AdamW too
                optimizer.state[p] = {"step": torch.tensor(float(run.step)), "exp_avg": first, "exp_avg_sq": second}
            elif optimizer.param_groups[0].get("momentum"):
                optimizer.state[p] = {"momentum_buffer": first}
        return found


class Keeper(Checkpoint):
    """Measures a run and keeps it. A ``Checkpoint``, because Lightning calls those after all other callbacks."""

    def __init__(self, rounds: LightningRounds, run: Run, wandb: WandbRun, stop: Signals):
        self.rounds, self.run, self.wandb, self.stop = rounds, run, wandb, stop
        self.every, self.steps = run.config.eval_every, run.config.steps
        self.since, self.from_step = time.perf_counter(), run.step
        self.module: RunModule | None = None
        self.parts: dict[str, Callback] = {}  # the config's callbacks, by their names
        self.measured: Tensor | None = None  # the run's vector of weights as it was measured last
        self.terminated = signal.getsignal(signal.SIGTERM)

    @property
    def deciding(self) -> list[Callback]:
        """The config's callbacks that can change what the run computes."""
        return [each for each in self.parts.values() if not only_looks(each)]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.terminated)  # Lightning's would leave while gradients are accumulated
        if trainer.is_global_zero and self.run.directory:
            remove_later(self.parts.values(), self.run.directory, self.run.step)
        self.since = time.perf_counter()
        if self.run.lightning:
            for optimizer, groups in zip(trainer.optimizers, json.loads(self.run.lightning)["groups"], strict=True):
                for group, values in zip(optimizer.param_groups, groups, strict=True):
                    group.update(_decoded(values))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        run, step = self.run, trainer.global_step
        if step == run.step:  # its gradients are still being accumulated
            return
        run.step = step
        if step % self.every and step < self.steps:  # else an evaluation comes next, or the end
            self.pause(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.measure()
            if self.run.status == Status.DIVERGED:
                raise Stopped
            if self.run.done:  # as ``stop`` asks for
                trainer.should_stop = True
            elif self.run.step < self.steps:
                self.pause(trainer)

    def measure(self) -> None:
        """Measure the network and add it to the history."""
        run = self.run
        self.count()
        begun = time.perf_counter()
        assert self.module is not None
        self.module.gather()
        was = run.model.training
        run.model.eval()
        [found] = take([run], self.rounds.engine)
        run.model.train(was)
        run.evaluated(*found)
        if self.deciding:
            self.measured = run.params.detach().clone()
        self.module.total.zero_()
        self.wandb.log()
        run.seconds += time.perf_counter() - begun
        self.since = time.perf_counter()

    def count(self) -> None:
        """Tell the run of the steps that are done."""
        assert self.module is not None
        now = time.perf_counter()
        self.run.advanced(self.run.step - self.from_step, self.module.total.item(), now - self.since)
        self.from_step, self.since = self.run.step, now

    def pause(self, trainer: pl.Trainer) -> None:
        """Write a checkpoint if it is time for one, or leave where a signal has come."""
        late = time.monotonic() - self.run.checkpointed > CHECKPOINT_SECONDS
        stop, late = ddp.first_says(bool(self.stop), late)  # Lightning waits for all processes of the run here
        if stop or late:
            self.count()
            self.keep(trainer)
            if stop:
                raise Stopped
            self.run.save()
            self.run.checkpointed = time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.keep(trainer)

    def keep(self, trainer: pl.Trainer) -> None:
        """Bring the run's vectors and Lightning's state up to date."""
        assert self.module is not None
        [optimizer] = trainer.strategy.optimizers
        self.module.gather(optimizer)
        trainer.save_checkpoint(OURS)

    def end(self, trainer: pl.Trainer) -> None:
        """Measure where the run has ended, unless that is done. It may have ended early, as a callback asked for.

        The weights that are kept are those that were measured, also where a callback has changed them since.
        """
        self.count()
        if self.run.loss_steps:
            self.measure()
        elif self.measured is not None and not torch.equal(self.run.params, self.measured):
            self.run.params.copy_(self.measured)
            warn(
                log, self.run.directory, "a callback changed weights after the last step; those measured then are kept"
            )
        if not self.run.done:
            self.run.status, self.run.ended_by = Status.STOPPED, ended_by(trainer, self.parts) or EARLY
            assert self.run.lightning is not None
            self.run.lightning = json.dumps({**json.loads(self.run.lightning), "ended": self.run.ended_by})


class KeptIO(TorchCheckpointIO):
    """Keeps Lightning's state in the run; other paths are files, as usual."""

    def __init__(self, run: Run, keeper: Keeper):
        super().__init__()
        self.run, self.keeper = run, keeper

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if str(path) != OURS:
            return super().save_checkpoint(checkpoint, path, storage_options)
        callbacks = {name: text for name, state in checkpoint["callbacks"].items() if (text := _text(name, state))}
        groups = [
            [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]]
            for state in checkpoint["optimizer_states"]
        ]
        kept = {name: checkpoint[name] for name in KEPT if name != "callbacks"}
        self.run.lightning = json.dumps(
            {"ended": False, "callbacks": callbacks, "groups": _encoded(groups), "rest": _encoded(kept)}
        )

    def load_checkpoint(self, path: Any, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        if str(path) != OURS:
            return super().load_checkpoint(path, *arguments, **keywords)
        assert self.run.lightning is not None
        kept = json.loads(self.run.lightning)
        callbacks = {name: _decoded(json.loads(text)) for name, text in kept["callbacks"].items()}
        weights = {f"network.{name}": value for name, value in self.run.model.state_dict().items()}
        rest = _decoded(kept["rest"])
        ckpt_path.come_to(rest["loops"]["fit_loop"], self.run.config, rest["global_step"])
        return {**rest, "callbacks": callbacks, "state_dict": weights, "optimizer_states": []}


class Environment(LightningEnvironment):
    """The processes of ``runs.ddp``, which have found each other already."""

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def world_size(self) -> int:
        return torch.distributed.get_world_size()

    def global_rank(self) -> int:
        return torch.distributed.get_rank()

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return torch.distributed.get_rank()

    def set_world_size(self, size: int) -> None:
        """Known already."""

    def set_global_rank(self, rank: int) -> None:
        """Known already."""


def _text(name: str, state: Any) -> str | None:
    """A callback's state as text; None, with a warning, where it has what a checkpoint of ours can't hold."""
    try:
        if len(text := json.dumps(_encoded(state))) > MOST_OF_A_CALLBACK:
            raise TypeError(f"{len(text)} letters of state can't be kept in a checkpoint")
        return text
    except TypeError as error:
        log.warning("callback %s: begins anew when the run goes on after a kill: %s", name.split("{")[0], error)
        return None


def _encoded(value: Any) -> Any:
    """Plain values as JSON has them. Raises TypeError."""
    if isinstance(value, Tensor) and value.numel() <= 1000:
        return {"_tensor": str(value.dtype).removeprefix("torch."), "values": value.tolist()}
    if isinstance(value, Path):
        return {"_path": str(value)}
    if isinstance(value, tuple):
        return {"_tuple": [_encoded(each) for each in cast(tuple[Any, ...], value)]}
    if isinstance(value, list):
        return [_encoded(each) for each in cast(list[Any], value)]
    if isinstance(value, dict):
        pairs = cast(dict[Any, Any], value).items()
        if all(isinstance(key, str) for key, _ in pairs):
            return {key: _encoded(each) for key, each in pairs}
        return {"_pairs": [[_encoded(key), _encoded(each)] for key, each in pairs]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} can't be kept in a checkpoint")


def _decoded(value: Any) -> Any:
    """The values of ``_encoded``."""
    if isinstance(value, list):
        return [_decoded(each) for each in cast(list[Any], value)]
    if not isinstance(value, dict):
        return value
    found = cast(dict[str, Any], value)
    if "_tensor" in found:
        return torch.tensor(found["values"], dtype=getattr(torch, found["_tensor"]))
    if "_path" in found:
        return Path(found["_path"])
    if "_tuple" in found:
        return tuple(_decoded(each) for each in found["_tuple"])
    if "_pairs" in found:
        return {_decoded(key): _decoded(each) for key, each in found["_pairs"]}
    return {key: _decoded(each) for key, each in found.items()}
