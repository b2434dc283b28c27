"""Measures besides the test set: their numbers, that they change no run, how they are kept, refused, and chosen by."""

import copy
import dataclasses
import json
import logging
import pickle
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import changed, edited, read_checkpoint, small
from test_images import binary, parts
from test_training import ENGINES, trained

import fractal_ifs
from fractal_ifs import load
from fractal_ifs.config.compose import compose
from fractal_ifs.config.measures import NAMES
from fractal_ifs.config.run import Job
from fractal_ifs.data.seeds import stream, uniforms
from fractal_ifs.errors import ConfigError, Refused
from fractal_ifs.measures.gradient import BATCHES, gradients
from fractal_ifs.measures.named import OF_SNAPSHOTS, ON_SETS
from fractal_ifs.measures.own import OF_REPORTS, check_measures, is_ours
from fractal_ifs.measures.regions import breaks
from fractal_ifs.measures.snapshot import Snapshot
from fractal_ifs.results.numbers import NUMBERS
from fractal_ifs.results.rows import read_runs
from fractal_ifs.runs.history import COLUMNS, Evaluation, Summary, read_history
from fractal_ifs.runs.longer import with_sources
from fractal_ifs.runs.records import RunRecord, Status
from fractal_ifs.runs.run import Run
from fractal_ifs.runs.sources import differ
from fractal_ifs.sweeps.finished import best_of, check_objective
from fractal_ifs.sweeps.halving import _Resting, _value
from fractal_ifs.sweeps.rungs import Halving
from fractal_ifs.sweeps.sweep import train_jobs
from fractal_ifs.training.train import train

ALL = tuple(NAMES)
KEYS = {"fractal": "vicsek", "data__val_size": 200, "eval_every": 20}
STATE = ("params", "exp_avg", "exp_avg_sq", "best_params")


def measured(run) -> list[dict[str, float]]:
    return [dict(row.measured) for row in run.history]


@pytest.fixture(scope="module")
def native():
    """A run with all measures."""
    [run] = trained([small(measures=ALL, measure_start=True, **KEYS)])
    return run


def outputs(run, x):
    with torch.no_grad():
        return run.trained(x)


def test_every_measure_has_its_name():
    assert {*ON_SETS, *OF_SNAPSHOTS} == set(NAMES)
    assert not {*ON_SETS} & {*OF_SNAPSHOTS}
    page = (Path(__file__).parents[1] / "docs" / "measures.md").read_text()
    assert re.findall(r"^\| `(\w+)`.* ms, ", page, re.MULTILINE) == [*NAMES]  # the table of what they cost
    assert [name for name in NAMES if f"\n| `{name}`" not in page.partition("## What they cost")[0]] == []


# Numbers.


def test_accuracies_and_losses_are_those_of_the_network(native):
    found, data = native.history[-1].measured, native.data
    for x, y, name in ((data.x_train, data.y_train, "train"), (data.x_val, data.y_val, "val")):
        f = outputs(native, x)
        assert found[f"{name}_acc"] == pytest.approx((y * f > 0).double().mean().item(), abs=1.5 / len(y))
        loss = found["train_loss_now" if name == "train" else "val_loss"]
        assert loss == pytest.approx((1 - y * f).relu().mean().item(), rel=1e-5)
    f = outputs(native, data.x_test)
    assert found["said_positive"] == pytest.approx((f > 0).double().mean().item(), abs=0.004)
    assert found["labels_positive"] == (data.y_test > 0).double().mean().item()


def test_the_mean_over_levels_is_the_test_accuracy(native):
    level = native.data.level_test
    for row in native.history:
        columns = {6: "acc_positive", **{j: f"acc_level_{j}" for j in range(1, 6)}}
        parts = [(level == j).sum().item() * row.measured[name] for j, name in columns.items() if (level == j).any()]
        assert sum(parts) / len(level) == pytest.approx(row.test_acc, abs=1e-12)
    assert torch.equal(level > 5, native.data.y_test > 0)


def test_a_level_without_points_has_no_column():
    [run] = trained([small(fractal="vicsek", curve="last", curve__last=2, measures=("levels",))])
    there = {f"acc_level_{j}" for j in run.data.level_test.unique().tolist() if j < 6} | {"acc_positive"}
    assert there == {"acc_level_4", "acc_level_5", "acc_positive"}
    assert set(run.history[-1].measured) == there


def test_the_gradients_signal_to_noise_by_hand():
    """Of a network of one unit on the line of its bias: every gradient by the formula of the hinge loss."""
    config = small(fractal="vicsek", width=1, depth=1, measures=("gradient",), batch_size=4)
    run = Run(config, None)
    found = OF_SNAPSHOTS["gradient"](Snapshot(run))
    assert isinstance(found, dict)
    w, b, v, c = (p.detach().double() for p in run.model.parameters())
    draws = uniforms(stream(config.seed, "measures"), 0, BATCHES, 4)
    gradients = []
    for draw in draws:
        g = torch.zeros(5, dtype=torch.float64)
        for row in (draw * len(run.data.y_train)).astype(int):
            x, y = run.data.x_train[row].double(), run.data.y_train[row].double()
            z = (w @ x + b)[0]
            if y * (v[0, 0] * z.relu() + c[0]) < 1:
                on = (z > 0).double()
                g -= y * torch.stack([v[0, 0] * on * x[0], v[0, 0] * on * x[1], v[0, 0] * on, z.relu(), torch.ones(())])
        gradients.append(g / 4)
    each = torch.stack(gradients)
    mean, variance = each.mean(0), each.var(0).sum()  # with B - 1
    assert found["grad_norm"] == pytest.approx(mean.norm().item(), rel=1e-5)
    assert found["grad_snr"] == pytest.approx(
        ((mean @ mean - variance / BATCHES) / variance).clamp(min=0).item(), rel=1e-5
    )


def test_batches_side_by_side_have_the_gradients_of_one_by_one(monkeypatch):
    for loss in ("hinge", "logistic"):
        snapshot = Snapshot(Run(small(fractal="vicsek", loss=loss, model__sum_last=True), None))
        together = torch.cat([*gradients(snapshot)])
        monkeypatch.setattr("fractal_ifs.measures.gradient.NUMBERS", 0)
        apart = torch.cat([*gradients(snapshot)])
        monkeypatch.undo()
        assert together.shape == apart.shape == (BATCHES, 8 * 2 + 8 + 2 * 72 + 9)
        assert together.numpy() == pytest.approx(apart.numpy(), rel=1e-3, abs=1e-6)


def test_the_signal_to_noise_of_pure_noise_is_zero_and_without_noise_there_is_none():
    config = small(fractal="vicsek", measures=("gradient",), optimizer="sgd", lr=1e-3)
    run = Run(config, None)
    for p in run.model.parameters():
        p.data.zero_()
    run.data = dataclasses.replace(run.data, y_train=torch.where(torch.rand(1500).argsort() % 2 == 0, 1.0, -1.0))
    noise = OF_SNAPSHOTS["gradient"](Snapshot(run))  # labels of a coin, a network that is constant: |E g| is about 0
    assert isinstance(noise, dict)
    assert noise["grad_snr"] < 0.1
    run.data = dataclasses.replace(run.data, y_train=torch.ones(1500))
    assert OF_SNAPSHOTS["gradient"](Snapshot(run)) == {"grad_norm": 1.0}  # of the readout's bias alone


def test_norms_are_of_the_weight_matrices(native):
    found = native.history[-1].measured
    names = {"norm_hidden_0", "norm_hidden_1", "norm_hidden_2", "norm_readout"}
    assert {name for name in found if name.startswith("norm")} == names
    assert found["norm_hidden_1"] == pytest.approx(native.model.hidden[1].weight.square().sum().sqrt().item())


def test_dead_units_are_counted():
    run = Run(small(fractal="vicsek", measures=("dead",)), None)
    with torch.no_grad():
        for layer in run.model.hidden:
            layer.weight.abs_()
            layer.bias.fill_(100)
        assert OF_SNAPSHOTS["dead"](Snapshot(run)) == 0
        run.model.hidden[2].bias[:5] = -1e9
    assert OF_SNAPSHOTS["dead"](Snapshot(run)) == pytest.approx(5 / 24, abs=1e-9)


def test_regions_along_a_line_by_hand_and_by_a_fine_grid():
    saw = [(torch.tensor([[1.0], [1.0], [-1.0]]).double(), torch.tensor([0.5, -0.5, 3.0]).double())]
    ends = torch.tensor([-1.0]).double(), torch.tensor([1.0]).double()
    assert breaks(saw, *ends).tolist() == pytest.approx([0, 0.25, 0.75, 1])  # 3 - x is positive throughout
    for sums in (False, True):
        run = Run(small(fractal="vicsek", width=12, depth=4, measures=("regions",), model__sum_last=sums), None)
        layers = [(layer.weight.detach().double(), layer.bias.detach().double()) for layer in run.model.hidden]
        end = torch.tensor([1.0, 0.7]).double()
        found = breaks(layers, -end, end, sums)
        x = torch.linspace(-1, 1, 200_001, dtype=torch.float64)[:, None] * end
        total, signs = None, []
        for number, (weight, bias) in enumerate(layers):
            z = (total if sums and number == 3 else x) @ weight.T + bias
            signs.append(z > 0)
            x = z.relu()
            total = x if total is None else total + x
        changes = (torch.cat(signs, 1)[1:] != torch.cat(signs, 1)[:-1]).any(1).nonzero()[:, 0]
        assert len(found) - 1 == len(changes) + 1
        assert (changes + 0.5) / 200_000 == pytest.approx(found[1:-1].numpy(), abs=1e-5)


# The same everywhere, and no run is changed.


@pytest.mark.parametrize("engine", ["torch", "lightning"])
def test_every_engine_finds_the_same(native, engine):
    [run] = trained([small(measures=ALL, measure_start=True, engine=engine, **KEYS)])
    assert [row.step for row in run.history] == [0, 20, 40, 60, 80, 100]
    for here, there in zip(measured(run), measured(native), strict=True):
        assert list(here) == list(there)
        for name, value in here.items():
            rough = 0.006 if "acc" in name or "positive" in name else 1 if name in ("regions", "dead") else 1e-4
            assert value == pytest.approx(there[name], rel=1e-3, abs=rough), name


@pytest.mark.parametrize(
    "keys", [{"optimizer__average": "ema"}, {"training": "layerwise"}, {"model__activation": "tanh"}]
)
@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_no_measure_changes_a_bit(engine, keys):
    names = tuple(n for n in ALL if "model__activation" not in keys or NAMES[n].network == "any")
    config = small(engine=engine, measures=names, measure_start=True, **KEYS, **keys)
    [with_all], [with_none] = trained([config]), trained([small(engine=engine, measures=(), **KEYS, **keys)])
    assert config.fingerprint == with_none.config.fingerprint
    for name in STATE:
        assert torch.equal(getattr(with_all, name), getattr(with_none, name))
    assert [row.numbers[2:] for row in with_all.history[1:]] == [row.numbers[2:] for row in with_none.history]
    assert not any(measured(with_none))
    assert with_all.best_step == with_none.best_step
    assert not with_all.unmeasured


def test_the_measures_of_a_layer_in_training_are_its_own():
    [run] = trained([small(training="layerwise", measures=ALL, engine="torch", **KEYS)])
    assert len(run.history) == 15
    last = run.history[-1]
    f = outputs(run, run.points.x_val)
    assert last.measured["val_acc"] == pytest.approx((run.points.y_val * f > 0).double().mean().item(), abs=0.006)
    first = run.history[4].measured["regions"]
    assert 1 <= first <= 9 * 1
    assert last.measured["norm_hidden_0"] == run.history[4].measured["norm_hidden_0"]  # trained in the first 100 steps
    assert run.record().last10_test_acc == pytest.approx(np.mean([row.test_acc for row in run.history[10:]]))


@pytest.mark.parametrize("engine", ENGINES)
def test_killed_and_resumed_the_numbers_are_the_same(tmp_path, engine):
    config = small(engine=engine, measures=ALL, measure_start=True, **KEYS)
    [straight] = trained([config])
    left = [3]

    def stop(_):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained([config], 0, [tmp_path], report=stop)
    state = read_checkpoint(tmp_path)
    assert state["measured"].dtype == torch.float64
    assert len(state["measured"]) == len(state["columns"]) * len(state["history"])
    [resumed] = trained([config], 0, [tmp_path])
    for name in STATE:
        assert torch.equal(getattr(resumed, name), getattr(straight, name))
    assert measured(resumed) == measured(straight)
    assert [list(row) for row in measured(resumed)] == [list(row) for row in measured(straight)]
    read = read_history(tmp_path)
    assert [row.measured for row in read] == measured(straight)
    loaded = load(tmp_path)
    assert list(loaded.history.columns) == [*COLUMNS, *straight.history[-1].measured]
    assert loaded.record.measured == straight.history[-1].measured
    table, _ = read_runs([tmp_path])
    assert table.final_acc_level_1[0] == straight.history[-1].measured["acc_level_1"]


def test_an_old_run_goes_on_with_blanks_before(tmp_path):
    config = small(measures=(), **KEYS)
    left = [3]

    def stop(_):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained([config], 0, [tmp_path], report=stop)
    assert (tmp_path / "history.csv").read_text().startswith("step,seconds,train_loss,test_loss,test_acc\n")
    assert "columns" not in read_checkpoint(tmp_path)
    [run] = trained([dataclasses.replace(config, measures=("train_acc", "val_acc"))], 0, [tmp_path])
    had = [bool(row) for row in measured(run)]
    assert had == sorted(had)
    assert 0 < sum(had) < 5
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[1].endswith(",,,,")
    assert [row.measured for row in read_history(tmp_path)] == measured(run)
    assert load(tmp_path).history.train_acc.isna().tolist() == [not each for each in had]
    assert run.record().chosen_step in [row.step for row in run.history if row.measured]


def test_the_first_measurement_is_no_result(tmp_path):
    """theorem1 is right before the first step; a run ends, and is judged, by what it has learned."""
    keys = {"fractal": "cantor2d", "curve": "1", "lr": 0.5, "optimizer": "sgd", "measures": (), "eval_every": 20}
    config = small(**keys, stop__accuracy=0.01, measure_start=True)
    [run] = trained([config], 0, [tmp_path])
    assert [row.step for row in run.history] == [0, 20]
    assert run.record().stopped == "stop.accuracy=0.01"
    assert run.record().best_step == 20
    x, y = run.data.x_train, run.data.y_train
    start = Run(config, None)
    assert run.history[0].train_loss == pytest.approx((1 - y * outputs(start, x)).relu().mean().item(), rel=1e-5)
    assert read_runs([tmp_path])[0].history[0].count(" ") == 0


def test_a_third_set_leaves_the_others_as_they_are():
    with_one, without = Run(small(**KEYS), None).data, Run(small(fractal="vicsek"), None).data
    for name in ("x_train", "y_train", "x_test", "y_test"):
        assert torch.equal(getattr(with_one, name), getattr(without, name))
    assert without.x_val is None
    seen = {tuple(x) for x in torch.cat([with_one.x_train, with_one.x_test]).tolist()}
    assert not seen & {tuple(x) for x in with_one.x_val.tolist()}
    assert with_one.y_val.unique().tolist() == [-1, 1]
    keys = small(**KEYS), small(fractal="vicsek", eval_every=20)
    assert keys[0].fingerprint == keys[1].fingerprint


def test_images(tmp_path):
    for name, (x, y) in parts(12).items():
        (tmp_path / f"{name}.bin").write_bytes(binary(x, y))
    sizes = {"train_size": 40, "test_size": 12, "val_size": 20, "verify": False, "dir": str(tmp_path)}
    keys = {**{f"data__{name}": value for name, value in sizes.items()}, "batch_size": 10, "logger": "none"}
    keys |= {"data": "cifar10", "model": "cnn", "width": 2, "depth": 2, "steps": 8, "eval_every": 4}
    names = ("train_acc", "val_acc", "gradient", "norms", "dead")
    runs = train([Job(compose(**keys, measures=names), None)]), train([Job(compose(**keys, measures=[]), None)])
    (run,), (other,) = runs
    assert isinstance(run, Run)
    assert isinstance(other, Run)
    assert torch.equal(run.params, other.params)
    assert not run.unmeasured
    found = run.history[-1].measured
    snapshot = Snapshot(run)
    train_set, val_set = snapshot.train, snapshot.val
    assert val_set is not None
    for name, there, size in (("train", train_set, 40), ("val", val_set, 20)):
        assert len(there.y) == size
        right = (snapshot.outputs(there).argmax(1) == there.y).double().mean().item()
        assert found[f"{name}_acc"] == pytest.approx(right, abs=1e-9)
    assert not any(torch.equal(each, other) for each in val_set.x for other in train_set.x)
    assert found["grad_norm"] > 0
    assert found["norm_hidden_1"] > 0
    assert found["dead"] in [n / 4 for n in range(5)]
    with pytest.raises(ConfigError, match=r"data.val_size=20: .* must be at most 50000"):
        compose(**{**keys, "data__train_size": 49_990})


# What is refused, and what fails.


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"measures": ["trian_acc"]}, r"measures=\[trian_acc\]: there is no such measure; did you mean train_acc"),
        ({"measures": ["xyz"]}, r"measures=\[xyz\]: there is no such measure; there are train_acc, "),
        ({"measures": ["levels", "levels"]}, r"measures=\[levels\]: must be there once"),
        ({"measures": "levels"}, "measures=levels: must be a list, each entry one of train_acc, "),
        ({"measures": ["val_acc"]}, r"measures=\[val_acc\]: needs a validation set; give data.val_size"),
        (
            {"measures": ["dead"], "model.activation": "tanh"},
            r"measures=\[dead\]: .*ReLUs.*, not model.activation=tanh",
        ),
        ({"measures": ["regions"], "model": "resmlp"}, r"measures=\[regions\]: .*, not model=resmlp"),
        ({"measures": ["a..b"]}, r"measures=\[a..b\]: must be a function with its module"),
        ({"measures": ["no_such_module.f"]}, r"measures\[0\]=no_such_module.f: there is no module no_such_module"),
        ({"objective": "val_acc"}, r"objective=val_acc: must be among the measures, which are \[train_acc\]"),
        ({"data": "cifar10", "model": "cnn", "measures": ["levels"]}, r"measures=\[levels\]: goes with data=fractal"),
    ],
)
def test_refusals(keys, told):
    with pytest.raises(ConfigError, match=told) as error:
        compose(**keys)
    assert "\n" not in str(error.value)


def test_one_of_ones_own(write, tmp_path, command):
    name = write(
        "def margin(snapshot):\n    y = snapshot.test.y\n    return (y * snapshot.outputs(snapshot.test)).mean()\n\n"
        "def ends(snapshot):\n    f = snapshot.outputs(snapshot.test)\n    return {'low': f.min(), 'high': f.max()}\n"
    )
    words = ["width=4", "depth=1", "steps=20", "eval_every=10", "data.train_size=200", "data.test_size=50"]
    words += ["logger=csv", "hydra.run.dir=run", f"measures=[train_acc,{name}.margin,{name}.ends]"]
    assert command(*words).status == 0
    record, history, _, model = load(tmp_path / "run")
    assert list(history.columns)[5:] == ["train_acc", "train_loss_now", "margin", "ends_low", "ends_high"]
    data = Run(record.config, None).data
    with torch.no_grad():
        f = model(data.x_test)
    assert history.margin.iloc[-1] == pytest.approx((data.y_test * f).mean().item(), rel=1e-4)
    assert record.measured is not None
    assert record.measured["ends_high"] == pytest.approx(f.max().item(), rel=1e-5)
    assert re.fullmatch(rf"{name}=[0-9a-f]{{12}}", record.measure_source or "")
    file = tmp_path / "mine" / f"{name}.py"
    edited(file, file.read_text() + "\n")
    assert "1 of these were measured by another source of their measures" in command(*words).out
    said = command(*words[:-2], "hydra.run.dir=other", f"measures=[{name}.margins]").status
    assert said == f"error: measures[0]={name}.margins: {file} has no margins"
    assert not list(tmp_path.glob("other/*.pt"))


def test_a_function_defined_anew_is_the_one_that_is_called(monkeypatch):
    """As where a cell of a notebook is run again; its name is that of before."""
    module = types.ModuleType("cells")
    monkeypatch.setitem(sys.modules, "cells", module)
    for value in (1.0, 2.0):
        exec(f"def margin(snapshot): return {value}", module.__dict__)
        [run] = trained([small(measures=("cells.margin",), steps=20, eval_every=10)])
        assert [line["margin"] for line in measured(run)] == [value] * len(run.history)
    exec("def margin(points): return 1", module.__dict__)
    with pytest.raises(ConfigError, match="must be a function of one parameter, whose name is snapshot"):
        check_measures(small(measures=("cells.margin",)))


def test_a_run_that_goes_on_with_an_edited_measure_says_so(write, tmp_path, caplog):
    name, other = (write("def f(snapshot): return 1\n") for _ in range(2))
    job = Job(small(measures=(f"{name}.f",), steps=40, eval_every=20), tmp_path / "run")

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([job], threads=1, report=stop)
    edited(tmp_path / "mine" / f"{name}.py", "def f(snapshot): return 2\n")
    [run] = train([job], threads=1)
    assert re.search(rf"goes on with other sources of its measures \({name}=\w{{12}} there, {name}=", caplog.text)
    assert isinstance(run, Run)
    source = run.record()["measure_source"]
    (tmp_path / "run" / "result.json").unlink()
    [again] = train(
        [job._replace(config=changed(job.config, "measures", ()))], threads=1
    )  # nothing is measured any more
    assert isinstance(again, Run)
    assert again.record()["measure_source"] == source
    assert not differ("measure_source", source, f"{other}=0", None)
    assert differ("measure_source", source, f"{name}=0 {other}=0")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def f(a): return 1", "must be a function of one parameter, whose name is snapshot"),
        ("def f(snapshot, more): return 1", "must be a function of one parameter, whose name is snapshot"),
        ("f = 3", "must be a function"),
        ("class f: pass", "must be a function"),
        ("1 / 0\ndef f(snapshot): return 1", "can't be imported"),
        ("def test_acc(snapshot): return 1", "must have another name, test_acc is ours"),
        ("def val_loss(snapshot): return 1", "must have another name, val_loss is ours"),
        ("def grad_norm(snapshot): return 1", "must have another name, grad_norm is ours"),
        ("def best_val_acc(snapshot): return 1", "must have another name, best_val_acc is ours"),
    ],
)
def test_what_is_no_measure_is_refused(write, source, told):
    name = write(source)
    with pytest.raises(ConfigError, match=told):
        check_measures(small(measures=(f"{name}.{told.split()[-3] if 'is ours' in told else 'f'}",)))


def test_no_function_writes_a_column_of_ours_or_of_another(native, write, caplog, tmp_path):
    assert all(map(is_ours, native.history[-1].measured))
    assert set(OF_REPORTS) == set(NUMBERS)
    name = write(
        "def test(snapshot): return {'acc': .5, 'mine': 1}\n"
        "def val(snapshot): return {'acc': .25, 'loss': 1}\n"
        "def best(snapshot): return {'val_acc': 1}\n"
        "def norm(snapshot): return {'hidden_0': 1}\n"
        "def low(snapshot): return {'end': 1, 'end_deep': 2, 'other': 3}\n"
        "def low_end(snapshot): return {'deep': 4} if snapshot.step > 50 else 1 / 0\n"
        "def train(snapshot): return 1\n"  # report --number train is another number
    )
    own = [f"{name}.{each}" for each in ("test", "val", "best", "norm", "low", "low_end", "train")]
    [run] = trained([small(fractal="vicsek", measures=(*own, "norms"))], 0, [tmp_path])
    [first, last] = read_history(tmp_path)
    mine = {"test_mine": 1, "low_other": 3}
    assert {column: value for column, value in first.measured.items() if "norm" not in column} == mine
    assert {column: value for column, value in last.measured.items() if "norm" not in column} == {
        **mine,
        "low_end_deep": 4,
    }
    assert first.measured["norm_hidden_0"] != 1
    assert run.record().best_val_acc is None
    said = [text for text in caplog.messages if "is missing" in text]
    assert len(said) == 9  # once in a run
    assert sum("a column of ours is called so" in text for text in said) == 5
    assert sum(f"a column of {name}.low_end is called so" in text for text in said) == 2


def test_a_function_that_spoils_what_it_is_given_changes_no_number_of_others(write):
    name = write(
        "def spoils(snapshot):\n"
        "    for p in snapshot.network.parameters(): p.data.fill_(3)\n"
        "    snapshot.outputs = lambda there: 0 * there.y\n"
        "    return snapshot.network.hidden[0].weight.sum()\n"
        "def sum(snapshot): return snapshot.network.hidden[0].weight.double().sum()\n"
    )
    own, ours = (f"{name}.spoils", f"{name}.sum"), ("norms", "balance", "dead", "gradient")
    [run], [plain] = (trained([small(measures=each, **KEYS)]) for each in ((*own, *ours), ours))
    for here, there in zip(measured(run), measured(plain), strict=True):
        assert {column: here[column] for column in there} == there
        assert here["spoils"] == 3 * 8 * 2
    assert run.history[-1].measured["sum"] == pytest.approx(run.model.hidden[0].weight.double().sum().item())


def test_a_measure_that_fails_costs_its_number_alone(write, caplog, tmp_path):
    name = write(
        "import torch\n"
        "def bad(snapshot): raise KeyError('a\\nb')\n"
        "def nan(snapshot): return float('nan')\n"
        "def text(snapshot): return 'one'\n"
        "def many(snapshot): return {str(n): n for n in range(1000)}\n"
        "def odd(snapshot): return {'a b': 1, 'good': 2}\n"
        "def rude(snapshot):\n"
        "    for p in snapshot.network.parameters(): p.data.zero_()\n"
        "    snapshot.train.x.zero_(), snapshot.test.y.zero_()\n"
        "    torch.manual_seed(0), snapshot.network.train()\n"
        "    return torch.rand(1)\n"
    )
    own = [f"{name}.{each}" for each in ("bad", "nan", "text", "many", "odd", "rude")]
    config = small(fractal="vicsek", eval_every=20)
    before = torch.random.get_rng_state()
    for engine in ("native", "torch"):
        config = dataclasses.replace(config, engine=engine, measures=())
        [plain] = trained([config])
        caplog.clear()
        directory = tmp_path / engine / "run"  # of a sweep of its own, which tells once
        [run] = trained([dataclasses.replace(config, measures=(*own, "train_acc"))], 0, [directory])
        assert torch.equal(run.params, plain.params)
        assert [row.numbers[2:] for row in run.history] == [row.numbers[2:] for row in plain.history]
        assert run.record().status == "finished"
        assert [list(row) for row in measured(run)] == [["odd_good", "rude", "train_acc", "train_loss_now"]] * 5
        said = [text for text in caplog.messages if "is missing" in text]
        assert len(said) == 5  # once in a run
        assert not any("\n" in text for text in said)
        log = (directory / "train.log").read_text()
        assert "measures: " in log
        assert "bad is missing at step 20: KeyError" in log
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_measure_that_fails_in_a_single_run_stands_once_in_its_log(write, command, tmp_path):
    """To which Hydra writes what is logged."""
    name = write("def nan(snapshot): return float('nan')\n")
    words = ["curve=1", "width=8", "depth=1", "steps=20", "eval_every=10", "data.train_size=256", "data.test_size=100"]
    assert command(*words, "logger=none", "hydra.run.dir=run", f"measures=[{name}.nan]").status == 0
    assert (tmp_path / "run" / "train.log").read_text().count("nan is missing at step 10: is nan") == 1


def test_of_a_network_that_diverged_nothing_more_is_measured():
    [run] = trained([small(optimizer="sgd", lr=1e30, measures=ALL, **KEYS)])
    assert run.record().status == "diverged"
    assert run.history[-1].measured == {}
    assert not run.unmeasured


def test_a_finished_run_is_not_measured_again(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    config = small(fractal="vicsek", measures=())
    train_jobs([Job(config, tmp_path)])
    before = (tmp_path / "result.json").read_bytes()
    train_jobs([Job(dataclasses.replace(config, measures=("levels", "train_acc")), tmp_path)])
    assert "1 of these lack measures=[levels,train_acc]; overwrite=true trains them again" in caplog.messages
    assert (tmp_path / "result.json").read_bytes() == before


def test_a_finished_run_says_how_it_was_measured_whatever_is_asked_later(tmp_path, caplog):
    """Its validation set has 10 points, not the 5000 of the later command: in its record, too."""
    caplog.set_level(logging.INFO)
    keys = {"fractal": "vicsek", "width": 4, "depth": 1, "steps": 20, "eval_every": 10, "logger": "none"}
    keys |= {"data__train_size": 200, "data__test_size": 60, "objective": "val_acc"}
    first = fractal_ifs.run(tmp_path, **keys, data__val_size=10, measures=("val_acc",)).record
    assert first.val_points == 10
    other = {"data__val_size": 5000, "measures": ("val_acc", "levels"), "measure_start": True}
    again = fractal_ifs.run(tmp_path, **keys, **other).record
    assert "1 of these lack measures=[levels]; overwrite=true trains them again" in caplog.messages
    assert "1 of these have val_acc of data.val_size=10; overwrite=true trains them again" in caplog.messages
    for record in (again, load(tmp_path).record):
        assert (record.val_points, record.best_val_acc) == (10, first.best_val_acc)
        config = record.config
        assert (config.data.val_size, config.measures, config.measure_start) == (10, ("val_acc",), False)
    (tmp_path / "result.json").unlink()  # as of one who was killed before it was written
    fractal_ifs.run(tmp_path, **keys, **other)
    assert load(tmp_path).record.val_points == 10
    caplog.clear()
    fractal_ifs.run(tmp_path, **keys, data__val_size=10, measures=("val_acc",))
    assert not [text for text in caplog.messages if "of these" in text]


def test_one_history_has_accuracies_of_one_validation_set(tmp_path):
    config = small(fractal="vicsek", eval_every=20, data__val_size=10, measures=("val_acc",))
    trained([config], 0, [tmp_path / "short"])
    longer = dataclasses.replace(config, steps=200, continue_from=str(tmp_path / "short"))
    left = [3]

    def stop(_):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained([config], 0, [tmp_path / "run"], report=stop)
    with pytest.raises(Refused, match=r"data.val_size=20: must be 10"):  # before any job starts
        train_jobs([Job(changed(config, "data.val_size", 20), tmp_path / "run")])
    for asked, where in ((config, "run"), (longer, "long")):
        other = changed(asked, "data.val_size", 20)
        told = r"data.val_size=20: must be 10, on which val_acc of .* was measured so far"
        [refused] = train(with_sources([Job(other, tmp_path / where)]))
        assert isinstance(refused, Refused)
        assert re.match(told, str(refused))
        [run] = trained([dataclasses.replace(other, measures=("train_acc",))], 0, [tmp_path / where])
        assert run.record().val_points == 10
        assert run.record().chosen_step is not None


# Honest numbers, and choosing by validation.


def rows(*accuracies: tuple[float, float | None]) -> list[Evaluation]:
    return [
        Evaluation(10 * number, 0.0, 0.5, 0.5, test, {} if val is None else {"val_acc": val})
        for number, (test, val) in enumerate(accuracies)
    ]


def test_a_row_is_more_than_its_five_numbers():
    row = Evaluation(10, 0.0, 0.5, 0.5, 0.9, {"val_acc": 0.7})
    assert row != dataclasses.replace(row, measured={"val_acc": 0.6})
    assert row.numbers == tuple(map(row.value, COLUMNS)) == Evaluation(*row.numbers).numbers
    assert row.by_name() == dict(zip(COLUMNS, row.numbers, strict=True)) | {"val_acc": 0.7}
    for same in (dataclasses.replace(row), copy.deepcopy(row), pickle.loads(pickle.dumps(row))):
        assert (same, hash(same)) == (row, hash(row))


def test_the_summary_of_a_history():
    history = rows((1.0, 1.0), (0.5, 0.6), (0.9, 0.7), (0.7, 0.8), (0.6, 0.8))
    assert Summary.of(history) == (pytest.approx(0.675), 0.7, 30, 0.8, None)
    many = rows((0, None), *((n / 100, None) for n in range(1, 21)))
    assert Summary.of(many) == (pytest.approx(np.mean(range(11, 21)) / 100), None, None, None, None)
    assert Summary.of([]) == Summary.of(many[:1]) == (None,) * 5
    assert Summary.of(many, after=150).last10_test_acc == pytest.approx(0.18)


def test_the_record_has_honest_numbers(native):
    record, history = native.record(), native.history[1:]
    assert record.final_train_acc == history[-1].measured["train_acc"]
    assert record.last10_test_acc == pytest.approx(np.mean([row.test_acc for row in history]))
    best = max(row.measured["val_acc"] for row in history)
    chosen = next(row for row in history if row.measured["val_acc"] == best)
    assert (record.chosen_test_acc, record.chosen_step) == (chosen.test_acc, chosen.step)
    assert record.best_val_acc == best
    assert json.loads(json.dumps(record.plain()["measured"])) == history[-1].measured


def test_patience_may_look_at_the_validation_set():
    keys = {**KEYS, "eval_every": 10, "stop__patience": 2, "measures": ("val_acc",), "lr": 1e-6}
    by_test, by_val = small(**keys), small(**keys, objective="val_acc")
    assert by_test.fingerprint != by_val.fingerprint
    assert by_val.fingerprint != small(**{**keys, "data__val_size": 300}, objective="val_acc").fingerprint
    plain = {**keys, "stop__patience": None}
    assert small(**plain).fingerprint == small(**plain, objective="val_acc").fingerprint
    [run] = trained([by_val])
    values = [row.measured["val_acc"] for row in run.history]
    assert run.record().stopped == "stop.patience=2"
    assert len(values) - 1 - values.index(max(values)) == 2


def test_an_old_table_or_sweep_that_lacks_the_objective_is_refused(tmp_path):
    config = small(fractal="vicsek", measures=())
    train_jobs([Job(config, tmp_path)])
    asked = small(fractal="vicsek", data__val_size=100, measures=("val_acc",), objective="val_acc")
    with pytest.raises(ConfigError, match="objective=val_acc: must have been measured, and the finished run in"):
        train_jobs([Job(asked, tmp_path)])


def test_what_was_not_measured_is_never_compared(tmp_path, monkeypatch):
    """By no other number in its place: of a run that diverged late, of one without validation, of half a history."""
    config = small(fractal="vicsek", data__val_size=100, measures=("val_acc",), objective="val_acc")
    job = Job(config, tmp_path)

    def ended(status: Status, **values: float) -> RunRecord:
        return RunRecord.of(config, status, **values)

    assert best_of(job, ended(Status.DIVERGED, best_test_acc=0.0, best_step=0)) == 0
    assert best_of(job, ended(Status.DIVERGED, best_test_acc=0.9, best_step=50)) == 0
    assert best_of(job, ended(Status.FINISHED, best_test_acc=0.9, best_step=50)) is None
    assert best_of(job, ended(Status.FINISHED, best_test_acc=0.9, best_step=50, best_val_acc=0.6)) == 0.6
    with pytest.raises(ConfigError, match="objective=val_acc: must have been measured"):
        check_objective(job, ended(Status.FINISHED, best_test_acc=0.9, best_step=50))

    monkeypatch.setattr("fractal_ifs.sweeps.halving.report_failure", lambda *_: None)
    for by in ("best", "last"):
        halving = Halving(params=None, over=("lr",), eta=2, least=None, by=by)
        here = job._replace(pause=20)
        record = ended(Status.PAUSED)
        both = [row for row in rows((1, 1), (0.5, 0.6), (0.5, 0.5)) if row.step]
        assert _value(here, _Resting(record, both), halving) == (0.6 if by == "best" else 0.5)
        lacking = [both[0], dataclasses.replace(both[1], measured={})]
        assert "lacks val_acc at some measurement up to step 20" in str(
            _value(here, _Resting(record, lacking), halving)
        )

    run = Run(
        small(fractal="vicsek", stop__patience=2, data__val_size=100, measures=("val_acc",), objective="val_acc"), None
    )
    run.history = rows((0, None), (0.9, None), (0.5, None), (0.6, None))
    assert run.stopped is None
    run.history += [Evaluation(10 * n, 0.0, 0.5, 0.5, 0.5, {"val_acc": 0.5}) for n in (5, 6)]
    assert run.stopped is None
    run.history += [Evaluation(70, 0.0, 0.5, 0.5, 0.5, {"val_acc": 0.5})]
    assert run.stopped == "stop.patience=2"


def test_halving_may_choose_by_validation(command, tmp_path):
    words = ["-m", "hydra/sweeper=halving", "hydra.sweeper.over=[lr]", "lr=1e-5,1e-3,1e-2", "hydra.sweeper.eta=3"]
    words += ["fractal=vicsek", "width=6", "depth=2", "steps=90", "eval_every=10", "data.train_size=300", "logger=csv"]
    words += ["data.test_size=60", "data.val_size=400", "measures=[val_acc]", "objective=val_acc", "sweep=s"]
    words += ["hydra.launcher.executor=inline"]
    assert command(*words).status == 0
    found = {}
    for path in tmp_path.rglob("result.json"):
        history = load(path.parent).history
        found[path.parent] = (history.val_acc[history.step <= 10].max(), load(path.parent).record.status)
    best = max(value for value, _ in found.values())
    assert [value for value, status in found.values() if status == "finished"] == [best]
    assert sum(status == "pruned" for _, status in found.values()) == 2


def test_a_damaged_table_of_numbers_is_refused(tmp_path):
    [run] = trained([small(measures=("levels",), **KEYS)], 0, [tmp_path])
    content = (tmp_path / "history.csv").read_text()
    for spoiled in (
        content.replace("acc_level_1", "acc_level_2"),
        content.replace("acc_level_1", "a b"),
        content.replace("test_acc,", "test_accs,"),
        content.replace("\n", ",1\n", 3),
        content.rstrip("\n").rpartition(",")[0] + "\n",
    ):
        (tmp_path / "history.csv").write_text(spoiled)
        with pytest.raises(ConfigError, match=r"history.csv can't be read"):
            read_history(tmp_path)
    (tmp_path / "history.csv").write_text(content)
    assert [row.measured for row in read_history(tmp_path)] == measured(run)
    # mended from the checkpoint
    (tmp_path / "history.csv").write_text("")
    train_jobs([Job(run.config, tmp_path)])
    assert (tmp_path / "history.csv").read_text() == content


def test_the_fixtures_of_earlier_versions_have_no_measures(tmp_path):
    there = Path(__file__).parent / "fixtures" / "format2" / "native_finished"
    shutil.copytree(there, tmp_path / "run")
    loaded = load(tmp_path / "run")
    assert list(loaded.history.columns) == list(COLUMNS)
    assert (loaded.record.measured, loaded.record.config.measures, loaded.record.last10_test_acc) == (None, (), None)
