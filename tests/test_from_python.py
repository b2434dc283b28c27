"""Training from Python and notebooks: one network by ``run``, a grid by ``sweep``, which the command line joins."""

import asyncio
import json
import logging
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import hydra
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import files
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra

import fractal_ifs
from fractal_ifs import ConfigError, Interval, load, run, sweep
from fractal_ifs.config.names import run_directory
from fractal_ifs.config.session import VERSION_BASE
from fractal_ifs.files import CONF
from fractal_ifs.runs.run import Run
from fractal_ifs.sweeps import from_python
from fractal_ifs.sweeps.from_python import _word
from fractal_ifs.sweeps.table import frame

TINY: dict[str, Any] = {"width": 4, "depth": 1, "steps": 60, "eval_every": 20, "lr": 0.05}
TINY |= {"data__train_size": 300, "data__test_size": 100}


def test_a_table_has_no_accuracy_of_runs_that_diverged(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    keys: dict[str, Any] = {key: value for key, value in TINY.items() if key != "lr"} | {"fractal": "vicsek"}
    table = sweep(lr=[0.05, 1e30], **keys)
    assert table.best_test_acc.isna().tolist() == [False, True]
    assert str(table.best_step[0]).isdecimal()
    assert table.groupby("fractal").best_test_acc.mean().item() == table.best_test_acc[0]
    assert "diverged" not in caplog.text
    sweep(lr=[1e30, 1e31], **keys)
    assert "all 2 runs diverged; try a smaller lr" in caplog.messages


def test_run_returns_the_history_and_the_best_network_too(tmp_path):
    result = run(fractal="vicsek", curve=1, **TINY)
    record, model = result
    assert (record, model) == (result.record, result.model)
    assert list(result.history.step) == [20, 40, 60]
    assert result.history.test_acc.max() == record.best_test_acc
    assert record.config.logger.name == "none"
    kept = run(tmp_path, fractal="vicsek", curve=1, **TINY)
    assert result.best is not None
    for best, ours in ((True, result.best), (False, model)):
        theirs = load(tmp_path, best=best).model
        assert all(map(torch.equal, theirs.parameters(), ours.parameters()))
    pd.testing.assert_frame_equal(load(tmp_path).history.drop(columns="seconds"), kept.history.drop(columns="seconds"))


def test_what_run_and_load_return_is_shown_in_a_line(tmp_path):
    result = run(tmp_path / "one", **TINY)
    for shown in (repr(result), repr(load(tmp_path / "one"))):
        assert "\n" not in shown
        assert len(shown) < 250
        assert f"best test accuracy {result.record.best_test_acc:.4f}" in shown


def test_a_sweep_is_a_table_of_its_grid(tmp_path):
    table = sweep(
        tmp_path / "s",
        fractal=["vicsek", "cantor2d"],
        curve=range(1, 3),
        lr=np.array([0.05, 0.01]),
        **{name: value for name, value in TINY.items() if name != "lr"},
    )
    keys = list(zip(table.fractal, table.curve, table.lr, strict=True))
    assert keys == [(f, c, lr) for f in ("vicsek", "cantor2d") for c in ("1", "2") for lr in (0.05, 0.01)]
    assert table.attrs == {"directory": str(tmp_path / "s")}
    assert set(table.status) == {"finished"}
    record, *_ = load(table.directory[3])
    assert record.best_test_acc == table.best_test_acc[3]
    alone = run(None, fractal="cantor2d", curve=2, **TINY | {"lr": 0.05}).record
    of_it = load(table.directory[6]).record
    assert (alone.fingerprint, alone.final_test_acc) == (of_it.fingerprint, of_it.final_test_acc)
    written = pd.read_csv(tmp_path / "s" / "results.csv")
    assert sorted(written.best_test_acc) == sorted(table.best_test_acc)
    assert list(written.columns) == list(table.columns)
    assert json.loads(json.dumps(table.attrs)) == table.attrs  # as a parquet file stores them


def test_the_same_call_trains_nothing_again_and_more_values_join(tmp_path, monkeypatch):
    asked = {"fractal": "vicsek", "sweep": str(tmp_path / "joined"), **TINY}
    first = sweep(curve=[1, 2], **asked)
    before = files(tmp_path / "joined", "result.json")
    monkeypatch.setattr(Run, "__init__", lambda *_: pytest.fail("it trains again"))
    pd.testing.assert_frame_equal(sweep(curve=[1, 2], **asked), first)
    monkeypatch.undo()
    both = sweep(curve=[2, 4], **asked)
    assert list(both.curve) == ["2", "4"]
    assert before.items() < files(tmp_path / "joined", "result.json").items()
    assert len(pd.read_csv(tmp_path / "joined" / "results.csv")) == 3


def test_halving_is_that_of_the_command_line(command, tmp_path):
    asked: dict[str, Any] = TINY | {
        "fractal": "vicsek",
        "lr": [0.05, 0.01, 0.001],
        "curve": [1, 4],
        "steps": 80,
        "eval_every": 20,
    }
    table = sweep(tmp_path / "s", hydra__sweeper="halving", hydra__sweeper__over=["lr"], **asked)
    assert len(table) == 6
    assert sorted(table.status) == ["finished"] * 2 + ["pruned"] * 4
    assert set(table.curve[table.status == "finished"]) == {"1", "4"}
    before = files(tmp_path, "result.json")
    pd.testing.assert_frame_equal(sweep(tmp_path / "s", hydra__sweeper="halving", **asked), table)
    words = [f"{name.replace('__', '.')}={','.join(map(str, value)) if isinstance(value, list) else value}"
             for name, value in asked.items()]  # fmt: skip
    ended = command(
        "-m",
        *words,
        "logger=none",
        "hydra/sweeper=halving",
        "hydra.sweeper.over=[lr]",
        f"hydra.sweep.dir={tmp_path / 's'}",
    )
    assert ended.status == 0, ended.err
    assert files(tmp_path, "result.json") == before


def test_any_sweeper_may_draw_the_jobs(command, tmp_path):
    asked: dict[str, Any] = TINY | {"lr": [0.1, 0.05, 0.01, 0.001], "curve": [1, 4]}
    table = sweep(tmp_path / "s", hydra__sweeper="outward", **asked)
    assert set(table.status) == {"finished"}
    assert set(table.curve) == {"1", "4"}
    assert len(pd.read_csv(tmp_path / "s" / "results.csv")) == len(table) <= 8
    before = files(tmp_path, "result.json")
    pd.testing.assert_frame_equal(sweep(tmp_path / "s", hydra__sweeper="outward", **asked), table)
    words = [f"{name.replace('__', '.')}={','.join(map(str, value)) if isinstance(value, list) else value}"
             for name, value in asked.items()]  # fmt: skip
    ended = command("-m", *words, "logger=none", "hydra/sweeper=outward", f"hydra.sweep.dir={tmp_path / 's'}")
    assert ended.status == 0, ended.err
    assert files(tmp_path, "result.json") == before


@pytest.mark.parametrize(
    ("low", "high", "log", "word"),
    [
        (1e-4, 0.1, True, "tag(log,interval(0.0001,0.1))"),
        (2, 8, False, "int(interval(2,8))"),
        (np.int64(2), np.int32(8), True, "tag(log,int(interval(2,8)))"),
        (np.float64(0.5), 2, False, "interval(0.5,2.0)"),
        (2, 8.0, False, "interval(2.0,8.0)"),
    ],
)
def test_an_interval_is_that_of_the_command_line(low, high, log, word):
    assert str(Interval(low, high, log=log)) == word


@pytest.mark.parametrize(
    "numbers",
    [
        (2, 2, False),
        (3, 2, False),
        (0, 1, True),
        (1, float("inf"), False),
        ("a", 1, False),
        (1, None, False),
        ("1", "2", False),
        (10**400, 10**401, False),
        (False, True, False),
    ],
)
def test_an_interval_has_something_in_it(numbers):
    with pytest.raises(ConfigError, match=r"must have finite numbers .*low < high"):
        Interval(*numbers)


@pytest.fixture
def optuna():
    """Skips where Optuna's sweeper isn't installed, or is one for another Hydra."""
    pytest.importorskip("optuna", reason="hydra-optuna-sweeper is not installed")
    if version("hydra-optuna-sweeper")[:3] != hydra.__version__[:3]:
        pytest.skip("hydra-optuna-sweeper is for another Hydra")


OPTUNA: dict[str, Any] = {name: value for name, value in TINY.items() if name not in ("lr", "width")}
OPTUNA |= {"hydra__sweeper": "optuna", "hydra__sweeper__n_jobs": 3, "hydra__sweeper__sampler__seed": 1}
OPTUNA |= {"lr": Interval(1e-3, 0.1, log=True), "width": [4, 5], "curve": 1}


def test_optuna_is_that_of_the_command_line(command, tmp_path, optuna):
    """The same draws, towards the largest accuracy; the same call goes on, with more trials further."""
    table = sweep(tmp_path / "s", hydra__sweeper__n_trials=3, **OPTUNA)
    assert len(table) == 3
    assert table.lr.between(1e-3, 0.1).all()
    assert set(table.width) <= {4, 5}
    more = sweep(tmp_path / "s", hydra__sweeper__n_trials=6, **OPTUNA)
    assert list(zip(more.directory, more.history, strict=True))[:3] == list(
        zip(table.directory, table.history, strict=True)
    )
    before = files(tmp_path, "result.json")
    assert len(before) == len(more) == 6
    words = [f"{name.replace('__', '.')}={','.join(map(str, value)) if isinstance(value, list) else value}"
             for name, value in OPTUNA.items() if name != "hydra__sweeper"]  # fmt: skip
    words += ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=6", f"hydra.sweep.dir={tmp_path / 's'}", "logger=none"]
    ended = command("-m", *words)
    assert ended.status == 0, ended.err
    assert files(tmp_path, "result.json") == before
    found = yaml.safe_load((tmp_path / "s" / "optimization_results.yaml").read_text())
    assert found["best_value"] == more.best_test_acc.max()
    of_experiment: dict[str, Any] = {name: value for name, value in TINY.items() if name != "lr"} | {
        "hydra__sweeper__n_trials": 2
    }
    assert len(sweep(tmp_path / "e", experiment="optuna", **of_experiment)) == 2


def test_whole_numbers_are_drawn_between_whole_numbers(tmp_path, optuna):
    asked: dict[str, Any] = OPTUNA | {"width": Interval(cast(Any, np.int64(4)), 9), "hydra__sweeper__n_trials": 4}
    table = sweep(tmp_path / "s", **asked)
    assert table.width.between(4, 9).all()
    assert table.width.nunique() > 1


def test_a_study_is_kept_and_goes_on(tmp_path, optuna):
    if int(version("optuna")[0]) < 3 <= int(version("sqlalchemy")[0]) + 1:
        pytest.skip("Optuna 2 keeps a study with SQLAlchemy 1 alone")
    asked: dict[str, Any] = OPTUNA | {"hydra__sweeper__storage": f"sqlite:///{tmp_path}/study.db"}
    asked |= {"hydra__sweeper__study_name": "s", "hydra__sweeper__n_trials": 2}
    asked["hydra__sweeper__sampler__seed"] = None  # with one each call would begin with the same draws
    first, second = sweep(tmp_path / "s", **asked), sweep(tmp_path / "s", **asked)
    assert len(first) == len(second) == 2
    assert not set(first.directory) & set(second.directory)
    assert len(pd.read_csv(tmp_path / "s" / "results.csv")) == 4


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"hydra__sweeper__n_trial": 3}, "hydra.sweeper.n_trial=3: there is no such key; did you mean n_trials"),
        ({"hydra__sweeper__n_trials": 0}, "hydra.sweeper.n_trials=0: must be a whole number >= 1"),
        ({"hydra__sweeper__n_jobs": -1}, "hydra.sweeper.n_jobs=-1: must be a whole number >= 1"),
        ({"hydra__sweeper__direction": "up"}, "hydra.sweeper.direction=up: can't be used"),
        ({"hydra__sweeper__sampler": "tpee"}, "hydra/sweeper/sampler=tpee: must be one of .*tpe"),
        ({"width": [0, -1]}, "width=(0|-1): must be a whole number"),
    ],
)
def test_what_optuna_can_not_do_is_refused_in_a_line(asked, said, tmp_path, optuna):
    with pytest.raises(ConfigError, match=said):
        sweep(tmp_path / "s", **OPTUNA | asked)
    assert not list(tmp_path.iterdir())


def test_a_job_that_fails_ends_a_search_and_is_a_row(tmp_path, optuna, monkeypatch, caplog):
    start = Run.__init__

    def init(self, config, *more):
        if config.width == 5:
            raise OSError(28, "No space left on device")
        start(self, config, *more)

    monkeypatch.setattr(Run, "__init__", init)
    asked: dict[str, Any] = OPTUNA | {"hydra__sweeper__n_trials": 6}
    table = sweep(tmp_path, **asked)
    assert set(table.status[table.width == 5]) == {"failed"}
    assert set(table.status[table.width == 4]) <= {"finished"}
    assert "the same call goes on" in caplog.text
    monkeypatch.undo()
    assert set(sweep(tmp_path, **asked).status) == {"finished"}


def test_a_search_leaves_hydra_to_its_owner(tmp_path, optuna):
    """Also while it trains: other threads borrow Hydra between its batches."""
    with initialize_config_dir(str(CONF), job_name="theirs", **VERSION_BASE):
        sweepers: Any = ConfigStore.instance().repo["hydra"]["sweeper"]
        sweepers["optuna.yaml"].node.direction = "minimize"  # as it is of itself, whatever a command here has said
        asked: dict[str, Any] = OPTUNA | {"hydra__sweeper__n_trials": 6}
        before = state()
        with ThreadPoolExecutor(2) as pool:
            tables = list(pool.map(lambda seed: sweep(tmp_path / str(seed), seed=seed, **asked), range(2)))
        assert state() == before
    node: Any = ConfigStore.instance().load("hydra/sweeper/optuna.yaml").node
    assert getattr(node.direction, "name", node.direction) == "minimize"
    assert [len(table) for table in tables] == [6, 6]


def test_the_command_line_goes_on_with_it(command, tmp_path):
    table = sweep(fractal="vicsek", curve=[1, 4], **TINY)
    words = [f"{name.replace('__', '.')}={value}" for name, value in TINY.items()]
    before = files(tmp_path, "result.json")
    ended = command("-m", "fractal=vicsek", "curve=1,4", *words, "logger=none")
    assert ended.status == 0, ended.err
    assert files(tmp_path, "result.json") == before
    assert len(before) == 2
    name = Path(table.attrs["directory"]).name
    assert name.startswith("fractal=vicsek,curve,width=4,depth=1,")
    hydra = {path.name for path in (Path(table.directory[0]) / ".hydra").iterdir()}
    assert hydra == {"config.yaml", "hydra.yaml", "overrides.yaml"}


def test_the_command_line_goes_on_where_choices_are_ones_own(command, tmp_path):
    (own := tmp_path / "mine" / "curve").mkdir(parents=True)
    (own / "ends.yaml").write_text("name: ends\nweights: [1, 0, 0, 0, 1]\n")
    table = sweep(tmp_path / "s", curve=["ends", 1], hydra__searchpath=[str(tmp_path / "mine")], **TINY)
    assert [Path(directory).name.split(",")[0] for directory in table.directory] == ["curve=ends", "curve=1"]
    words = [f"{name.replace('__', '.')}={value}" for name, value in TINY.items()]
    words += ["curve=ends,1", f"hydra.searchpath=[{tmp_path / 'mine'}]", f"hydra.sweep.dir={tmp_path / 's'}"]
    before = files(tmp_path, "result.json")
    ended = command("-m", *words, "logger=none")
    assert ended.status == 0, ended.err
    assert files(tmp_path, "result.json") == before
    for directory in table.directory:  # as earlier versions called it
        former = f"hydra.searchpath=[_],{Path(directory).name}"
        assert run_directory(str(tmp_path / "s"), Path(directory).name, former) == Path(directory).name
        Path(directory).rename(tmp_path / "s" / former)
        assert run_directory(str(tmp_path / "s"), Path(directory).name, former) == former


def test_a_key_that_is_a_list_is_a_tuple_and_a_list_of_them_is_swept(tmp_path):
    table = sweep(
        tmp_path, fractal="vicsek", curve="weights", curve__weights=[(0, 0, 1, 0, 0), (1, 1, 0, 0, 0)], **TINY
    )
    assert list(table["curve.weights"]) == ["[0, 0, 1, 0, 0]", "[1, 1, 0, 0, 0]"]
    one = sweep(tmp_path / "one", fractal="vicsek", curve="weights", curve__weights=(0, 0, 1, 0, 0), **TINY)
    assert one.best_test_acc[0] == table.best_test_acc[0]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("measures", ["train_acc", "levels"], "[train_acc,levels]"),
        ("measures", ("train_acc",), "[train_acc]"),
        ("measures", ["train_acc"], "[train_acc]"),
        ("measures", [["train_acc"], ("levels", "dead")], "[train_acc],[levels,dead]"),
        ("measures", [], "[]"),
        ("measures", "train_acc", "train_acc"),  # which is refused, as on the command line
        ("optimizer.betas", [0.8, 0.9], "[0.8,0.9]"),
        ("curve.weights", np.array([0, 0, 1]), "[0,0,1]"),
        ("curve.weights", np.array([[0, 0, 1], [1, 0, 0]]), "[0,0,1],[1,0,0]"),
        ("curve.weights", [np.array([0, 0, 1]), (1, 0, 0)], "[0,0,1],[1,0,0]"),
        ("curve.mass", np.ones(2) / 2, "[0.5,0.5]"),
        ("curve.P", [0.5, 0.7, 1], "[0.5,0.7,1]"),
        ("fractal.offsets", [[-0.5, 0.5], [0.5, 0.5]], "[[-0.5,0.5],[0.5,0.5]]"),
        ("fractal.offsets", [-0.5, 0.5], "[-0.5,0.5]"),  # in one dimension
        ("fractal.offsets", np.array([[[-0.5], [0.5]], [[0], [0.5]]]), "[[-0.5],[0.5]],[[0.0],[0.5]]"),
        ("fractal.offsets", [(-0.5, 0.5), (-0.4, 0.4)], "[-0.5,0.5],[-0.4,0.4]"),  # several on a line
        ("fractal.maps", [{"matrix": 0.3, "offset": [0]}], "[{matrix:0.3,offset:[0]}]"),
        ("fractal.maps", [[{"matrix": 0.3}], [{"matrix": 0.2}]], "[{matrix:0.3}],[{matrix:0.2}]"),
        ("fractal.base", ["cube", "unit"], "cube,unit"),
        ("fractal.base", [[0, 0], [1, 0], [0, 1]], "[[0,0],[1,0],[0,1]]"),
        ("logger", ["csv", "wandb"], "[csv,wandb]"),
        ("logger", "csv", "csv"),
        ("model.omega", (5, 10), "[5,10]"),
        ("lr", [0.1, 0.2], "0.1,0.2"),
        ("lr", np.array([0.1, 0.2]), "0.1,0.2"),
    ],
)
def test_a_list_is_swept_or_is_the_value(key, value, words):
    assert _word(key, value) == f"{key}={words}"


@pytest.mark.parametrize("call", [run, lambda **keys: sweep(None, **keys)], ids=["run", "sweep"])
@pytest.mark.parametrize("choice", [dict, {"_target_": "nets.Mine"}, "mine/model/wide.yaml", [object()]], ids=range(4))
def test_a_choice_is_a_name_and_where_ones_own_is_found_is_said(call, choice):
    with pytest.raises(ConfigError, match=r"^model=.*: must be a name; one of your own is a file DIR/model/NAME"):
        call(model=choice, **TINY)


@pytest.mark.parametrize("call", [run, sweep])
def test_words_are_no_directory(call):
    with pytest.raises(ConfigError, match=r"^directory=\['width=8'\]: must be a path; keys are keywords, width=8$"):
        call(["width=8"], **TINY)


def test_a_key_that_differs_has_a_column_whatever_rate_it_went_with(tmp_path):
    for lr, decay in ((1e-3, 0.1), (2e-3, 0.2)):
        sweep(tmp_path, **TINY | {"optimizer": "adamw", "lr": lr, "optimizer__weight_decay": decay})
    assert list(frame(tmp_path)["optimizer.weight_decay"]) == [0.1, 0.2]


def test_measures_of_a_sweep_are_a_list(tmp_path):
    table = sweep(tmp_path, curve=[1, 4], measures=["train_acc", "norms"], **TINY)
    assert len(table) == 2
    assert load(table.directory[0]).record.config.measures == ("train_acc", "norms")


def test_an_experiment_is_a_sweep(tmp_path):
    asked: dict[str, Any] = {**TINY, "width": [4, 5]}
    table = sweep(tmp_path, experiment="table2", fractal="vicsek", curve=[1, 6], **asked)
    assert list(zip(table.curve, table.width, strict=True)) == [("1", 4), ("1", 5), ("6", 4), ("6", 5)]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"width": [0, 4], "curve": [1, 9]}, "jobs are refused"),
        ({"width": [0, 4]}, "width=0: must be a whole number"),
        ({"widht": 5}, "widht"),
        ({"curve": []}, r"curve=\[\]: stands for no jobs"),
        ({"curve": [1, 1]}, "the sweep has a job twice: .* curve=1 "),
        ({"fractal": "vicsek,cantor2d"}, "vicsek,cantor2d"),
        ({"hydra__launcher": "slurm"}, "of hydra's there is hydra.searchpath and hydra.sweeper"),
        ({"lr": [Interval(0.1, 0.2), 0.3]}, "lr=.*: an Interval must stand alone, not in a list"),
        ({"lr": Interval(0.1, 0.2)}, "lr=interval.0.1,0.2.: the grid needs separate values"),
        ({"hydra__sweeper": "outward", "lr": [0.1, 0.01], "hydra__sweeper__over": "lrs"}, "hydra.sweeper.over=lrs"),
        (
            {"hydra__sweeper": "nevergrad"},
            "hydra/sweeper=nevergrad: must be one .*; pip install hydra-nevergrad-sweeper",
        ),
        ({"hydra__sweeper": "halvin"}, "hydra/sweeper=halvin: must be one of"),
        ({"hydra__sweeper": "halving", "lr": [0.1, 0.01], "hydra__sweeper__eta": 1}, "hydra.sweeper.eta=1: must be a"),
        ({"hydra__sweeper": "halving", "width": [4, 5]}, "no two jobs of this sweep differ in these keys alone"),
        ({"sweep": ["aa", "bb"]}, r"sweep=\['aa', 'bb'\]: must be one name"),
        ({"directory": "s", "sweep": ("aa", "bb")}, "sweep="),
        ({"executor": "slurm"}, "executor=slurm: must be one of inline, local"),
        ({"directory": "curve=1"}, "keys are keywords, curve="),
    ],
)
def test_what_is_wrong_is_refused_in_a_line_before_anything_starts(asked, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=said) as error:
        sweep(**TINY | asked)
    assert len(str(error.value).splitlines()) <= 1 + 2 * ("jobs are refused" in said)
    assert not list(tmp_path.iterdir())


def test_batches_are_those_of_the_command_line(tmp_path, monkeypatch):
    batches: list[int] = []
    train = from_python.train_unfinished

    def counting(jobs, *more):
        batches.append(len(jobs))
        return train(jobs, *more)

    monkeypatch.setattr(from_python, "train_unfinished", counting)
    table = sweep(tmp_path, **TINY, seed=[0, 1, 2], hydra__sweeper__max_batch_size=2)
    assert batches == [2, 1]
    assert table.status.tolist() == ["finished"] * 3


def test_what_is_said_of_jobs_that_are_the_same(tmp_path):
    keys: dict[str, Any] = TINY | {"lr": [0.05, 5e-2, "5e-2"]}
    with pytest.raises(ConfigError) as error:
        sweep(tmp_path, **keys)
    assert "(2 of 3 jobs)" in str(error.value)


def test_a_job_that_fails_has_a_row_that_says_so(tmp_path, monkeypatch):
    start = Run.__init__

    def init(self, config, *more):
        if config.curve.name == "4":
            raise OSError(28, "No space left on device")
        start(self, config, *more)

    monkeypatch.setattr(Run, "__init__", init)
    table = sweep(tmp_path, curve=[1, 4], **TINY)
    assert list(table.status) == ["finished", "failed"]
    assert table.error[1] == "OSError: [Errno 28] No space left on device"
    monkeypatch.undo()
    assert list(sweep(tmp_path, curve=[1, 4], **TINY).status) == ["finished", "finished"]


def test_a_file_in_the_place_of_a_jobs_directory_is_that_jobs_failure(command, tmp_path):
    first = sweep(tmp_path, curve=[1, 4], **TINY)
    (tmp_path / "aside").mkdir()
    (place := Path(first.directory[0])).rename(tmp_path / "aside" / "curve")
    place.touch()
    for executor in ("inline", "local"):
        table = sweep(tmp_path, curve=[1, 4, 6], executor=executor, **TINY)
        assert list(table.status) == ["failed", "finished", "finished"]
        assert table.error[0] == (
            f"NotADirectoryError: [Errno 20] must be a directory that can be written: {place} is a file"
        )
    words = [f"{name.replace('__', '.')}={value}" for name, value in TINY.items()]
    for more in ([], ["hydra/sweeper=halving", "hydra.sweeper.over=[curve]"]):
        ended = command("-m", "curve=1,4,6", *words, *more, "logger=none", f"hydra.sweep.dir={tmp_path}")
        assert ended.status == "error: 1 job failed"
        assert (ended.out + ended.err).count(table.error[0]) == 1
    place.unlink()
    assert list(sweep(tmp_path, curve=[1, 4, 6], **TINY).status) == ["finished"] * 3


def test_an_interrupt_is_pythons_and_the_same_call_goes_on(tmp_path, monkeypatch):
    from fractal_ifs.training.rounds import SweepRounds

    whole = sweep(tmp_path / "whole", curve=[1, 4], **TINY)
    keep = SweepRounds._keep
    monkeypatch.setattr(SweepRounds, "_keep", lambda self: (keep(self), signal.raise_signal(signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path / "s", curve=[1, 4], **TINY)
    assert set(pd.read_csv(tmp_path / "s" / "results.csv").status) == {"interrupted"}
    monkeypatch.undo()
    table = sweep(tmp_path / "s", curve=[1, 4], **TINY)
    pd.testing.assert_series_equal(table.history, whole.history)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"engine": "cuda"}, "^engine=cuda: needs a GPU, and PyTorch finds none here; engine=auto trains on the CPU$"),
        ({"engine": "native", "model__activation": "tanh"}, "^engine=native: must be auto or torch here"),
        ({"engine": "lightning", "trainer__ckpt_path": "no.ckpt"}, "^trainer.ckpt_path=no.ckpt: "),
    ],
)
def test_an_engine_that_can_not_train_a_run_is_refused(keys, said, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match=said):
        run(**{**TINY, **keys})


def test_a_run_is_trained_as_in_a_sweep_on_what_this_machine_has(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    record, _ = run(**TINY, trainer__accelerator="auto")
    [row] = sweep(tmp_path, **TINY, trainer__accelerator="auto").to_dict("records")
    assert (record.engine, record.fingerprint) == (row["engine"], row["fingerprint"])
    assert record.best_test_acc == row["best_test_acc"]


def state():
    root = logging.getLogger()
    kinds = {kind: signal.getsignal(kind) for kind in signal.valid_signals()}
    own = [GlobalHydra.instance().hydra, sys.argv, sys.stdout, torch.get_num_threads()]
    return [*own, [*root.handlers], root.level, kinds]


def test_a_notebook_keeps_what_is_its_own(tmp_path, capfd):
    """A running event loop, a Hydra session, its logging, signals, streams and arguments."""

    async def cell(number):
        run(curve=1, **TINY)
        return sweep(tmp_path, curve=[1, 2], seed=number, **TINY)

    with initialize_config_dir(str(CONF), job_name="theirs", **VERSION_BASE):
        before = state()
        for number in (0, 0, 1):
            assert len(asyncio.run(cell(number))) == 2
            assert state() == before
    assert capfd.readouterr().out == ""


def test_threads_may_sweep_at_the_same_time(tmp_path):
    def one(seed):
        return sweep(tmp_path / str(seed), curve=[1, 4], seed=seed, **TINY)

    with ThreadPoolExecutor(3) as pool:
        tables = list(pool.map(one, range(3)))
    alone = sweep(tmp_path / "alone", curve=[1, 4], seed=[0, 1, 2], **TINY).sort_values(["seed", "curve"])
    assert list(pd.concat(tables).history) == list(alone.history)


def test_a_second_sweep_of_a_directory_is_told(tmp_path):
    from fractal_ifs.runs.locks import Busy
    from fractal_ifs.sweeps.driver import driving

    with driving(tmp_path), pytest.raises(Busy, match=str(tmp_path)):
        sweep(tmp_path, curve=1, **TINY)


def test_names_of_the_package():
    assert {"run", "sweep", "load", "predict"} < {*dir(fractal_ifs)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hydra: {job: {chdir: true}}", "hydra.job.chdir=true: can't be given from Python"),
        ("hydra: {job: {env_set: {A: b}}}", "hydra.job.env_set.A: can't be given from Python"),
        ("hydra: {sweep: {dir: '${width}'}}", "hydra.sweep.dir: must be the same for all jobs, not .* and .*[45]$"),
        (
            "hydra: {callbacks: {mine: {_target_: hydra.experimental.callbacks.LogJobReturnCallback}}}",
            "hydra.callbacks.mine: can't be given from Python",
        ),
        ("defaults: [{override /hydra/launcher: basic}]", "hydra/launcher=basic: must be fused from Python"),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_what_an_experiment_asks_of_hydra_is_refused(text, said, several, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (own := tmp_path / "mine" / "experiment").mkdir(parents=True)
    (own / "a.yaml").write_text("# @package _global_\nhydra: {sweep: {subdir: 'a-${width}'}}\n")
    (own / "b.yaml").write_text(f"# @package _global_\n{text}\n")
    asked: dict[str, Any] = {"sweep": "s", "width": [4, 5], "hydra__searchpath": [str(tmp_path / "mine")]}
    if several and ("callbacks" in text or "launcher" in text):
        said = "which belongs to a whole sweep"
    with pytest.raises(ConfigError, match=said):
        sweep(**TINY | asked, experiment=["a", "b"] if several else "b")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(("subdir", "there"), [("null", None), ("theirs", "theirs")])
def test_what_hydra_writes_is_where_it_writes_it(subdir, there, tmp_path):
    (own := tmp_path / "mine" / "experiment").mkdir(parents=True)
    (own / "b.yaml").write_text(f"# @package _global_\nhydra: {{output_subdir: {subdir}}}\n")
    table = sweep(tmp_path / "s", curve=[1, 2], experiment="b", hydra__searchpath=[str(tmp_path / "mine")], **TINY)
    for directory in table.directory:
        found = [path.parent.name for path in Path(directory).rglob("overrides.yaml")]
        assert found == ([there] if there else [])


@pytest.mark.parametrize("directory", ["a\0b", "x" * 300, "\ud83d", "", "a\nb", b"a"])
def test_what_is_no_directory_is_refused(directory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for function in (run, sweep):
        with pytest.raises(ConfigError, match="must be") as refused:
            function(directory, **TINY)
        assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())
