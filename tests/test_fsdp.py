"""``trainer.strategy=fsdp``: two processes of this machine's processor, each with a share of the weights."""

import json
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import SMALL, read_checkpoint
from killed import command, start, steps, wait_for
from test_lightning import equal, pytestmark, trained  # noqa: F401
from torch.multiprocessing.spawn import spawn

from fractal_ifs import Classifier, load
from fractal_ifs.config.compose import compose
from fractal_ifs.runs import ddp
from fractal_ifs.runs.run import Run
from fractal_ifs.training import lightning

RUN = ["fractal=sierpinsky", "curve=1", "width=16", "depth=3", "steps=120", "eval_every=30", "data.train_size=4000"]
RUN += ["data.test_size=1000", "engine=lightning", "logger=none", "trainer=ddp", "trainer.accelerator=cpu"]
RUN += ["lr=5e-3", "callbacks=best_checkpoint"]


def numbers(directory: Path) -> Any:
    return pd.read_csv(directory / "history.csv").drop(columns="seconds")


KEYS: tuple[dict[str, Any], ...] = (
    {},
    {"optimizer": "sgd", "optimizer.momentum": 0.9, "lr": 0.1, "schedule": "cosine", "schedule.warmup": 50},
)


@pytest.mark.slow
@pytest.mark.parametrize("keys", KEYS, ids=["adam", "sgd"])
def test_as_without_shares_and_killed_to_the_same_bits(tmp_path, keys):
    spawn(one_of_two, (tmp_path, keys), nprocs=2)
    assert "training from step 37 to" in (tmp_path / "killed" / "train.log").read_text()


def one_of_two(rank: int, directory: Path, keys: dict[str, Any]) -> None:
    warnings.simplefilter("error")
    pause = lightning.Keeper.pause

    def killed(self: Any, trainer: Any) -> None:
        lightning.CHECKPOINT_SECONDS = -1.0 if self.run.step == 37 else 60.0
        pause(self, trainer)
        if self.run.step == 37:
            raise RuntimeError("killed")

    asked = {**SMALL, "engine": "lightning", "steps": 80, "eval_every": 20, **keys}
    config = compose(**asked, **{"trainer": "ddp", "trainer.accelerator": "cpu", "trainer.strategy": "fsdp"})
    with ddp.joined(ddp.Rank(rank, 2, str(directory / "meeting"))):
        whole = trained(config)
        lightning.Keeper.pause = killed
        there = directory / "killed" if rank == 0 else None
        with pytest.raises(RuntimeError, match="killed"):
            trained(config, there)
        lightning.Keeper.pause = pause
        ended = trained(config, there)
    if rank == 0:
        plain = trained(compose(**asked))
        assert equal(ended, whole)
        for vector in ("params", "exp_avg", "exp_avg_sq"):
            assert (getattr(plain, vector) - getattr(whole, vector)).abs().max() < 1e-6
        assert (whole.params - Run(config, None).params).abs().max() > 1e-3  # it has learned


@pytest.mark.slow
def test_from_the_command_line_and_interrupted_to_the_same_bits(tmp_path):
    for strategy in ("ddp", "fsdp"):
        words = [*RUN, f"trainer.strategy={strategy}", f"hydra.run.dir={strategy}"]
        status, text = command(tmp_path, *words, FRACTAL_IFS_CHECKPOINT_SECONDS="60")
        assert status == 0, text
        assert "Warning" not in text
    words = [*RUN, "trainer.strategy=fsdp", f"hydra.run.dir={tmp_path}/ended"]
    process = start(tmp_path, *words)
    assert wait_for(lambda: max(steps(tmp_path / "ended").values(), default=0) >= 40, process)
    os.killpg(process.pid, signal.SIGINT)  # to all of them, as a terminal does
    text, _ = process.communicate(timeout=300)
    assert "interrupted: the same command goes on from here" in text, text
    assert "Traceback" not in text
    status, text = command(tmp_path, *words)
    assert status == 0, text
    one, two, ended = (read_checkpoint(tmp_path / name) for name in ("ddp", "fsdp", "ended"))
    for vector in ("params", "exp_avg", "exp_avg_sq"):
        assert torch.equal(two[vector], ended[vector])
        assert (one[vector] - two[vector]).abs().max() < 1e-4
    assert numbers(tmp_path / "fsdp").equals(numbers(tmp_path / "ended"))
    assert numbers(tmp_path / "fsdp").to_numpy() == pytest.approx(numbers(tmp_path / "ddp").to_numpy(), abs=2e-3)
    records = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("ddp", "fsdp")]
    assert records[0]["fingerprint"] != records[1]["fingerprint"]  # it may add in another order
    check_the_file_of_a_callback(tmp_path / "fsdp")


def check_the_file_of_a_callback(directory: Path) -> None:
    """It has the whole network and the whole state of its optimizer, by the numbers of the parameters."""
    path = directory / "checkpoints" / "best.ckpt"
    best = Classifier.load_from_checkpoint(path, weights_only=True).network
    x = torch.randn(7, 2)
    assert torch.equal(best(x), load(directory, best=True).model(x))
    [state] = torch.load(path, weights_only=True)["optimizer_states"]
    optimizer = torch.optim.Adam(best.parameters(), 5e-3)
    optimizer.load_state_dict(state)
    assert all(optimizer.state[p]["exp_avg"].shape == p.shape for p in best.parameters())
    assert {int(optimizer.state[p]["step"]) for p in best.parameters()} == {load(directory).record.best_step}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("trainer=ddp trainer.strategy=fsdp", "trainer.strategy=fsdp: goes with engine=lightning, not engine=auto"),
        ("LN trainer.strategy=fsdp", "trainer.devices=1: must be at least 2 with trainer.strategy=fsdp"),
        (
            "LN trainer=ddp trainer.strategy=fsdp trainer.precision=64-true",
            "trainer.precision=64-true: must be 32-true",
        ),
        ("LN trainer=ddp trainer.strategy=fsdp optimizer.clip=1", "optimizer.clip=1: must be null with trainer.strat"),
        (
            "LN trainer=ddp trainer.strategy=fsdp trainer.gradient_clip_val=1",
            "trainer.gradient_clip_val=1: needs trainer.gradient_clip_algorithm=value with trainer.strategy=fsdp",
        ),
        ("LN trainer=ddp trainer.strategy=deepspeed", "trainer.strategy=deepspeed: must be one of auto, ddp, fsdp"),
    ],
)
def test_what_is_refused(command, words, told):
    ended = command(*words.replace("LN", "engine=lightning").split(), "trainer.accelerator=cpu", "logger=none")
    assert f"error: {told}" in str(ended.status)


class Scaled(torch.nn.Module):
    """With a parameter that is one number."""

    def __init__(self, d, width, depth, *, generator):
        super().__init__()
        self.linear, self.scale = torch.nn.Linear(d, 1), torch.nn.Parameter(torch.ones(()))
        for each in self.linear.parameters():
            torch.nn.init.normal_(each, generator=generator)

    def forward(self, x):
        return self.scale * self.linear(x).squeeze(-1)


def test_a_parameter_of_one_number_is_refused(command, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "scaled.yaml").write_text("_target_: test_fsdp.Scaled\n")
    words = ["engine=lightning", "model=scaled", "hydra.searchpath=[.]", "logger=none", "trainer=ddp"]
    ended = command(*words, "trainer.accelerator=cpu", "trainer.strategy=fsdp", "hydra.run.dir=out")
    assert str(ended.status) == "error: trainer.strategy=fsdp: can't share out scale, a parameter of one number"
