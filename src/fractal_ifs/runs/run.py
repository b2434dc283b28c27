"""One network in training: its parameters and moments as flat vectors, its data, its step and its history."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fractal_ifs.config.run import RunConfig
from fractal_ifs.data.images import Images
from fractal_ifs.data.seeds import stream
from fractal_ifs.runs.buffers import buffer_vector, set_buffers
from fractal_ifs.runs.build import build_data, build_network
from fractal_ifs.runs.checkpoints import FORMAT, Checkpoint, evaluated, weights_digest, write_checkpoint
from fractal_ifs.runs.history import Evaluation, Summary, of_checkpoint, of_measures, write_history
from fractal_ifs.runs.locks import Lock
from fractal_ifs.runs.records import (
    BEGUN,
    Begun,
    Digests,
    RunRecord,
    Status,
    write_begun,
    write_record,
)
from fractal_ifs.runs.shapes import COLUMNS, Shape
from fractal_ifs.runs.sources import sources
from fractal_ifs.runs.state_dicts import with_state_dicts
from fractal_ifs.runs.versions import ComputedBy, versions


class Run:
    """A network in training.

    ``params``, ``exp_avg`` and ``exp_avg_sq`` are flat vectors (P,) in the order of ``model.parameters()``. The last
    two are Adam's moments, or the first is SGD's momentum. ``average`` (P,) is the average of the weights, None where
    the config asks for none. The tensors of ``model`` are views of ``params``. Engines change the vectors in place, or
    move them to other memory with ``bind``.
    """

    def __init__(self, config: RunConfig, directory: Path | None, device: str | torch.device = "cpu"):
        self.config, self.directory = config, directory
        # Any: Points and an MLP, or Images and a ConvNet. The config decides, and chooses the engine that knows them.
        self.data: Any = build_data(config, device)
        self.inputs: int = self.data.channels if isinstance(self.data, Images) else self.data.d
        self.model: Any = build_network(config, self.inputs).to(device)
        flat = torch.cat([p.detach().reshape(-1) for p in self.model.parameters()]).to(device)
        self.params = self.exp_avg = self.exp_avg_sq = flat
        average = None if config.optimizer.average == "none" else flat.clone()
        self.bind(flat, torch.zeros_like(flat), torch.zeros_like(flat), average)
        self.shuffle_seed = stream(config.seed, "shuffle")
        self.step, self.steps_before = 0, 0  # steps done; in layer-wise training, those of earlier layers
        self.seconds = 0.0
        self.loss_sum, self.loss_steps = 0.0, 0  # since the last evaluation
        self.best_test_acc, self.best_step = 0.0, 0
        self.best_params: Tensor | None = None  # (P,) of the network that had this accuracy; None: there was none yet
        self.best_buffers: Tensor | None = None  # of that network, if it has any
        self.history: list[Evaluation] = []
        self.columns: dict[str, None] = {}  # of measures in the history, in their order
        self.val_points: int | None = None  # on which ``val_acc`` in the history was measured
        self.unmeasured = set[str]()  # the measures of which its log says that they fail
        self.told = set[str]()  # those of which that was logged everywhere; runs that train together share it
        self.status = Status.RUNNING
        self.computed_by = ComputedBy()
        self.versions = versions()._asdict() | sources(config)
        self.wandb_id: str | None = None
        self.pause: int | None = None  # as of a ``Job``
        self.ended_by: str | None = None  # what ended it early, if that isn't a key of ``stop``
        self.lightning: str | None = None  # what Lightning knows of a run that it trains, see ``training.lightning``
        self.lock: Lock | None = None
        self.checkpointed = time.monotonic()

    def bind(self, params: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, average: Tensor | None = None) -> None:
        """Use these vectors (P,), which already hold the same values. The model then views ``params``."""
        self.params, self.exp_avg, self.exp_avg_sq, self.average = params, exp_avg, exp_avg_sq, average
        nn.utils.vector_to_parameters(params, self.model.parameters())

    @property
    def measured(self) -> Tensor:
        """The weights (P,) that are evaluated: their average where there is one."""
        return self.params if self.average is None else self.average

    @contextlib.contextmanager
    def averaged(self) -> Generator[None]:
        """Within: ``model`` has the weights that are evaluated."""
        if self.average is None:
            yield
            return
        nn.utils.vector_to_parameters(self.average, self.model.parameters())
        try:
            yield
        finally:
            nn.utils.vector_to_parameters(self.params, self.model.parameters())

    @property
    def trained(self) -> nn.Module:
        """The network that the record describes, with the weights that were evaluated.

        In layer-wise training the whole network.
        """
        if self.average is None:
            return self.model
        network = copy.deepcopy(self.model)
        nn.utils.vector_to_parameters(self.average.clone(), network.parameters())
        return network

    def weights(self) -> Tensor:
        """The parameters of ``trained``, (P,). They change when training goes on."""
        return self.measured.detach()

    def shape(self) -> Shape:
        """What a checkpoint of this run holds."""
        return Shape.of(self.config, self.trained, self.inputs)

    def detach(self) -> None:
        """Copy the vectors out of the memory that an engine shares between runs."""
        average = None if self.average is None else self.average.clone()
        self.bind(self.params.clone(), self.exp_avg.clone(), self.exp_avg_sq.clone(), average)

    @property
    def done(self) -> bool:
        """Whether training has ended, for whatever reason."""
        return self.status != Status.RUNNING

    def steps_to_event(self) -> int:
        """The number of steps until the next evaluation or the end. A pause is at an evaluation."""
        every = self.config.eval_every
        return min(every - self.step % every, self.config.steps - self.step)

    def advanced(self, steps: int, loss_sum: float, seconds: float) -> None:
        """Add steps that an engine has done: ``loss_sum`` with their batch losses, the run's share of the wall time."""
        self.loss_sum = loss_sum
        self.loss_steps += steps
        self.seconds += seconds

    @property
    def due(self) -> bool:
        """Whether an evaluation comes next: every ``eval_every`` steps and at the end, wherever others pause."""
        return self.step % self.config.eval_every == 0 or self.step == self.config.steps

    @property
    def at_start(self) -> bool:
        """Whether no step is done yet."""
        return self.steps_before + self.step == 0

    @property
    def unbatched(self) -> bool:
        """Whether no batch has come since the last evaluation: before the first, or at the step of a ``ckpt_path``."""
        return self.loss_steps == 0

    def evaluated(
        self,
        test_acc: float,
        test_loss: float,
        measured: Mapping[str, float] | None = None,
        train_loss: float | None = None,
    ) -> Evaluation:
        """Add a measurement on the test set to the history, and update the status. Returns the new row.

        The one before the first step is for the history alone: it is no result, and ends nothing.

        Args:
            measured: the numbers of measures, by their columns. Beyond ``COLUMNS`` of them, new ones are left out.
            train_loss: in place of the mean batch loss, where no batch came before.
        """
        if train_loss is None:
            train_loss = self.loss_sum / max(self.loss_steps, 1)
        for name in measured or ():
            if len(self.columns) < COLUMNS:
                self.columns.setdefault(name)
        kept = {name: value for name, value in (measured or {}).items() if name in self.columns}
        row = Evaluation(self.steps_before + self.step, self.seconds, train_loss, test_loss, test_acc, kept)
        self.history.append(row)
        if "val_acc" in kept:
            self.val_points = self.config.data.val_size
        if self.at_start:
            return row
        if not row.finite:
            self.status = Status.DIVERGED
        if self.status == Status.RUNNING:
            if test_acc > self.best_test_acc or not self.best_step:  # the first measurement counts where it is 0, too
                self.best_test_acc, self.best_step = test_acc, row.step
                self.best_params, self.best_buffers = self.weights().clone(), buffer_vector(self.model)
            self.status = self._reached()
        self.loss_sum, self.loss_steps = 0.0, 0
        return row

    @property
    def best_so_far(self) -> float | None:
        """The best test accuracy of the whole network. None where there is none yet, as in layers before the last."""
        return self.best_test_acc if self.best_step else None

    @property
    def stopped(self) -> str | None:
        """The key of ``stop`` that ends the run with its newest measurement, and its value. None where none does.

        It follows from the history, so a run that is killed and goes on ends at the same step.
        """
        stop, chosen_by = self.config.stop, self.config.objective
        found = [(row, row.value(chosen_by)) for row in self.history if row.step > 0] if stop.given() else []
        values = [value for _, value in found if value is not None]  # where it wasn't measured, nothing is compared
        rows = [row for row, value in found if value is not None]
        if not rows:
            return None
        if stop.accuracy is not None and values[-1] >= stop.accuracy:
            return f"stop.accuracy={stop.accuracy}"
        if stop.patience is not None:
            best_step = self.best_step if self.best_test_acc else 0  # all wrong is no progress: so runs always stopped
            if chosen_by != "test_acc":
                best_step = Summary.of(rows).chosen_step or 0
            if sum(row.step > best_step for row in rows) >= stop.patience:
                return f"stop.patience={stop.patience}"
        return None

    def _reached(self) -> Status:
        """The status of a run that hasn't diverged."""
        if self.step >= self.config.steps:
            return Status.FINISHED
        if self.stopped:
            return Status.STOPPED
        return Status.PAUSED if self.pause is not None and self.step >= self.pause else Status.RUNNING

    def state(self) -> Checkpoint:
        """The content of a checkpoint. The order of the data isn't part of it: it follows from seed and step."""
        state: Checkpoint = {
            "format": FORMAT,
            "fingerprint": self.config.fingerprint,
            "d": self.inputs,
            "params": self.params.detach().cpu().clone(),
            "exp_avg": self.exp_avg.cpu().clone(),
            "exp_avg_sq": self.exp_avg_sq.cpu().clone(),
            "step": self.step,
            "seconds": self.seconds,
            "loss_sum": self.loss_sum,
            "loss_steps": self.loss_steps,
            "best": (self.best_test_acc, self.best_step),
            "history": [row.numbers for row in self.history],
            "wandb_id": self.wandb_id,
            "engine": self.computed_by.engine,
            "isa": self.computed_by.isa,
            "native_build": self.computed_by.native_build,
            "torch_kernels": self.computed_by.torch_kernels,
            "versions": self.versions,
        }
        if self.average is not None:
            state["average"] = self.average.cpu().clone()
        columns, measured = of_measures(self.history)
        if columns:
            state["columns"], state["measured"] = columns, torch.tensor(measured, dtype=torch.float64)
        if self.val_points is not None:
            state["val_points"] = self.val_points
        if (buffers := buffer_vector(self.model)) is not None:
            state["buffers"] = buffers
        if self.best_params is not None:
            state["best_params"] = self.best_params.cpu()
        if self.best_buffers is not None:
            state["best_buffers"] = self.best_buffers
        if self.lightning is not None:
            state["lightning"] = self.lightning
        return state

    def restore(self, state: Checkpoint) -> None:
        """Go on from a checkpoint of ``state``, with the same bits."""
        self.params.copy_(state["params"])
        self.exp_avg.copy_(state["exp_avg"])
        self.exp_avg_sq.copy_(state["exp_avg_sq"])
        if self.average is not None and "average" in state:
            self.average.copy_(state["average"])
        set_buffers(self.model, state.get("buffers"))
        self.step, self.seconds = state["step"], state["seconds"]
        self.loss_sum, self.loss_steps = state["loss_sum"], state["loss_steps"]
        self.best_test_acc, self.best_step = state["best"]
        best = state.get("best_params")
        self.best_params = None if best is None else best.to(self.params.device)
        self.best_buffers = state.get("best_buffers")
        self.history = of_checkpoint(state)
        self.columns = dict.fromkeys(name for row in self.history for name in row.measured)
        self.val_points = state.get("val_points")
        self.wandb_id = state["wandb_id"]
        by_lightning = self.computed_by.engine == "lightning"
        self.lightning = state.get("lightning") if by_lightning else None  # of that step, for no later one
        if self.history and not (self.history[-1].finite or self.at_start):
            self.status = Status.DIVERGED
        else:
            self.status = self._reached()
        if "ckpt_source" in self.versions:  # the file may be another one by now
            self.versions["ckpt_source"] = state.get("versions", {}).get("ckpt_source")
        if self.done:  # nothing is computed here any more: the record names what computed it
            self.computed_by = ComputedBy.of(state, self.computed_by)
            there = state.get("versions", self.versions)
            of_measures = there.keys() & {"measure_source"}  # which may be asked for no more
            self.versions = {name: there.get(name) for name in (*self.versions, *of_measures)}

    def record(self) -> RunRecord:
        """The content of result.json. Before the first evaluation there is no accuracy."""
        last = self.history[-1] if self.history and self.history[-1].step > 0 else None
        after = self.steps_before if self.status.ended else self.config.counts_from  # one may diverge in any layer
        counts = last if last and last.step > after else None
        return RunRecord.of(
            self.config,
            self.status,
            best_test_acc=self.best_test_acc if counts else None,
            best_step=self.best_step if counts else None,
            final_test_acc=counts.test_acc if counts else None,
            **Summary.of(self.history, after)._asdict(),
            val_points=self.val_points,
            measured=last.measured or None if last else None,
            steps=self.steps_before + self.step,
            seconds=round(self.seconds, 3),
            params=self.params.numel(),
            stopped=self.stopped or self.ended_by if self.status == Status.STOPPED else None,
            **self.computed_by._asdict(),
            **self.versions,
        )

    def write_begun(self) -> None:
        """Write begun.json, so that the run can be identified in training, or after it was killed. Raises OSError."""
        if self.directory is not None:
            write_begun(self.directory, Begun(self.config, self.wandb_id))

    def unlock(self) -> None:
        """Let others train in the run's directory."""
        if self.lock:
            self.lock.release()

    def let_go(self) -> None:
        """Let go of the data, where nobody will ask for them again: those of a long sweep would fill the memory."""
        self.data = None

    def save(self) -> None:
        """Write a checkpoint, the history, and result.json if training has ended. Raises OSError.

        The disk is waited for where it matters: for a checkpoint, and at the end for the record and all renames. A
        rename that is lost with the power leaves the checkpoint before. The history follows from the checkpoint.
        """
        if self.directory is None:
            return
        state = self.state()
        write_checkpoint(self.directory, with_state_dicts(state, self.trained))
        self.checkpointed = time.monotonic()
        history = write_history(self.directory, self.history)
        if self.done:
            best = weights_digest(state["best_params"]) if "best_params" in state else None
            write_record(self.directory, self.record(), Digests(weights_digest(evaluated(state)), history, best))
            (self.directory / BEGUN).unlink(missing_ok=True)
