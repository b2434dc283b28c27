"""Layer-wise training: what it computes, on either engine and among others, and that it can be interrupted."""

import signal
from typing import Any

import pytest
import torch
from conftest import small
from test_training import ENGINES, PARTNERS, Stop, numbers, relative, trained

from fractal_ifs.config.compose import compose
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.data import seeds
from fractal_ifs.data.points import fractal_points
from fractal_ifs.errors import ConfigError
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.runs import records
from fractal_ifs.runs.build import build_network
from fractal_ifs.runs.layerwise import LayerwiseRun
from fractal_ifs.runs.load import load
from fractal_ifs.runs.records import RunRecord
from fractal_ifs.sweeps.sweep import train_jobs


def layerwise(**keys):
    return small(training="layerwise", **keys)


def test_its_log_counts_the_steps_of_all_layers(tmp_path):
    config = layerwise(depth=2)
    train_jobs([Job(config, tmp_path)])
    steps = config.steps
    first, *_, last = (tmp_path / "train.log").read_text().splitlines()
    assert first.endswith(f"training from step 0 to {2 * steps}")
    assert f"finished at step {2 * steps}, " in last


def plainly(config):
    """The same with modules and torch's own optimizer: the network, and each layer's test accuracy at its end."""
    points = fractal_points(config.fractal, config.curve, config.data, config.seed)
    network: Any = build_network(config, 2)
    shuffle, b = seeds.stream(config.seed, "shuffle"), config.batch_size
    x, x_test, found = points.x_train, points.x_test, []
    for t, layer in enumerate(network.hidden):
        own = torch.Generator().manual_seed(seeds.stream(config.seed, "readouts") + t)
        last = t == config.depth - 1
        readout = network.readout if last else MLP(x.shape[1], config.width, 1, generator=own).readout
        part = torch.nn.Sequential(layer, torch.nn.ReLU(), readout)
        optimizer = torch.optim.Adam(part.parameters(), lr=config.lr)
        epoch = len(x) // b
        for step in range(config.steps):
            rows = torch.from_numpy(seeds.permutation(shuffle, step // epoch, len(x)))[step % epoch * b :][:b]
            optimizer.zero_grad()
            (1 - points.y_train[rows] * part(x[rows])[:, 0]).relu().mean().backward()
            optimizer.step()
        with torch.no_grad():
            found.append((points.y_test * part(x_test)[:, 0] > 0).double().mean().item())
            x, x_test = layer(x).relu(), layer(x_test).relu()
    return network, found


@pytest.mark.parametrize("engine", ENGINES)
def test_each_layer_trains_in_turn_on_what_the_layers_before_make_of_x(engine):
    config = layerwise(engine=engine)
    [run] = trained([config])
    network, accuracies = plainly(config)
    for here, there in zip(run.trained.parameters(), network.parameters(), strict=True):
        assert relative(here, there) < 5e-3
    assert [row.step for row in run.history] == [50, 100, 150, 200, 250, 300]
    assert [row.test_acc for row in run.history][1::2] == pytest.approx(accuracies, abs=0.0034)  # one of 300 points
    record = run.record()
    assert (record["status"], record["steps"]) == ("finished", 300)
    assert record["training"] == "layerwise"
    assert record["params"] == sum(p.numel() for p in network.parameters())
    # the best of the last layer's readout: earlier layers are other, shallower networks
    last = {row.step: row.test_acc for row in run.history[4:]}
    assert record["best_test_acc"] == max(last.values())
    assert last[record["best_step"]] == record["best_test_acc"]


def test_one_layer_is_joint_training():
    [apart], [joint] = trained([layerwise(depth=1)]), trained([small(depth=1)])
    assert torch.equal(apart.params, joint.params)
    assert numbers(apart) == numbers(joint)


@pytest.mark.parametrize("engine", ENGINES)
def test_partners_and_interruptions_change_nothing(engine, tmp_path):
    configs = [layerwise(engine=engine, eval_every=25, **keys) for keys in PARTNERS[:3]]
    straight = trained(configs, stack=3)
    [alone] = trained(configs[1:2])
    if engine == "native":
        assert torch.equal(alone.params, straight[1].params)
    assert relative(alone.params, straight[1].params) < 1e-3
    directories = [tmp_path / str(number) for number in range(3)]
    for rounds in (2, 3, 4):  # within a layer, at the end of one, and after
        with pytest.raises(KeyboardInterrupt):
            trained(configs, 3, directories, Stop(rounds))
    assert [records.read_record(d)["steps"] for d in directories] == [225] * 3  # pyright: ignore[reportOptionalSubscript]
    for resumed, expected in zip(trained(configs, 3, directories), straight, strict=True):
        for name in ("params", "exp_avg", "exp_avg_sq", "best_params"):
            assert torch.equal(getattr(resumed, name), getattr(expected, name))
        assert numbers(resumed) == numbers(expected)
        x = expected.points.x_test
        written = load(resumed.directory)
        assert torch.equal(written.model(x), expected.trained(x))
        right = (written.model(x) * expected.points.y_test > 0).double().mean().item()
        assert right == pytest.approx(written.record["final_test_acc"], abs=0.0034)


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_where_one_layer_ends_and_the_next_begins(engine, tmp_path, monkeypatch):
    config = layerwise(engine=engine)
    [straight] = trained([config])
    begin_layer, begun = LayerwiseRun.begin_layer, []

    def signalled(self, layer):
        begun.append(layer)
        if begun == [0, 1]:
            signal.raise_signal(signal.SIGINT)
        begin_layer(self, layer)

    monkeypatch.setattr(LayerwiseRun, "begin_layer", signalled)
    with pytest.raises(KeyboardInterrupt):
        trained([config], 1, [tmp_path])
    [resumed] = trained([config], 1, [tmp_path])
    assert torch.equal(resumed.params, straight.params)
    assert numbers(resumed) == numbers(straight)
    assert torch.equal(resumed.trained(resumed.points.x_test), straight.trained(straight.points.x_test))


def test_runs_of_one_stack_that_are_in_different_layers(tmp_path):
    """One was interrupted further on: the stack waits for none, and mixes none."""
    configs = [layerwise(engine="torch", **keys) for keys in PARTNERS[:2]]
    with pytest.raises(KeyboardInterrupt):
        trained(configs[:1], 1, [tmp_path / "0"], Stop(3))
    straight = trained(configs, 1)
    for resumed, expected in zip(trained(configs, 2, [tmp_path / "0", tmp_path / "1"]), straight, strict=True):
        assert relative(resumed.params, expected.params) < 1e-3
        assert [row.step for row in resumed.history] == [row.step for row in expected.history]


def test_its_record_says_what_made_the_inputs_of_later_layers():
    [joint], [layer_by_layer] = (trained([small(training=of)]) for of in ("joint", "layerwise"))
    assert joint.computed_by.engine == layer_by_layer.computed_by.engine == "native"
    assert joint.computed_by.torch_kernels is None
    assert layer_by_layer.computed_by.torch_kernels


def test_joint_runs_of_the_same_shape_train_apart():
    """Their networks have other parameters, which are no stack."""
    configs = [small(training=training, engine="torch", depth=2) for training in ("joint", "layerwise")]
    for together, config in zip(train_jobs([Job(config, None) for config in configs]), configs, strict=True):
        assert isinstance(together, RunRecord)
        assert together.best_test_acc == trained([config])[0].best_test_acc


def test_the_last_layer_may_read_the_sum_of_the_others():
    config = layerwise(depth=3, model__sum_last=True)
    [run] = trained([config])
    x = run.points.x_test
    first, second, _ = run.network.hidden
    h = first(x).relu()
    torch.testing.assert_close(run.data.x_test, (h + second(h).relu()).detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(run.model(run.data.x_test), run.trained(x), rtol=1e-4, atol=1e-5)


def test_joint_training_keeps_its_fingerprint_and_other_models_are_refused():
    joint, apart = small(), layerwise()
    before = {key: value for key, value in joint.plain().items() if key != "training"}
    assert joint.fingerprint == RunConfig.parse(before).fingerprint
    assert apart.fingerprint != joint.fingerprint
    with pytest.raises(ConfigError, match="training=greedy: must be one of joint, layerwise"):
        compose(training="greedy")


def test_a_run_that_diverges_before_its_last_layer_has_a_record_that_can_be_read(tmp_path):
    [run] = trained([small(training="layerwise", depth=2, eval_every=10, lr=1e30, optimizer="sgd")], 0, [tmp_path])
    assert run.steps_before == 0  # the first layer
    record = records.read_stored(tmp_path).record
    assert record.status == records.Status.DIVERGED
    assert record.best_test_acc is not None
    assert record == run.record()
