"""``engine=lightning`` and the library for Lightning's users: equal numbers, resume, refusals, callbacks, loggers."""

import contextlib
import dataclasses
import inspect
import json
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest
import pytorch_lightning as pl
import torch
import yaml
from conftest import SMALL, read_checkpoint, small
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint, Timer

from fractal_ifs import (
    MLP,
    Classifier,
    ConfigError,
    FractalDataModule,
    FractalDistribution,
    load,
    run,
)
from fractal_ifs.config.annotations import fitted
from fractal_ifs.config.compose import compose
from fractal_ifs.config.lightning import OURS, SHOWN, USUAL, trainer_flags
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.data.modules import CIFAR10DataModule
from fractal_ifs.data.order import Numbers, OrderedLoader, PointBatches
from fractal_ifs.data.points import fractal_points
from fractal_ifs.data.seeds import permutation, stream
from fractal_ifs.files import CONF
from fractal_ifs.results.protocol import setting_of
from fractal_ifs.results.rows import row_of, train_command
from fractal_ifs.runs.begin import begin
from fractal_ifs.runs.records import RunRecord, Status, read_record
from fractal_ifs.runs.run import Run
from fractal_ifs.runs.versions import ComputedBy
from fractal_ifs.sweeps.finished import finished_jobs
from fractal_ifs.training import lightning
from fractal_ifs.training.grouping import groups_of
from fractal_ifs.training.lightning_parts import LOGGERS
from fractal_ifs.training.trackio_logger import TrackioLogger
from fractal_ifs.training.train import train

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (".*many workers", ".*treespec", ".*logging interval", ".*GPU available", ".*srun")
]


def trained(config: RunConfig, directory: Path | None = None) -> Run:
    [outcome] = train([Job(config, directory)], threads=1)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@contextlib.contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Within: a run is trained, which is killed where it has written its checkpoint of a step."""
    pause = lightning.Keeper.pause

    def killed(keeper: Any, trainer: Any) -> None:
        pause(keeper, trainer)
        if keeper.run.step == step:
            raise RuntimeError("killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightning, "CHECKPOINT_SECONDS", -1.0)
        patch.setattr(lightning.Keeper, "pause", killed)
        with pytest.raises(RuntimeError, match="killed"):
            yield


def numbers(run: Run) -> list[tuple[Any, ...]]:
    """The history without its seconds."""
    return [(row.step, row.train_loss, row.test_loss, row.test_acc) for row in run.history]


def equal(one: Run, other: Run) -> bool:
    vectors = ("params", "exp_avg", "exp_avg_sq")
    return numbers(one) == numbers(other) and all(torch.equal(getattr(one, v), getattr(other, v)) for v in vectors)


# The library


def test_five_lines_of_the_readme(tmp_path):
    trainer = pl.Trainer(max_steps=60, accelerator="cpu", logger=False, default_root_dir=tmp_path)
    model = Classifier(MLP(2, 20, 5))
    trainer.fit(model, FractalDataModule("vicsek", curve=4, data={"train_size": 2000, "test_size": 100}))
    assert {"train_loss", "test_loss", "test_acc", "val_acc"} <= trainer.callback_metrics.keys()
    path = trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    again = Classifier.load_from_checkpoint(path, weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    x = torch.randn(7, 2)
    assert torch.equal(model.eval()(x), again.eval()(x))


class Mine(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 3)

    def forward(self, x):
        return self.linear(x)


def test_any_network_loss_optimizer_and_schedule(tmp_path):
    """Whose classes and functions a checkpoint can't hold, so they are given again."""
    torch.manual_seed(0)
    steps: list[float] = []

    def schedule(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: steps.append(step) or 1 / (1 + step))

    def optimizer(parameters):
        return torch.optim.SGD(parameters, 0.1, momentum=0.9)

    x = torch.randn(400, 2)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long()), 50)
    options: dict[str, Any] = {"enable_model_summary": False, "enable_progress_bar": False, "logger": False}
    trainer = pl.Trainer(max_steps=40, accelerator="cpu", default_root_dir=tmp_path, **options)
    model = Classifier(Mine(), "cross_entropy", optimizer, schedule=schedule)
    trainer.fit(model, data, data)
    assert trainer.callback_metrics["test_acc"] > 0.75
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 / 41)
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    with pytest.raises(ConfigError, match=r"^network=\?\?\?: must be a torch.nn.Module; load_from_checkpoint"):
        Classifier.load_from_checkpoint(tmp_path / "mine.ckpt", weights_only=True)
    again = Classifier.load_from_checkpoint(tmp_path / "mine.ckpt", network=Mine(), weights_only=True)
    assert torch.equal(again(x), model(x))
    with pytest.raises(
        ConfigError, match=r"^optimizer: was a function, which no checkpoint holds: load_from_checkpoint"
    ):
        again.configure_optimizers()
    bad: Any = (({"loss": "hing"}, "loss=hing: must be one of"), ({"lr": 0}, "lr=0: must be"))
    bad += (({"schedule": "cosine"}, "schedule=cosine: must be a function"),)
    for keys, told in bad:
        with pytest.raises(ConfigError, match=f"^{told}"):
            Classifier(MLP(2, 2, 1), **keys)


def test_a_column_of_outputs_is_refused(tmp_path):
    """With labels (b,) a loss of one's own would compare all with all."""
    model = Classifier(torch.nn.Linear(2, 1), lambda f, y: (f - y).square().mean())
    keys: Any = {"max_steps": 1, "accelerator": "cpu", "logger": False, "default_root_dir": tmp_path}
    data = FractalDataModule("vicsek", curve=4, data={"train_size": 200, "test_size": 20})
    with pytest.raises(ConfigError, match=r"^network: its output must be \(b,\) or \(b, classes\), not \(20, 1\)$"):
        pl.Trainer(**keys).fit(model, data)
    [f] = pl.Trainer(**keys).predict(Classifier(MLP(2, 4, 1)), data) or []
    assert isinstance(f, torch.Tensor)
    assert f.shape == (20,)


@pytest.mark.parametrize(
    ("labels", "loss", "told"),
    [
        (torch.ones(20, 1), "hinge", r"labels: must be of shape \(20,\), not \(20, 1\)"),
        (torch.arange(20) % 2, "hinge", r"labels: must be -1 and \+1 for outputs \(b,\), there is a 0"),
        (torch.arange(20) % 2 > 0, "hinge", r"labels: must be -1 and \+1 for outputs \(b,\), there is a 0"),
        (torch.ones(20) * 3, "hinge", r"labels: must be -1 and \+1 for outputs \(b,\), there is a 3"),
        (
            torch.ones(20),
            "cross_entropy",
            r"loss=cross_entropy: must have outputs \(b, classes\), not \(20,\); those go with loss=hinge",
        ),
        (
            torch.ones(20),
            lambda f, y: (f[:3] - 1).abs(),
            r"loss: must be one number, or one for each point, not \(3,\)",
        ),
    ],
    ids=["column", "zeros", "bools", "threes", "classes", "loss"],
)
def test_labels_and_losses_that_do_not_fit_are_refused(tmp_path, labels, loss, told):
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(20, 2), labels), 20)
    keys: Any = {"max_steps": 1, "accelerator": "cpu", "logger": False, "default_root_dir": tmp_path}
    model = Classifier(MLP(2, 4, 1), cast(Any, loss))
    with pytest.raises(ConfigError, match=f"^{told}$"):
        pl.Trainer(**keys, num_sanity_val_steps=0).fit(model, data, data)
    with pytest.raises(ConfigError, match=f"^{told}$"):
        pl.Trainer(**keys).validate(model, data)


@pytest.mark.parametrize(
    ("labels", "loss", "told"),
    [
        (torch.arange(20) % 3, "hinge", r"loss=hinge: must have outputs \(b,\), not \(20, 2\); .* loss=cross_entropy"),
        (torch.ones(20, 2), "squared", r"loss=squared: must have outputs \(b,\), not \(20, 2\); .*"),
        (torch.arange(20) % 3, "cross_entropy", r"labels: must be 0 to 1 for outputs \(b, 2\), there is a 2"),
        (-torch.ones(20).long(), "cross_entropy", r"labels: must be 0 to 1 for outputs \(b, 2\), there is a -1"),
        (
            torch.ones(20),
            "cross_entropy",
            r"labels: must be whole numbers for outputs .*, not torch.float32",
        ),
    ],
)
def test_labels_of_classes_that_do_not_fit_are_refused(tmp_path, labels, loss, told):
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(20, 2), labels), 20)
    keys: Any = {"max_steps": 1, "accelerator": "cpu", "logger": False, "default_root_dir": tmp_path}
    with pytest.raises(ConfigError, match=f"^{told}$"):
        pl.Trainer(**keys, num_sanity_val_steps=0).fit(Classifier(torch.nn.Linear(2, 2), loss), data, data)


@pytest.mark.parametrize(
    ("labels", "loss", "network"),
    [
        (torch.tensor([0, 1, -100, 1] * 5), "cross_entropy", torch.nn.Linear(2, 2)),  # torch's label of no class
        (torch.linspace(0.1, 1, 20), "squared", MLP(2, 4, 1)),
    ],
)
def test_what_a_loss_takes_besides(tmp_path, labels, loss, network):
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(20, 2), labels), 20)
    keys: Any = {"max_steps": 1, "accelerator": "cpu", "logger": False, "default_root_dir": tmp_path}
    pl.Trainer(**keys, enable_checkpointing=False).fit(Classifier(network, loss), data, data)


def test_labels_may_be_shares_of_classes(tmp_path):
    x = torch.randn(20, 2)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.softmax(1)), 20)
    keys: Any = {"accelerator": "cpu", "logger": False, "default_root_dir": tmp_path}
    [found] = pl.Trainer(**keys).validate(Classifier(torch.nn.Identity(), "cross_entropy"), data)
    assert found["test_acc"] == 1


def test_the_rate_is_that_of_a_named_optimizer():
    def optimizer(parameters):
        return torch.optim.SGD(parameters, 0.1)

    assert Classifier(MLP(2, 2, 1)).hparams["lr"] == 1e-3
    assert Classifier(MLP(2, 2, 1), optimizer=optimizer).hparams["lr"] is None
    with pytest.warns(UserWarning, match=r"^lr=0.01: counts for nothing"):
        Classifier(MLP(2, 2, 1), optimizer=optimizer, lr=0.01)


def softly(f, y):
    return torch.nn.functional.softplus(-3 * y * f)


def test_a_loss_of_ones_own_is_never_another_after_loading(tmp_path, monkeypatch):
    """Not given again, it is refused where it is needed; a run's own is found by the run's config."""
    batch = torch.randn(20, 2), torch.ones(20)
    trainer = pl.Trainer(max_steps=1, accelerator="cpu", logger=False, default_root_dir=tmp_path)
    model = Classifier(MLP(2, 4, 1), lambda f, y: softly(f, y).mean())
    trainer.fit(model, FractalDataModule("vicsek", curve=4, data={"train_size": 200, "test_size": 20}))
    trainer.save_checkpoint(path := tmp_path / "own.ckpt")
    for _ in range(2):
        again = Classifier.load_from_checkpoint(path, weights_only=True)
        assert torch.equal(again(batch[0]), model(batch[0]))
        with pytest.raises(
            ConfigError, match=r"^loss: was a function, which no checkpoint holds: load_from_checkpoint"
        ):
            again.loss_of(again(batch[0]), batch[1])
        trainer.strategy.connect(again)
        trainer.save_checkpoint(path := tmp_path / "again.ckpt")  # which knows no more than the first
    given = Classifier.load_from_checkpoint(path, loss=softly, weights_only=True)
    assert torch.equal(given.loss_of(given(batch[0]), batch[1]), softly(given(batch[0]), batch[1]).mean())

    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "soft.yaml").write_text("_target_: test_lightning.softly\n")
    config = composed(engine="lightning", loss="soft", optimizer="sgd", schedule="cosine", steps=20, eval_every=20,
                      callbacks=["best_checkpoint"], hydra__searchpath=[str(tmp_path)])  # fmt: skip
    trained(config, tmp_path / "run")
    best = Classifier.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert torch.equal(best.loss_of(best(batch[0]), batch[1]), softly(best(batch[0]), batch[1]).mean())
    [[optimizer], [schedule]] = best.configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    assert isinstance(schedule["scheduler"], torch.optim.lr_scheduler.LambdaLR)


def test_data_modules_take_names(tmp_path):
    named = FractalDataModule("vicsek", curve=4, data={"train_size": 300, "test_size": 20}, seed=3)
    keys = yaml.safe_load((CONF / "fractal" / "vicsek.yaml").read_text())
    written = FractalDataModule(keys, "4", named.data, seed=3)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(keys))
    own = FractalDataModule(
        str(tmp_path / "mine.yaml"), yaml.safe_load((CONF / "curve" / "4.yaml").read_text()), named.data, 3
    )
    c = small(fractal="vicsek", curve=4, data__train_size=300, data__test_size=20, seed=3)
    expected = fractal_points(c.fractal, c.curve, c.data, 3)
    nodes: Any = [OmegaConf.create(each) for each in (keys, {"train_size": 300, "test_size": 20})]
    composed = FractalDataModule(nodes[0], 4, nodes[1], 3)
    for module in (named, written, own, composed):
        module.setup()
        assert module.points is not None
        assert torch.equal(module.points.x_train, expected.x_train)
    bad: Any = (
        ({"fractal": "vicsec"}, "fractal=vicsec: unknown; nearest: vicsek"),
        ({"fractal": "vicsek", "curve": 9}, "curve=9: unknown"),
        ({"fractal": "vicsek", "data": {"size": 3}}, "data.size=3: there is no such key"),
        ({"fractal": "vicsek", "batch_size": 0}, "batch_size=0: must be a whole number >= 1"),
        (
            {"fractal": {**yaml.safe_load((CONF / "fractal" / "vicsek.yaml").read_text()), "depth": 0}},
            "fractal.depth=0",
        ),
    )
    for keys, told in bad:
        with pytest.raises(ConfigError, match=f"^{told}"):
            FractalDataModule(**keys)


def test_depth_of_a_mapping_and_of_a_file_is_kept(tmp_path):
    keys = {**yaml.safe_load((CONF / "fractal" / "vicsek.yaml").read_text()), "depth": 2}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(keys))
    for fractal in (keys, str(tmp_path / "mine.yaml")):
        assert FractalDistribution(fractal).depth == 2
        assert int(FractalDistribution(fractal).sample(1000).level.max()) == 3
        module = FractalDataModule(fractal, data={"train_size": 1000, "test_size": 10})
        module.setup()
        assert module.points is not None
        assert torch.equal(module.points.x_train, FractalDistribution(keys).sample(1000, stream(0, "train")).x)
        assert FractalDistribution(fractal, depth=4).depth == 4


def test_order_of_batches_is_that_of_every_engine():
    x, y = torch.arange(23.0)[:, None], torch.ones(23)
    loader = OrderedLoader(PointBatches(x, y, seed=5, batch_size=4), 5)
    for epoch in range(3):
        seen = torch.cat([batch[:, 0] for batch, _ in loader]).long().numpy()
        assert (seen == permutation(stream(5, "shuffle"), epoch, 23)[:20]).all()
    half = iter(loader)
    assert len([next(half), next(half)]) == 2
    other = OrderedLoader(PointBatches(x, y, seed=5, batch_size=4), 5)
    other.load_state_dict(loader.state_dict())
    rest = [batch for batch, _ in other]
    assert len(rest) == 3
    assert all(torch.equal(a, b) for a, (b, _) in zip(rest, half, strict=True))
    other.numbers.set_epoch(1)  # Lightning's way
    assert (next(iter(other))[0][:, 0].long().numpy() == permutation(stream(5, "shuffle"), 1, 23)[:4]).all()


# The engine


@pytest.mark.parametrize(
    ("keys", "tolerance"),
    [
        ({"lr": 5e-4, "width": 20, "depth": 5}, 1e-6),
        ({"lr": 1e-2, "optimizer": "sgd", "loss": "logistic"}, 1e-6),
        ({"lr": 1e-3, "width": 20, "depth": 5, "trainer__precision": "64-true"}, 1e-12),
        ({"lr": 1e-3, "loss": "squared", "trainer__precision": "64-true", "optimizer": "sgd"}, 1e-12),
    ],
)
def test_as_the_stacked_engine_after_300_steps(keys, tolerance):
    ours, theirs = (trained(small(steps=300, engine=engine, **keys)) for engine in ("torch", "lightning"))
    assert (ours.params - theirs.params).abs().max() < tolerance
    assert (ours.params - Run(ours.config, None).params).abs().max() > 1e-3  # they have learned
    for one, other in zip(numbers(ours), numbers(theirs), strict=True):
        assert one == pytest.approx(other, abs=max(tolerance, 1e-7))
    assert theirs.record()["engine"] == "lightning"


@pytest.mark.parametrize("objective", ["test_acc", "val_acc"])
def test_what_callbacks_know_as_val_acc_is_of_the_set_that_objective_names(monkeypatch, objective):
    seen = []
    ended = lightning.Keeper.on_validation_end

    def hear(keeper, trainer, module):
        seen.append(float(trainer.callback_metrics["val_acc"]))
        ended(keeper, trainer, module)

    monkeypatch.setattr(lightning.Keeper, "on_validation_end", hear)
    keys = {"measures": ["val_acc"], "data.val_size": 170, "objective": objective}
    run = trained(composed(steps=60, eval_every=20, engine="lightning", **keys))
    rows = [row for row in run.history if row.step]
    assert seen == pytest.approx([row.test_acc if objective == "test_acc" else row.measured["val_acc"] for row in rows])
    assert all(row.test_acc != row.measured["val_acc"] for row in rows)


STOPPING: dict[str, Any] = {"callbacks": ["early_stopping"]}


@pytest.mark.parametrize(
    ("callbacks", "different"),
    [({}, 1), (STOPPING, 1), ({**STOPPING, "callbacks.early_stopping.monitor": "val_acc"}, 3)],
)
def test_a_run_that_callbacks_end_by_validation_is_another(callbacks, different, tmp_path):
    """By its objective, and by its validation set. Where nothing is chosen by these they change nothing."""
    asked = [("test_acc", 100), ("test_acc", 200), ("val_acc", 100), ("val_acc", 200)]
    keys = {"engine": "lightning", "measures": ["val_acc"], **callbacks}
    configs = [composed(objective=objective, **{"data.val_size": size}, **keys) for objective, size in asked]
    assert len({config.fingerprint for config in configs}) == different
    assert [config.by_test is not None for config in configs] == [False, False, *[different > 1] * 2]
    if different > 1:  # of a version that gave callbacks the test accuracy by that name
        record = RunRecord.of(configs[2], Status.FINISHED, best_test_acc=0.6, best_step=10)
        content = {**record.plain(), "fingerprint": configs[2].by_test}
        (tmp_path / "result.json").write_text(
            json.dumps({name: content[name] for name in content if name != "digests"})
        )
        stored = read_record(tmp_path)
        assert stored is not None
        assert stored.fingerprint == configs[2].by_test
        with pytest.raises(ConfigError, match=r"another config \(whose callbacks had the test accuracy as val_acc\)"):
            finished_jobs([Job(configs[2], tmp_path)])


def test_a_profile_is_a_file_of_the_run(tmp_path):
    trained(composed(steps=20, eval_every=20, engine="lightning", **{"+trainer.profiler": "simple"}), tmp_path)
    assert "RunModule.optimizer_step" in (tmp_path / "fit-profile.txt").read_text()


def test_a_clip_of_ours_stands_beside_lightnings_null():
    """As templates have ``trainer.gradient_clip_val: null``."""
    keys = {"steps": 20, "eval_every": 20, "engine": "lightning"}
    plain, *clipped = (
        trained(composed(**keys, **more))
        for more in ({}, {"optimizer.clip": 0.01}, {"optimizer.clip": 0.01, "+trainer.gradient_clip_val": None})
    )
    assert torch.equal(clipped[0].params, clipped[1].params)
    assert not torch.equal(clipped[0].params, plain.params)
    assert clipped[0].config.fingerprint == clipped[1].config.fingerprint


KILLED = [
    ({}, (15, 16, 40)),  # 15 batches in an epoch, 20 steps to an evaluation
    ({"+trainer.accumulate_grad_batches": 3, "optimizer": "sgd"}, (7, 60)),
    ({"trainer__precision": "64-true", "+trainer.gradient_clip_val": 0.01}, (20,)),
]


@pytest.mark.parametrize(("keys", "steps"), KILLED)
def test_killed_and_resumed_to_equal_bits(tmp_path, keys, steps):
    config = composed(steps=120, eval_every=20, engine="lightning", **keys)
    whole = trained(config)
    assert whole.step == 120
    for step in steps:
        with killed_at(step):
            trained(config, tmp_path / str(step))
        assert equal(trained(config, tmp_path / str(step)), whole)
        assert f"training from step {step} to" in (tmp_path / str(step) / "train.log").read_text()


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize("ends", [(3,), (3, 6), (4, 6, 9)])
def test_a_trainer_of_ones_own_goes_on_from_the_ends_of_several_epochs(tmp_path, ends):
    def fit(steps: int, ckpt_path: Path | None) -> Classifier:
        kept = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = pl.Trainer(
            max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, callbacks=[kept], limit_val_batches=0,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
        model = Classifier(MLP(2, 5, 1), lr=1e-2)
        data = FractalDataModule("vicsek", 1, data={"train_size": 350, "test_size": 10})  # three batches
        trainer.fit(model, data, ckpt_path=ckpt_path)
        return model

    torch.manual_seed(0)
    whole, ckpt_path = fit(12, None), None
    for kept in tmp_path.glob("*.ckpt"):
        kept.unlink()
    for step in ends:
        torch.manual_seed(0)
        fit(step, ckpt_path)
        ckpt_path = tmp_path / f"step={step}.ckpt"
    found = fit(12, ckpt_path).state_dict()
    assert all(torch.equal(found[name], weights) for name, weights in whole.state_dict().items())


def test_a_loader_begins_where_an_epoch_does():
    """However far the last iteration came; Lightning says which epoch it is, and where it goes on."""
    numbers = Numbers(4)
    assert next(iter(numbers)) == 0
    assert [*numbers] == [4, 5, 6, 7]
    assert [*numbers] == [8, 9, 10, 11]
    numbers.set_epoch(0)
    assert [n for n, _ in zip(numbers, "ab", strict=False)] == [0, 1]
    numbers.set_epoch(0)  # another fit
    assert [*numbers] == [0, 1, 2, 3]
    numbers.set_epoch(5)
    assert [*numbers] == [20, 21, 22, 23]
    numbers.load(8)
    for epoch in (1, 2):  # Lightning may begin two before it takes a batch
        numbers.set_epoch(epoch)
    assert [*numbers] == [8, 9, 10, 11]
    numbers.set_epoch(3)
    assert [*numbers] == [12, 13, 14, 15]
    for number, epoch in ((6, 1), (8, 2), (8, 1)):  # the last is Lightning's count after a second restart at an end
        numbers = Numbers(4)
        numbers.load(number)
        numbers.set_epoch(epoch)
        assert [*numbers] == [*range(number, 8 if number == 6 else 12)]
        numbers.set_epoch(epoch + 1)
        assert next(iter(numbers)) == (8 if number == 6 else 12)


def test_processes_of_a_trainer_share_out_each_batch():
    module = FractalDataModule("vicsek", 4, data={"train_size": 300, "test_size": 10})
    whole = [batch for batch, _ in zip(module.train_dataloader(), range(3), strict=True)]
    for number in (0, 1):
        module.trainer = cast(Any, SimpleNamespace(world_size=2, global_rank=number))
        loader = module.train_dataloader()
        assert isinstance(loader.sampler, torch.utils.data.DistributedSampler)  # so Lightning puts none in its place
        for (x, y), (x_all, y_all) in zip(loader, whole, strict=True):
            assert torch.equal(x, x_all[number::2])
            assert torch.equal(y, y_all[number::2])
    module.trainer = cast(Any, SimpleNamespace(world_size=3, global_rank=0))
    with pytest.raises(ConfigError, match=r"^batch_size=100: must be a multiple of 3, the processes"):
        module.train_dataloader()


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_one_batch_can_be_fitted_again_and_again(tmp_path):
    """``overfit_batches`` puts a sampler of Lightning's in place of ours."""
    seen: list[torch.Tensor] = []

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append(batch[0])

    data = FractalDataModule("vicsek", 4, data={"train_size": 300, "test_size": 10})
    keys: Any = {"accelerator": "cpu", "logger": False, "default_root_dir": tmp_path, "callbacks": [Look()]}
    pl.Trainer(max_steps=3, overfit_batches=1, enable_checkpointing=False, **keys).fit(Classifier(MLP(2, 4, 1)), data)
    first, *others = seen
    assert len(others) == 2
    assert all(torch.equal(each, first) for each in others)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("fractal", "data=fractal: must be a mapping with keys of conf/data/fractal.yaml"),
        (5, "data=5: must be a mapping with keys of conf/data/fractal.yaml"),
        ({"val_size": 77}, "data.val_size=77: must be 0 here, where val_dataloader is the test set"),
    ],
)
def test_data_that_a_module_does_not_give_are_refused(data, told):
    with pytest.raises(ConfigError) as refused:
        FractalDataModule("vicsek", 1, data=data)
    assert str(refused.value) == told
    if isinstance(data, dict):
        with pytest.raises(ConfigError, match="val_size=77"):
            CIFAR10DataModule(data)


@pytest.mark.parametrize(
    ("keys", "steps"),
    [
        ({"eval_every": 20}, (15, 30, 45)),
        ({"eval_every": 15}, (15, 17, 30, 31)),
        ({"batch_size": 300}, (1, 2, 3)),  # each epoch is one batch
        ({"+trainer.accumulate_grad_batches": 3}, (5, 10)),
        ({"schedule": "cosine", "callbacks": ["early_stopping"]}, (30, 45)),
    ],
)
def test_killed_at_the_ends_of_several_epochs(tmp_path, keys, steps):
    """As a step is 1/15 of an epoch here, or all of it, it goes on twice where an epoch has ended."""
    config = composed(**{"engine": "lightning", "steps": 60, "eval_every": 20, **keys})
    whole = trained(config)
    for step in steps:
        with killed_at(step):
            trained(config, tmp_path)
    assert equal(trained(config, tmp_path), whole)


def composed(**keys: Any) -> RunConfig:
    """As ``small``, which can't take lists and new keys."""
    return compose(**{**SMALL, **keys})


def test_a_callback_ends_a_run_early_and_goes_on_where_it_was(tmp_path):
    """Its patience is counted over the kill, and the run has ended for good."""
    keys: dict[str, Any] = {"callbacks.early_stopping.monitor": "test_acc", "callbacks.early_stopping.mode": "min"}
    keys |= {"callbacks.early_stopping.patience": 6, "fractal": "cantor2d", "fractal.depth": 1, "lr": 1e-2}
    config = composed(engine="lightning", callbacks=["early_stopping"], steps=400, eval_every=10, **keys)
    whole = trained(config, tmp_path / "whole")
    assert whole.status == Status.STOPPED
    assert 60 <= whole.step < 400
    assert whole.record()["steps"] == whole.step == whole.history[-1].step
    with killed_at(40):
        trained(config, tmp_path / "killed")
    assert equal(trained(config, tmp_path / "killed"), whole)
    (tmp_path / "killed" / "result.json").unlink()  # killed before it was written
    assert equal(trained(config, tmp_path / "killed"), whole)
    record = read_record(tmp_path / "killed")
    assert record is not None
    assert (record.status, record.stopped) == (Status.STOPPED, "callbacks.early_stopping")
    assert load(tmp_path / "killed").record.steps == whole.step


class Ends(pl.Callback):
    """Ends training, for reasons of its own."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.global_step >= 30


class Changes(pl.Callback):
    """Changes the network when it has been measured for the last time."""

    def on_train_end(self, trainer, pl_module):
        with torch.no_grad():
            for parameter in pl_module.parameters():
                parameter.add_(1)


def test_the_network_that_is_kept_is_the_one_that_was_measured(tmp_path, caplog):
    changing = {"+callbacks.c": {"_target_": "test_lightning.Changes"}}
    found = trained(composed(engine="lightning", steps=100, eval_every=50, **changing), tmp_path / "changed")
    plain = trained(composed(engine="lightning", steps=100, eval_every=50), tmp_path / "plain")
    assert torch.equal(found.params, plain.params)
    assert "a callback changed weights after the last step; those measured then are kept" in caplog.text
    kept, expected = (load(tmp_path / name).model.state_dict() for name in ("changed", "plain"))
    assert all(torch.equal(kept[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"+trainer.max_time": {"microseconds": 1}}, "trainer.max_time"),
        (
            {"+callbacks.t": {"_target_": "pytorch_lightning.callbacks.Timer", "duration": {"microseconds": 1}}},
            "callbacks.t",
        ),
        ({"+callbacks.x": {"_target_": "test_lightning.Ends"}}, "callbacks.x"),
        (
            {"+callbacks.x": {"_target_": "test_lightning.Ends"}, "+callbacks.y": {"_target_": "test_lightning.Ends"}},
            "a flag or callback of Lightning's",
        ),
    ],
)
def test_what_ended_a_run_is_told_by_its_key(tmp_path, keys, told):
    run = trained(
        composed(engine="lightning", callbacks=["best_checkpoint"], steps=100, eval_every=20, **keys), tmp_path
    )
    assert run.step < 100
    record = read_record(tmp_path)
    assert record is not None
    assert (record.status, record.stopped) == (Status.STOPPED, told)


def test_a_run_whose_time_is_up_as_it_goes_on_ends_there(tmp_path, monkeypatch):
    config = composed(engine="lightning", steps=100, eval_every=20, **{"+trainer.max_time": {"hours": 1}})
    monkeypatch.setattr(lightning, "CHECKPOINT_SECONDS", -1.0)
    pause = lightning.Keeper.pause

    def killed(keeper, trainer):
        [timer] = [each for each in trainer.callbacks if isinstance(each, Timer)]
        timer._offset = 3600.0 if keeper.run.step == 30 else 0.0
        pause(keeper, trainer)
        if keeper.run.step == 30:
            raise RuntimeError("killed")

    monkeypatch.setattr(lightning.Keeper, "pause", killed)
    with pytest.raises(RuntimeError, match="killed"):
        trained(config, tmp_path)
    monkeypatch.setattr(lightning.Keeper, "pause", pause)
    run = trained(config, tmp_path)
    assert (run.step, run.status, run.ended_by) == (30, Status.STOPPED, "trainer.max_time")
    assert [row.step for row in run.history] == [20, 30]


def test_callbacks_and_loggers_in_the_directory(tmp_path):
    config = composed(engine="lightning", callbacks=["best_checkpoint", "lr_monitor"], logger=["csv", "lightning_csv"],
                      steps=100, eval_every=20, **{"trainer.log_every_n_steps": 10})  # fmt: skip
    ended = trained(config, tmp_path)
    best = Classifier.load_from_checkpoint(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    x, y = ended.data.x_test, ended.data.y_test
    assert (y * best(x) > 0).double().mean().item() == ended.best_test_acc
    lines = (tmp_path / "lightning_csv" / "metrics.csv").read_text().splitlines()
    assert {"step", "train_loss", "test_acc", "lr-Adam"} <= set(lines[0].split(","))
    assert len(lines) > 10
    assert torch.equal(load(tmp_path).model(x), ended.model(x))
    assert config.fingerprint == small(steps=100, eval_every=20).fingerprint  # they only look


@pytest.mark.parametrize("seconds", [1e9, -1.0])  # killed without a checkpoint of its own, and with one
def test_lightnings_checkpoints_are_those_of_a_run_that_was_never_killed(tmp_path, monkeypatch, seconds):
    every = {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "filename": "{step}", "save_top_k": -1}
    keys: dict[str, Any] = {"callbacks": ["best_checkpoint"], "+callbacks.every": {**every, "dirpath": "every"}}
    config = composed(engine="lightning", steps=120, eval_every=20, lr=1e-2, **keys)
    trained(config, tmp_path / "whole")
    monkeypatch.setattr(lightning, "CHECKPOINT_SECONDS", seconds)
    measure, pause = lightning.Keeper.measure, lightning.Keeper.pause

    def killed(keeper):
        measure(keeper)
        if keeper.run.step == 100:
            raise RuntimeError("killed")

    def keeps_once(keeper, trainer):
        if keeper.run.step <= 40:
            pause(keeper, trainer)

    monkeypatch.setattr(lightning.Keeper, "measure", killed)
    monkeypatch.setattr(lightning.Keeper, "pause", keeps_once)
    with pytest.raises(RuntimeError, match="killed"):
        trained(config, tmp_path / "run")
    monkeypatch.setattr(lightning.Keeper, "measure", measure)
    monkeypatch.setattr(lightning.Keeper, "pause", pause)
    for overwrite in (False, True):
        trained(dataclasses.replace(config, overwrite=overwrite), tmp_path / "run")
        for folder in ("checkpoints", "every"):
            names = sorted(path.name for path in (tmp_path / "whole" / folder).iterdir())
            assert sorted(path.name for path in (tmp_path / "run" / folder).iterdir()) == names
            for name in names:
                one, other = (torch.load(tmp_path / at / folder / name, weights_only=True) for at in ("whole", "run"))
                assert one["global_step"] == other["global_step"]
                assert all(torch.equal(one["state_dict"][key], other["state_dict"][key]) for key in one["state_dict"])


def test_checkpoints_in_a_directory_of_several_runs_are_left(tmp_path):
    keys: dict[str, Any] = {"callbacks": ["best_checkpoint"], "callbacks.best_checkpoint.dirpath": "../all"}
    for curve in (1, 4):
        trained(composed(engine="lightning", curve=curve, steps=40, eval_every=20, **keys), tmp_path / str(curve))
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["best-v1.ckpt", "best.ckpt"]


def test_signals_leave_a_run_that_goes_on(tmp_path):
    """From the command line: SIGTERM between two steps, the state of the run and of Lightning kept."""
    words = ["engine=lightning", "logger=csv", "width=8", "depth=2", "data.train_size=1500", "data.test_size=100",
             "eval_every=100", f"hydra.run.dir={tmp_path}/run"]  # fmt: skip
    command = [sys.executable, "-m", "fractal_ifs.train", *words]
    environment = {**os.environ, "FRACTAL_IFS_CHECKPOINT_SECONDS": "0"}
    process = subprocess.Popen([*command, "steps=100000000"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 300
        while not (tmp_path / "run" / "checkpoint.pt").exists() and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, told
    assert "interrupted: the same command goes on from here" in told
    record = read_record(tmp_path / "run")
    assert record is not None
    assert record.status == Status.INTERRUPTED
    assert record.steps
    config = dataclasses.replace(record.config, steps=100_000_000)
    again = Run(config, None)
    again.computed_by = ComputedBy(engine="lightning")
    again.restore(read_checkpoint(tmp_path / "run"))
    assert again.step == record.steps
    assert again.lightning is not None
    assert json.loads(again.lightning)["rest"]["global_step"] == record.steps


def test_a_run_begun_by_another_engine_is_left(tmp_path):
    config = small(steps=100, eval_every=50)
    begun = Run(dataclasses.replace(config, engine="torch"), tmp_path)
    begun.step, begun.loss_steps = 10, 10
    begun.save()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(ConfigError, match=r"was begun by another engine than lightning: go on with that, engine=auto$"):
        trained(dataclasses.replace(config, engine="lightning"), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_run_that_another_engine_took_over_is_left(tmp_path):
    """What Lightning knew of it is of an earlier step."""
    config = small(steps=100, eval_every=50)
    run = Run(dataclasses.replace(config, engine="lightning"), tmp_path)
    run.computed_by, run.lightning, run.step, run.loss_steps = ComputedBy(engine="lightning"), "{}", 10, 10
    run.save()
    other = begin(Job(dataclasses.replace(config, engine="torch"), tmp_path), "cpu", ComputedBy(engine="torch"))
    assert (other.step, other.lightning) == (10, None)
    other.step = other.loss_steps = 20
    other.save()
    other.unlock()
    with pytest.raises(ConfigError, match=r"was begun by another engine than lightning: go on with that, engine=auto$"):
        trained(dataclasses.replace(config, engine="lightning"), tmp_path)


def test_a_callback_of_much_state_begins_anew(caplog):
    assert lightning._text("Mine", {"seen": [1] * 1000}) is not None
    assert lightning._text("Mine", {"seen": list(range(100_000))}) is None
    assert "Mine: begins anew when the run goes on after a kill" in caplog.text


def test_each_job_of_a_sweep_trains_alone(command, tmp_path):
    jobs = [Job(small(engine="lightning", seed=seed), None) for seed in range(3)]
    assert sorted(groups_of(jobs)) == [[0], [1], [2]]
    words = ["engine=lightning", "width=4", "depth=1", "steps=30", "eval_every=30", "logger=csv", "data.train_size=300"]
    ended = command("-m", *words, "workers=1", "data.test_size=50", "trainer.gradient_clip_val=0.5,1", "sweep=s")
    assert ended.status == 0, ended.err
    names = sorted(path.parent.name for path in (tmp_path / "multirun" / "s").glob("*/result.json"))
    assert [name.split("gradient_clip_val=")[1].split(",")[0] for name in names] == ["0.5", "1"]
    records = [read_record(tmp_path / "multirun" / "s" / name) for name in names]
    assert len({record.fingerprint for record in records if record}) == 2


def test_from_python(tmp_path):
    levels, state = [logging.getLogger(name).level for name in LOGGERS], torch.get_rng_state()
    record, model = run(engine="lightning", width=4, depth=1, steps=30, eval_every=30, logger="none",
                        data__train_size=300, data__test_size=50, trainer__gradient_clip_val=0.5)  # fmt: skip
    assert [logging.getLogger(name).level for name in LOGGERS] == levels
    assert torch.equal(torch.get_rng_state(), state)
    assert record["engine"] == "lightning"
    assert record["steps"] == 30
    assert sum(p.numel() for p in model.parameters()) == record["params"]
    with pytest.raises(ConfigError, match=r"^callbacks.best_checkpoint: writes files: give the run a directory$"):
        run(engine="lightning", callbacks="best_checkpoint", logger="none", steps=10)
    with pytest.raises(ConfigError, match=r"^logger=wandb: writes files: give the run a directory$"):
        run(logger="wandb", steps=10)


class FakeTrackio:
    """Trackio's functions, as far as they are called."""

    def __init__(self):
        self.began: list[Any] = []
        self.logged: list[Any] = []
        self.finished = 0

    def init(self, *names, config, embed):
        self.began.append((*names, config))
        return self

    def log(self, metrics, step=None):
        self.logged.append((step, metrics))

    def finish(self):
        self.finished += 1


def test_trackio_is_told_what_lightning_logs(tmp_path, monkeypatch):
    """A run, and where it goes on another one of the same group."""
    monkeypatch.setitem(sys.modules, "trackio", fake := FakeTrackio())
    monkeypatch.setattr("fractal_ifs.config.lightning.PACKAGES", {})
    config = composed(engine="lightning", steps=40, eval_every=20, logger=["csv", "trackio"])
    run = trained(config, tmp_path / "one")
    [(project, name, group, keys)] = fake.began
    assert (project, name, group) == ("fractal_ifs", "one", "one")
    assert keys["lr"] == config.lr
    tested = [metrics["test_acc"] for _, metrics in fake.logged if "test_acc" in metrics]
    assert tested == pytest.approx([row.test_acc for row in run.history])
    assert fake.finished == 1
    logger = TrackioLogger(str(tmp_path / "one"), "mine", "", "trackio.from_20")
    logger.log_metrics({"x": 1.0}, 3)
    assert fake.began[-1] == ("mine", "one.from_20", "one", {})
    assert fake.logged[-1] == (3, {"x": 1.0})


# Keys


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("trainer.gradient_clip_val=1", "trainer.gradient_clip_val: goes with engine=lightning, not engine=auto"),
        ("callbacks=early_stopping", "callbacks.early_stopping: goes with engine=lightning, not engine=auto"),
        ("logger=lightning_csv", "logger.lightning_csv: goes with engine=lightning, not engine=auto"),
        (
            "LN +trainer.gradient_clip=1",
            "trainer.gradient_clip=1: there is no such key; did you mean trainer.gradient_",
        ),
        ("LN trainer.gradient_clip=1", "trainer.gradient_clip=1: there is no such key; did you mean trainer.gradient_"),
        ("LN trainer.max_steps=5", "trainer.max_steps=5: follows from the run's own keys, here from steps"),
        ("LN trainer.gradient_clip_val=a", "trainer.gradient_clip_val=a: must be a number or null"),
        ("LN trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1: must be a number >= 0"),
        ("LN trainer.gradient_clip_val=nan", "trainer.gradient_clip_val=nan: must be a number >= 0"),
        (
            "LN optimizer.clip=.1 trainer.gradient_clip_algorithm=value",
            "optimizer.clip=0.1: is the largest norm; values are clipped at trainer.gradient_clip_val",
        ),
        ("LN trainer.gradient_clip_algorithm=foo", "trainer.gradient_clip_algorithm=foo: Lightning doesn't take this"),
        ("LN trainer.deterministic=foo", "trainer.deterministic=foo: must be true or false or warn or null"),
        ("LN trainer.detect_anomaly=1", "trainer.detect_anomaly=1: must be true or false"),
        ("LN trainer.log_every_n_steps=1.5", "trainer.log_every_n_steps=1.5: must be a whole number or null"),
        ("LN trainer.max_time=soon", "trainer.max_time=soon: Lightning doesn't take this"),
        ("LN trainer.max_time={seconds:0}", "trainer.max_time: must leave some time to train in"),
        ("LN trainer.precision=7", "trainer.precision=7: must be one of 32-true, bf16-mixed, 64-true"),
        (
            "LN trainer.accumulate_grad_batches=7",
            "trainer.accumulate_grad_batches=7: must be a whole number that divid",
        ),
        ("LN trainer.compile=true", "trainer.compile=true: must be false with engine=lightning"),
        ("LN training=layerwise", "training=layerwise: goes with the other engines, not engine=lightning"),
        ("LN callbacks=early", "callbacks=early: must be one of best_checkpoint, early_stopping, lr_monitor"),
        ("LN callbacks=[early]", "callbacks=early: must be one of best_checkpoint, early_stopping, lr_monitor"),
        ("LN +callbacks.x=3", "callbacks.x=3: must be keys with _target_, module.Class"),
        ("LN +callbacks.x._target_=os", "callbacks.x._target_=os: must be _target_, module.Class"),
        (
            "LN +callbacks.x._target_=os.path",
            "callbacks.x._target_=os.path: must be a class of pytorch_lightning.callbacks.callback.Callback",
        ),
        ("LN +callbacks.x._target_=no.X", "callbacks.x._target_=no.X: there is no module no"),
        (
            "LN +callbacks.x._target_=pytorch_lightning.callbacks.WeightAveraging",
            "callbacks.x: WeightAveraging changes whole checkpoints",
        ),
        (
            "LN +callbacks.x._target_=pytorch_lightning.callbacks.LearningRateFinder",
            "callbacks.x: LearningRateFinder searches in steps that no record has; hydra/sweeper=outward",
        ),
        (
            "LN +callbacks.x._target_=pytorch_lightning.callbacks.BatchSizeFinder",
            "callbacks.x: BatchSizeFinder searches in steps that no record has",
        ),
        (
            "LN +callbacks.x._target_=pytorch_lightning.callbacks.StochasticWeightAveraging +callbacks.x.swa_lrs=.1",
            "callbacks.x: StochasticWeightAveraging changes the network once it is measured",
        ),
        (
            "LN +callbacks.x={_target_:pytorch_lightning.callbacks.GradientAccumulationScheduler,scheduling:{0:2}}",
            "callbacks.x: GradientAccumulationScheduler changes what a step is; trainer.accumulate_grad_batches is",
        ),
        (
            "LN +callbacks.x._target_=pytorch_lightning.callbacks.RichProgressBar",
            "callbacks.x: Lightning doesn't take this (MisconfigurationException: Trainer was configured with",
        ),
        ("LN callbacks=lr_monitor", "callbacks=lr_monitor: needs a logger of Lightning's"),
        (
            "LN callbacks=early_stopping callbacks.early_stopping.mode=up",
            "callbacks.early_stopping: EarlyStopping doesn't",
        ),
        (
            "LN callbacks=early_stopping callbacks.early_stopping.patiense=3",
            "callbacks.early_stopping.patiense=3: there is no such key; to add one: +callbacks.early_stopping.",
        ),
        (
            "LN callbacks=early_stopping +callbacks.early_stopping.patiense=3",
            "callbacks.early_stopping.patiense=3: there is no such key; did you mean patience?",
        ),
        (
            "LN callbacks=early_stopping callbacks.early_stopping.patience=foo",
            "callbacks.early_stopping.patience=foo: must be a whole number",
        ),
        (
            "LN callbacks=early_stopping callbacks.early_stopping.patience=-1",
            "callbacks.early_stopping.patience=-1: must be a number >= 0",
        ),
        (
            "LN callbacks=early_stopping callbacks.early_stopping.monitor=acc",
            "callbacks.early_stopping.monitor=acc: must be one of train_loss, test_loss, test_acc, val_acc",
        ),
        (
            "LN callbacks=early_stopping +callbacks.early_stopping.patienc=3",
            "callbacks.early_stopping.patienc=3: there is no such key; did you mean patience?",
        ),
        (
            "LN logger=lightning_csv +logger.lightning_csv.flush_logs_every_n_steps=foo",
            "logger.lightning_csv.flush_logs_every_n_steps=foo: must be a whole number",
        ),
        (
            "LN +logger.x._target_=pytorch_lightning.loggers.Logger",
            "logger.x._target_=pytorch_lightning.loggers.Logger: must have what Logger asks of a class; lacks log_h",
        ),
        ("LN logger=mlflow", "logger.mlflow: mlflow is not installed; pip install mlflow"),
        ("LN logger=trackio", "logger.trackio: trackio is not installed; pip install trackio"),
    ],
)
def test_refused_in_one_line(command, words, told, tmp_path):
    package = told.partition(": ")[2].partition(" is not installed")[0]
    if package in ("mlflow", "trackio") and find_spec(package):
        pytest.skip(f"{package} is installed")
    given = words.replace("LN", "engine=lightning").split()
    ended = command("steps=10", "data.train_size=1500", *([] if "logger" in words else ["logger=none"]), *given)
    assert str(ended.status).startswith(f"error: {told}")
    assert "\n" not in str(ended.status)
    assert not list(tmp_path.iterdir())  # not even a directory


def test_a_flag_at_its_default_is_the_same_run():
    """And the run that an earlier version told apart is found."""
    usual = {"+trainer.gradient_clip_val": None, "+trainer.accumulate_grad_batches": 1}
    plain, given, other = (
        compose(engine="lightning", width=4, depth=1, **keys)
        for keys in ({}, usual, {"+trainer.gradient_clip_val": 0.5})
    )
    assert given.fingerprint == plain.fingerprint == "93bc7e515b4cc78d" != other.fingerprint
    assert setting_of(given) == setting_of(plain)
    assert "78d161b4ee3b9780" in given.fingerprints
    signature = inspect.signature(pl.Trainer.__init__).parameters
    assert {name: json.dumps(signature[name].default) for name in USUAL} == USUAL


def test_a_sweep_over_lists_of_callbacks(command, tmp_path):
    words = ["-m", "engine=lightning", "logger=none", "width=5", "depth=1", "steps=10", "eval_every=10", "sweep=s"]
    words += ["data.train_size=500", "data.test_size=100", "workers=1"]
    assert command(*words, "callbacks=[best_checkpoint],[early_stopping,best_checkpoint],[]").status == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "multirun" / "s").glob("*/result.json")]
    names = sorted(list(record["config"].get("callbacks", {})) for record in records)
    assert names == [[], ["best_checkpoint"], ["early_stopping", "best_checkpoint"]]
    ended = command(*words, "callbacks=[best_checkpoint],[foo]")
    assert ended.status == "error: callbacks=foo: must be one of best_checkpoint, early_stopping, lr_monitor"


def test_a_sweep_is_refused_before_its_directories_are_made(command, tmp_path):
    words = ["-m", "engine=lightning", "steps=10", "callbacks=early_stopping", "logger=none"]
    ended = command(*words, "callbacks.early_stopping.patience=1,foo")
    assert "callbacks.early_stopping.patience=foo: must be a whole number" in str(ended.status)
    assert not list(tmp_path.iterdir())


def test_values_are_as_annotations_have_them():
    def takes(n: int, x: float | None, on: bool, mode: Literal["a", "b"], where: Path | None, length: timedelta | None,
              names: list[int] | None, keys: dict[str, int] | None, any_thing, called: Callable[[int], int] | None,
    ): ...  # fmt: skip

    good = {
        "n": 3,
        "x": 1,
        "on": True,
        "mode": "b",
        "where": "a/b",
        "names": [1, 2],
        "keys": {"a": 1},
        "any_thing": "x",
    }
    assert fitted("k.", takes, good) == good
    assert fitted("k.", takes, dict.fromkeys(["x", "where", "names", "length", "called"])) == dict.fromkeys(
        ["x", "where", "names", "length", "called"]
    )
    assert repr(fitted("k.", takes, {"n": 1e3})) == "{'n': 1000}"
    for name, value, allowed in (
        ("n", True, "a whole number"),
        ("n", 1.5, "a whole number"),
        ("n", None, "a whole number"),
        ("x", "1", "a number or null"),
        ("on", 1, "true or false"),
        ("mode", "c", "a or b"),
        ("where", 3, "text or null"),
        ("length", "1 s", "null"),
        ("called", "print", "null"),
        ("names", [1, "a"], "a list or null"),
        ("keys", [1], "keys with values or null"),
    ):
        with pytest.raises(ConfigError, match=rf"^k\.{name}=.*: must be {allowed}$"):
            fitted("k.", takes, {name: value})


@pytest.mark.parametrize(
    ("group", "line"),
    [
        ("callbacks", "dirpath: /tmp/elsewhere"),
        ("callbacks", "dirpath: ../elsewhere"),
        ("callbacks", "dirpath: ~/elsewhere"),
        ("callbacks", "dirpath: ${oc.env:HOME}"),
        ("callbacks", "filename: ../../best"),
        ("logger", "save_dir: /tmp/elsewhere"),
        ("logger", "name: ../elsewhere"),
    ],
)
def test_a_file_of_choices_writes_in_the_runs_directory_alone(command, tmp_path, group, line):
    kind = {"callbacks": "callbacks.ModelCheckpoint", "logger": "loggers.CSVLogger"}[group]
    file = tmp_path / "mine" / group / "part.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"part:\n  _target_: pytorch_lightning.{kind}\n  {line}\n")
    words = ["engine=lightning", "steps=10", f"{group}=part", "hydra.searchpath=[mine]", "hydra.run.dir=run"]
    told = str(command(*words).status)
    assert told.startswith(
        f"error: mine/{group}/part.yaml: part.{line.replace(': ', '=')}: a file of {group}/ may name a"
    )
    assert not (tmp_path / "run").exists()


def test_a_relative_place_is_below_the_run(command, tmp_path):
    words = ["engine=lightning", "width=4", "depth=1", "steps=20", "eval_every=20", "data.train_size=300"]
    words += ["data.test_size=50", "callbacks=best_checkpoint", "logger=lightning_csv", "hydra.run.dir=run"]
    words += ["callbacks.best_checkpoint.dirpath=kept", "+logger.lightning_csv.save_dir=logs"]
    assert not command(*words).status
    assert (tmp_path / "run" / "kept" / "best.ckpt").exists()
    assert list((tmp_path / "run" / "logs").rglob("metrics.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(("group", "kind"), [("callbacks", "callbacks.Callback"), ("logger", "loggers.CSVLogger")])
def test_a_file_of_choices_brings_no_code(command, tmp_path, monkeypatch, group, kind):
    """Wherever its module lies, it is refused before it is imported, unless PYTHONPATH names its directory."""
    module, name = kind.split(".")
    bring = f"__import__('os').mkdir({str(tmp_path / 'evil')!r})\nfrom pytorch_lightning.{module} import {name}\n"
    for file in (tmp_path / "hook.py", tmp_path / "mine" / "brought.py", tmp_path / "mine" / group / "part.yaml"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(bring)
    monkeypatch.syspath_prepend(str(tmp_path))  # as of ``python -m``
    words = ["engine=lightning", "steps=10", "eval_every=10", "data.train_size=400", "data.test_size=50"]
    words += ["width=4", "depth=1", *(["logger=none"] if group == "callbacks" else [])]
    words += [f"{group}=part", "hydra.searchpath=[mine]", "hydra.run.dir=run"]
    for path, target, why in (
        ("", "hook", "lies where the command is called, which isn't enough"),
        ("", "mine.brought", "lies where the command is called, which isn't enough"),
        ("", "brought", "there is no module brought"),
        (str(tmp_path), "mine.brought", "lies in a directory of choices"),
    ):
        monkeypatch.setenv("PYTHONPATH", path)
        (tmp_path / "mine" / group / "part.yaml").write_text(f"part:\n  _target_: {target}.{name}\n")
        assert why in str(command(*words).status), target
    assert not (tmp_path / "evil").exists()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "mine"))
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    (tmp_path / "mine" / group / "part.yaml").write_text(f"part:\n  _target_: brought.{name}\n")
    assert not command(*words).status
    assert (tmp_path / "evil").exists()
    sys.modules.pop("brought")


def test_flags_in_the_fingerprint_and_in_records():
    plain, clipped = small(engine="lightning"), small(engine="lightning", **{"+trainer.gradient_clip_val": 1})
    assert plain.fingerprint == small().fingerprint
    assert clipped.fingerprint != plain.fingerprint
    shown = small(engine="lightning", **{"+trainer.detect_anomaly": True})
    assert shown.fingerprint == plain.fingerprint
    for config in (
        clipped,
        shown,
        composed(engine="lightning", callbacks=["early_stopping"], logger=["none", "lightning_csv"]),
    ):
        assert RunConfig.parse(json.loads(json.dumps(config.plain()))) == config
    patient = composed(engine="lightning", callbacks=["early_stopping"])
    assert patient.fingerprint != plain.fingerprint


def test_flags_are_those_of_the_installed_trainer():
    import inspect

    assert set(trainer_flags()) == set(inspect.signature(pl.Trainer.__init__).parameters) - {"self"}
    assert set(OURS) | set(SHOWN) <= {*trainer_flags(), "enable_autolog_hparams", "model_registry"}


def test_warnings_are_not_hidden_for_others():
    """The fit of a run leaves the filters as they were."""
    before = list(warnings.filters)
    trained(small(engine="lightning", steps=10, eval_every=10))
    assert list(warnings.filters) == before


def test_a_callback_of_ones_own(command, tmp_path, monkeypatch):
    (tmp_path / "mine" / "callbacks").mkdir(parents=True)
    (tmp_path / "mine" / "callbacks" / "counts.yaml").write_text("counts:\n  _target_: own_calls.Counts\n  to: 10\n")
    source = "from pytorch_lightning import Callback\n\nclass Counts(Callback):\n    def __init__(self, to):\n"
    source += "        self.to = to\n    def on_train_batch_end(self, trainer, *_):\n"
    source += "        trainer.should_stop = trainer.global_step >= self.to\n"
    (tmp_path / "mine" / "own_calls.py").write_text(source)
    words = ["engine=lightning", "callbacks=[counts]", "hydra.searchpath=[mine]", "logger=none", "width=6", "depth=2"]
    words += ["steps=40", "eval_every=20", "data.train_size=1500", "data.test_size=50"]
    told = str(command(*words).status)
    assert "callbacks.counts._target_=own_calls.Counts: there is no module own_calls; it must be importable" in told
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    assert command(*words).status == 0
    [path] = tmp_path.rglob("result.json")
    record = read_record(path.parent)
    assert record is not None
    assert record.steps == 10
    sys.modules.pop("own_calls")


def test_flags_and_callbacks_that_change_a_result_are_of_another_setting():
    def of(**keys):
        return setting_of(small(engine="lightning", **keys))

    plain = setting_of(small())
    assert of() == plain
    assert of(**{"+trainer__log_every_n_steps": 7}, callbacks="best_checkpoint") == plain
    flag, callback = of(**{"+trainer__accumulate_grad_batches": 3}), of(callbacks="early_stopping")
    assert "trainer.accumulate_grad_batches=3" in flag.differs.split(", ")
    assert "callbacks.early_stopping=" in callback.differs
    assert len({plain.setting, flag.setting, callback.setting}) == 3
    own = small(engine="lightning", **{"+trainer__accumulate_grad_batches": 3})
    assert train_command(row_of(Path("none"), RunRecord.of(own, Status.FINISHED))) is None
