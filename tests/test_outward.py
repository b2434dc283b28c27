"""A sweep that searches: what it trains, where it ends, and that it trains nothing twice."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import small
from hydra.core.utils import JobReturn, JobStatus
from hypothesis import example, given
from hypothesis import strategies as st
from test_training import trained

from fractal_ifs.errors import ConfigError
from fractal_ifs.sweeps.outward import LocalSearch, ladder, nearest
from hydra_plugins.fractal_ifs_sweeper import OutwardSweeper

WORDS = ["fractal=vicsek", "fractal.depth=3", "width=6", "depth=2", "steps=60", "eval_every=20", "engine=torch"]
WORDS += ["data.train_size=1500", "data.test_size=997", "hydra/sweeper=outward", "logger=csv", "sweep=s", "workers=1"]
LRS = ("1e-5", "1e-4", "1e-3", "1e-2", "1e-1", "1")


def searched(values, first):
    """A search over a ladder with these values to its end, and how often it asked."""
    search, times = LocalSearch(len(values), first), 0
    while asked := search.asked():
        times += 1
        for rung in asked:
            search.found(rung, [values[rung]])
    return search, times


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), min_size=3, max_size=12), st.data())
@example([0.5] * 5, None)
def test_it_ends_where_no_neighbour_is_better(values, data):
    first = data.draw(st.integers(0, len(values) - 1)) if data else 2
    search, _ = searched(values, first)
    known = [-math.inf if math.isnan(value) or value == 0 else value for value in values]
    best = search.best
    near = known[max(0, best - 1) : best + 2]
    assert search.values[best] == max(near) == max(search.values.values())
    assert sorted(search.values) == list(range(min(search.values), max(search.values) + 1))  # no gap
    assert search.interior == (0 < best < len(values) - 1)


@given(st.integers(3, 12), st.data())
def test_of_one_peak_it_finds_the_top_and_trains_no_more_than_the_way_there(rungs, data):
    top, first = data.draw(st.integers(0, rungs - 1)), data.draw(st.integers(0, rungs - 1))
    search, _ = searched([1 - abs(rung - top) / 20 for rung in range(rungs)], first)
    assert search.best == top
    way = range(max(0, min(top, first) - 1), min(rungs, max(top, first) + 2))
    assert sorted(search.values) == list(way)


def test_where_all_is_equal_it_ends_at_once():
    search, times = searched([0.5] * 9, 4)
    assert (search.best, sorted(search.values), times) == (4, [3, 4, 5], 1)


def test_a_ladder_is_in_the_order_of_its_numbers():
    words = ["lr=1e-2", "lr=0.0005", "lr=1e-3", "lr=0.01"]
    assert ladder("lr", words) == ["lr=0.0005", "lr=1e-3", "lr=1e-2"]
    assert [nearest(ladder("lr", words), value) for value in (1e-9, 6.9e-4, 7.2e-4, 3e-3, 4e-3, 1)] == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    with pytest.raises(ConfigError, match=r"^hydra.sweeper.over=lr: needs at least 3 values of lr"):
        ladder("lr", words[:2])
    with pytest.raises(ConfigError, match=r"^loss=hinge: must be a number with hydra/sweeper=outward and over=loss$"):
        ladder("loss", ["loss=hinge"])


def test_words_with_pluses_are_searched_like_others():
    """As Hydra lets one write any key: the seeds of a cell are one search."""
    found = {}
    for pluses in ("", "++"):
        launched: list[list[str]] = []
        sweeper = OutwardSweeper()
        sweeper._check = lambda *_, **__: None

        def launch(batch, first, directory, launched=launched):
            launched.extend(batch)
            return [JobReturn(_return_value=0.5, status=JobStatus.COMPLETED) for _ in batch]

        sweeper._launch = launch
        jobs = [[f"{pluses}seed={seed}", f"{pluses}lr={lr}"] for seed in (0, 1) for lr in LRS]
        sweeper._launch_all(jobs, Path())
        found[pluses] = [[word.removeprefix(pluses) for word in words] for words in launched]
    assert found["++"] == found[""]
    assert len(found[""]) == 6


def trained_rates(directory):
    table = pd.read_csv(directory / "multirun" / "s" / "results.csv")
    return {str(curve): sorted(part.lr) for curve, part in table.groupby("curve")}


def test_a_sweep_trains_each_cell_as_far_as_its_best_is_not_at_an_edge(command, tmp_path):
    """Against plain runs of the whole grid."""
    words = ["-m", *WORDS, "curve=1,2", f"lr={','.join(LRS)}"]
    ended = command(*words)
    assert ended.status == 0
    rates = [float(lr) for lr in LRS]
    expected = {}
    for curve in (1, 2):
        keys: Any = {"fractal__depth": 3, "width": 6, "depth": 2, "steps": 60, "eval_every": 20, "engine": "torch"}
        keys |= {"data__train_size": 1500, "data__test_size": 997}
        runs = trained([small(fractal="vicsek", curve=curve, lr=lr, **keys) for lr in rates])
        search, _ = searched([run.best_test_acc for run in runs], 2)
        expected[str(curve)] = [rates[rung] for rung in sorted(search.values)]
    assert trained_rates(tmp_path) == expected
    assert any(len(each) < len(LRS) for each in expected.values())
    logs = {path: path.read_bytes() for path in tmp_path.rglob("history.csv")}
    assert command(*words).status == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("history.csv")} == logs


def test_jobs_of_a_choice_that_lacks_the_key_are_trained_once(command, tmp_path):
    words = ["-m", *WORDS, "optimizer=sgd,adam", "optimizer.momentum=0,0.3,0.6,0.9"]
    assert command(*words, "hydra.sweeper.over=optimizer.momentum").status == 0
    table = pd.read_csv(tmp_path / "multirun" / "s" / "results.csv")
    found: Any = list(zip(table["optimizer"], table["optimizer.momentum"], strict=True))
    assert [name for name, _ in found].count("adam") == 1
    assert {momentum for name, momentum in found if name == "sgd"} <= {0, 0.3, 0.6, 0.9}


def test_a_search_whose_runs_are_named_by_numbers_goes_on(command, tmp_path):
    """These are of the order in which it trains, which the grid's isn't."""
    words = ["-m", *WORDS, "curve=1", f"lr={','.join(LRS)}", "hydra.sweep.subdir=${hydra.job.num}"]
    assert command(*words).status == 0
    files = {path: path.read_bytes() for path in tmp_path.rglob("history.csv")}
    assert sorted(path.parent.name for path in files) == [str(number) for number in range(len(files))]
    assert command(*words).status == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("history.csv")} == files
    refused = command(*words, "width=7")  # what lies there is seen before it is trained
    assert "holds a run of another config" in str(refused.status)
    assert "lr=-1" in str(command(*words[:-2], "lr=1e-3,1e-2,1e-1,-1", words[-1]).status)
    assert {path: path.read_bytes() for path in tmp_path.rglob("history.csv")} == files


def test_a_rung_is_worth_the_mean_of_its_seeds_and_nothing_where_one_diverged():
    search = LocalSearch(3, 1)
    for rung, values in enumerate(([0.9, 0.9, 0.0], [0.6, 0.7, 0.8], [0.6, 0.6, 0.6])):
        search.found(rung, values)
    assert search.best == 1
    assert search.values[1] == pytest.approx(0.7)


def test_the_seeds_of_a_cell_search_together(command, tmp_path):
    """Alone, seed 2 would go on to lr=1."""
    assert command("-m", *WORDS, "curve=1", "seed=2,3", f"lr={','.join(LRS)}").status == 0
    rates = [float(lr) for lr in LRS]
    keys: Any = {"fractal__depth": 3, "width": 6, "depth": 2, "steps": 60, "eval_every": 20, "engine": "torch"}
    keys |= {"data__train_size": 1500, "data__test_size": 997, "fractal": "vicsek", "curve": 1}
    runs = trained([small(seed=seed, lr=lr, **keys) for lr in rates for seed in (2, 3)])
    reached = [run.best_test_acc for run in runs]
    together, _ = searched([(a + b) / 2 for a, b in zip(reached[::2], reached[1::2], strict=True)], 2)
    alone, _ = searched(reached[::2], 2)
    assert sorted(together.values) != sorted(alone.values)
    table = pd.read_csv(tmp_path / "multirun" / "s" / "results.csv")
    for _, part in table.groupby("seed"):
        assert sorted(part.lr) == [rates[rung] for rung in sorted(together.values)]
    assert len(table) == 2 * len(together.values)


def test_a_rate_that_diverges_is_never_the_best_whatever_it_had_before(command, tmp_path):
    words = [word for word in WORDS if not word.startswith("eval_every")]
    words += ["eval_every=2", "loss=squared", "optimizer=sgd", "curve=1", "lr=1e-4,1e-3,1e-2,2,4"]
    assert command("-m", *words).status == 0
    table = pd.read_csv(tmp_path / "multirun" / "s" / "results.csv").set_index("lr")
    assert sorted(table.index) == [1e-3, 1e-2, 2]  # and not 4, the next after 2
    assert table.status[2] == "diverged"
    assert table.best_test_acc[2] == table.best_test_acc.max()


def test_a_cell_of_which_all_that_was_tried_diverged_is_told(command):
    ended = command("-m", *WORDS, "curve=1", "lr=1e18,1e19,1e20,1e21,1e22")
    assert "at every lr that was tried a run diverged, in 1 of 1 cell, the first: " in ended.out + ended.err


def test_a_search_begins_at_the_best_of_a_table_and_says_where_it_ends_at_an_edge(command, tmp_path):
    assert command("-m", *WORDS[:-1], "sweep=first", "curve=1", "lr=1e-5,1e-4,1e-3", "kept=t.csv").status == 0
    kept = pd.read_csv(tmp_path / "t.csv").set_index("lr").best_test_acc
    assert kept.idxmax() == 1e-3
    ended = command("-m", *WORDS, "curve=1", "lr=1e-6,1e-5,1e-4,1e-3", "hydra.sweeper.best_lr=t.csv")
    assert ended.status == 0
    assert trained_rates(tmp_path)["1"] == [1e-4, 1e-3]
    assert "the best lr of 1 of 1 cell is at an end of the grid, the first: " in ended.out + ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lr=1e-3,1e-2"], "hydra.sweeper.over=lr: needs at least 3 values of lr"),
        (["lr=1e-4,1e-3,1e-2,-1"], "lr=-1: lr=-1.0: must be a finite number > 0"),
        (["lr=1e-4,1e-3,1e-2", "hydra.sweeper.over=width", "width=1,2,3", "hydra.sweeper.best_lr=x"], "hydra.sweeper"),
        (
            ["lr=1e-4,1e-3,1e-2", "hydra.sweeper.best_lr=none.csv"],
            "hydra.sweeper.best_lr=none.csv: must be the path of a CSV",
        ),
        (["lr=1e-4,1e-3,1e-2", "hydra.sweeper.over=curve"], "hydra.sweeper.over=curve: needs at least 3 values"),
    ],
)
def test_it_refuses_in_a_line(command, tmp_path, words, said):
    ended = command("-m", *WORDS, "curve=1", *words)
    assert str(ended.status).startswith(f"error: {said}"), ended.status
    assert "\n" not in str(ended.status)
    assert not list(tmp_path.rglob("train.log"))


def test_a_run_that_fails_holds_up_its_cell_alone(command, tmp_path):
    """The others are searched to their end. The same command, once the cause is gone, goes on with that one."""
    words = ["-m", *WORDS, "curve=1,2", "lr=1e-4,1e-3,1e-2", "hydra.sweep.subdir='${curve.name}-${lr}'"]
    (tmp_path / "multirun" / "s" / "1-0.001" / "result.json" / "in the way").mkdir(parents=True)
    ended = command(*words)
    assert ended.status == "error: 1 job failed"
    assert (ended.out + ended.err).count("; there is no checkpoint to write it anew from") == 1
    assert "Error executing job" not in ended.err
    assert [path.parent.name for path in (tmp_path / "multirun" / "s").glob("2-*/result.json") if path.is_file()]
    (tmp_path / "multirun" / "s" / "1-0.001" / "result.json" / "in the way").rmdir()
    (tmp_path / "multirun" / "s" / "1-0.001" / "result.json").rmdir()
    assert command(*words).status == 0
    assert 0.001 in trained_rates(tmp_path)["1"]
