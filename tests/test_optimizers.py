"""Optimizers, schedules, losses and averages of weights: those of torch, in every engine, killed or not."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import changed, read_checkpoint, small
from test_training import ENGINES, Stop, numbers, relative, same, trained
from torch.optim import lr_scheduler as torch_schedules
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fractal_ifs import ConfigError
from fractal_ifs.config.compose import compose
from fractal_ifs.config.optimizer import parse_optimizer
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.config.schedule import parse_schedule
from fractal_ifs.data import seeds
from fractal_ifs.engines.losses import losses
from fractal_ifs.engines.optimizers import torch_optimizer, torch_schedule
from fractal_ifs.engines.steps import factors, shares
from fractal_ifs.results.protocol import setting_of
from fractal_ifs.runs.load import load
from fractal_ifs.runs.run import Run
from fractal_ifs.training.grouping import groups_of

STEPS = 300
TINY = {"width": 6, "depth": 2, "steps": STEPS, "eval_every": STEPS, "batch_size": 20, "loss": "logistic", "lr": 3e-3}
TINY |= {"data.train_size": 420, "data.test_size": 100}

OPTIMIZERS: dict[str, Any] = {
    "adam": {"name": "adam"},
    "adam, L2, its own betas": {"name": "adam", "weight_decay": 0.01, "betas": [0.8, 0.95], "eps": 1e-6},
    "adamw": {"name": "adamw", "weight_decay": 0.1},
    "adamw, clipped": {"name": "adamw", "clip": 0.05},
    "sgd": {"name": "sgd"},
    "momentum, clipped": {"name": "sgd", "momentum": 0.9, "clip": 0.1},
    "nesterov, L2": {"name": "sgd", "momentum": 0.8, "nesterov": True, "weight_decay": 1e-3},
}
SCHEDULES: dict[str, Any] = {
    "constant": {"name": "constant"},
    "warm-up": {"name": "constant", "warmup": 40},
    "linear": {"name": "linear", "warmup": 30, "final": 0.1},
    "cosine": {"name": "cosine", "warmup": 50, "final": 0.02},
    "step": {"name": "step", "every": 70, "gamma": 0.5},
    "inverse": {"name": "inverse", "half": 25, "warmup": 10},
}


def tiny(optimizer: Any, schedule: Any, **keys: Any) -> RunConfig:
    config = small(**{**TINY, **keys})
    config = changed(config, "optimizer", parse_optimizer(optimizer))
    config = changed(config, "schedule", parse_schedule(schedule))
    return changed(config, "lr", 0.05) if config.optimizer.name == "sgd" else config


def scheduler_of_torch(config: RunConfig, optimizer: Any) -> Any:
    """The schedule by torch's own classes, each of which has one part of it."""
    schedule: Any = config.schedule
    rest = config.steps - schedule.warmup
    if schedule.name == "linear":
        then: Any = torch_schedules.LinearLR(optimizer, 1.0, schedule.final, rest)
    elif schedule.name == "cosine":
        then = torch_schedules.CosineAnnealingLR(optimizer, rest, schedule.final * config.lr)
    elif schedule.name == "step":
        then = torch_schedules.StepLR(optimizer, schedule.every, schedule.gamma)
    elif schedule.name == "inverse":
        then = torch_schedules.LambdaLR(optimizer, lambda t: 1 / (1 + t / schedule.half))
    else:
        then = torch_schedules.ConstantLR(optimizer, 1.0)
    if not schedule.warmup:
        return then
    warmup = torch_schedules.LinearLR(optimizer, 1 / schedule.warmup, 1.0, schedule.warmup - 1)
    return torch_schedules.SequentialLR(optimizer, [warmup, then], [schedule.warmup])


def plain_loop(config: RunConfig, double: bool = False) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The reference, with nothing of the engines. Returns the parameters, their average, and the mean loss.

    ``double``: from the same weights, in double precision.
    """
    run = Run(config, None)  # for its data and its initial network
    model = run.model.double() if double else run.model
    x, y, b = run.data.x_train.to(next(model.parameters()).dtype), run.data.y_train, config.batch_size
    chosen = config.optimizer
    optimizer = torch_optimizer(config, model.parameters())
    schedule = scheduler_of_torch(config, optimizer)
    ema = get_ema_multi_avg_fn(chosen.average_decay) if chosen.average == "ema" else None
    average, epoch, total = AveragedModel(model, multi_avg_fn=ema), len(y) // b, 0.0
    for step in range(config.steps):
        order = torch.from_numpy(seeds.permutation(run.shuffle_seed, step // epoch, len(y)))
        row = order[step % epoch * b : (step % epoch + 1) * b]
        margin = y[row] * model(x[row])
        loss = {
            "hinge": lambda m: (1 - m).clamp(min=0).mean(),
            "squared_hinge": lambda m: ((1 - m).clamp(min=0) ** 2).mean(),
            "logistic": lambda m: torch.log1p(torch.exp(-m)).mean(),
            "exponential": lambda m: torch.exp(-m).mean(),
            "squared": lambda m: ((1 - m) ** 2).mean(),
        }[config.loss.name](margin)
        optimizer.zero_grad()
        loss.backward()
        if chosen.clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), chosen.clip)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if chosen.average != "none" and step >= chosen.average_begin:
            average.update_parameters(model)
    vector = torch.nn.utils.parameters_to_vector
    return vector(model.parameters()).detach(), vector(average.module.parameters()).detach(), total / config.steps


def engine_keys(engine: str) -> tuple[dict[str, Any], float]:
    """The stacked engine in double precision, and how far it may be off; the native engine in single."""
    return ({"trainer.precision": "64-true"}, 1e-9) if engine == "torch" else ({}, 1e-5)


# --- against torch


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_300_steps_are_those_of_torch(engine, name):
    """Of every optimizer with every schedule, which train together."""
    keys, most = engine_keys(engine)
    configs = [tiny(OPTIMIZERS[name], schedule, engine=engine, seed=1, **keys) for schedule in SCHEDULES.values()]
    if engine == "torch":
        assert len(groups_of([Job(config, None) for config in configs])) == 1  # one stack, each with its own schedule
    runs, ends = trained(configs), []
    for config, run in zip(configs, runs, strict=True):
        params, _, loss = plain_loop(config)
        assert relative(run.params, params) <= most, config.schedule
        assert run.history[-1].train_loss == pytest.approx(loss, rel=max(most, 1e-6))
        assert run.record()["engine"] == engine
        ends.append(params)
    assert all(relative(a, b) > 1e-4 for i, a in enumerate(ends) for b in ends[:i])  # the schedules do matter


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge", "exponential", "squared"])
def test_losses_are_those_of_their_formulas(engine, loss):
    keys, most = engine_keys(engine)
    optimizer = {"name": "adam", "eps": 1e-4}  # a small one would make whole steps of gradients that are round-off
    config = tiny(optimizer, "constant", engine=engine, **keys, loss=loss, steps=100, eval_every=100)
    [run] = trained([config])
    params, _, mean = plain_loop(config)
    assert relative(run.params, params) <= most
    assert run.history[-1].train_loss == pytest.approx(mean, rel=max(most, 1e-6))
    f = run.model(run.data.x_test.to(run.params.dtype))
    assert run.history[-1].test_loss == pytest.approx(losses(loss, f, run.data.y_test).item(), rel=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_averages_are_those_of_torch_and_are_measured(engine, tmp_path):
    keys, most = engine_keys(engine)
    kinds = [{"average": "swa", "average_begin": 100}, {"average": "swa"}, {"average": "ema", "average_decay": 0.95}]
    kinds += [{"average": "ema", "average_begin": 37}]
    configs = [tiny({"name": "adam", **kind}, "constant", engine=engine, **keys) for kind in kinds]
    directories = [tmp_path / str(number) for number in range(len(kinds))]
    for config, run, there in zip(configs, trained(configs, 0, directories), directories, strict=True):
        params, average, _ = plain_loop(config)
        assert relative(run.params, params) <= most
        assert relative(run.average, average) <= most
        assert relative(run.average, run.params) > 1e-3
        loaded = load(there)
        vector = torch.nn.utils.parameters_to_vector(loaded.model.parameters()).detach()
        assert torch.equal(vector, run.average)
        assert torch.equal(torch.nn.utils.parameters_to_vector(run.trained.parameters()).detach(), run.average)
        f = loaded.model(run.data.x_test.to(run.params.dtype))
        assert (run.data.y_test * f > 0).double().mean().item() == loaded.record.final_test_acc
        assert losses("logistic", f, run.data.y_test).item() == pytest.approx(run.history[-1].test_loss, rel=1e-5)
        assert torch.equal(torch.nn.utils.parameters_to_vector(run.model.parameters()).detach(), run.params)


@pytest.mark.parametrize("name", SCHEDULES)
def test_factors_are_those_of_torch_wherever_the_range_begins(name):
    config = tiny("sgd", SCHEDULES[name])
    rates = []
    ours, theirs = (torch_optimizer(config, [torch.zeros(1, requires_grad=True)]) for _ in range(2))
    schedules = torch_schedule(config, ours), scheduler_of_torch(config, theirs)
    for _ in range(STEPS):
        rates.append([each.param_groups[0]["lr"] for each in (ours, theirs)])
        for optimizer, schedule in zip((ours, theirs), schedules, strict=True):
            optimizer.step()
            schedule.step()
    np.testing.assert_allclose(*np.array(rates).T, rtol=1e-12)
    whole = factors(config.schedule, STEPS, 0, STEPS)
    np.testing.assert_allclose(config.lr * whole, np.array(rates)[:, 0], rtol=1e-12)
    assert whole.max() == 1
    for first, count in ((0, 1), (7, 13), (211, 89), (299, 1)):
        assert np.array_equal(factors(config.schedule, STEPS, first, count), whole[first : first + count])


def test_shares_are_one_until_the_average_begins():
    swa = parse_optimizer({"name": "sgd", "average": "swa", "average_begin": 3})
    ema = parse_optimizer({"name": "sgd", "average": "ema", "average_begin": 3, "average_decay": 0.75})
    assert np.array(shares(swa, 0, 7)).tolist() == pytest.approx([1, 1, 1, 1, 1 / 2, 1 / 3, 1 / 4])
    assert np.array(shares(ema, 2, 4)).tolist() == [1, 1, 0.25, 0.25]
    assert shares(parse_optimizer("adam"), 0, 5) is None


def test_an_exponential_that_overflows_diverges():
    for engine in ENGINES:
        [run] = trained([small(engine=engine, loss="exponential", optimizer="sgd", lr=1e6)])
        assert run.status == "diverged"


# --- killed, and in company


@pytest.mark.parametrize("engine", ENGINES)
def test_killed_runs_go_on_to_the_same_bits(engine, tmp_path):
    asked = [
        ({"name": "sgd", "momentum": 0.9}, "constant"),
        ({"name": "adamw"}, {"name": "cosine", "warmup": 20}),
        ({"name": "adam", "average": "ema", "average_decay": 0.9, "clip": 0.1}, {"name": "step", "every": 30}),
        ({"name": "sgd", "momentum": 0.9, "average": "swa", "average_begin": 60}, "inverse"),
    ]
    configs = [tiny(*each, engine=engine, steps=100, eval_every=20, loss="hinge") for each in asked]
    straight = trained(configs)
    directories = [tmp_path / str(number) for number in range(len(configs))]
    for rounds in (2, 1):
        with pytest.raises(KeyboardInterrupt):
            trained(configs, 0, directories, Stop(rounds))
    for there in directories:
        assert 0 < read_checkpoint(there)["step"] < 100
    for resumed, run in zip(trained(configs, 0, directories), straight, strict=True):
        same(resumed, run)
        assert (run.average is None) == (resumed.average is None)
        assert run.average is None or torch.equal(resumed.average, run.average)


def test_a_checkpoint_without_its_average_is_not_gone_on_from(tmp_path):
    config = tiny({"name": "adam", "average": "swa"}, "constant", steps=40, eval_every=20)
    trained([config], 0, [tmp_path])
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["average"], state["digest"]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(ConfigError, match="it has no average"):
        load(tmp_path)


def test_runs_of_one_program_share_a_stack_whatever_their_values():
    plain = tiny("adam", "constant", engine="torch")
    own = [tiny({"name": "adamw", "weight_decay": decay}, "cosine", engine="torch") for decay in (0, 0.01, 0.1)]
    moved = [tiny({"name": "sgd", "momentum": each}, "linear", engine="torch") for each in (0.5, 0.9)]
    groups = groups_of([Job(config, None) for config in (plain, *own, *moved)])
    assert sorted(map(sorted, groups)) == [[0], [1, 2, 3], [4, 5]]
    together = trained([*own, *moved])
    for config, run in zip([*own, *moved], together, strict=True):
        [alone] = trained([config])
        same(run, alone)


@pytest.mark.parametrize("engine", ENGINES)
def test_layers_trained_in_turn_each_have_the_whole_schedule(engine):
    config = tiny(
        {"name": "sgd", "momentum": 0.9}, "cosine", engine=engine, training="layerwise", steps=60, eval_every=30
    )
    [run] = trained([config])
    assert run.status == "finished"
    [constant] = trained([changed(config, "schedule", "constant")])
    assert numbers(run) != numbers(constant)


# --- the config


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("optimizer.momentum=.9", "optimizer.momentum=.9: goes with optimizer=sgd"),
        ("optimizer=adamw optimizer.nesterov=true", "optimizer.nesterov=true: goes with optimizer=sgd"),
        ("optimizer=sgd optimizer.betas=[.9,.9]", "goes with optimizer=adam or optimizer=adamw"),
        ("optimizer=sgd optimizer.nesterov=true", "optimizer.nesterov=true: needs optimizer.momentum > 0"),
        ("optimizer=sgd optimizer.momentum=1", "optimizer.momentum=1: must be a finite number >= 0 and < 1"),
        ("optimizer.clip=0", "optimizer.clip=0: must be a finite number > 0"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay=-1: must be a finite number >= 0"),
        ("optimizer.average=polyak", "optimizer.average=polyak: must be one of none, ema, swa"),
        ("optimizer.average_decay=.9", "optimizer.average_decay=0.9: needs optimizer.average=ema"),
        ("optimizer.average_begin=5", "optimizer.average_begin=5: needs optimizer.average=ema or swa"),
        ("optimizer.average=swa optimizer.average_begin=10", "optimizer.average_begin=10: must be < steps=10"),
        ("optimizer.average=swa training=layerwise", "optimizer.average=swa: must be none with training=layerwise"),
        ("optimizer=lion", "optimizer=lion: must be one of adam, adamw, sgd"),
        ("schedule.warmup=11", "schedule.warmup=11: must be at most steps=10"),
        ("schedule.final=.1", "schedule.final=.1: goes with schedule=linear or schedule=cosine"),
        (
            "schedule=cosin",
            "schedule=cosin: must be one of constant, cosine, inverse, linear, step; did you mean cosine?",
        ),
        ("schedule=step schedule.gamma=0", "schedule.gamma=0: must be a finite number > 0 and <= 1"),
        ("loss=cross_entropy", "one of hinge, logistic, squared, squared_hinge, exponential with data=fractal"),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(command, words, told):
    ended = command("steps=10", "eval_every=10", "logger=none", *words.split())
    assert str(ended.status).startswith("error: ")
    assert told in ended.status
    assert "\n" not in ended.status


def test_one_word_is_what_it_always_was():
    """In records, in fingerprints, in users' files and in Python."""
    config = compose()
    assert config.fingerprint == "ef103954fa447610"
    assert compose(data="cifar10", model="cnn").fingerprint == "43418d0f1ddfc787"
    assert compose(optimizer="sgd", loss="squared").fingerprint == "adfeca1e4c792ec8"
    plain = config.plain()
    assert (plain["optimizer"], plain["loss"], plain["schedule"]) == ("adam", "hinge", "constant")
    del plain["schedule"]
    assert RunConfig.parse(plain) == config
    assert RunConfig.parse(plain | {"optimizer": "sgd"}) == compose(optimizer="sgd")
    assert "schedule" not in config.identity()
    own = compose(optimizer="adamw", optimizer__betas=[0.9, 0.99], schedule="cosine")
    assert own.identity()["optimizer"] == {"name": "adamw", "betas": [0.9, 0.99]}
    assert own.identity()["schedule"] == "cosine"
    assert RunConfig.parse(own.plain()) == own
    assert setting_of(config).differs == ""
    assert setting_of(own).differs == "optimizer=adamw, optimizer.betas=[0.9, 0.99], schedule=cosine"


def test_files_of_users_may_say_it_in_a_word_and_the_command_line_wins(tmp_path):
    own = tmp_path / "experiment"
    own.mkdir()
    (own / "old.yaml").write_text("# @package _global_\noptimizer: sgd\nloss: squared\n")
    (own / "new.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /optimizer: sgd\n\noptimizer:\n  momentum: 0.9\n"
    )
    there = {"hydra__searchpath": [str(tmp_path)]}
    old = compose(experiment="old", **there)
    assert old.fingerprint == compose(optimizer="sgd", loss="squared").fingerprint
    assert compose(experiment="old", optimizer="adamw", **there).optimizer.name == "adamw"
    assert compose(experiment="old", loss="hinge", **there).loss.name == "hinge"
    new: Any = compose(experiment="new", **there).optimizer
    assert (new.name, new.momentum) == ("sgd", 0.9)


def test_a_sweep_over_them_has_the_directories_it_always_had(command, tmp_path):
    words = ("-m", "loss=hinge,exponential", "optimizer=sgd", "optimizer.momentum=0,.9", "width=4", "depth=1")
    words += ("steps=20", "eval_every=20", "data.train_size=200", "data.test_size=50", "logger=none")
    assert command(*words).status == 0
    [sweep] = (tmp_path / "multirun").iterdir()
    assert sweep.name.startswith("loss,optimizer=sgd,optimizer.momentum,width=4,depth=1")
    runs = sorted(path.name for path in sweep.iterdir() if path.is_dir())
    assert len(runs) == 4
    assert all("loss=hinge" in name or "loss=exponential" in name for name in runs)
    assert all(",optimizer.momentum=" in name and ",optimizer=sgd," in name for name in runs)
    before = {path: path.stat().st_mtime_ns for path in sweep.rglob("result.json")}
    assert command(*words).status == 0  # nothing is trained again
    assert before == {path: path.stat().st_mtime_ns for path in sweep.rglob("result.json")}
    table = (sweep / "results.csv").read_text()
    assert "optimizer=sgd, optimizer.momentum=0.9" in table
