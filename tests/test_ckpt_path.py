"""``trainer.ckpt_path``: a run of ``engine=lightning`` begins at the step of a checkpoint of Lightning's."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from conftest import SMALL
from test_lightning import killed_at, numbers, pytestmark, trained  # noqa: F401

from fractal_ifs import MLP, Classifier, FractalDataModule, load
from fractal_ifs.config.compose import compose
from fractal_ifs.config.own_class import file_digest
from fractal_ifs.config.run import RunConfig
from fractal_ifs.engines.optimizers import torch_optimizer
from fractal_ifs.runs.records import read_record
from fractal_ifs.runs.run import Run
from fractal_ifs.training import lightning

EVERY = {"callbacks": ["best_checkpoint"], "callbacks.best_checkpoint.save_top_k": -1}
EVERY |= {"callbacks.best_checkpoint.filename": "at{step}", "+callbacks.best_checkpoint.auto_insert_metric_name": False}


def composed(**keys: Any) -> RunConfig:
    return compose(**{**SMALL, "engine": "lightning", "steps": 60, **keys})


def same(one: Run, other: Run) -> bool:
    return all(torch.equal(getattr(one, v), getattr(other, v)) for v in ("params", "exp_avg", "exp_avg_sq"))


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"optimizer": "sgd", "optimizer.momentum": 0.9, "lr": 0.1, "schedule": "cosine", "schedule.warmup": 25},
        {"+trainer.accumulate_grad_batches": 3},
    ],
)
def test_goes_on_as_the_run_did_that_wrote_it(tmp_path, keys):
    """From within an epoch (15 batches), from its ends, and between two evaluations; also from a run's own kill."""
    whole = trained(composed(eval_every=1, **EVERY, **keys), tmp_path / "whole")
    for step in (1, 14, 15, 20, 30, 59):
        path = tmp_path / "whole" / "checkpoints" / f"at{step}.ckpt"
        run = trained(composed(eval_every=20, **keys, **{"+trainer.ckpt_path": str(path)}), tmp_path / f"from{step}")
        assert same(run, whole), step
        assert [row.step for row in run.history] == [step, *(n for n in (20, 40, 60) if n > step)]
        there = {row.step: (row.test_loss, row.test_acc) for row in whole.history}
        assert all((row.test_loss, row.test_acc) == there[row.step] for row in run.history)
        record = read_record(tmp_path / f"from{step}")
        assert record is not None
        assert record.ckpt_source == file_digest(str(path))
        assert record.steps == 60
        assert f"begins at step {step}, from {path}" in (tmp_path / f"from{step}" / "train.log").read_text()


def test_killed_it_goes_on_from_its_own_checkpoint(tmp_path):
    trained(composed(steps=25, eval_every=25, **EVERY), tmp_path / "first")
    keys = {"+trainer.ckpt_path": str(tmp_path / "first" / "checkpoints" / "at25.ckpt"), "eval_every": 20}
    whole = trained(composed(**keys), tmp_path / "whole")
    for steps in ((26,), (40,), (45,), (30, 45)):  # an epoch has 15
        directory = tmp_path / str(steps)
        for step in steps:
            with killed_at(step):
                trained(composed(**keys), directory)
        run = trained(composed(**keys), directory)
        assert same(run, whole)
        assert numbers(run) == numbers(whole)


@pytest.mark.parametrize("what", ["removed", "another"])
def test_killed_it_needs_its_file_no_more(tmp_path, monkeypatch, what):
    """And its record names the file that it did begin from."""
    trained(composed(eval_every=20, **EVERY), tmp_path / "first")
    path = tmp_path / "first" / "checkpoints" / "at20.ckpt"
    config, before = composed(eval_every=20, **{"+trainer.ckpt_path": str(path)}), file_digest(str(path))
    monkeypatch.setattr(lightning, "CHECKPOINT_SECONDS", -1.0)
    pause = lightning.Keeper.pause

    def killed(keeper, trainer):
        pause(keeper, trainer)
        raise RuntimeError("killed")

    monkeypatch.setattr(lightning.Keeper, "pause", killed)
    with pytest.raises(RuntimeError, match="killed"):
        trained(config, tmp_path / "run")
    monkeypatch.setattr(lightning.Keeper, "pause", pause)
    path.unlink() if what == "removed" else path.write_bytes((path.parent / "at60.ckpt").read_bytes())
    run = trained(config, tmp_path / "run")
    assert [row.step for row in run.history] == [20, 40, 60]
    record = read_record(tmp_path / "run")
    assert record is not None
    assert record.ckpt_source == before
    assert "other versions" not in (tmp_path / "run" / "train.log").read_text()


def test_the_first_measurement_can_end_it(tmp_path):
    trained(composed(steps=20, eval_every=20, **EVERY), tmp_path / "first")
    path = tmp_path / "first" / "checkpoints" / "at20.ckpt"
    keys = {"eval_every": 20, "+trainer.ckpt_path": str(path)}
    run = trained(composed(**keys, **{"stop.accuracy": 0.1}), tmp_path / "stopped")
    assert (run.step, run.status, [row.step for row in run.history]) == (20, "stopped", [20])
    assert load(tmp_path / "stopped").step in (None, 20)
    found = torch.load(path, weights_only=True)
    found["state_dict"] = {name: weights * float("nan") for name, weights in found["state_dict"].items()}
    torch.save(found, path)
    run = trained(composed(**keys), tmp_path / "diverged")
    assert (run.step, run.status, [row.step for row in run.history]) == (20, "diverged", [20])


def test_measure_start_is_of_the_checkpoint(tmp_path):
    trained(composed(steps=20, eval_every=20, **EVERY), tmp_path / "first")
    path = tmp_path / "first" / "checkpoints" / "at20.ckpt"
    run = trained(composed(eval_every=20, measure_start=True, **{"+trainer.ckpt_path": str(path)}))
    assert [row.step for row in run.history] == [20, 40, 60]


def test_of_a_trainer_of_ones_own(tmp_path):
    """Another curve is learned on, as a curriculum: the weights and moments are the other run's."""
    trainer = pl.Trainer(max_steps=23, accelerator="cpu", logger=False, enable_checkpointing=False)
    data = {"train_size": 1500, "test_size": 100}
    model = Classifier(MLP(2, 4, 1), lr=1e-2)
    trainer.fit(model, FractalDataModule("vicsek", curve=1, data=data))
    trainer.save_checkpoint(path := tmp_path / "own.ckpt")
    keys = {"fractal": "vicsek", "width": 4, "depth": 1, "+trainer.ckpt_path": str(path)}
    run = trained(composed(**keys, steps=24, eval_every=24, curve=4, lr=1e-3))
    assert [row.step for row in run.history] == [23, 24]
    before = torch.cat([p.detach().reshape(-1) for p in model.network.parameters()])
    optimizer = torch_optimizer(run.config, model.network.parameters())
    optimizer.load_state_dict(trainer.optimizers[0].state_dict())
    optimizer.param_groups[0]["lr"] = 1e-3  # the run's own
    batches = FractalDataModule("vicsek", curve=4, data=data, seed=run.config.seed)
    batches.setup()
    order: Any = batches.train_dataloader().dataset
    x, y = order[23]
    model.network.zero_grad()
    torch.clamp(1 - y * model.network(x), min=0).mean().backward()
    optimizer.step()
    after = torch.cat([p.detach().reshape(-1) for p in model.network.parameters()])
    assert not torch.equal(before, after)
    assert run.params == pytest.approx(after, abs=1e-7)


def test_step_0_has_weights_alone(tmp_path):
    trainer = pl.Trainer(max_steps=0, accelerator="cpu", logger=False, enable_checkpointing=False)
    model = Classifier(MLP(2, 4, 1))
    trainer.fit(model, FractalDataModule("vicsek", data={"train_size": 1500, "test_size": 100}))
    trainer.save_checkpoint(path := tmp_path / "own.ckpt")
    run = trained(composed(width=4, depth=1, steps=1, eval_every=1, lr=1e-30, **{"+trainer.ckpt_path": str(path)}))
    assert torch.equal(run.params, torch.cat([p.detach().reshape(-1) for p in model.network.parameters()]))


def test_what_is_refused(tmp_path, command):
    trained(composed(steps=20, eval_every=20, width=4, depth=1, **EVERY), tmp_path / "first")
    path = tmp_path / "first" / "checkpoints" / "at20.ckpt"
    found = torch.load(path, weights_only=True)
    for name, changed in {
        "weights": {k: v for k, v in found.items() if k != "optimizer_states"},
        "minus": found | {"global_step": -1},
        "other": {"a": 1},
        "sparse": found | {"state_dict": {n: w.to_sparse() for n, w in found["state_dict"].items()}},
        "meta": found | {"state_dict": {n: w.to("meta") for n, w in found["state_dict"].items()}},
        "moments": found | {"optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3).to_sparse()}}}]},
        "list": found | {"state_dict": [1, 2]},
        "states": found | {"optimizer_states": {"a": 1}},
        "callbacks": found | {"callbacks": 3},
        "optimizer": found | {"optimizer_states": [{"state": {}, "param_groups": []}]},
    }.items():
        torch.save(changed, tmp_path / f"{name}.ckpt")
    [state] = found["optimizer_states"]
    torch.save(found | {"optimizer_states": [state | {"state": {0: state["state"][0]}}]}, tmp_path / "part.ckpt")
    os.mkfifo(tmp_path / "pipe")
    torch.save({"model": Classifier}, tmp_path / "code.ckpt")
    (tmp_path / "text.ckpt").write_text("nothing")
    told = {
        f"{path} width=5": "is of another network: hidden.0.weight is [4, 2] of torch.float32 there, [5, 2] of",
        f"{path} depth=2": "is of another network: hidden.1.weight is none there, [4, 4] of torch.float32 here",
        f"{path} trainer.precision=64-true": "of torch.float32 there, [4, 2] of torch.float64 here",
        f"{path} steps=20": "is at step 20, which must be < steps=20",
        f"{path} optimizer=sgd optimizer.momentum=0.9": "its optimizer is another than sgd",
        f"{path} optimizer=sgd": "its optimizer is another than sgd",
        "sparse.ckpt": "must be a checkpoint of Lightning's",
        "meta.ckpt": "must be a checkpoint of Lightning's",
        "moments.ckpt": "its optimizer is another than adam",
        "weights.ckpt": "has no optimizer_states: it holds weights alone",
        "minus.ckpt": "its global_step can't be right",
        "other.ckpt": "must be a checkpoint of Lightning's",
        "list.ckpt": "must be a checkpoint of Lightning's",
        "states.ckpt": "must be a checkpoint of Lightning's",
        "callbacks.ckpt": "must be a checkpoint of Lightning's",
        "optimizer.ckpt": "its optimizer is another than adam",
        "code.ckpt": "must be a checkpoint of Lightning's (",
        "text.ckpt": "must be a checkpoint of Lightning's (",
        "none.ckpt": "can't be read (No such file or directory)",
        "first/checkpoint.pt": "must be a checkpoint of Lightning's",
        ".": "must be a file",
        "pipe": "must be a file",
        "part.ckpt": "its optimizer has other parameters than the network",
        "3": "must be the path of a checkpoint of Lightning's",
    }
    words = ["engine=lightning", "width=4", "depth=1", "steps=60", "logger=none", "data.train_size=1500"]
    for asked, text in told.items():
        ended = command(*words, *f"trainer.ckpt_path={asked}".split(), "hydra.run.dir=out")
        assert f"trainer.ckpt_path={asked.split()[0]}: " in str(ended.status)[:300], asked
        assert text in str(ended.status), asked
        assert "\n" not in str(ended.status)
    assert not (tmp_path / "out").exists()
    ended = command(f"trainer.ckpt_path={path}", "hydra.run.dir=out")
    assert "trainer.ckpt_path: goes with engine=lightning, not engine=auto" in str(ended.status)


def test_null_is_none_as_in_templates():
    null, none = (composed(**keys) for keys in ({"+trainer.ckpt_path": None}, {}))
    assert null.fingerprint == none.fingerprint
    assert null.trainer.ckpt_path is None


def test_a_sweep_of_checkpoints_is_told_apart(tmp_path, command):
    trained(composed(steps=40, eval_every=20, width=4, depth=1, **EVERY), tmp_path / "first")
    kept = Path("first") / "checkpoints"
    words = ["-m", "engine=lightning", "width=4", "depth=1", "steps=60", "eval_every=30", "logger=csv", "workers=1"]
    words += ["data.train_size=1500", "data.test_size=100", "kept=kept.csv", "sweep=s"]
    ended = command(*words, f"trainer.ckpt_path={kept}/at20.ckpt,{kept}/at40.ckpt")
    assert ended.status == 0, ended.err
    records = [json.loads(path.read_text()) for path in (tmp_path / "multirun" / "s").glob("*/result.json")]
    shutil.copy(tmp_path / kept / "at40.ckpt", tmp_path / kept / "at20.ckpt")
    again = command(*words, f"trainer.ckpt_path={kept}/at20.ckpt,{kept}/at40.ckpt")
    told = "1 of these began from other files than are at trainer.ckpt_path now"
    assert told in again.out + again.err
    elsewhere = command(*words, f"trainer.ckpt_path={kept}/at20.ckpt,{kept}/at40.ckpt", "sweep=t")
    assert "2 of these are in kept=kept.csv" in elsewhere.out + elsewhere.err
    assert told in elsewhere.out + elsewhere.err
    assert len({record["fingerprint"] for record in records}) == len({record["ckpt_source"] for record in records}) == 2
