"""Runs that end before their last step: at a test accuracy, or when none gets better."""

import csv
import dataclasses
from typing import Any

import pytest
import torch
from conftest import changed, read_checkpoint, small
from test_images import binary, parts
from test_images import config as images_config
from test_training import ENGINES, PARTNERS, numbers, trained

from fractal_ifs.config.run import Job
from fractal_ifs.config.stop import Stop
from fractal_ifs.errors import ConfigError
from fractal_ifs.report.write import write_report
from fractal_ifs.results import finished_runs
from fractal_ifs.results.numbers import learning_curve
from fractal_ifs.results.rows import read_runs
from fractal_ifs.runs.begin import begin
from fractal_ifs.runs.records import Status, read_record
from fractal_ifs.sweeps.status import status
from fractal_ifs.sweeps.sweep import train_jobs
from fractal_ifs.training.train import train

KEYS = {"eval_every": 10, "steps": 200}


def stopping(config, **keys):
    return dataclasses.replace(config, stop=Stop(**keys))


def where(history, accuracy=None, patience=None):
    """The step at which a run with this history is to end, by the words of the keys."""
    best, since = 0.0, 0
    for row in history:
        found = row.test_acc
        best, since = (found, 0) if found > best else (best, since + 1)
        if (accuracy is not None and found >= accuracy) or (patience is not None and since >= patience):
            return row.step
    return history[-1].step


def same(run, other):
    vectors = ("params", "exp_avg", "exp_avg_sq")
    return numbers(run) == numbers(other) and all(torch.equal(getattr(run, v), getattr(other, v)) for v in vectors)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name, (x, y) in parts(12).items():
        (folder / f"{name}.bin").write_bytes(binary(x, y))
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_ends_where_its_key_says_and_its_partners_do_not_notice(engine):
    configs = [small(engine=engine, **KEYS, **keys) for keys in PARTNERS]
    plain = trained(configs)
    rules = [{"accuracy": sorted(row.test_acc for row in run.history)[-2]} for run in plain[:2]] + [{"patience": 2}]
    asked = [stopping(config, **rule) for config, rule in zip(configs, rules, strict=False)]
    stopped = trained([*asked, configs[3]])
    assert same(stopped[3], plain[3])
    ends = [where(run.history, **rule) for run, rule in zip(plain, rules, strict=False)]
    assert min(ends) < 200
    for run, whole, end, rule in zip(stopped, plain, ends, rules, strict=False):
        assert numbers(run) == numbers(whole)[: end // 10]
        record = run.record()
        assert (record.steps, record.steps_asked) == (end, 200)
        assert record.best_test_acc == max(row.test_acc for row in run.history)
        if end < 200:
            [(name, value)] = rule.items()
            assert (record.status, record.stopped) == (Status.STOPPED, f"stop.{name}={value}")
        else:
            assert (record.status, record.stopped) == (Status.FINISHED, None)


def test_images_stop_as_points_do(images):
    config = images_config(images, eval_every=5)
    [plain] = trained([config])
    [run] = trained([stopping(config, patience=1)])
    end = where(plain.history, patience=1)
    assert end < 30
    assert numbers(run) == numbers(plain)[: end // 5]
    assert run.status == Status.STOPPED


def test_what_is_interrupted_decides_the_same(tmp_path):
    """Interrupted at every measurement, and once between the last checkpoint and the record."""
    config = stopping(small(**KEYS), patience=3)
    [straight] = trained([config])
    assert 30 < straight.step < 200

    def stop(_):
        raise KeyboardInterrupt

    directory = tmp_path / "run"
    job = Job(config, directory)
    for _ in straight.history[:-1]:
        with pytest.raises(KeyboardInterrupt):
            train([job], threads=1, report=stop)
        record: Any = read_record(directory)
        assert record.status == Status.INTERRUPTED
    [run] = train([job], threads=1)
    assert same(run, straight)
    (tmp_path / "run" / "result.json").unlink()
    run = begin(job, "cpu", straight.computed_by)
    run.unlock()
    assert (run.status, run.record().stopped) == (Status.STOPPED, "stop.patience=3")
    assert read_checkpoint(directory)["step"] == straight.step


def test_a_stopped_run_is_finished_for_everybody(tmp_path, command):
    words = ["-m", "curve=1,4", "width=8", "depth=2", "steps=200", "eval_every=10", "data.train_size=1000"]
    words += ["data.test_size=200", "logger=csv", "stop.patience=2", "sweep=s", "kept=kept.csv"]
    ended = command(*words)
    assert ended.status == 0
    sweep = tmp_path / "multirun" / "s"
    with open(sweep / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    early = [row for row in rows if row["status"] == "stopped"]
    assert early
    for row in early:
        assert row["stopped"] == "stop.patience=2"
        assert int(row["steps"]) < int(row["steps_asked"]) == 200
        assert f"stopped at {row['steps']}" in ended.out
    again = command(*words)
    assert "2 of 2 jobs are finished already" in again.out
    found = status(sweep)
    assert found.states["stopped"] == len(early)
    assert found.steps == found.steps_asked == sum(int(row["steps"]) for row in rows)
    assert len(finished_runs.read(tmp_path / "kept.csv").rows) == 2
    (other := tmp_path / "other").mkdir()
    moved = command(*words, f"hydra.sweep.dir={other}")  # the kept table has both
    assert "2 of 2 jobs are finished already" in moved.out
    assert not list(other.rglob("result.json"))
    runs, notes = read_runs([sweep])
    assert notes == []
    for run in runs.to_dict("records"):
        steps, accuracies = learning_curve(run)
        assert (steps[-1], len(steps)) == (run["steps"], len(accuracies))
        assert "stop.patience=2" in run["differs"]
    write_report([sweep], tmp_path / "report", with_figures=False)
    assert (tmp_path / "report" / "results.csv").exists()


def test_the_progress_of_a_sweep_does_not_wait_for_steps_that_nobody_does():
    seen = []
    train(
        [Job(stopping(small(**KEYS), patience=1), None)],
        threads=1,
        report=lambda rounds: seen.append(rounds.standing()),
    )
    assert 0 < seen[-1].steps < 200
    assert seen[-1].left == 0


def test_keys_that_never_end_a_run_leave_its_fingerprint():
    assert "stop" not in small().identity()
    assert stopping(small(), accuracy=0.9).fingerprint != small().fingerprint
    old = {name: value for name, value in small().plain().items() if name != "stop"}
    assert type(small()).parse(old).fingerprint == small().fingerprint


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("stop.accuracy", 0, "stop.accuracy=0: must be a finite number > 0 and <= 1, or null"),
        ("stop.accuracy", 99, "stop.accuracy=99: must be a finite number > 0 and <= 1, or null"),
        ("stop.patience", 0, "stop.patience=0: must be a whole number >= 1 and <= 1e9, or null"),
    ],
)
def test_bad_values_are_refused(key, value, said):
    with pytest.raises(ConfigError) as error:
        changed(small(), key, value)
    assert str(error.value) == said


def test_layer_by_layer_has_its_own_steps():
    with pytest.raises(ConfigError, match=r"stop.patience=2: must be null with training=layerwise"):
        stopping(small(training="layerwise"), patience=2)
    [record] = trained([small(training="layerwise", depth=2)])
    assert record.status == Status.FINISHED


def test_a_key_that_counts_beside_another_is_named_where_it_differs(tmp_path):
    """``data.val_size`` alone changes no result, but where the validation accuracy ends runs."""
    keys: dict[str, Any] = {"objective": "val_acc", "measures": ("val_acc",), "stop__patience": 2}
    first, second = (Job(small(**keys, data__val_size=size), tmp_path) for size in (50, 60))
    train([first])
    with pytest.raises(ConfigError, match=r"holds a run of another config \(data.val_size=50 there, 60 asked\)"):
        train_jobs([second])
