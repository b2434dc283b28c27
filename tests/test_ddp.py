"""One run on two devices: two processes of this machine's processor, which average their gradients."""

import json
import os
import re
import signal

import pandas as pd
import pytest
import torch
from conftest import small
from killed import children, command, kill, results, start, steps, wait_for
from test_images import binary, parts

import fractal_ifs
from fractal_ifs import ConfigError
from fractal_ifs.config.compose import compose
from fractal_ifs.config.machine import gpus
from fractal_ifs.config.run import Job
from fractal_ifs.runs import ddp
from fractal_ifs.sweeps import crew
from fractal_ifs.sweeps.executors import processes, shares

RUN = ["fractal=sierpinsky", "curve=1", "width=16", "depth=3", "steps=300", "eval_every=50", "data.train_size=4000"]
RUN += ["data.test_size=1000", "engine=torch", "lr=5e-3", "logger=none"]
CNN = ["data=cifar10", "model=cnn", "data.dir=images", "data.verify=false", "width=6", "depth=2", "batch_size=32"]
CNN += ["data.train_size=1000", "data.test_size=200", "steps=120", "eval_every=20", "lr=1e-3", "logger=none"]
# Of the CNN no more steps: the order of sums differs, and by step 180 that has been seen to move two of 200 points.
DDP = ["trainer=ddp", "trainer.accelerator=cpu"]


@pytest.mark.parametrize("run", [CNN, pytest.param(RUN, marks=pytest.mark.slow)], ids=["cnn", "mlp"])
def test_the_same_accuracy_curve(tmp_path, run):
    (tmp_path / "images").mkdir()
    for name, (x, y) in parts(200).items():
        (tmp_path / "images" / f"{name}.bin").write_bytes(binary(x, y))
    assert command(tmp_path, *run, "hydra.run.dir=one")[0] == 0
    status, text = command(tmp_path, *run, *DDP, "hydra.run.dir=two", "logger=wandb", WANDB_MODE="offline")
    assert status == 0, text
    one, two = (pd.read_csv(tmp_path / name / "history.csv") for name in ("one", "two"))
    assert len(one) == 6
    assert list(one.step) == list(two.step)
    assert one.test_acc.max() > one.test_acc.min() + 0.1  # there is something to compare
    assert (one.test_acc - two.test_acc).abs().max() <= 0.005
    assert two.train_loss.to_numpy() == pytest.approx(one.train_loss.to_numpy(), rel=1e-3)
    record = json.loads((tmp_path / "two/result.json").read_text())
    assert record["best_test_acc"] == two.test_acc.max()
    assert len(list(tmp_path.rglob("offline-run-*/*.wandb"))) == 1  # logged once
    assert text.count("best test accuracy") == 1


@pytest.mark.slow
def test_killed_and_interrupted_it_goes_on_to_the_same_bits(tmp_path):
    arguments = [*(a.replace("steps=300", "steps=1000") for a in RUN), *DDP]
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    assert command(tmp_path / "straight", *arguments)[0] == 0
    killed = tmp_path / "killed"
    process = start(killed, *arguments)
    assert wait_for(lambda: max(steps(killed).values(), default=0) >= 100, process)
    os.killpg(process.pid, signal.SIGINT)  # to all of them, as a terminal does
    text, _ = process.communicate(timeout=300)
    assert "interrupted: the same command goes on from here" in text, text
    assert "Traceback" not in text
    process = start(killed, *arguments)
    assert wait_for(lambda: max(steps(killed).values(), default=0) >= 500, process)
    kill(process)
    status, text = command(killed, *arguments)
    assert status == 0, text
    found, expected = (results(tmp_path / name) for name in ("killed", "straight"))
    assert [run[0] for run in found.values()] == [run[0] for run in expected.values()]
    assert [[row[:1] + row[2:] for row in run[1]] for run in found.values()] == [
        [row[:1] + row[2:] for row in run[1]] for run in expected.values()
    ]
    log = next(killed.rglob("train.log")).read_text()
    assert len(re.findall(r"training from step [1-9]", log)) == 2


@pytest.mark.slow
def test_a_process_that_dies_before_they_meet_ends_the_run(tmp_path):
    process = start(tmp_path, *RUN, *DDP)
    assert wait_for(lambda: len(children(process.pid)) == 2, process)
    os.kill(max(children(process.pid)), signal.SIGKILL)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "its worker process was killed by signal 9" in text
    assert "Traceback" not in text


def test_what_is_refused():
    with pytest.raises(ConfigError, match=r"batch_size=100: must be a multiple of trainer.devices=3"):
        compose(trainer="ddp", trainer__accelerator="cpu", trainer__devices=3)
    with pytest.raises(ConfigError, match=r"trainer.devices=2: must be 1 unless trainer=ddp"):
        compose(trainer__devices=2)
    with pytest.raises(ConfigError, match=r"trainer.devices=0: must be a whole number >= 1"):
        compose(trainer="ddp", trainer__accelerator="cpu", trainer__devices=0)
    with pytest.raises(ConfigError, match=r"trainer.devices=2: must be 1 in run\(\)"):
        fractal_ifs.run(trainer="ddp", trainer__accelerator="cpu", steps=10)


def test_devices_count_as_what_can_change_a_result():
    two = small(trainer="ddp", trainer__accelerator="cpu")
    one = small(trainer="ddp", trainer__accelerator="cpu", trainer__devices=1)
    assert two.fingerprint != one.fingerprint == small().fingerprint


def test_processes_on_cpus_average_over_gloo_beside_a_gpu_too(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked = []
    monkeypatch.setattr(crew, "Worker", lambda device, stack, rank: asked.append((device, rank.backend)) or 1 / 0)
    for accelerator, visible in (("cpu", ""), ("gpu", "0,1")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        config = small(trainer="ddp", trainer__accelerator="cpu")
        with pytest.raises(ZeroDivisionError):
            crew.on_devices(Job(config.on(accelerator), None), 0, lambda *_: None)
    assert asked == [(None, "gloo"), ("0", "nccl")]
    with ddp.joined(ddp.Rank(0, 1, str(tmp_path / "meeting"))):
        assert torch.distributed.get_backend() == "gloo"
        assert ddp.first_says(True, False) == [True, False]


def test_slurms_word_for_no_gpu_is_none(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "NoDevFiles")
    assert gpus() == []


@pytest.mark.parametrize(
    ("visible", "workers", "expected"),
    [("0,1,2,3,4,5,6,7", 0, 8), ("3", 0, 1), ("GPU-a,GPU-b", 0, 2), ("0,1,2,3", 2, 2)],
)
def test_a_process_for_each_gpu(monkeypatch, visible, workers, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    config = small(engine="torch", workers=workers).on("gpu")
    assert gpus() == visible.split(",")
    assert processes(config) == expected
    dealt = shares(list(range(21)), expected)
    assert len(dealt) == expected
    assert sorted(number for share in dealt for number in share) == list(range(21))
