"""The best network of a run beside its last: kept, found again after a kill, and read by plain torch."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import small
from torch import nn

from fractal_ifs import ConfigError, load
from fractal_ifs.config.run import Job
from fractal_ifs.runs import checkpoints, records
from fractal_ifs.runs.layerwise import LayerwiseRun
from fractal_ifs.runs.run import Run
from fractal_ifs.runs.state_dicts import with_state_dicts
from fractal_ifs.sweeps.sweep import train_jobs
from fractal_ifs.training.train import train

FORMAT2 = Path(__file__).parent / "fixtures" / "format2"
KINDS = {
    "native": {"engine": "native"},
    "torch": {"engine": "torch"},
    "layerwise": {"engine": "native", "training": "layerwise"},
    "layerwise, torch": {"engine": "torch", "training": "layerwise"},
    "float64": {"engine": "torch", "trainer.precision": "64-true", "seed": 1},
}
# Steps of this size make the accuracy go up and down, so that the best evaluation isn't the last.
HIGH = {"lr": 0.05, "steps": 200, "eval_every": 20, "depth": 2}


def bits(network: nn.Module) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in network.parameters())


def accuracy(run: Run, network: nn.Module) -> float:
    """The share of a run's test points that a network classifies correctly."""
    x = run.points.x_test if isinstance(run, LayerwiseRun) else run.data.x_test
    dtype = next(network.parameters()).dtype
    with torch.no_grad():
        return ((network(x.to(dtype)) > 0) == (run.data.y_test > 0)).double().mean().item()


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_network_has_the_best_accuracy_and_outlives_a_kill(kind, tmp_path):
    config = small(**HIGH, **KINDS[kind])
    [run] = train([Job(config, tmp_path / "straight")], threads=1)
    assert isinstance(run, Run)
    steps = config.steps_in_all
    assert 0 < run.best_step < steps, "choose another seed: the last evaluation is the best"
    found = load(tmp_path / "straight", best=True)
    assert (found.step, found.accuracy) == (run.best_step, run.best_test_acc)
    assert accuracy(run, found.model) == pytest.approx(run.best_test_acc, abs=0.004)  # a point on the border
    last = load(tmp_path / "straight")
    assert (last.step, last.accuracy) == (steps, run.history[-1].test_acc)
    assert accuracy(run, last.model) == pytest.approx(run.history[-1].test_acc, abs=0.004)
    assert bits(last.model) != bits(found.model)
    again = pickle.loads(pickle.dumps(found))  # as a pool of processes returns it
    assert (again.step, again.record.fingerprint) == (found.step, config.fingerprint)
    assert bits(again.model) == bits(found.model)
    after = (run.best_step - (steps - config.steps)) // config.eval_every  # evaluations of the layer until the best one
    before = (steps - config.steps) // config.eval_every
    for rounds in (before + 1, before + after, before + after + 1):

        def stop(_, left=[rounds]):  # noqa: B006 (it counts)
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

        directory = tmp_path / str(rounds)
        with pytest.raises(KeyboardInterrupt):
            train([Job(config, directory)], threads=1, report=stop)
        [again] = train([Job(config, directory)], threads=1)
        assert isinstance(again, Run)
        assert bits(load(directory, best=True).model) == bits(found.model)


def test_the_first_network_is_the_best_where_none_gets_a_point_right(tmp_path, monkeypatch):
    evaluated = Run.evaluated
    monkeypatch.setattr(Run, "evaluated", lambda run, _, *rest: evaluated(run, 0.0, *rest))
    [run] = train([Job(small(steps=40, eval_every=20), tmp_path)], threads=1)
    assert isinstance(run, Run)
    found = load(tmp_path, best=True)
    assert (found.step, found.accuracy, run.best_so_far) == (20, 0.0, 0.0)
    assert bits(found.model) != bits(load(tmp_path).model)


def test_plain_torch_takes_the_networks_of_a_checkpoint(tmp_path):
    for kind in ({}, {"training": "layerwise"}):
        directory = tmp_path / str(len(kind))
        train_jobs([Job(small(**HIGH, **kind), directory)])
        found = torch.load(directory / "checkpoint.pt", weights_only=True)
        for name, best in (("state_dict", False), ("best_state_dict", True)):
            run = load(directory, best=best)
            plain = nn.ModuleDict({"hidden": nn.ModuleList([nn.Linear(2, 8), nn.Linear(8, 8)])})
            plain["readout"] = nn.Linear(8, 1)
            plain.load_state_dict(found[name])
            assert bits(plain) == bits(run.model)


def test_a_state_dict_costs_no_second_copy_of_its_numbers(tmp_path):
    config = small(width=300, steps=1, eval_every=1)
    train_jobs([Job(config, tmp_path)])
    state: Any = checkpoints.read_whole(tmp_path / "checkpoint.pt")
    numbers = 4 * sum(state[name].numel() for name in ("params", "best_params", "exp_avg", "exp_avg_sq"))
    assert numbers < (tmp_path / "checkpoint.pt").stat().st_size < numbers + 12_000


def test_a_network_with_buffers_and_shared_weights_is_read_again(tmp_path):
    """As one of one's own may be; the stored parameters are those of ``parameters()``, each once."""
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    network[2].weight = network[0].weight
    [run] = train([Job(small(**HIGH), None)], threads=1)
    assert isinstance(run, Run)
    params = torch.arange(9 + 3 + 6 + 3.0)
    state = with_state_dicts({**run.state(), "params": params, "best_params": params + 1}, network)
    checkpoints.write_checkpoint(tmp_path, state)
    assert "state_dict" not in checkpoints.read_whole(tmp_path / "checkpoint.pt")
    found = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    network.load_state_dict(found["best_state_dict"])
    assert torch.equal(nn.utils.parameters_to_vector(network.parameters()), params + 1)
    assert network[2].weight is network[0].weight


def test_a_run_of_an_earlier_version_has_no_best_network(tmp_path):
    directory = Path(shutil.copytree(FORMAT2 / "native_finished", tmp_path / "run"))
    record = load(directory).record
    assert record.best_step is not None
    assert record.steps is not None
    if record.best_step == record.steps:
        assert bits(load(directory, best=True).model) == bits(load(directory).model)
    else:
        with pytest.raises(ConfigError, match=rf"its best network \(step {record.best_step}\) wasn't kept"):
            load(directory, best=True)


def test_a_run_that_goes_on_from_an_earlier_versions_checkpoint_has_the_best_from_there_on(tmp_path):
    config = small(**HIGH)
    [whole] = train([Job(config, tmp_path / "whole")], threads=1)
    directory = tmp_path / "old"

    def stop(rounds):
        if rounds.standing().steps >= 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([Job(config, directory)], threads=1, report=stop)
    state = checkpoints.read_whole(directory / "checkpoint.pt")
    old = {name: value for name, value in state.items() if name not in ("best_params", "digest")} | {"format": 2}
    torch.save({**old, "digest": checkpoints.digest(old)}, directory / "checkpoint.pt")
    [run] = train([Job(config, directory)], threads=1)
    assert isinstance(run, Run)
    assert isinstance(whole, Run)
    assert run.best_step == whole.best_step > 60
    assert bits(load(directory, best=True).model) == bits(load(tmp_path / "whole", best=True).model)


@pytest.mark.parametrize("entry", ["best_params", "params"])
def test_a_best_network_with_another_bit_or_shape_is_refused(entry, tmp_path):
    train_jobs([Job(small(**HIGH), tmp_path)])
    path = tmp_path / "checkpoint.pt"
    for change in (lambda vector: vector + 1e-3, lambda vector: vector[:-1].clone()):
        state: Any = checkpoints.read_whole(path)
        state.pop("digest", None)
        checkpoints.write_checkpoint(tmp_path, state | {entry: change(state[entry])})
        (tmp_path / "checkpoint.previous.pt").unlink()
        with pytest.raises(ConfigError, match=rf"^run={tmp_path}: [^\n]*$"):
            load(tmp_path, best=True)
        checkpoints.write_checkpoint(tmp_path, state)
        load(tmp_path, best=True)


def test_a_run_without_a_finite_accuracy_has_no_best_network(tmp_path):
    train_jobs([Job(small(lr=1e30, steps=20, eval_every=10), tmp_path)])
    found = records.read_record(tmp_path)
    assert found is not None
    assert found.status == "diverged"
    with pytest.raises(ConfigError, match="no accuracy was measured in it"):
        load(tmp_path, best=True)
