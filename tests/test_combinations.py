"""Networks, optimizers, schedules, losses and engines together: interrupted within an epoch, and gone on with."""

import dataclasses
import signal
import sys
from typing import Any

import pytest
import torch
from conftest import SMALL, read_checkpoint
from test_images import config as of_images
from test_images import folder  # noqa: F401
from test_loss_own import SOFT
from test_networks_own import BATCHNORM, SIREN
from test_training import ENGINES, numbers, trained

from fractal_ifs.config.compose import compose
from fractal_ifs.config.loss import OwnLoss
from fractal_ifs.config.model import OwnModel
from fractal_ifs.engines import stacked
from fractal_ifs.engines.choice import choose
from fractal_ifs.runs.run import Run
from fractal_ifs.training import lightning

STEPS, AT = 40, (7, 23)  # evaluated every 10 steps, with 15 batches in an epoch
SGD = {"optimizer": "sgd", "lr": 0.02, "optimizer.momentum": 0.9}
EMA = {"optimizer.average": "ema", "optimizer.average_decay": 0.9}
SWA = {"optimizer.average": "swa", "optimizer.average_begin": 5}
COSINE = {"schedule": "cosine", "schedule.warmup": 5}
CLIP = {"optimizer.clip": 0.1}
# network, loss, engine, and the keys of optimizer and schedule
COMBINATIONS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("mlp", "hinge", "native", {}),
    ("mlp", "logistic", "native", {"optimizer": "adamw", "optimizer.weight_decay": 0.1, **COSINE}),
    ("mlp", "squared", "native", {**SGD, "optimizer.nesterov": True, **CLIP}),
    ("theorem1", "squared_hinge", "native", {**EMA, "optimizer.weight_decay": 0.01, "schedule": "inverse"}),
    ("mlp", "exponential", "torch", {**SGD, **SWA, **CLIP}),
    ("varied", "squared_hinge", "torch", {**EMA, **CLIP, "optimizer.betas": [0.8, 0.99]}),
    ("resmlp", "hinge", "torch", {**SGD, "optimizer.nesterov": True, "schedule": "step", "schedule.every": 9}),
    ("siren", "soft", "torch", {"optimizer": "adamw", "optimizer.weight_decay": 0.1, **COSINE, **SWA}),
    ("batchnorm", "soft", "torch", {**SGD, **EMA}),
    ("transformer", "logistic", "torch", {"optimizer": "adamw", **COSINE, **EMA}),
    ("mlp", "soft", "lightning", {**COSINE, **CLIP}),
    ("resmlp", "squared", "lightning", {"optimizer": "adamw", "optimizer.weight_decay": 0.1, **COSINE}),
    ("siren", "exponential", "lightning", {**SGD, "optimizer.nesterov": True, "schedule": "linear"}),
    ("cnn", "cross_entropy", "conv", {**SGD, **EMA, **CLIP, "schedule": "cosine"}),
    ("cnn", "cross_entropy", "conv", {"optimizer": "adamw", **SWA, "schedule": "step", "schedule.every": 9}),
    ("cnn", "cross_entropy", "lightning", {**SGD, "schedule": "inverse"}),
]
NETWORKS: dict[str, dict[str, Any]] = {
    "theorem1": {"model": "theorem1", "model.noise": 0.1, "fractal": "cantor2d", "width": 37, "depth": 4},
    "varied": {"model.activation": "gelu", "model.norm": "layer", "model.skip": "residual"},
    "resmlp": {"model": "resmlp"},
    "transformer": {"model": "transformer", "model.levels": 2},
}
IDS = [f"{network} {loss} {engine} {number}" for number, (network, loss, engine, _) in enumerate(COMBINATIONS)]
VECTORS = ("params", "exp_avg", "exp_avg_sq", "average", "best_params", "best_buffers")


def made(network: str, loss: str, engine: str, keys: dict[str, Any], images) -> Any:
    """The config of a small run."""
    if network == "cnn":
        return of_images(images, steps=STEPS, **keys, **({"engine": engine} if engine == "lightning" else {}))
    own = {"siren": "own_parts.Siren", "batchnorm": "own_parts.Normed"}.get(network)
    usual = {**SMALL, "fractal": "vicsek", "fractal.depth": 2, "steps": STEPS, "eval_every": 10, "engine": engine}
    config = compose(**usual | NETWORKS.get(network, {}) | keys | ({} if loss == "soft" else {"loss": loss}))
    if own:
        config = dataclasses.replace(config, model=OwnModel.parse({"_target_": own}))
    if loss == "soft":
        config = dataclasses.replace(config, loss=OwnLoss.parse({"_target_": "own_parts.soft", "sharp": 2}))
    return config


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """The module ``own_parts`` with networks and a loss of a user's own."""
    normed = BATCHNORM.replace("class Siren", "class Normed")
    (tmp_path / "own_parts.py").write_text(SIREN + normed + SOFT)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)


@pytest.mark.parametrize(("network", "loss", "engine", "keys"), COMBINATIONS, ids=IDS)
def test_interrupted_and_resumed_to_equal_bits(network, loss, engine, keys, parts, folder, tmp_path, monkeypatch):  # noqa: F811
    if engine == "native" and engine not in ENGINES:
        pytest.skip("no compiled engine here")
    config = made(network, loss, engine, keys, folder)
    assert choose(config).engine == engine
    [straight] = trained([config])
    monkeypatch.setattr(stacked, "LEAST", 0)  # what is resumed is a flat program
    where = tmp_path / "run"
    to_event, pause = Run.steps_to_event, lightning.Keeper.pause
    for step in AT:

        def up_to(run: Run, step: int = step) -> int:
            return min(to_event(run), step - run.step) if run.step < step else to_event(run)

        def strike(rounds: Any, step: int = step) -> None:
            if any(run.step == step for run, _ in rounds.active.values()):
                signal.raise_signal(signal.SIGINT)

        def paused(keeper: Any, trainer: Any, strike: Any = strike) -> None:
            strike(keeper.rounds)
            pause(keeper, trainer)

        monkeypatch.setattr(Run, "steps_to_event", up_to)
        monkeypatch.setattr(lightning.Keeper, "pause", paused)
        with pytest.raises(KeyboardInterrupt):
            trained([config], 0, [where], strike)
        assert read_checkpoint(where)["step"] == step
    monkeypatch.setattr(Run, "steps_to_event", to_event)
    [resumed] = trained([config], 0, [where])
    assert resumed.step == STEPS
    assert (resumed.average is None) == (config.optimizer.average == "none")
    for name in VECTORS:
        one, other = getattr(resumed, name), getattr(straight, name)
        assert (one is None) == (other is None), name
        assert one is None or torch.equal(one, other), name
    assert not torch.equal(straight.params, Run(config, None).params)
    for one, other in zip(numbers(resumed), numbers(straight), strict=True):
        if engine == "native":  # which adds the losses of its calls, so the last digits of their mean rest on the cuts
            assert one[1] == pytest.approx(other[1], rel=1e-6)
            one, other = one[:1] + one[2:], other[:1] + other[2:]
        assert one == other
