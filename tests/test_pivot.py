"""The table of any sweep: each number in it is computed by hand beside the check."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import small, undigested

from fractal_ifs.config.fractal import Curve
from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError
from fractal_ifs.plotting.style import Output
from fractal_ifs.report import forms, own_figures
from fractal_ifs.report.write import write_report
from fractal_ifs.results import finished_runs, numbers, pivot
from fractal_ifs.results.best_lr import BestLr
from fractal_ifs.results.cells import form_cells
from fractal_ifs.results.measured import with_measure
from fractal_ifs.results.protocol import protocol_value
from fractal_ifs.results.rows import read_runs
from fractal_ifs.results.varied import inner_keys, varied, with_inner_keys
from fractal_ifs.runs.history import Evaluation, write_history
from fractal_ifs.runs.records import RunRecord, Status, read_record, write_record
from fractal_ifs.sweeps.table import show_table


def add(root: Path, accuracies, status=Status.FINISHED, config: RunConfig | None = None, **keys) -> Path:
    """A run's directory, with these test accuracies every 10 steps."""
    config = replace(config if config is not None else small(**keys), steps=10 * len(accuracies), eval_every=10)
    assert config is not None
    directory = root / f"run{len(list(root.glob('run*')))}"
    directory.mkdir(parents=True)
    history = [Evaluation(10 * (i + 1), 1.0, 0.9, 0.8, value) for i, value in enumerate(accuracies)]
    best = max(history, key=lambda row: row.test_acc)
    measured = {"best_test_acc": best.test_acc, "best_step": best.step, "final_test_acc": accuracies[-1]}
    if status == Status.FAILED:
        measured = {"error": "OSError: disk"}
    else:
        write_history(directory, history)
    write_record(directory, RunRecord.of(config, status, steps=config.steps, seconds=1.0, **measured))
    return directory


def table_of(*paths, number=numbers.BEST, column=None) -> pivot.Pivot:
    return pivot.pivot(*with_inner_keys(read_runs(paths)[0]), number, column)


def cells(table: pivot.Pivot) -> dict[tuple[str, ...], dict[str, pivot.Entry]]:
    return {key: dict(line) for key, line in table.entries.items()}


def texts(table: pivot.Pivot) -> list[list[str]]:
    head, lines = pivot.grid(table)
    return [head, *lines]


def test_whatever_varies_is_in_the_table_and_seeds_are_a_mean(tmp_path):
    for margin, values in ((0.0, (0.6, 0.7)), (0.001, (0.8, 0.9))):
        for seed, value in enumerate(values):
            for curve in (1, 4):
                add(tmp_path, [value + curve / 100], curve=curve, data__margin=margin, seed=seed)
    table = table_of(tmp_path)
    assert (list(table.rows), table.column, table.columns) == (["curve"], "data.margin", ["0", "0.001"])
    assert cells(table)[("4",)]["0.001"].mean == pytest.approx((0.84 + 0.94) / 2)
    assert texts(table) == [
        ["curve", "data.margin=0", "data.margin=0.001"],
        ["1", "0.6600 ± 0.0707", "0.8600 ± 0.0707"],  # .1 / sqrt(2)
        ["4", "0.6900 ± 0.0707", "0.8900 ± 0.0707"],
    ]
    assert pivot.legend(table)[0].startswith("In all runs: data=fractal, fractal=")
    other = table_of(tmp_path, column="curve")
    assert (list(other.rows), other.column) == (["data.margin"], "curve")
    of_seeds = table_of(tmp_path, column="seed")
    assert cells(of_seeds)["1", "0"]["1"].mean == pytest.approx(0.71)


def test_a_key_that_follows_from_others_has_no_column(tmp_path):
    """The maps of a fractal follow from its name, the weights of a curve of one's own don't."""
    for fractal in ("vicsek", "carpet"):
        for weights in ((1, 0, 1), (0, 0, 1)):
            add(tmp_path, [0.6], fractal=fractal, fractal__depth=3, curve="weights", curve__weights=weights)
    runs, inner = with_inner_keys(read_runs([tmp_path])[0])
    assert varied(runs, inner)[0] == "fractal"
    assert len(varied(runs, inner)) == 2


def test_a_key_that_goes_with_another_and_does_not_come_from_it_is_in_the_table(tmp_path):
    """Else what a margin does would be put down to the width that it was set with."""
    add(tmp_path, [0.6], width=10)
    add(tmp_path, [0.7], width=20, data__margin=0.003)
    table = table_of(tmp_path)
    assert (list(table.rows), table.column) == (["width", "data.margin"], None)  # a square would be half empty
    for seed in range(2):
        add(tmp_path, [0.8], width=10, loss="logistic", schedule="cosine", seed=seed)
    found = table_of(tmp_path)
    assert {"width", "loss", "schedule", "data.margin"} == {*found.rows, found.column} - {None}


def test_runs_of_two_configs_are_in_no_cell_together(tmp_path):
    """Also where one has a value that no fingerprint has, as that of runs before there was the key."""
    overlapping: dict[str, Any] = {"fractal": "custom", "fractal__ratio": "3/5", "fractal__offsets": ((0.2,), (-0.3,))}
    for seed, value in ((0, 0.6), (1, 0.7)):
        add(tmp_path / "a", [value], seed=seed, **overlapping)
        add(tmp_path / "a", [value + 0.1], seed=seed, data__overlaps="repeated", **overlapping)
        for draw in ("float32", "precision"):
            add(tmp_path / "b", [value], seed=seed, trainer__precision="64-true", trainer__draw=draw)
    found = table_of(tmp_path / "a")
    assert (list(found.rows), list(found.entries)) == (["data.overlaps"], [("once",), ("repeated",)])
    assert [cell.mean for cell in found.cells] == [pytest.approx(0.65), pytest.approx(0.75)]
    found = table_of(tmp_path / "b")
    assert (list(found.rows), list(found.entries)) == (["trainer.draw"], [("float32",), ("precision",)])


def test_a_run_has_collapsed_where_its_answers_are_known_to_be_one():
    run = {"data": "fractal", "history": "0.5012 0.5012 0.5012", "eval_every": 10, "steps_asked": 30, "best_step": 10}
    assert numbers.collapsed(run)
    assert not numbers.collapsed(run | {"final_said_positive": 0.77})
    assert numbers.collapsed(run | {"history": "0.4200 0.4200 0.4200", "final_said_positive": 1.0})


def test_other_sources_of_a_measure_are_told_below_its_own_table(tmp_path):
    for seed, source in enumerate(("mine=a other=c", "mine=b", None)):
        directory = add(tmp_path, [0.6], seed=seed)
        record = read_record(directory)
        assert record is not None
        write_record(directory, replace(record, measured={"margin": 0.5, "dead": 0}, measure_source=source))
    runs = read_runs([tmp_path])[0]
    told = "sources: in 1 cell the mean is over runs of different sources of their measures."
    for name, some, there in (("margin", runs, True), ("margin", runs.drop(0), False), ("dead", runs, False)):
        table, number = with_measure(some, name)
        assert (told in pivot.legend(pivot.pivot(*with_inner_keys(table), number))) == there
    assert told not in pivot.legend(table_of(tmp_path))


def test_the_best_learning_rate_is_that_of_the_shared_seeds_and_an_edge_is_marked(tmp_path):
    for curve in (1, 4):
        add(tmp_path, [0.80], lr=1e-3, seed=0, curve=curve)
        add(tmp_path, [0.84], lr=2e-3, seed=0, curve=curve)
        add(tmp_path, [0.76], lr=2e-3, seed=1, curve=curve)
        add(tmp_path, [0.70 if curve == 1 else 0.9], lr=3e-3, seed=0, curve=curve)
    table = table_of(tmp_path)
    one, four = (line[""] for line in table.entries.values())
    assert (one.lr, one.mean, one.n, one.lrs, one.edge) == (2e-3, pytest.approx(0.80), 2, 3, False)
    assert (four.lr, four.mean, four.n, four.edge) == (3e-3, 0.9, 1, True)
    assert texts(table)[1:] == [["1", "0.8000 ± 0.0566 n=2 lr=0.002"], ["4", "0.9000 n=1 lr=0.003^"]]
    assert any("at the edge of those tried, in 1 cell" in line for line in pivot.legend(table))


def test_each_cell_says_its_learning_rate_where_they_may_differ(tmp_path):
    """Also one that has a single rate as yet, beside one that chose, as in a sweep half done."""
    for curve, lr, value in ((1, 1e-3, 0.8), (1, 2e-3, 0.7), (4, 2e-3, 0.6)):
        add(tmp_path / "half", [value], lr=lr, curve=curve)
    assert [line[1] for line in texts(table_of(tmp_path / "half"))[1:]] == ["0.8000 lr=0.001^", "0.6000 lr=0.002"]
    for curve, lr in ((1, 1e-3), (4, 2e-3)):
        add(tmp_path / "one", [0.6], lr=lr, curve=curve)
    table = table_of(tmp_path / "one")
    assert [line[1] for line in texts(table)[1:]] == ["0.6000 lr=0.001", "0.6000 lr=0.002"]
    assert "lr: the only learning rate of its cell; cells have different ones." in pivot.legend(table)


def test_learning_rates_that_are_all_that_varies_are_rows(tmp_path):
    for lr in (1e-3, 2e-3):
        for seed in (0, 1):
            add(tmp_path, [0.6 + seed / 10], lr=lr, seed=seed)
    assert texts(table_of(tmp_path))[1:] == [["0.001", "0.6500 ± 0.0707"], ["0.002", "0.6500 ± 0.0707"]]


def test_diverged_and_failed_runs_are_in_no_mean(tmp_path):
    add(tmp_path, [0.8], seed=0, lr=1e-3)
    add(tmp_path, [0.6], seed=1, lr=1e-3)
    add(tmp_path, [0.9], seed=0, lr=2e-3)
    add(tmp_path, [0.0], Status.DIVERGED, seed=1, lr=2e-3)
    add(tmp_path, [0.0], Status.FAILED, seed=2, lr=1e-3)
    add(tmp_path, [0.0], Status.DIVERGED, curve=4, seed=0, lr=1e-3)
    table = table_of(tmp_path)
    first, second = (line[""] for line in table.entries.values())
    assert (first.mean, first.lr, first.apart) == (pytest.approx(0.7), 1e-3, {"diverged": 1, "failed": 1})
    assert (second.mean, second.apart) == (None, {"diverged": 1})
    assert [line[-1] for line in texts(table)[1:]] == ["0.7000 ± 0.1414 lr=0.001^ +1 diverged +1 failed", "1 diverged"]
    assert "In no mean: 2 diverged, 1 failed." in pivot.legend(table)
    papers, _ = form_cells(read_runs([tmp_path])[0])
    [cell] = papers.values()  # the same; on seed 0 alone lr=2e-3 is better
    assert (cell.accuracy, cell.lr, cell.lrs, cell.edge) == (pytest.approx(0.7), 1e-3, 2, True)
    assert "One at which a run diverged or failed comes after all others." in " ".join(pivot.legend(table))


def test_a_rate_that_is_best_beside_one_that_diverges_is_at_no_edge(tmp_path):
    """In all tables. Where every rate has lost a run, the one that lost the fewest is shown."""
    for lr, value in ((1e-3, 0.7), (2e-3, 0.8)):
        add(tmp_path / "one", [value], lr=lr)
    add(tmp_path / "one", [0.9], Status.DIVERGED, lr=4e-3)
    for lr, values, lost in ((1e-3, (0.6, 0.62), 1), (2e-3, (0.8,), 2)):
        for seed, value in enumerate(values):
            add(tmp_path / "two", [value], lr=lr, seed=seed)
        for seed in range(lost):
            add(tmp_path / "two", [0.9], Status.DIVERGED, lr=lr, seed=7 + seed)
    for name, lr, edge, tried in (("one", 2e-3, False, 3), ("two", 1e-3, True, 2)):
        add(tmp_path / name, [0.7], curve=4)
        entry, _ = table_of(tmp_path / name).cells
        cell, _ = form_cells(read_runs([tmp_path / name])[0])[0].values()
        for found in (entry, cell):
            assert (found.lr, found.edge, found.lrs) == (lr, edge, tried)
        finished_runs.add_below(tmp_path / f"{name}.csv", [tmp_path / name], "--into")
        assert BestLr(tmp_path / f"{name}.csv").of(small()) == lr


def pruned(root: Path, accuracies, by=", by the last test_acc", **keys) -> None:
    """As a sweep by halving leaves a run after its first measurement; earlier versions didn't say by what."""
    directory = add(root, accuracies, Status.PRUNED, **keys)
    record, value = read_record(directory), accuracies[0]
    assert record is not None
    write_history(directory, [Evaluation(10, 1.0, 0.9, 0.8, value)])
    reached: Any = {"steps": 10, "best_test_acc": value, "best_step": 10, "final_test_acc": value}
    write_record(directory, replace(record, stopped=f"rung 1 at step 10{by}", **reached))


def test_rates_that_were_pruned_were_compared_at_rungs_and_not_by_their_means(tmp_path):
    """The one that was left need not have the best number of all."""
    for curve in (1, 4):
        add(tmp_path, [0.5, 0.52, 0.53, 0.54], lr=1e-2, curve=curve)
        for lr in (1e-3, 1e-1, 1):
            pruned(tmp_path, [0.55, 0.4, 0.4, 0.4], lr=lr, curve=curve)
    table = table_of(tmp_path)
    lines = pivot.legend(table)
    assert [cell.lr for cell in table.cells] == [1e-2, 1e-2]
    assert "lr: the only learning rate of its cell with a run to compare." in lines
    rungs = "6 of 8 runs at rungs, by the last test_acc up to there"
    assert f"pruned: {rungs}; runs were compared there one by one, not by means." in lines
    assert "by the mean" not in str(lines)
    figure = own_figures.against(table, Output())
    assert figure is not None
    assert "others were pruned at rungs" in figure.get_suptitle()
    _, notes = form_cells(read_runs([tmp_path])[0])
    assert [note for note in notes if note.startswith(f"in 2 cells a sweep by halving pruned {rungs}: the ")]


def test_a_mean_over_the_seeds_in_which_a_rate_won_says_so(tmp_path):
    for seed, left in enumerate((1e-3, 1e-3, 1e-1)):
        for lr in (1e-3, 1e-1, 1):
            if lr == left:
                add(tmp_path, [0.5, 0.6], lr=lr, seed=seed)
            else:
                pruned(tmp_path, [0.5, 0.5], "", lr=lr, seed=seed)
    for lr in (1e-3, 1e-1):
        add(tmp_path, [0.7, 0.7], lr=lr, curve=4)  # of a sweep without rungs
    table = table_of(tmp_path)
    first, second = table.cells
    assert (first.lr, first.n, first.apart) == (1e-3, 2, {"of another lr": 1, "pruned": 6})
    assert (second.n, second.apart) == (1, {})
    assert texts(table)[1][-1] == "0.6000 ± 0.0000 n=2 lr=0.001^ +1 of another lr +6 pruned"
    lines = pivot.legend(table)
    assert "In no mean: 1 of another lr, 6 pruned." in lines
    [line] = [line for line in lines if line.startswith("pruned: 6 of 11 runs at rungs, by the accuracy up to there;")]
    assert line.endswith(
        " In 1 cell some seeds' runs at what is shown were pruned: the mean is over those seeds alone in which it was "
        "left."
    )


def test_rates_without_a_run_to_compare_are_not_counted_among_the_compared(tmp_path):
    """As where a run was killed; one that diverged is compared: it comes last."""
    for curve in (1, 4):
        for lr in (1e-3, 1e-2):
            add(tmp_path, [0.6], lr=lr, curve=curve)
    add(tmp_path, [0.6], Status.INTERRUPTED, lr=1e-1)
    add(tmp_path, [0.6], Status.DIVERGED, lr=1)
    lines = pivot.legend(table_of(tmp_path))
    [line] = [line for line in lines if line.startswith("lr: the best of up to 3 learning rates, by the mean over the")]
    assert "In 1 cell others were tried that have no run to compare." in line
    assert not any(line.startswith("pruned") for line in lines)


def validated(root: Path, points: int | None, **keys) -> None:
    """A run with a validation accuracy on so many points."""
    directory = add(root, [0.5, 0.6], **keys)
    record = read_record(directory)
    assert record is not None
    by = {"best_val_acc": 0.6, "chosen_test_acc": 0.6, "chosen_step": 20, "val_points": points}
    write_record(directory, replace(record, **by, measured={"val_acc": 0.6, "train_acc": 0.7}))


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([(20, 2000), (20, 20)], "sets of 20 and 2,000 points, in 1 cell unlike ones compared or averaged"),
        ([(20, 20), (200, 200)], "sets of 20 and 200 points, each cell's of one size"),
        ([(20, 200), (2000, 20)], "sets of 20 to 2,000 points, in 2 cells unlike ones compared or averaged"),
        ([(20, 20), (20, 20)], ""),
        ([(20, None), (None, 20)], ""),  # a record of before may not say it
    ],
)
@pytest.mark.parametrize("key", ["lr", "seed"])
def test_validation_sets_of_unlike_sizes_are_said(tmp_path, sizes, said, key):
    """A best of few points is more by luck; where validation has no part in a table, nothing is said."""
    for curve, of_curve in zip((1, 4), sizes, strict=True):
        for number, points in enumerate(of_curve, 1):
            validated(tmp_path, points, curve=curve, **{key: number})
    text = f"validation: {said}; the smaller a set, the more its best accuracy is luck"
    lines = pivot.legend(table_of(tmp_path, number=numbers.CHOSEN))
    assert [line for line in lines if line.startswith("validation: ")] == ([f"{text}."] if said else [])
    runs, _ = read_runs([tmp_path])
    assert [note for note in form_cells(runs, numbers.CHOSEN)[1] if "valid" in note] == ([text] if said else [])
    assert not [note for note in form_cells(runs)[1] if "valid" in note]
    # beside the best test accuracy stands that of the validation set, in the mean of a cell alone
    beside = [line for line in pivot.legend(table_of(tmp_path)) if line.startswith("validation: ")]
    assert (beside == [f"{text}."]) == bool(said) or key == "lr"
    bare = runs.assign(final_val_acc=None)
    assert not [line for line in pivot.legend(pivot.pivot(*with_inner_keys(bare))) if "validation" in line]


def test_a_sweep_begins_at_the_rate_of_its_own_setting(tmp_path, caplog):
    """A table may hold searches of several. For a setting that it lacks, the rate is that nearest to the paper's, and
    that is told."""
    caplog.set_level("INFO")
    for margin, best in ((0, 1e-3), (0.001, 2e-3)):
        for lr in (1e-3, 2e-3):
            add(tmp_path / "runs", [0.8 if lr == best else 0.6], lr=lr, data__margin=margin, seed=1000)
    add(tmp_path / "runs", [0.9], lr=4e-3, curve=4, data__margin=0.001)
    finished_runs.add_below(tmp_path / "searched.csv", [tmp_path / "runs"], "--into")
    best = BestLr(tmp_path / "searched.csv")
    own = ({}, {"data__margin": 0.001})
    assert [best.of(small(**keys)) for keys in own] == [1e-3, 2e-3]
    best.tell()
    assert not caplog.messages
    asked = ({"data__margin": 0.002}, {"curve": 4}, {"curve": 6})
    assert [best.of(small(**keys)) for keys in asked] == [1e-3, 4e-3, None]
    best.tell()
    [told] = caplog.messages
    assert "in 2 of 3 cells no run has the setting of these jobs" in told
    assert told.endswith("the first: cantor2d n=5 curve 1 depth 3 width 8")


def test_a_list_is_one_difference_from_the_papers_setting(tmp_path):
    add(tmp_path, [0.6], optimizer__betas=(0.9, 0.99))
    for seed in (0, 1):
        add(tmp_path, [0.9], batch_size=50, loss="logistic", seed=seed)
    [cell] = form_cells(read_runs([tmp_path])[0])[0].values()
    assert cell.differs.endswith(", optimizer.betas=[0.9, 0.99]")


def test_a_rate_of_one_lucky_seed_doesnt_win_where_rates_share_none(tmp_path):
    """As where each seed's search went its own way."""
    for lr, seeds in ((1e-3, {0: 0.7, 1: 0.72}), (2e-3, {1: 0.73, 2: 0.71}), (4e-3, {3: 0.9})):
        for seed, value in seeds.items():
            add(tmp_path, [value], lr=lr, seed=seed)
    add(tmp_path, [0.7], curve=4)
    table = table_of(tmp_path)
    entry, _ = table.cells
    cells, notes = form_cells(read_runs([tmp_path])[0])
    cell, _ = cells.values()
    assert (entry.lr, entry.mean, entry.n) == (2e-3, pytest.approx(0.72), 2)
    assert (cell.lr, cell.accuracy, cell.seeds) == (2e-3, pytest.approx(0.72), 2)
    said = " ".join(pivot.legend(table))
    assert "In 1 cell they have none in common: there of those with the most seeds, by the mean over their own." in said
    assert "in 1 cell the learning rates have no seed in common: chosen among those of the most seeds" in notes


@pytest.mark.parametrize(
    ("keys", "looks"),
    [
        ({"steps": 1000, "eval_every": 300}, 4),  # the last step is measured too
        ({"steps": 100, "eval_every": 300}, 1),
        ({"steps": 900, "eval_every": 300}, 3),
        ({"steps": 3000, "eval_every": 300, "training": "layerwise"}, 4),  # of the last of three layers
        ({"steps": 1300, "eval_every": 300, "training": "layerwise"}, 1),  # one that stopped in its second layer
        ({"steps": None, "eval_every": 300}, 0),
        ({"steps": 900, "eval_every": 300, "history": "0.5000 0.6000"}, 2),  # it began at another's step 300
    ],
)
def test_how_many_looks_a_best_accuracy_is_the_best_of(keys, looks):
    assert numbers.looks({"training": "joint", "steps_asked": 1000, "history": None, **keys}) == looks


def test_what_is_the_same_in_all_runs_and_not_as_in_the_paper_is_told(tmp_path):
    for curve in (1, 4):
        add(tmp_path, [0.5, 0.6], curve=curve, training="layerwise", batch_size=20)
    same = table_of(tmp_path).same
    assert (same["training"], same["batch_size"]) == ("layerwise", "20")
    add(tmp_path / "usual", [0.5, 0.6])
    assert not {"training", "batch_size"} & set(table_of(tmp_path / "usual").same)


def test_a_single_look_is_no_maximum_and_a_single_seed_has_no_spread(tmp_path):
    for seed in (0, 1):
        add(tmp_path, [0.6 + seed / 10], curve=1, seed=seed)
    add(tmp_path, [0.6], curve=4)
    lines = pivot.legend(table_of(tmp_path))[1:]
    assert lines == [
        "best: of one look at the test set in each run.",
        "±: the standard deviation over n=2 seeds. Without ±: one seed.",
    ]


def test_a_sweep_that_diverged_has_no_picture_and_no_explorer(tmp_path):
    for lr in (1e10, 1e12):
        add(tmp_path / "runs", [0.5, 0.5], Status.DIVERGED, lr=lr)
    text = write_report([tmp_path / "runs"], tmp_path / "out")
    assert "1e10" in text
    assert "00000000" not in text
    assert not (tmp_path / "out" / "figures" / "sweep.png").exists()
    page = (tmp_path / "out" / "index.html").read_text()
    assert "1 diverged" in page
    assert "Any measure against any key" not in page
    assert "explore()" not in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e10, "1e10"), (1_000_000.0, "1000000"), (123456789012.0, "123456789012"), (5e-4, "0.0005"), (20.0, "20")],
)
def test_a_value_is_written_shortly_where_that_is_the_value(value, text):
    assert pivot.plain_value(value) == text


def test_categories_are_not_joined_by_lines(tmp_path):
    for name in ("adam", "sgd"):
        for width in (10, 20, 50):
            for seed in (0, 1):
                add(tmp_path, [0.6, 0.7 + seed / 100], config=small(optimizer=name, width=width, seed=seed))
    for column, joined in (("optimizer", False), ("width", True)):
        figure = own_figures.against(table_of(tmp_path, column=column), Output())
        assert figure is not None
        [axes] = figure.axes
        styles = {line.get_linestyle() for line in axes.get_lines() if len(np.asarray(line.get_xdata())) > 1}
        assert ("-" in styles) == joined
        containers: Any = axes.containers
        starts = [np.asarray(bars.lines[0].get_xdata())[0] for bars in containers]
        assert len(starts) == len(table_of(tmp_path, column=column).entries)
        assert len(set(starts)) == len(starts)  # no bar hides another
        assert max(starts) - min(starts) < (2 if joined else 0.5)
        assert np.mean(starts) == pytest.approx(10 if joined else 0)


def test_no_bar_hides_another_on_a_logarithmic_axis(tmp_path):
    for width in (10, 100, 1000):
        for curve in (1, 4, 6):
            for seed in (0, 1):
                add(tmp_path, [0.6, 0.7 + seed / 100], config=small(curve=curve, width=width, seed=seed))
    figure = own_figures.against(table_of(tmp_path, column="width"), Output())
    assert figure is not None
    [axes] = figure.axes
    assert axes.get_xscale() == "log"
    containers: Any = axes.containers
    places = np.array([np.asarray(bars.lines[0].get_xdata(), float) for bars in containers])
    assert np.exp(np.log(places).mean(0)) == pytest.approx([10, 100, 1000])
    for at in places.T:
        assert 1.1 < at.max() / at.min() < 1.6
        assert len(set(at)) == 3


def test_cells_are_in_the_order_of_values(tmp_path):
    for size in (100, 20, 5):
        for curve in ("6", "1"):
            add(tmp_path, [0.6], config=small(curve=curve, batch_size=size))
    table = table_of(tmp_path, column="batch_size")
    assert [list(line) for line in table.entries.values()] == [["5", "20", "100"]] * 2
    assert [entry.runs[0]["batch_size"] for entry in table.cells] == [5, 20, 100] * 2


def test_a_maximum_tells_over_how_many_looks_where_runs_differ_in_that(tmp_path):
    add(tmp_path, [0.5, 0.6, 0.7], curve=1)
    add(tmp_path, [0.6, 0.7], curve=4)
    assert "best: a maximum over 2 to 3 looks at the test set, which is optimistic" in " ".join(
        pivot.legend(table_of(tmp_path))
    )


def test_by_which_number(tmp_path):
    values = [0.5 + i / 100 for i in range(12)] + [0.58]
    add(tmp_path, values, curve=1)
    add(tmp_path, [0.5] * 4 + [0.6] * 9, curve=4)
    at = {name: [line[""].mean for line in table_of(tmp_path, number=number).entries.values()]
          for name, number in numbers.NUMBERS.items()}  # fmt: skip
    assert at["best"] == [0.61, 0.6]
    assert at["final"] == [0.58, 0.6]
    assert at["last10"] == [pytest.approx((sum(range(3, 12)) / 100 + 9 * 0.5 + 0.58) / 10), pytest.approx(0.59)]
    assert at["chosen"] == at["train"] == [None, None]
    assert texts(table_of(tmp_path, number=numbers.CHOSEN))[1] == ["1", "1 not measured"]
    assert pivot.legend(table_of(tmp_path))[1].startswith("best: a maximum over 13 looks at the test set")
    assert not [line for line in pivot.legend(table_of(tmp_path, number=numbers.FINAL)) if "maximum" in line]


def test_a_choice_by_validation_doesnt_look_at_the_test_set(tmp_path):
    """The learning rate of the best validation accuracy, with its test accuracy there, though another's is better."""
    add(tmp_path, [0.9], lr=1e-3, curve=1)
    add(tmp_path, [0.8], lr=2e-3, curve=1)
    add(tmp_path, [0.7], lr=1e-3, curve=4)
    runs, inner = with_inner_keys(read_runs([tmp_path])[0])
    measured = {
        "chosen_test_acc": [0.85, 0.75, 0.65],
        "best_val_acc": [0.6, 0.7, 0.6],
        "final_acc_level_1": [0.1, 0.2, 0.3],
    }
    runs = runs.assign(**measured)
    table = pivot.pivot(runs, inner, numbers.CHOSEN)
    assert [(line[""].mean, line[""].lr) for line in table.entries.values()] == [(0.75, 2e-3), (0.65, 1e-3)]
    assert "final_acc_level_1" not in inner_keys(runs)  # a measure is no key
    runs = runs.assign(best_val_acc=[None, 0.7, None])  # whose test accuracy of 0.85 is no validation accuracy
    lines = [line[""] for line in pivot.pivot(runs, inner, numbers.CHOSEN).entries.values()]
    assert [(line.mean, line.lr) for line in lines] == [(0.75, 2e-3), (None, None)]
    assert lines[1].apart == {"not measured": 1}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.6, 0.5012, 0.5012, 0.5012], False),  # its five last aren't all the same
        ([0.6, 0.5012, 0.5012, 0.5012, 0.5012, 0.5012], True),
        ([0.5012, 0.4988, 0.5012], True),  # one answer, then the other
        ([0.5012, 0.4999, 0.5012], False),
        ([0.9, 0.9, 0.9, 0.9, 0.9], False),  # it has learned, and has no gradient any more
        ([0.5012, 0.5012], False),  # too few to say
    ],
)
def test_a_network_that_answers_the_same_for_every_point_is_said(tmp_path, values, said):
    add(tmp_path, values)
    [[_, [text]]] = [texts(table_of(tmp_path))]
    assert text.endswith(" collapsed") == said


def test_no_run_is_left_out_without_a_line(tmp_path):
    """Runs of other budgets, that still run, and one computed in another way."""
    add(tmp_path, [0.6, 0.7], curve=1)
    add(tmp_path, [0.5, 0.6, 0.65], curve=1)
    add(tmp_path, [0.55], Status.INTERRUPTED, curve=4, seed=0)
    add(tmp_path, [0.8], curve=6, seed=0)
    add(tmp_path, [0.5], Status.PRUNED, curve=6, seed=1)
    add(tmp_path, [0.81], curve=6, seed=0, trainer__compile=True)
    table = table_of(tmp_path)
    every = sum(cell.n + sum(cell.apart.values()) for cell in table.cells)
    assert every + 1 == table.runs + 1 == 6
    assert "left out: another has the same keys and seed" in table.notes[0]
    text = str(texts(table))
    assert "interrupted at 10" in text
    assert "+1 pruned" in text


def test_a_kept_table_says_the_same(tmp_path):
    for margin in (0.0, 0.001):
        for seed in (0, 1):
            add(tmp_path / "runs", [0.6 + margin, 0.7 + seed / 10], data__margin=margin, seed=seed)
    finished_runs.add_below(tmp_path / "kept.csv", [tmp_path / "runs"], "--into")
    for number in (numbers.BEST, numbers.FINAL, numbers.LAST10):
        before, after = (texts(table_of(tmp_path / name, number=number)) for name in ("runs", "kept.csv"))
        assert after == before
        assert [line[0] for line in before] == ["data.margin", "0", "0.001"]


@pytest.mark.parametrize(
    ("key", "column", "made"),
    [
        ("steps", "steps", [{}, {"values": [0.6, 0.7]}]),
        ("steps_asked", "steps", [{}, {"values": [0.6, 0.7]}]),
        ("fractal.depth", "fractal.depth", [{"fractal__depth": 2}, {"fractal__depth": 3}]),
        ("fractal.name", "fractal", [{"fractal": "vicsek"}, {"fractal": "cantor2d"}]),
        ("model.init", "model.init", [{"model__init": "paper"}, {"model__init": "theory"}]),
        ("batch_size", "batch_size", [{"curve": 1, "batch_size": 10}, {"curve": 4, "batch_size": 20}]),  # it follows
        ("data.margin", "data.margin", [{"curve": 1}, {"curve": 4, "data__margin": 0.001}]),
    ],
)
def test_any_key_in_which_runs_differ_may_be_asked_for_by_its_name(tmp_path, key, column, made):
    """And stands in the table as on the command line."""
    for keys in made:
        add(tmp_path, keys.pop("values", [0.6]), **keys)
    table = table_of(tmp_path, column=key)
    assert table.column == column
    assert len(table.columns) == 2
    assert sum(cell.n for cell in table.cells) == 2


def test_the_column_that_is_asked_for_must_vary(tmp_path):
    for curve in (1, 4):
        add(tmp_path, [0.6], curve=curve)
    add(tmp_path, [0.6, 0.7])
    with pytest.raises(
        ConfigError, match=r"^columns=curv: must be a key in which these runs differ: did you mean curve"
    ):
        table_of(tmp_path, column="curv")
    with pytest.raises(ConfigError, match=r"^columns=width: must be a key in which these runs differ: curve, steps$"):
        write_report([tmp_path], tmp_path / "out", columns="width")
    assert not (tmp_path / "out").exists()


def test_a_sweep_of_ones_own_is_one_table_and_one_figure_and_none_of_the_papers(tmp_path):
    for margin in (0.0, 0.001):
        for seed in (0, 1):
            add(tmp_path / "runs", [0.6, 0.7, 0.75 + margin], curve=4, data__margin=margin, seed=seed)
    text = write_report([tmp_path / "runs"], tmp_path / "out")
    assert "The best test accuracy of all measurements, 4 runs" in text
    assert "0.7500 ± 0.0000" in text
    for name in ("report.md", "tables.md", "tables.txt", "tables.tex", "index.html"):
        content = (tmp_path / "out" / name).read_text()
        assert "0.7510" in content, name
        assert "Table 1" not in content, name
    assert {path.name for path in (tmp_path / "out" / "figures").iterdir()} == {
        "sweep.png", "along_test_acc.png", "along_test_loss.png", "along_train_loss.png"
    }  # fmt: skip
    assert "Notes\n\nNone." in (tmp_path / "out" / "report.md").read_text()


def test_latex_and_markdown_have_a_value_with_signs_letter_by_letter(tmp_path):
    for name in ("a_b&$x|y", "c"):
        curve = Curve.parse({"name": name, "weights": [1] * 5})
        add(tmp_path, [0.7], config=replace(small(), curve=curve))
    write_report([tmp_path], tmp_path / "out", with_figures=False)
    assert r"a\_b\&\$x|y & 0.7000 \\" in (tmp_path / "out" / "tables.tex").read_text()
    two = pivot.entry_text(replace(table_of(tmp_path).cells[0], mean=0.7), True, False) + "\ntrain 0.9, test 0.7"
    assert forms._tex(two) == r"\shortstack[r]{0.7000 n=1 \\ train 0.9, test 0.7}"  # base LaTeX's two lines in a cell
    texts = [forms._tex(text) for text in ("[1]", "*", "πΛ")]
    assert texts == ["{}[1]", "{}*", r"$\pi$$\Lambda$"]  # [ and * would be options of the \\ before
    said = "_x_ a_b __b__ ~~y~~ &lt; R&D"
    assert forms.plain(said) == r"\_x\_ a_b \_\_b\_\_ \~\~y\~\~ \&lt; R&D"
    assert r"| a_b&\$x\|y | 0.7000 |" in (tmp_path / "out" / "tables.md").read_text()


def in_a_terminal(table: pivot.Pivot, width: int) -> tuple[list[list[str]], list[str]]:
    """The cells of all parts without their blanks, column by column, and the lines as they stand."""
    shown = [line for line in forms.pivot_terminal(table, width).splitlines() if line[:1] in "┏┃┡│└"]
    parts = "\n".join(shown).split("└")[:-1]
    columns: list[list[str]] = []
    for part in parts:
        lines = [line[1:-1].replace("┃", "│").split("│") for line in part.splitlines() if line[0] in "┃│"]
        columns += ["".join("".join(cell) for cell in column).split() for column in zip(*lines, strict=True)]
    return [["".join(column)] for column in columns], shown


def test_a_part_of_a_table_has_the_rows_that_have_something_there(tmp_path):
    for width, sizes in ((8, (500, 1000)), (9, (2000,))):
        for size in sizes:
            add(tmp_path, [0.7], width=width, data__train_size=size)
    table = table_of(tmp_path)
    whole, parts = (forms.pivot_terminal(table, width).splitlines() for width in (200, 50))
    rows = [[line.split("│")[1].strip() for line in shown if line.startswith("│")] for shown in (whole, parts)]
    assert rows == [["8", "9"], ["8", "8", "9"]]


def test_nothing_is_cut_in_a_narrow_terminal(tmp_path):
    for margin in (0.0, 0.0002):
        for activation in ("relu", "leaky"):
            for lr in (1e-3, 2e-3):
                add(tmp_path, [0.6 + lr], data__margin=margin, model__activation=activation, lr=lr)
    for column in ("data.margin", "model.activation"):
        table = table_of(tmp_path, column=column)
        head, *lines = texts(table)
        whole = [["".join("".join(each).split())] for each in zip(head, *lines, strict=True)]
        for width in range(16, 80):
            columns, shown = in_a_terminal(table, width)
            assert max(map(len, shown)) <= width
            assert columns in (whole, [whole[0], whole[1], whole[0], whole[2]]), width
        assert "0.0002" in " ".join(in_a_terminal(table, 32)[1]).split()  # no value is broken where there is room


def test_in_a_pipe_a_table_is_as_wide_as_COLUMNS_says(tmp_path, capsys, monkeypatch):
    for curve in range(1, 7):
        for depth in (1, 2):
            add(tmp_path, [0.6], curve=curve, depth=depth)
    widths = {}
    for said in ("28", "", "nonsense", "0"):
        monkeypatch.setenv("COLUMNS", said)
        show_table(tmp_path)
        lines = capsys.readouterr().out.splitlines()
        widths[said] = max(len(line) for line in lines if line.startswith("│"))
    assert widths[""] == widths["nonsense"] == widths["0"] > 28
    assert widths["28"] <= 28


def test_the_table_at_the_end_of_a_sweep_is_the_reports(tmp_path, capsys):
    for curve in (1, 4):
        for seed in (0, 1):
            add(tmp_path, [0.6 + curve / 20 + seed / 100], curve=curve, seed=seed)
    assert show_table(tmp_path) is None
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "1 0.6550 ± 0.0071" in said
    assert "the standard deviation over n=2 seeds" in said
    with (tmp_path / "results.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4  # a row per run all the same


def test_the_keys_of_groups_are_in_both_tables_also_where_all_runs_have_them(tmp_path, capsys):
    for curve in (1, 4):
        add(tmp_path, [0.6, 0.7], curve=curve, schedule="cosine", batch_size=50, data__margin=0.001, model="resmlp")
    table = table_of(tmp_path)
    same = dict(table.same)
    assert [same[key] for key in ("model", "schedule", "batch_size", "data.margin")] == [
        "resmlp",
        "cosine",
        "50",
        "0.001",
    ]
    assert "model.name" not in same
    show_table(tmp_path)
    shown = " ".join(capsys.readouterr().out.split())
    assert all(" ".join(line.split()) in shown for line in pivot.legend(table))


def test_the_columns_are_of_a_key_that_all_runs_have(tmp_path):
    for curve in (1, 4):
        add(tmp_path, [0.6], curve=curve)
        for noise in (0.0, 0.1):
            add(tmp_path, [0.6], curve=curve, width=35, depth=10, model="theorem1", model__noise=noise)
    table = table_of(tmp_path)
    assert "model.noise" in table.rows
    assert table.column not in (None, "model.noise")
    assert table_of(tmp_path, column="model.noise").column == "model.noise"


def test_a_measure_of_the_history_has_a_figure_of_its_own(tmp_path):
    """Whatever the column is; a value that is no number is left out."""
    for curve in (1, 4):
        path = add(tmp_path, [0.6, 0.7, 0.8], curve=curve) / "history.csv"
        head, *lines = path.read_text().splitlines()
        lines = [f"{line},{value}" for line, value in zip(lines, ("", "0.5", "nan"), strict=True)]
        path.write_text("\n".join([f"{head},acc_level_0", *lines]) + "\n")
        record = json.loads((path.parent / "result.json").read_text())
        del record["digests"]
        (path.parent / "result.json").write_text(json.dumps(record))
    from fractal_ifs.results.measured import measures_of

    [first, _] = read_runs([tmp_path])[0].to_dict("records")
    assert measures_of(first)["acc_level_0"] == ([20], [0.5])
    assert measures_of(first)["test_acc"] == ([10, 20, 30], [0.6, 0.7, 0.8])


def test_a_value_that_is_usual_is_in_the_table(tmp_path):
    """Also that of a choice which isn't the paper's, and the choice itself."""
    keys: list[dict[str, Any]] = [{}, {"optimizer__momentum": 0.9}, {"optimizer__clip": 0.5}, {"schedule": "cosine"}]
    for each in keys:
        add(tmp_path, [0.7], optimizer="sgd", **each)
    runs, names = with_inner_keys(read_runs([tmp_path])[0])
    values = {name: sorted(map(str, runs[name])) for name in names}
    assert values["optimizer.momentum"] == ["0.0", "0.0", "0.0", "0.9"]
    assert values["optimizer.clip"] == ["0.5", "null", "null", "null"]
    assert values["schedule"] == ["constant", "constant", "constant", "cosine"]
    of_own = {"data": "fractal", "fractal": "vicsek", "curve": "1", "model": "mine", "optimizer": "mine", "differs": ""}
    linear = of_own | {"differs": "schedule=linear"}
    asked = (
        (of_own, "model.skip"),
        (of_own, "optimizer.betas"),
        (linear, "schedule.final"),
        (linear, "schedule.gamma"),
    )
    assert [protocol_value(run, key) for run, key in asked] == [None, None, "0.0", None]


def test_by_what_learning_rates_are_chosen_is_said(tmp_path):
    """With ``chosen`` by the validation accuracy, which here prefers the lower test accuracy."""
    for lr, value, curve in ((1e-3, 0.7, 1), (2e-3, 0.8, 1), (1e-3, 0.7, 4), (2e-3, 0.8, 4)):
        path = add(tmp_path, [value], lr=lr, curve=curve) / "result.json"
        chosen = {"chosen_test_acc": value, "chosen_step": 10, "best_val_acc": 1 - value, "val_points": 9}
        path.write_text(json.dumps(undigested(path) | chosen))
    for number, of, lr in ((numbers.CHOSEN, "mean best validation accuracy", 1e-3), (numbers.BEST, "mean", 2e-3)):
        table = table_of(tmp_path, number=number)
        assert [entry.lr for entry in table.cells] == [lr, lr]
        assert f"by the {of} over the seeds" in " ".join(pivot.legend(table))


def test_a_set_that_only_some_runs_have_measured_is_left_out_and_said(tmp_path):
    for curve, trains in ((1, (0.9, None)), (4, (0.9, 0.8))):
        for seed, train in enumerate(trains):
            path = add(tmp_path, [0.7], curve=curve, seed=seed) / "result.json"
            path.write_text(json.dumps(undigested(path) | {"final_train_acc": train}))
    table = table_of(tmp_path)
    partly, whole = (pivot.entry_text(entry, False, False) for entry in table.cells)
    assert "train" not in partly
    assert "train 0.8500, test 0.7000" in whole
    assert "In 1 cell not all runs have measured train, test or val, which are left out there." in pivot.legend(table)
