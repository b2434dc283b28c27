"""``continue_from``: going on with a finished run to more steps."""

import dataclasses
import re
import shutil
from typing import Any

import pytest
import torch
from conftest import files as files_in
from conftest import read_checkpoint, small
from killed import results
from test_images import binary, parts
from test_images import config as images_config
from test_training import ENGINES, PARTNERS, trained

from fractal_ifs.api import run as run_one
from fractal_ifs.config.run import Job
from fractal_ifs.config.stop import Stop
from fractal_ifs.errors import ConfigError
from fractal_ifs.runs import longer as module
from fractal_ifs.runs.longer import with_sources
from fractal_ifs.runs.records import read_record
from fractal_ifs.sweeps.halving import train_by_halving
from fractal_ifs.sweeps.rungs import Halving
from fractal_ifs.sweeps.sweep import train_jobs
from fractal_ifs.training.train import train

SHORT, LONG = {"steps": 40, "eval_every": 20}, {"steps": 100, "eval_every": 20}


def going_on(config, there):
    return dataclasses.replace(config, continue_from=str(there))


def log(directory):
    return (directory / "train.log").read_text()


@pytest.mark.parametrize("engine", ENGINES)
def test_it_equals_a_run_from_step_0_and_leaves_the_shorter_one(tmp_path, engine):
    """Two of four runs have a shorter one, in one of two lengths; all train together."""
    short, long, straight = (tmp_path / name for name in ("short", "long", "straight"))
    for number, keys in enumerate(PARTNERS[:2]):
        trained(
            [small(engine=engine, **{**SHORT, "steps": 20 + 20 * number}, **keys)], directories=[short / str(number)]
        )
    before = files_in(short)
    configs = [small(engine=engine, **LONG, **keys) for keys in PARTNERS]
    trained(configs, directories=[straight / str(number) for number in range(4)])
    trained([going_on(config, short) for config in configs], directories=[long / str(number) for number in range(4)])
    assert results(long) == results(straight)
    assert files_in(short) == before
    for number, said in enumerate(
        ["begins from step 20: the end of", "begins from step 40: the end of", "begins from step 0: no finished"]
    ):
        assert said in log(long / str(number))
    record: Any = read_record(long / "0")
    assert record.config.continue_from == str(short)


def test_of_several_the_longest_and_images_too(tmp_path):
    (folder := tmp_path / "images").mkdir()
    for name, (x, y) in parts(12).items():
        (folder / f"{name}.bin").write_bytes(binary(x, y))
    config = images_config(folder, eval_every=5)
    for steps in (5, 20, 10):
        trained([dataclasses.replace(config, steps=steps)], directories=[tmp_path / "short" / str(steps)])
    [straight] = trained([config])
    [run] = trained([going_on(config, tmp_path / "short")], directories=[tmp_path / "long"])
    assert torch.equal(run.params, straight.params)
    assert run.record().best_test_acc == straight.record().best_test_acc
    assert "begins from step 20: the end of" in log(tmp_path / "long")


@pytest.mark.parametrize(
    ("shorter", "longer", "said"),
    [
        ({"steps": 50}, {}, "steps=50 measured at the end, between two of every eval_every=20"),
        ({"lr": 0.5}, {}, "differs in nothing but fewer steps"),
        ({"steps": 100}, {}, "differs in nothing but fewer steps"),
        ({"eval_every": 10}, {}, "differs in nothing but fewer steps"),
        ({"training": "layerwise"}, {"training": "layerwise"}, "training=layerwise: each layer has its own steps"),
        ({"schedule": "cosine"}, {"schedule": "cosine"}, "schedule=cosine: its learning rates depend on steps"),
        ({}, {"measures": ("val_acc",), "data__val_size": 50, "objective": "val_acc"}, "has no val_acc"),
    ],
    ids=str,
)
def test_else_it_begins_from_step_0_and_says_why(tmp_path, shorter, longer, said):
    trained([small(**{**SHORT, **shorter})], directories=[tmp_path / "short"])
    config = small(**{**LONG, **longer})
    trained([config], directories=[tmp_path / "straight"])
    trained([going_on(config, tmp_path / "short")], directories=[tmp_path / "long"])
    told = re.sub(rf"(no finished|the) run in {tmp_path}/short ", "", log(tmp_path / "long"))
    assert f"begins from step 0: {said}" in told
    assert results(tmp_path / "long")["."] == results(tmp_path / "straight")["."]


@pytest.mark.parametrize("damage", ["newest", "both", "missing"])
def test_a_damaged_checkpoint_is_not_gone_on_with(tmp_path, damage):
    trained([small(**SHORT)], directories=[tmp_path / "short"])
    checkpoint = tmp_path / "short" / "checkpoint.pt"
    if damage == "newest":
        shutil.copy(checkpoint, tmp_path / "short" / "checkpoint.previous.pt")
    checkpoint.unlink() if damage == "missing" else checkpoint.write_bytes(checkpoint.read_bytes()[:-200])
    before = files_in(tmp_path / "short")
    trained([going_on(small(**LONG), tmp_path / "short")], directories=[tmp_path / "long"])
    [straight] = trained([small(**LONG)])
    assert torch.equal(read_checkpoint(tmp_path / "long")["params"], straight.params)
    assert f"begins from step {40 if damage == 'newest' else 0}" in log(tmp_path / "long")
    assert files_in(tmp_path / "short") == before


def test_interrupted_it_goes_on_from_its_own_checkpoint(tmp_path):
    trained([small(**SHORT)], directories=[tmp_path / "short"])
    job = Job(going_on(small(**LONG), tmp_path / "short"), tmp_path / "long")

    def stop(_):
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(with_sources([job]), threads=1, report=stop)
    shutil.rmtree(tmp_path / "short")
    train(with_sources([job]), threads=1)
    trained([small(**LONG)], directories=[tmp_path / "straight"])
    assert results(tmp_path / "long")["."] == results(tmp_path / "straight")["."]


def test_a_run_that_stopped_early_stops_there_too(tmp_path):
    config = dataclasses.replace(small(**LONG, lr=0.5), stop=Stop(patience=1))
    for name, each in (("short", dataclasses.replace(config, steps=80)), ("straight", config)):
        trained([each], directories=[tmp_path / name])
    [run] = trained([going_on(config, tmp_path / "short")], directories=[tmp_path / "long"])
    assert run.record().status == "stopped"
    assert results(tmp_path / "long")["."] == results(tmp_path / "straight")["."]


WORDS = ["curve=1,4", "width=8", "depth=2", "eval_every=20", "data.train_size=1000", "data.test_size=200", "logger=csv"]


def test_the_command(command, tmp_path):
    """In the sweep of the shorter runs itself, and for one run alone; a missing directory is refused."""
    assert command("-m", *WORDS, "steps=40", "sweep=s").status == 0
    before = files_in(tmp_path / "multirun" / "s", "result.json")
    ended = command("-m", *WORDS, "steps=80", "sweep=s", "continue_from=multirun/s")
    assert ended.status == 0
    assert "continue_from: 2 of 2 jobs begin at the end of a run of fewer steps" in ended.out
    after = files_in(tmp_path / "multirun" / "s", "result.json")
    assert len(after) == 4
    assert {name: after[name] for name in before} == before
    again = command("-m", *WORDS, "steps=80", "sweep=s")  # the key says nothing about the result
    assert "2 of 2 jobs are finished already" in again.out
    refused = command("-m", *WORDS, "steps=99", "continue_from=nowhere")
    assert refused.status == (
        "error: continue_from=nowhere: must be a directory with finished runs (2 of 2 jobs, the first curve=1)"
    )


def test_overwriting_discards_no_run_that_it_begins_from(command, tmp_path):
    words = [word for word in WORDS if not word.startswith("curve=")]
    assert command(*words, "steps=40", "hydra.run.dir=one").status == 0
    before = files_in(tmp_path / "one", "result.json")
    longer = ["steps=80", "continue_from=one", "hydra.run.dir=one"]
    told = str(command(*words, *longer).status)
    assert "overwrite=true replaces it" in told
    assert "; in another, continue_from=" in told
    ended = command(*words, *longer, "overwrite=true")
    assert re.fullmatch(
        r"error: continue_from=one: overwrite=true would discard the run in \S*one before another begins at its end; "
        "give that another directory",
        str(ended.status),
    )
    assert ended.out == ""
    assert files_in(tmp_path / "one", "result.json") == before
    assert command(*words, *longer[:2], "hydra.run.dir=other", "overwrite=true").status == 0
    assert command(*words, *longer[:2], "hydra.run.dir=one/longer", "overwrite=true").status == 0
    assert command("-m", *words, "steps=40,60", "sweep=s").status == 0
    ended = command("-m", *words, "steps=60,80", "sweep=s", "continue_from=multirun/s", "overwrite=true")
    assert "before another begins at its end" in str(ended.status) + ended.out + ended.err


def test_from_python_without_a_directory_of_its_own(tmp_path):
    keys = {
        "width": 8,
        "depth": 2,
        "eval_every": 20,
        "data__train_size": 1000,
        "data__test_size": 200,
        "logger": "none",
    }
    run_one(tmp_path / "short", steps=40, **keys)
    record, _ = run_one(steps=80, continue_from=str(tmp_path / "short"), **keys)
    straight: Any
    [straight] = train_jobs([Job(dataclasses.replace(record.config, continue_from=""), None)])
    assert (record.best_test_acc, record.final_test_acc) == (straight.best_test_acc, straight.final_test_acc)


def test_python_refuses_a_directory_that_is_missing(tmp_path):
    keys: Any = {
        "width": 4,
        "depth": 1,
        "steps": 40,
        "eval_every": 20,
        "data__train_size": 200,
        "data__test_size": 50,
    }
    with pytest.raises(ConfigError, match=r"^continue_from=/nowhere: must be a directory with finished runs$"):
        run_one(continue_from="/nowhere", **keys)
    with pytest.raises(ConfigError, match=r"^continue_from=/nowhere: must be a directory with finished runs$"):
        run_one(tmp_path / "run", continue_from="/nowhere", **keys)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"^continue_from=.*empty: must be a directory with finished runs$"):
        run_one(tmp_path / "run", continue_from=str(tmp_path / "empty"), **keys)
    assert not (tmp_path / "run").exists()
    record, _ = run_one(tmp_path / "run", **keys)
    assert run_one(tmp_path / "run", continue_from="/nowhere", **keys).record.final_test_acc == record.final_test_acc


def test_a_directory_is_read_once_for_all_groups_and_rungs(tmp_path, monkeypatch):
    trained([small(**SHORT)], directories=[tmp_path / "short"])
    before, reads = module._ended, []
    monkeypatch.setattr(module, "_ended", lambda root: (reads.append(root), before(root))[1])
    groups = [small(**LONG), small(**LONG, width=9), small(**LONG, loss="squared"), small(**LONG, optimizer="sgd")]
    train_jobs([Job(going_on(config, tmp_path / "short"), tmp_path / str(n)) for n, config in enumerate(groups)])
    assert reads == [tmp_path / "short"]
    reads.clear()
    keys = Halving.parse({"params": None, "over": ["lr"], "eta": 2, "least": 20, "by": "best"})
    jobs = [Job(going_on(small(**LONG, lr=lr), tmp_path / "short"), tmp_path / f"{lr}") for lr in (1e-3, 2e-3, 3e-3)]
    ended: Any = train_by_halving(jobs, {}, keys, "inline", 0)
    assert reads == [tmp_path / "short"]
    assert sorted(record.status for record in ended) == ["finished", "pruned", "pruned"]
