"""The report, from records made here: every number in it is computed by hand beside the check."""

import base64
import copy
import dataclasses
import gzip
import html
import itertools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from letters import wrongly_set
from matplotlib.colors import to_hex
from scipy.stats import rankdata

from fractal_ifs import streams
from fractal_ifs.config.compose import compose
from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError
from fractal_ifs.files import CONF
from fractal_ifs.plotting.style import Output, check_letters, fit
from fractal_ifs.report import __main__ as report
from fractal_ifs.report import forms, own_figures, page
from fractal_ifs.report import paper_figures as report_figures
from fractal_ifs.report import tables as report_tables
from fractal_ifs.report import verdicts as report_verdicts
from fractal_ifs.report.compare import compare
from fractal_ifs.report.notes import lost
from fractal_ifs.report.page import SYMBOLS
from fractal_ifs.report.write import write_report
from fractal_ifs.results import cells as report_data
from fractal_ifs.results import finished_runs as kept
from fractal_ifs.results import rows
from fractal_ifs.results.numbers import BEST, CHOSEN, FINAL, NUMBERS, TRAIN
from fractal_ifs.results.pivot import pivot
from fractal_ifs.results.varied import with_inner_keys
from fractal_ifs.runs import records
from fractal_ifs.runs.records import keys_of
from fractal_ifs.sweeps import status


@lru_cache
def composed(**keys) -> str:
    return json.dumps(compose(**keys).plain())


def config_of(fractal="cantor2d", curve="1", n=5, images=None, **keys) -> dict:
    """The plain values of a config, as Hydra and a record have them."""
    if images:
        return json.loads(composed(**images))
    config = json.loads(composed())
    config["fractal"] = yaml.safe_load((CONF / "fractal" / f"{fractal}.yaml").read_text()) | {"depth": n}
    config["curve"] = yaml.safe_load((CONF / "curve" / f"{curve}.yaml").read_text())
    return config | keys


def add(root: Path, accuracy: float, status="finished", steps=None, **keys) -> Path:
    """A run's directory as a sweep leaves it; a running one has no record."""
    config = config_of(**keys)
    directory = root / f"run{len(list(root.glob('run*')))}"
    (directory / ".hydra").mkdir(parents=True)
    (directory / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    done = config["steps"] if steps is None else steps
    config["eval_every"] = done // 2
    rows = [f"{done // 2},1.0,0.9,0.9,{accuracy - 0.1!r}", f"{done},2.0,0.8,0.8,{accuracy!r}"]
    (directory / "history.csv").write_text("\n".join(["step,seconds,train_loss,test_loss,test_acc", *rows]) + "\n")
    if status != "running":
        record = {"format": 1, "status": status, "best_test_acc": accuracy, "best_step": done, "steps": done}
        keys = keys_of(RunConfig.parse(config))
        del keys["steps_asked"]  # which format 1 didn't have
        record |= {"seconds": 2.0, "params": 100, **keys, "error": None, "config": config}
        (directory / "result.json").write_text(json.dumps(record))
    return directory


def cell_of(root: Path, **where):
    cells, notes = report_data.form_cells(rows.read_runs([root])[0])
    [cell] = [cell for cell in cells.values() if all(getattr(cell, key) == value for key, value in where.items())]
    return cell, notes


def table_cell(root: Path, table: int, fractal: str, row: int, column: int) -> report_tables.Cell:
    made = report_tables.tables(report_data.form_cells(rows.read_runs([root])[0])[0])
    return made[table].blocks[fractal][row][column]


def test_a_cell_is_the_best_lr_of_the_shared_seeds_then_the_mean_over_its_seeds(tmp_path):
    add(tmp_path, 0.80, lr=1e-3, seed=0)
    add(tmp_path, 0.84, lr=5e-4, seed=0)
    add(tmp_path, 0.78, lr=5e-4, seed=1)
    add(tmp_path, 0.75, lr=5e-4, seed=2)
    cell, notes = cell_of(tmp_path)
    # 5e-4 wins on seed 0, which both have, though its mean over three seeds, .79, is below the other's only seed
    assert cell.lr == 5e-4
    assert cell.accuracy == pytest.approx((0.84 + 0.78 + 0.75) / 3)
    assert (cell.least, cell.most, cell.seeds, cell.lrs) == (0.75, 0.84, 3, 2)
    assert cell.spread == pytest.approx(0.0458257, abs=1e-6)
    assert notes == []


def test_cells_are_of_the_number_asked_for_and_say_so(tmp_path):
    for seed, (best, final, train) in enumerate([(0.80, 0.70, 0.90), (0.84, 0.80, 0.96)]):
        directory = add(tmp_path / "runs", best, seed=seed, width=10)
        record = json.loads((directory / "result.json").read_text())
        record |= {"format": 2, "steps_asked": record["steps"], "final_test_acc": final, "final_train_acc": train}
        (directory / "result.json").write_text(json.dumps(record))
    runs, _ = rows.read_runs([tmp_path / "runs"])
    for number, mean in ((BEST, 0.82), (FINAL, 0.75), (TRAIN, 0.93)):
        cells, _ = report_data.form_cells(runs, number)
        assert (cells.number, [cell.accuracy for cell in cells.values()]) == (number, [pytest.approx(mean)])
    cells, notes = report_data.form_cells(runs, CHOSEN)
    assert len(cells) == 0  # nothing was measured on a validation set
    assert notes == ["2 runs without the test accuracy where the validation accuracy was best: in no cell"]
    text = write_report([tmp_path / "runs"], tmp_path / "out", False, number="final")
    assert "A number is the test accuracy after the last step; the paper's is the best of all looks" in text
    assert "0.750 (" in (tmp_path / "out" / "tables.md").read_text()
    assert " over 1 cell at the full budget" in text
    write_report([tmp_path / "runs"], tmp_path / "out", False, number="train")
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "| 0.930 |" in text  # the paper has no training accuracies
    assert "A number is the training accuracy after the last step; the paper has none of these." in text
    assert "0.9300 ± " in text  # the sweep's own table
    report = (tmp_path / "out" / "report.md").read_text()
    assert report.startswith("# Training accuracies, in the form of the paper's tables")
    assert "difference from the paper" not in report


def test_two_editions_are_compared_in_the_cells_of_both(tmp_path):
    for accuracy, width in [(0.70, 10), (0.80, 20), (0.9, 50)]:
        add(tmp_path / "first", accuracy, fractal="vicsek", curve="2", width=width)
    for accuracy, width, lr in [(0.75, 10, 2e-3), (0.79, 20, 5e-4), (0.9, 100, 5e-4)]:
        add(tmp_path / "second", accuracy, fractal="vicsek", curve="2", width=width, lr=lr)
    text = compare(tmp_path / "first", tmp_path / "second")
    assert text.startswith("Of 2 cells that both have")
    theirs = report_tables.paper()["table2"]["values"]["vicsek"][1]
    away = [f"{sum(own) / 2 - sum(theirs[:2]) / 2:.3f}" for own in [(0.70, 0.80), (0.75, 0.79)]]
    row = f"| Table 2 | 2 | {away[0]} (+{away[0]}) | {away[1]} (+{away[1]}) | +0.020 | −0.010, +0.050 |"
    assert row in text
    assert "larger in 1 cells, smaller in 0, the same in 1" in text
    assert "1 of 2 cells moved by more than 0.02:" in text
    assert "| vicsek n=5 curve 2 depth 5 width 10 | 0.700 | 0.0005 | 0.750 | 0.002 | +0.050 |" in text
    add(tmp_path / "third", 0.9, width=200)
    add(tmp_path / "fourth", 0.9, width=10, steps=1000, status="running")
    with pytest.raises(ConfigError, match=r"fourth has no cell at the paper's protocol and budget with the best "):
        compare(tmp_path / "first", tmp_path / "fourth")
    with pytest.raises(ConfigError, match="no cell in common at the paper's protocol and budget"):
        compare(tmp_path / "first", tmp_path / "third")


def test_tables_hold_ours_the_papers_and_the_difference(tmp_path):
    add(tmp_path, 0.871, fractal="sierpinsky", depth=5, width=10)  # the paper: .89, in both tables
    add(tmp_path, 0.60, fractal="vicsek", curve="2", depth=5, width=20)  # the paper: .61, Table 2
    add(tmp_path, 0.75, depth=2, width=400)  # cantor2d; the paper: .87, Table 1
    first = table_cell(tmp_path, 0, "sierpinsky", 4, 0)
    assert (first.ours, first.theirs) == (0.871, 0.89)
    assert first.difference == pytest.approx(-0.019)
    assert table_cell(tmp_path, 1, "sierpinsky", 0, 0) == first
    assert table_cell(tmp_path, 1, "vicsek", 1, 1).difference == pytest.approx(-0.01)
    assert table_cell(tmp_path, 0, "cantor2d", 1, 5).difference == pytest.approx(-0.12)
    assert table_cell(tmp_path, 0, "cantor2d", 1, 4).ours is None
    text = write_report([tmp_path], tmp_path / "out", with_figures=False)
    assert "0.871 (0.89) −0.019" in text
    assert "2 of 120 cells run; the others are blank." in text
    assert "Mean absolute difference from the paper: 0.070 over 2 cells" in text  # (.019 + .12) / 2 = .0695
    assert "(mean difference −0.070)" in text
    assert "Table 2: width 10: 23 of 24, width 20: 23 of 24, width 50: 24 of 24" in text
    markdown = (tmp_path / "out" / "tables.md").read_text()
    assert "| 5 | 0.871 (0.89) −0.019 |  |  |  |  |  |" in markdown
    latex = (tmp_path / "out" / "tables.tex").read_text()
    assert "5 & 0.871 &  &  &  &  &  \\\\\n & \\scriptsize 0.89 ($-0.019$) &" in latex


def test_a_smaller_budget_is_marked_and_left_out_of_the_mean_and_gives_way_to_the_whole(tmp_path):
    add(tmp_path, 0.99, steps=20_000, width=10)  # interrupted runs have steps below what was asked
    (tmp_path / "run0" / "result.json").unlink()
    cell = table_cell(tmp_path, 0, "cantor2d", 4, 0)
    assert cell.partial
    assert cell.budget == 20_000
    assert report_tables.text(cell) == "0.990* (0.81) +0.180"
    assert report_tables.difference([cell]) is None
    add(tmp_path, 0.79, width=10, lr=1e-3)
    whole = table_cell(tmp_path, 0, "cantor2d", 4, 0)
    assert (whole.ours, whole.partial, whole.budget) == (0.79, False, 1_000_000)
    found = report_tables.difference([whole])
    assert found is not None
    assert found == pytest.approx((1, 0.02, -0.02))


def test_quick_budget_has_a_star_in_every_form(tmp_path):
    config = compose(budget="quick")
    assert (config.steps, config.eval_every) == (20_000, 1_000)
    run = add(tmp_path, 0.7, width=10)
    record = json.loads((run / "result.json").read_text())
    record["config"]["steps"] = record["steps"] = 20_000
    (run / "result.json").write_text(json.dumps(record))
    assert "Table" not in write_report([tmp_path], tmp_path / "own", with_figures=False)  # one cell of a sweep
    shutil.rmtree(run)
    text = write_report([tmp_path / "own" / "results.csv"], tmp_path / "out", with_figures=False)
    assert "0.700* (0.81) −0.110" in text
    assert "1 cell of another budget or not ended: 20,000 steps" in text
    assert "no cell at the full budget yet" in text
    assert "0.700$^{*}$" in (tmp_path / "out" / "tables.tex").read_text()
    assert "0.700\\* (0.81)" in (tmp_path / "out" / "tables.md").read_text()


def test_a_sweep_on_the_papers_grid_has_its_own_table_and_no_verdicts_of_a_short_budget(tmp_path):
    """Whether its cells have a place in the paper's tables or not; a kept table of such runs is as it was."""
    for fractal in ("cantor2d", "vicsek", "pentaflake"):
        for curve in "123456":
            add(tmp_path / "runs", 0.6, steps=5_000, width=20, fractal=fractal, curve=curve)
    for path in (tmp_path / "runs").glob("*/result.json"):
        record = json.loads(path.read_text())
        record["config"]["steps"] = record["steps"] = 5_000
        path.write_text(json.dumps(record))
    text = write_report([tmp_path / "runs"], tmp_path / "out")
    assert "The best test accuracy of all measurements, 18 runs" in text
    assert "Table 2" in text
    assert "0.600* (0.87)" in text
    assert not [word for word in ("missing:", "not run", "can't be judged", "supported") if word in text]
    assert {"sweep.png", "along_test_acc.png"} <= {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    page = (tmp_path / "out" / "index.html").read_text()
    assert 'id="runs"' in page
    assert "Verdicts" not in page
    assert "Verdicts" not in (tmp_path / "out" / "report.md").read_text()
    shutil.rmtree(tmp_path / "runs")
    kept = write_report([tmp_path / "out" / "results.csv"], tmp_path / "kept", with_figures=False)
    assert "Table 2" in kept
    assert "The best test accuracy" not in kept


def test_a_larger_budget_does_not_stand_for_the_papers(tmp_path):
    """What was trained longer is looked into beside the tables, not in them."""
    add(tmp_path, 0.81, steps=5_000_000)
    record = json.loads((tmp_path / "run0" / "result.json").read_text())
    record["config"]["steps"] = 5_000_000
    (tmp_path / "run0" / "result.json").write_text(json.dumps(record))
    longer, notes = cell_of(tmp_path)
    assert (longer.budget, longer.whole, notes) == (5_000_000, False, [])
    assert not table_cell(tmp_path, 0, "cantor2d", 4, 3).comparable
    add(tmp_path, 0.77, lr=1e-3)
    cell, notes = cell_of(tmp_path)
    assert (cell.accuracy, cell.budget, cell.whole) == (0.77, 1_000_000, True)
    assert notes == ["1 runs of another budget than that of their cell are left out of it"]


def test_a_maximum_over_more_evaluations_is_another_number(tmp_path):
    add(tmp_path, 0.8)
    path = tmp_path / "run0" / "result.json"
    record = json.loads(path.read_text())
    record["eval_every"] = record["config"]["eval_every"] = 1_000  # a thousand evaluations, the paper's are a hundred
    path.write_text(json.dumps(record))
    cell, _ = cell_of(tmp_path)
    assert cell.differs == "eval_every=1000"
    assert not table_cell(tmp_path, 0, "cantor2d", 4, 3).comparable


def test_of_two_runs_that_only_computed_differently_one_is_shown_and_the_other_said(tmp_path):
    trainer = json.loads(composed())["trainer"]
    for order in ((0.8, True), (0.6, False)), ((0.6, False), (0.8, True)):
        root = tmp_path / str(order[0][0])
        for accuracy, compiled in order:
            add(root, accuracy, trainer=trainer | {"compile": compiled})
        cell, notes = cell_of(root)
        shown, left = cell.accuracy, {0.8: 0.6, 0.6: 0.8}[cell.accuracy]
        assert cell.seeds == 1
        assert f"shown: {shown:.4f}, left out: {left:.4f}" in notes[0]
        assert cell.fingerprint == min(rows.read_runs([root])[0].fingerprint)  # whatever was read first


def test_a_fractal_or_curve_of_ones_own_is_reported_like_any(tmp_path):
    """A YAML file may leave its depth out, which is 5 then, and have a number for a name."""
    add(tmp_path, 0.8, fractal="vicsek", width=50)
    add(tmp_path, 0.8)
    for run in ("run0", "run1"):
        path = tmp_path / run / "result.json"
        record = json.loads(path.read_text())
        del record["config"]["fractal"]["depth"]
        record |= {"fractal_depth": None}
        if run == "run1":
            record["config"]["curve"]["name"] = record["curve"] = "7"
        path.write_text(json.dumps(record))
    assert "0.800 (0.82)" in write_report([tmp_path], tmp_path / "out")
    page = json.loads(unpacked((tmp_path / "out" / "index.html").read_text(), "data"))
    assert {(e["fractal"], e["curve"], e["n"]) for e in page["entries"]} == {
        ("Vicsek", "1", 5),
        ("2D Cantor set", "7", 5),
    }
    assert list(page["P"]) == ["1 5"]


def test_damaged_lines_of_a_kept_table_are_said_left_out_and_never_overwritten(tmp_path):
    path = tmp_path / "kept.csv"
    add(tmp_path, 0.8)
    report.collect([str(tmp_path), "--into", str(path)])
    head, line = path.read_text().splitlines()
    wrong = [line.replace("0.8,", f"{accuracy},") for accuracy in ("nan", "0.x", "1.8", "0.85")]
    wrong += [
        "<<<<<<< HEAD",
        line[: len(line) // 2],
        line.replace("cantor2d", "cantor\x1b2d"),
        f"{line},1",
        f'{line}"',
        "",
    ]
    for bad in (*wrong, line.replace("finished", "running")):
        path.write_text("\n".join([head, bad, line, ""]))
        runs, notes = rows.read_runs([path])
        assert len(runs) == 1
        assert bad not in wrong or notes[0].startswith(f"left out: {path}: line 2 is no row of it: ")
        found = kept.read(path)
        assert list(found.rows.values()) == [dict(zip(head.split(","), line.split(","), strict=True))]
        assert [note.startswith("line 2 is ") for note in found.damaged] == [True]
        before = path.read_bytes()
        add(tmp_path, 0.7, seed=1)
        with pytest.raises(ConfigError, match=r"kept.csv: line 2 is .*; mend it, until then nothing is written there"):
            report.collect([str(tmp_path), "--into", str(path)])
        assert path.read_bytes() == before
    path.write_text("\n".join([head, "<<<<<<< HEAD", ""]))
    with pytest.raises(ConfigError, match="line 2 is no row of it: <<<<<<< HEAD"):
        rows.read_runs([path])
    path.write_text("\n".join([head, line, line.replace("0.8,", "0.7,").replace("0.8000", "0.7000"), ""]))
    assert kept.read(path).damaged == ["line 3 is of a run that is there already: best_test_acc=0.8, and 0.7"]


@pytest.mark.parametrize("change", [{"best_test_acc": None}, {"best_test_acc": "high"}, {"best_step": None}])
def test_a_record_without_a_number_is_not_collected(tmp_path, change, caplog):
    path = add(tmp_path, 0.8) / "result.json"
    add(tmp_path, 0.7, seed=1)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert report.collect([str(tmp_path), "--into", str(tmp_path / "kept.csv")]).startswith("1 run added")
    assert f"{path} can't be read" in caplog.text


def test_other_configs_that_claim_a_cell_are_said_and_never_averaged(tmp_path):
    add(tmp_path, 0.80, width=10)
    add(tmp_path, 0.95, width=10, loss="logistic")
    cell, notes = cell_of(tmp_path, width=10)
    assert cell.accuracy == 0.80
    assert cell.seeds == 1
    assert len(notes) == 1
    assert "2 different configs claim this cell; shown: as the paper; left out, 1 run: loss=logistic" in notes[0]
    add(tmp_path, 0.9, width=20, loss="logistic")
    only, notes = cell_of(tmp_path, width=20)
    assert only.differs == "loss=logistic"
    assert "†" in report_tables.text(table_cell(tmp_path, 0, "cantor2d", 4, 1))
    assert not table_cell(tmp_path, 0, "cantor2d", 4, 1).comparable


def test_one_run_found_twice_counts_once(tmp_path):
    add(tmp_path / "a", 0.8)
    add(tmp_path / "b", 0.8)
    runs, notes = rows.read_runs([tmp_path])
    assert len(runs) == 1
    assert notes == ["1 runs are there more than once, and counted once"]
    add(tmp_path / "c", 0.81)
    _, notes = rows.read_runs([tmp_path])
    assert "twice with different accuracies (by up to 0.0100" in notes[0]


def test_running_torn_and_failed_runs(tmp_path):
    add(tmp_path, 0.8, seed=0)
    add(tmp_path, 0.7, "running", steps=400_000, seed=1)
    (add(tmp_path, 0.9, seed=2) / "result.json").write_text('{"format": 1, "sta')
    failed = add(tmp_path, 0.5, "failed", seed=3)
    record = json.loads((failed / "result.json").read_text()) | {"best_test_acc": None, "error": "OSError: disk"}
    (failed / "result.json").write_text(json.dumps(record))
    runs, notes = rows.read_runs([tmp_path])
    assert sorted(runs.status) == ["failed", "finished", "interrupted", "interrupted"]
    assert "1 file damaged and left out, the first: " in notes[0]
    assert cell_of(tmp_path)[0].accuracy == 0.8
    text = write_report([tmp_path], tmp_path / "out", with_figures=False)
    assert "1 of all 4 runs failed, the first: " in text
    assert "OSError: disk" in text
    counts = status.status(tmp_path)
    # finished and failed 10^6 each, running 400,000; the torn one's history says 10^6
    states = {"finished": 1, "interrupted": 1, "damaged": 1, "failed": 1}
    assert counts == (states, 3_400_000, 4_000_000, [], [])
    assert f"{tmp_path}: 4 runs: 1 damaged, 1 failed, 1 finished, 1 interrupted" in status.show(tmp_path)


def test_a_cell_that_still_runs_has_no_place_on_the_axis_of_parameters(tmp_path):
    for width in (10, 20):
        add(tmp_path, 0.8, width=width)
    add(tmp_path, 0.7, "running", steps=400_000, width=50)
    add(tmp_path, 0.7, "running", steps=400_000, fractal="vicsek")
    drawn = report_figures.parameters(report_data.form_cells(rows.read_runs([tmp_path])[0])[0])
    assert drawn is not None
    assert [axes.get_title() for axes in drawn.axes] == ["2D Cantor set"]
    assert sum(line.get_marker() != "None" for line in drawn.axes[0].lines) == 2


def test_a_depth_looks_the_same_in_every_panel_of_learning_curves(tmp_path):
    """As the legend has it, in the order of numbers, also where a panel lacks some depths."""
    depths = {"cantor2d": (1, 5), "vicsek": (1, 2, 3, 5, 10)}
    for fractal, of_panel in depths.items():
        for depth in of_panel:
            add(tmp_path, 0.8, fractal=fractal, depth=depth)
    figure = report_figures.learning_curves(rows.read_runs([tmp_path])[0])
    assert figure is not None
    [legend] = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["depth 1", "depth 2", "depth 3", "depth 5", "depth 10"]
    looks = dict(zip(texts, map(look_of, legend.get_lines()), strict=True))
    assert len(set(looks.values())) == 5
    for axes, of_panel in zip(figure.axes, depths.values(), strict=True):
        assert [look_of(line) for line in axes.get_lines()] == [looks[f"depth {depth}"] for depth in of_panel]


def test_learning_curves_of_runs_that_share_no_step_end_with_the_last_values_of_all(tmp_path):
    for depth in (1, 2):
        for i, steps in enumerate((50, 120, 290)):
            add(tmp_path, 0.8 + i / 100, depth=depth, steps=steps, seed=i)
    figure = report_figures.learning_curves(rows.read_runs([tmp_path])[0])
    assert figure is not None
    for line in figure.axes[0].get_lines():
        assert np.asarray(line.get_xdata()).tolist() == [145, 290]
        assert np.asarray(line.get_ydata()).tolist() == pytest.approx([0.8, 0.81])  # of .8, .81 and .72, then .82


def look_of(line) -> tuple[str, str]:
    return to_hex(line.get_color()), line.get_marker()


def test_the_legend_of_parameters_has_the_depths_of_all_panels(tmp_path):
    """A panel without lines, of cells that aren't of the paper's protocol, is left out: its legend would be empty."""
    for fractal, depth in (("sierpinsky", 2), ("sierpinsky", 1), ("cantor2d", 3)):
        add(tmp_path, 0.8, fractal=fractal, depth=depth)
    add(tmp_path, 0.7, fractal="vicsek", loss="logistic")
    ours = report_data.form_cells(rows.read_runs([tmp_path])[0])[0]
    drawn: Any = report_figures.parameters(ours)
    assert [axes.get_title() for axes in drawn.axes] == ["Sierpinsky triangle", "2D Cantor set"]
    assert [text.get_text() for text in drawn.axes[-1].get_legend().get_texts()] == ["depth 1", "depth 2", "depth 3"]
    others = report_data.Cells(cell for key, cell in ours.items() if key.fractal == "vicsek")
    assert report_figures.parameters(others) is None


def test_a_directory_that_goes_while_a_sweep_is_read(tmp_path, monkeypatch):
    add(tmp_path, 0.8)
    gone = add(tmp_path / "slurm" / ".code", 0.9).parent

    def scandir(path, scandir=os.scandir):
        if Path(path) == gone:
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert "1 run: 1 finished" in status.show(tmp_path)
    assert len(rows.read_runs([tmp_path])[0]) == len(dict(records.find(tmp_path))) == 1


def test_a_layerwise_run_is_as_long_as_all_its_layers(tmp_path):
    add(tmp_path, 0.7, "running", steps=1_500_000, training="layerwise", depth=2)
    assert "1 interrupted; 1,500,000 of 2,000,000 steps (75.0%)" in status.show(tmp_path)


def test_a_written_csv_reads_back_to_the_same_cells(tmp_path):
    add(tmp_path / "runs", 0.8, width=10, lr=1e-3)
    add(tmp_path / "runs", 0.9, width=10, lr=5e-4)
    add(tmp_path / "runs", 0.6, fractal="vicsek", curve="4", n=6, width=20)
    write_report([tmp_path / "runs"], tmp_path / "out", with_figures=False)
    import pandas as pd

    tidy = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert list(tidy.columns) == rows.COLUMNS
    assert len(tidy) == 3
    again = report_data.form_cells(rows.read_runs([tmp_path / "out" / "results.csv"])[0])[0]
    before = report_data.form_cells(rows.read_runs([tmp_path / "runs"])[0])[0]
    pd.testing.assert_frame_equal(again.frame(), before.frame(), check_dtype=False)


def test_verdicts_follow_the_numbers(tmp_path):
    for fractal in report_tables.FRACTALS:
        for width in (10, 20, 50):
            for depth in range(1, 6):
                add(tmp_path, 0.6 + 0.05 * depth + width / 10_000, fractal=fractal, depth=depth, width=width)
    for width in (10, 20, 50):
        for depth in range(1, 6):
            add(tmp_path, 0.52 + 0.001 * (depth % 2), fractal="vicsek", curve="4", n=6, depth=depth, width=width)
    made = report_tables.tables(report_data.form_cells(rows.read_runs([tmp_path])[0])[0])
    found = report_verdicts.verdicts(made)
    by_claim = {v.claim: v for v in found}
    assert len(by_claim) == len(found) == 6  # each claim once
    depth = by_claim["Depth helps on a coarse curve, on all four fractals"]
    assert depth.verdict == "supported"
    assert depth.ours.startswith(
        "depth 5 over depth 1: +0.200, 95% over 4 fractals +0.200 to +0.200 (sierpinsky +0.200,"
    )
    assert "; a layer more is better in 48 of 48 pairs; p=" in depth.ours
    assert depth.cells == "4 fractals, 12 (fractal, width) lines"
    assert "+0.153" in depth.theirs  # of the paper's 12 lines at these widths; of all 24 it is +0.160
    assert by_claim["Deeper networks use their parameters better on a coarse curve"].verdict == "supported"
    assert next(v for c, v in by_claim.items() if "fine Vicsek" in c).verdict == "supported"
    assert next(v for c, v in by_claim.items() if "Finer curves" in c).verdict == "not run"
    for fractal in report_tables.FRACTALS:  # a tenth of the budget done, where depth harms
        for depth in range(1, 6):
            add(tmp_path, 0.9 - 0.1 * depth, "running", 100_000, fractal=fractal, depth=depth, width=400)
    with_partial = report_tables.tables(report_data.form_cells(rows.read_runs([tmp_path])[0])[0])
    assert with_partial[0].blocks["vicsek"][0][-1].partial
    assert {v.claim: v for v in report_verdicts.verdicts(with_partial)} == by_claim  # it enters no verdict


def trend(**lines):
    found = report_verdicts.trend(lines)
    assert found is not None
    return found


def test_a_trend_counts_a_data_set_once():
    """Its rows are exchanged as a whole: 3! ways for each fractal, whatever the number of its widths."""
    down = [0.9, 0.8, 0.7]
    one = trend(a=[down] * 50)
    assert one.p_falling == pytest.approx(1 / 6)
    assert one.p_rising == 1
    assert one.decide() == one.decide(falling=True) == "undecided"
    four = trend(a=[down], b=[down], c=[down] * 9, d=[down])
    assert four.p_falling == pytest.approx(1 / 6**4)
    assert (four.decide(), four.decide(falling=True)) == ("contradicted", "supported")
    assert trend(a=[[0.5, 0.6, 0.6]]).p_rising == pytest.approx(2 / 6)  # the two equal ones may be exchanged


def test_an_exact_p_value_equals_a_look_at_all_exchanges():
    chance = np.random.default_rng(0)
    lines = {f: chance.random((w, 4)).round(1).tolist() for f, w in (("a", 3), ("b", 2))}
    number = np.arange(1, 5)
    sums = [
        sum(
            float(rankdata(np.array(lines[f])[:, order], axis=1) @ number @ np.ones(len(lines[f])))
            for f, order in zip("ab", both, strict=True)
        )
        for both in itertools.product(itertools.permutations(range(4)), repeat=2)
    ]
    found = trend(**lines)
    assert found.p_rising == pytest.approx(np.mean(np.array(sums) >= sums[0] - 1e-9))
    assert found.p_falling == pytest.approx(np.mean(np.array(sums) <= sums[0] + 1e-9))


def test_lines_of_one_data_set_that_err_together_give_no_small_p_value():
    """Where depth does nothing but rows of a data set move together, p < .05 in at most a twentieth: 1 line or 20."""
    chance = np.random.default_rng(1)
    small = 0
    for _ in range(200):
        rows = chance.normal(size=(2, 1, 5)) + 0.1 * chance.normal(size=(2, 20, 5))
        small += trend(a=rows[0].tolist(), b=rows[1].tolist()).p_rising < 0.05
    assert small <= 20  # 10 expected; with lines taken as independent it's about 90


def test_the_interval_of_an_effect_is_over_fractals():
    found = report_verdicts.effect({"a": [0.1] * 20, "b": [0.2], "c": [0.0, 0.6]})
    assert (found.mean, found.low, found.high) == pytest.approx((0.2, 0.2 - 0.24841, 0.2 + 0.24841), abs=1e-4)
    assert found.each == "a +0.100, b +0.200, c +0.300"
    assert str(report_verdicts.effect({"a": [0.1, 0.3]})) == "+0.200, widths +0.100 to +0.300"


def test_a_wide_interval_decides_nothing():
    lines = {"a": [[0.5, 0.51, 0.52, 0.53]], "b": [[0.5, 0.6, 0.7, 0.9]], "c": [[0.5, 0.52, 0.54, 0.56]]}
    found = trend(**lines)
    assert found.gain.mean > report_verdicts.EFFECT
    assert found.p_rising < report_verdicts.P
    assert found.gain.low < 0
    assert found.decide() == "undecided"


@pytest.mark.parametrize(
    ("best", "verdict"), [(0.979, "undecided"), (0.983, "undecided"), (0.985, "supported"), (0.97, "contradicted")]
)
def test_a_threshold_within_the_test_points_error_is_not_decided(best, verdict):
    one = report_tables.tables(report_data.Cells())[0]
    cells = [[report_tables.Cell(0.9, best if d == 5 else 0.7) for _ in one.widths] for d in one.rows]
    found = report_verdicts.nearly_solved(dataclasses.replace(one, blocks={"cantor2d": cells}))
    assert found.verdict == verdict
    assert f"accuracy {best:.3f} at width 10" in found.ours  # of equal ones the smallest


def test_a_mean_has_the_interval_of_its_seeds(tmp_path):
    for seed, value in enumerate((0.94, 0.83, 0.886)):
        add(tmp_path, value, depth=5, width=50, seed=seed)
    one = report_tables.tables(report_data.form_cells(rows.read_runs([tmp_path])[0])[0])[0]
    found = report_verdicts.nearly_solved(one)
    mean, half = np.mean([0.94, 0.83, 0.886]), 4.30265 * np.std([0.94, 0.83, 0.886], ddof=1) / 3**0.5
    assert f"accuracy {mean:.3f} at width 50, 95% over 3 seeds {mean - half:.3f} to 1.000" in found.ours
    assert f"95% of {report_verdicts.TEST_POINTS:,} points" in found.theirs


def test_equal_means_go_to_the_rate_of_most_seeds_then_to_the_smallest(tmp_path):
    for lr, seeds in ((1e-3, 1), (5e-4, 2), (2.5e-4, 1)):
        for seed in range(seeds):
            add(tmp_path / "a", 0.6 + 0.1 * seed, lr=lr, seed=seed)
    cell, _ = cell_of(tmp_path / "a")
    assert (cell.lr, cell.accuracy) == (5e-4, pytest.approx(0.65))
    for lr in (1e-3, 2.5e-4, 5e-4):
        add(tmp_path / "b", 0.6, lr=lr)
    assert cell_of(tmp_path / "b")[0].lr == 2.5e-4


def test_runs_that_collapsed_to_a_constant_are_told_alike_by_notes_and_legend(tmp_path):
    """Of two cells that show such a run, one has others beside it, and a third cell's is of a rate not shown."""
    constant, moving = [0.6, *[0.5014] * 5], [0.5, 0.52, 0.51, 0.53, 0.55, 0.54]
    made: list[tuple[list[float], dict[str, Any]]] = [
        (constant, {"width": 10}),
        (constant, {"width": 20, "seed": 0}),
        (moving, {"width": 20, "seed": 1}),
        (moving, {"width": 50, "lr": 5e-4}),
        ([0.51, *[0.5014] * 5], {"width": 50, "lr": 1e-3}),
    ]
    for values, keys in made:
        directory = add(tmp_path, max(values), steps=60, **keys)
        lines = [f"{10 * i},1.0,0.9,0.9,{value}" for i, value in enumerate(values, 1)]
        (directory / "history.csv").write_text("\n".join(["step,seconds,train_loss,test_loss,test_acc", *lines]) + "\n")
    add(tmp_path, 0.5, "diverged", steps=60, lr=2e-3)
    add(tmp_path, 0.5, "failed", width=10)
    runs, _ = rows.read_runs([tmp_path])
    cells, _ = report_data.form_cells(runs)
    every = report_tables.tables(cells)
    *others, line = lost(runs, None, every)
    said = "3 of all 7 runs collapsed to a constant (lr 0.0005: 2, 0.001: 1)"
    where = "cantor2d n=5 curve 1 depth 5 width"
    assert line == f"{said}; in 2 cells one of them is shown or averaged: {where} 10; {where} 20"
    legend = " ".join(report_tables.legend(every[0]))
    assert "2 with a network that answers the same for every point" in legend
    assert others[0] == "1 of all 7 runs diverged: in no mean"
    assert others[1].startswith("1 of all 7 runs failed, the first: ")
    for number, shown in (("best", 2), ("last10", 2), ("chosen", "none"), ("train", "none")):
        write_report([tmp_path], tmp_path / "out", with_figures=False, number=number)
        notes, tables = (tmp_path / "out" / "report.md").read_text().split("## Notes")[1].split("## Tables")
        assert [each for each in others if forms.plain(each) not in notes] == []
        assert f"{said}, {shown} of them in the table" in notes
        assert (f"collapsed: {shown} runs of those in the table" in tables) == (shown == 2)


def test_the_figure_of_theorem_3_names_the_fractals_that_it_proves_nothing_of():
    runs, _ = rows.read_runs([Path(__file__).parents[1] / "docs" / "reproduction" / "results.csv"])
    cells, _ = report_data.form_cells(runs)
    assert {type(value) for cell in cells.values() for value in (cell.depth, cell.width, cell.params)} == {int}
    figure = report_figures.theorem3(cells)
    assert figure is not None
    assert figure.get_suptitle().endswith("break its Assumption 1: Sierpinsky triangle, Pentaflake, Vicsek")
    labels = figure.axes[-1].get_legend_handles_labels()[1]
    assert [label for label in labels if "cells touch" not in label] == ["Theorem 3: resolves $K_j$", "2D Cantor set"]
    fit(figure, Output())
    legend = figure.axes[-1].get_legend()
    assert legend
    assert [text.get_text() for text in legend.get_texts()] == labels  # beside the panels there is room


@pytest.mark.parametrize(
    ("width", "font"),
    [(2.0, 6.6), *(pytest.param(*size, marks=pytest.mark.slow) for size in ((3.6, 12), (3.3, 7), (None, 12)))],
)
@pytest.mark.parametrize("name", ["figure4", "figure5", "figure6", "parameters", "theorem3", "learning_curves"])
def test_no_figure_that_is_not_refused_has_letters_cut_off_or_over_others(name, width, font):
    """At the edges of what ``check_letters`` allows; a warning of the layout is an error."""
    output = Output(width=width, font=font)
    check_letters(output)
    runs, _ = rows.read_runs([Path(__file__).parents[1] / "docs" / "reproduction" / "results.csv"])
    if name == "learning_curves":
        figure = report_figures.learning_curves(runs, most=60, output=output)
    else:
        ours = report_data.form_cells(runs)[0]
        figure = getattr(report_figures, name)(ours, output=output)
    assert figure is not None
    fit(figure, output)
    assert wrongly_set(figure) == []


@pytest.mark.parametrize("name", ["figure5", "parameters", "theorem3", "learning_curves"])
def test_a_figure_in_a_column_of_a_paper_stays_within_it(name):
    """Panels fold into rows; no title, label or legend is cut off or stands on another."""
    runs, _ = rows.read_runs([Path(__file__).parents[1] / "docs" / "reproduction" / "results.csv"])
    of = runs if name == "learning_curves" else report_data.form_cells(runs)[0]
    output = Output(width=3.3, font=7)
    figure = getattr(report_figures, name)(of, output=output)
    fit(figure, output)
    figure.draw_without_rendering()
    page = figure.bbox.padded(2)
    axes_of = [axes for axes in figure.axes if axes.get_visible()]
    assert len({axes.get_subplotspec().rowspan.start for axes in axes_of}) > 1
    boxes = [axes.get_tightbbox() for axes in axes_of] + [legend.get_window_extent() for legend in figure.legends]
    boxes += [text.get_window_extent() for text in figure.texts if text.get_text()]
    assert all(page.containsx(box.x0) and page.containsx(box.x1) for box in boxes)
    assert all(page.containsy(box.y0) and page.containsy(box.y1) for box in boxes)
    assert min(axes.bbox.width for axes in axes_of) > 0.25 * figure.bbox.width
    assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.padded(-2).overlaps(b.padded(-2))]


def test_the_kept_runs_that_collapsed():
    """24 of the full budget and 3 of width 400 end with ten equal accuracies, one more with five."""
    runs, _ = rows.read_runs([Path(__file__).parents[1] / "docs" / "reproduction" / "results.csv"])
    assert lost(runs, None, []) == ["28 of all 965 runs collapsed to a constant (lr 0.0005: 6, 0.001: 22)"]
    assert lost(runs.iloc[:0], None, []) == []


def test_a_verdict_of_another_budget_alone_has_a_star(tmp_path):
    for fractal in report_tables.FRACTALS:
        for depth in range(1, 6):
            for width in (10, 20):
                add(tmp_path, 0.6 + 0.05 * depth, "running", 100_000, fractal=fractal, depth=depth, width=width)
    found = report_verdicts.verdicts(report_tables.tables(report_data.form_cells(rows.read_runs([tmp_path])[0])[0]))
    assert found[0].verdict == "supported*"
    assert "Cells of another budget" in report_verdicts.markdown(found)
    assert {v.verdict for v in found if "Finer" in v.claim or "fine Vicsek" in v.claim} == {"not run"}


@pytest.mark.parametrize("widths", [3, 6])
def test_utilisation_where_parameters_are_all_that_counts(widths):
    """Accuracy a concave function of the number of parameters, depth nothing: neither supported, nor better in most."""
    one, *_ = report_tables.tables(report_data.Cells())
    blocks = {
        fractal: [
            [
                report_tables.Cell(0.7, 0.9 - 0.4 * report_verdicts.parameters(d, w) ** -0.3 if i < widths else None)
                for i, w in enumerate(one.widths)
            ]
            for d in one.rows
        ]
        for fractal in report_tables.FRACTALS
    }
    found = report_verdicts.utilisation(dataclasses.replace(one, blocks=blocks))
    assert found.verdict == "undecided"
    assert found.ours.startswith(("at equal parameters +0.000, 95%", "at equal parameters -0.000, 95%"))


def test_means_of_equal_accuracies_in_another_order_are_equal():
    """Though the sums of floats differ by a bit."""
    one, *_ = report_tables.tables(report_data.Cells())
    means = [sum(seeds) / 3 for seeds in ([0.1, 0.2, 0.3], [0.3, 0.2, 0.1])]
    assert means[0] > means[1]
    lines = [[report_tables.Cell(0.7, means[depth % 2]) for _ in one.widths] for depth in one.rows]
    table = dataclasses.replace(one, blocks=dict.fromkeys(report_tables.FRACTALS, lines))
    assert "better in 0 of 96 pairs, equal in 96;" in report_verdicts.depth_helps(table).ours
    assert re.search(r"; better in 0 of \d+$", report_verdicts.utilisation(table).ours)


def test_a_fine_vicsek_that_gains_without_a_trend_is_undecided():
    six = report_tables.tables(report_data.Cells())[2]
    lines = [[0.50, 0.53, 0.51, 0.50, 0.53], [0.51, 0.50, 0.54, 0.51, 0.525]]  # +.0225, p = .2
    cells = [[report_tables.Cell(None, line[i]) for line in lines] for i in range(5)]
    found = report_verdicts.fine_vicsek(dataclasses.replace(six, widths=[10, 20], blocks={"vicsek": cells}))
    assert found.verdict == "undecided"
    high = [[dataclasses.replace(c, ours=(c.ours or 0) + 0.1) for c in line] for line in cells]
    higher = report_verdicts.fine_vicsek(dataclasses.replace(six, widths=[10, 20], blocks={"vicsek": high}))
    assert higher.verdict == "contradicted"


def test_that_networks_are_near_chance_is_judged_by_test_accuracies_alone():
    """A network that has learned its training points by heart may be near chance on all others."""
    claims = {
        number: {found.claim for found in report_verdicts.verdicts(report_tables.tables(report_data.Cells((), number)))}
        for number in NUMBERS.values()
    }
    [left_out] = claims[BEST] - claims[TRAIN]
    assert left_out.endswith("all networks are near chance")
    assert all(claims[number] == claims[BEST] for number in NUMBERS.values() if number != TRAIN)


@pytest.mark.parametrize(("number", "points"), [(BEST, 5000), (TRAIN, 10_000)])
def test_an_accuracy_has_the_error_of_the_points_that_it_is_of(number, points):
    one = report_tables.tables(report_data.Cells((), number))[0]
    cells = [[report_tables.Cell(None, 0.985) for _ in one.widths] for _ in one.rows]
    found = report_verdicts.nearly_solved(dataclasses.replace(one, blocks={"cantor2d": cells}))
    assert f"95% of {points:,} points" in found.ours


def test_the_papers_own_tables_support_the_papers_claims():
    made = report_tables.tables(report_data.Cells())
    claims = [copy.copy(v) for v in report_verdicts.verdicts(made)]
    assert {v.verdict for v in claims} == {"not run"}
    depth = claims[0].theirs
    assert "vicsek +0.170" in depth
    assert depth.endswith("; p=1e-08")  # 2 / 5!^4: on one fractal another order of the rows would do as well
    numbers = report_tables.paper()
    cantor = numbers["table1"]["values"]["cantor2d"]
    for row, exact in zip(cantor, numbers["figure4"]["values"]["cantor2d"], strict=True):
        assert row == pytest.approx(exact, abs=0.0061)  # the table's digits are those of the figure


@pytest.fixture
def page_alone(monkeypatch):
    """Reports without figures, which take longer than all else."""
    for module in (report_figures, own_figures):
        monkeypatch.setattr(module, "write_figures", lambda *_: [])


def in_a_browser(test: Any) -> Any:
    """Of the page of a report, drawn by Chromium."""
    test = pytest.mark.usefixtures("page_alone")(test)
    return pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")(test)


def test_figures_and_the_page_need_no_network(tmp_path):
    for depth in (1, 2, 5):
        for width in (10, 20):
            add(tmp_path, 0.6 + depth / 50, depth=depth, width=width)
            add(tmp_path, 0.51, fractal="vicsek", curve="4", n=6, depth=depth, width=width)
    write_report([tmp_path], tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    own = ("sweep", "along_test_acc", "along_test_loss", "along_train_loss")
    papers = ("figure4", "figure5", "figure6", "parameters", "learning_curves")
    assert names == {f"{name}.png" for name in (*own, *papers)}
    assert not (tmp_path / "out" / "pictures").exists()
    for path in (tmp_path / "out" / "figures").iterdir():
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<script src" not in page
    assert "<link" not in page
    assert not [name for name in ("DATA", "PLOTLY", "SCRIPT", "NOTES") if f"@{name}@" in page]
    data = json.loads(unpacked(page, "data"))
    assert "plotly.js v" in unpacked(page, "plotly")[:500]
    found = [e for e in data["entries"] if (e["fractal"], e["lr"]) == ("2D Cantor set", "best") and e["depth"] == 5]
    assert [(e["width"], e["acc"], e["paper"]) for e in found] == [(10, 0.7, 0.81), (20, 0.7, 0.87)]
    assert data["curves"][found[0]["run"]] == [[500_000, 1_000_000], [0.6, 0.7]]
    assert data["P"]["1 5"][1:3] == [0.6294, 0.7421]
    # eval_every is not the protocol's here, so it is part of the command
    expected = "fractal=cantor2d curve=1 depth=5 width=10 lr=0.0005 seed=0 eval_every=500000"
    assert found[0]["command"] == f"python -m fractal_ifs.train {expected}"


def test_a_page_without_room_for_all_learning_curves_has_those_of_the_table_first(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "HISTORIES", 5)
    for width, lr, seed in itertools.product((10, 20), (1e-3, 2e-3), (0, 1)):
        add(tmp_path, 0.6 + 10 * lr, width=width, lr=lr, seed=seed)
    write_report([tmp_path], tmp_path / "out")
    data = json.loads(unpacked((tmp_path / "out" / "index.html").read_text(), "runs"))
    assert data["lacking"] == 3
    has = [(run["best"], bool(run["history"])) for run in data["runs"]]
    assert sorted(has) == [(False, False)] * 3 + [(False, True)] + [(True, True)] * 4


def unpacked(page: str, name: str) -> str:
    return gzip.decompress(base64.b64decode(page.split(f'id="{name}">')[1].split("<")[0])).decode()


@in_a_browser
def test_the_page_draws_itself_in_a_browser(tmp_path):
    for width in (10, 20):
        for depth in (1, 5):
            add(tmp_path, 0.6 + depth / 50 - width / 1000, depth=depth, width=width)
    write_report([tmp_path], tmp_path / "out")
    page = drawn(tmp_path)
    maps = page.split('id="maps"')[1].split('id="panel"')[0]
    assert re.findall(r">(0\.\d{3})</", maps) == ["0.610", "0.600", "0.690", "0.680"]
    # what is told at first is the best cell
    panel = page.split('id="panel"')[1].split('id="parameters"')[0]
    assert "2D Cantor set, curve 1, depth 5, width 10; ours 0.6900, the paper 0.81" in panel
    assert "no picture of it here" in panel
    assert re.findall(r'<button id="(..)"( hidden="")?>', page) == [(b, "") for b in ("t1", "t2")] + [
        (b, ' hidden=""') for b in ("f6", "f7")
    ]


@in_a_browser
def test_a_link_to_a_figure_of_the_page_opens_it(tmp_path):
    add(tmp_path, 0.7)
    for width, accuracy in ((8, 0.65), (16, 0.66)):
        add(tmp_path, accuracy, images={"experiment": "figure7", "width": width, "depth": 2})
    write_report([tmp_path], tmp_path / "out")
    page = drawn(tmp_path, "#f7")
    maps = page.split('id="maps"')[1].split('id="panel"')[0]
    assert re.findall(r">(0\.\d{3})</", maps) == ["0.650", "0.660"]
    assert "Cantor" not in maps
    assert "CIFAR-10, depth 2, channels 16; ours 0.6600, the paper 0.661" in page.split('id="panel"')[1]
    assert ">width<" not in maps


@in_a_browser
def test_the_explorer_names_every_group_and_fits_a_telephone(tmp_path):
    for width in (10, 20):
        for fractal in ("cantor2d", "vicsek"):
            for loss in ("hinge", "logistic"):
                add(tmp_path, 0.6 + width / 1000, width=width, fractal=fractal, loss={"name": loss})
    write_report([tmp_path], tmp_path / "out", number="last10")
    page = tmp_path / "out" / "index.html"
    watch = (
        "<script>setTimeout(() => { document.title = 'wide ' + document.documentElement.scrollWidth; }, 5000)</script>"
    )
    page.write_text(page.read_text() + watch)
    frame = '<iframe src="index.html" style="width:400px;height:900px;border:0"></iframe>'
    tell = "<script>setTimeout(() => { document.title = frames[0].document.title; }, 8000)</script>"
    (tmp_path / "out" / "telephone.html").write_text(frame + tell)
    found = re.search(r"<title>wide (\d+)</title>", drawn(tmp_path, name="telephone.html"))
    assert found is not None
    assert int(found[1]) <= 400
    whole = drawn(tmp_path).split('id="plot"')[1].split('id="explored"')
    names = re.findall(r'class="legendtext"[^>]*>([^<]+)<', whole[0])
    assert re.search(r'class="ytitle"[^>]*>mean of the last ten<', whole[0])  # begins with the number of the table
    assert len(set(names)) == len(names) == 4
    assert {"fractal vicsek", "width 20"} <= {part for name in names for part in name.split(", ")}
    assert "4 lines, one for each config; a point is one run." in whole[1]


@in_a_browser
def test_a_legend_in_a_telephone_has_every_name_whole_and_in_the_order_of_the_table(tmp_path):
    model = config_of()["model"]
    for batch, init, activation in itertools.product((100, 20), ("theory", "paper"), ("tanh", "relu")):
        for width in (10, 20):
            choice = {"batch_size": batch, "model": model | {"init": init, "activation": activation}}
            add(tmp_path, 0.6 + width / 1000, width=width, **choice)
    write_report([tmp_path], tmp_path / "out", columns="width")
    entries = """[...document.querySelectorAll("#plot .legendtext")].map(entry => [
        [...entry.querySelectorAll("tspan.line")].map(line => line.textContent).join(" ") || entry.textContent,
        entry.getBoundingClientRect().right, at("plot").querySelector("svg").getBoundingClientRect().right])"""
    found = told(tmp_path, entries, 420)
    names = itertools.product((20, 100), ("paper", "theory"), ("relu", "tanh"))
    expected = [f"batch_size {b}, model.init {i}, model.activation {a}" for b, i, a in names]
    assert [name for name, *_ in found] == expected
    assert max(right - edge for _, right, edge in found) <= 0


@in_a_browser
@pytest.mark.parametrize("depths", [pytest.param((10, 1, 2), marks=pytest.mark.slow), (10, 1, 20, 2, 3)])
def test_a_line_of_the_explorer_looks_as_in_the_figure_above_it(tmp_path, depths):
    for depth in depths:
        for curve, width in itertools.product("41", (10, 20)):
            add(tmp_path, 0.6 + depth / 100, depth=depth, curve=curve, width=width)
    write_report([tmp_path], tmp_path / "out")
    table = pivot(*with_inner_keys(rows.read_runs([tmp_path])[0]))
    figure: Any = own_figures.against(table, Output())
    above = {
        text: (to_hex(handle.lines[0].get_color()), SYMBOLS[handle.lines[0].get_marker()])
        for axes in figure.axes
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    found = told(tmp_path, "at('plot').data.map(line => [line.name, line.line.color, line.marker.symbol])")
    assert len(found) == 2 * len(depths) == len({tuple(look) for _, *look in found})
    for name, color, symbol in found:
        shown = name if name in above else name.split(", ")[1]  # of two panels, the line without its panel
        assert (color, symbol.removesuffix("-open")) == above[shown]
    assert list(dict.fromkeys(name if name in above else name.split(", ")[1] for name, *_ in found)) == sorted(
        above, key=lambda name: [int(number) for number in re.findall(r"\d+", name)]
    )


@in_a_browser
def test_one_line_of_one_number_fills_the_explorer_and_a_legend_takes_nothing_from_it(tmp_path):
    for width in (10, 20, 30, 40):
        add(tmp_path, 0.8, width=width)
    write_report([tmp_path], tmp_path / "out")
    looks = """(async () => {
        const found = [], look = async () => {
            await new Promise(done => setTimeout(done, 500));
            found.push({said: at("explored").textContent, range: at("plot")._fullLayout.yaxis.range,
                high: at("plot").querySelector(".nsewdrag").getBoundingClientRect().height});
        };
        await look();
        at("y").value = "test_acc by step"; at("y").onchange(); await look();
        const only = document.querySelector("#only select"); only.value = "10"; only.onchange(); await look();
        return found;
    })()"""
    one, four, one_by_step = told(tmp_path, looks, 420)
    assert one["said"] == one_by_step["said"] == "1 line, one for each config; a point is one run."
    assert four["said"] == "4 lines, one for each config; a point is one run."
    assert one["range"] == pytest.approx([0.76, 0.84])
    assert four["high"] == pytest.approx(one_by_step["high"], abs=3)


@in_a_browser
def test_two_values_of_a_key_stand_in_their_order_whichever_curve_has_them_first(tmp_path):
    for curve, width in (("1", 20), ("4", 10), ("4", 20)):
        add(tmp_path, 0.6 + width / 1000, width=width, curve=curve)
    stopped = add(tmp_path, 0.8, "stopped", width=20, curve="4", seed=1)  # at its first measurement, of .7
    (stopped / "history.csv").write_text((stopped / "history.csv").read_text().rpartition("1000000,")[0])
    record = json.loads((stopped / "result.json").read_text())
    record |= {"steps": 500_000, "best_step": 500_000, "best_test_acc": 0.7}
    (stopped / "result.json").write_text(json.dumps(record))
    write_report([tmp_path], tmp_path / "out")
    asked = """(async () => {
        const ticks = [...document.querySelectorAll("#plot .xtick")].map(tick => tick.textContent);
        at("y").value = "test_acc by step"; at("y").onchange();
        await new Promise(done => setTimeout(done, 500));
        return [ticks, at("plot").data.map(line => line.y), at("explored").textContent];
    })()"""
    ticks, (*_, of_two), said = told(tmp_path, asked)
    assert ticks == ["10", "20"]
    assert of_two == pytest.approx([(0.52 + 0.7) / 2, (0.62 + 0.7) / 2])
    assert said.endswith("a point is the mean over seeds. Where a run wasn't measured its last value counts.")


@in_a_browser
def test_means_of_the_explorer_are_of_the_runs_that_the_tables_are_of(tmp_path):
    """Of a cell in which runs have ended, no others are in a mean; and what is in none is said, as in the table."""
    for width, seed, accuracy, state in (
        (10, 0, 0.6, "finished"),
        (10, 1, 0.9, "interrupted"),
        (10, 2, 0.9, "pruned"),
        (10, 3, 0.5, "diverged"),
        (20, 0, 0.7, "finished"),
        (20, 1, 0.8, "stopped"),
        (30, 0, 0.6, "pruned"),
        (30, 1, 0.7, "paused"),
    ):
        path = add(tmp_path, accuracy, state, width=width, seed=seed) / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"final_test_acc": accuracy}))
    for seed in (0, 1):  # another fingerprint of the same keys, of which one counts
        add(tmp_path, 0.7 + seed / 10, width=40, seed=seed)
        add(tmp_path, 0.7 + seed / 10, width=40, seed=seed, trainer=config_of()["trainer"] | {"compile": True})
    write_report([tmp_path], tmp_path / "out")
    asked = """(async () => {
        const found = [], look = () => found.push([at("plot").data.map(line => line.y), at("explored").textContent]);
        look();
        at("y").value = "test_acc by step"; at("y").onchange();
        await new Promise(done => setTimeout(done, 500));
        look();
        return found;
    })()"""
    (means, said), (curves, by_step) = told(tmp_path, asked)
    assert means == [pytest.approx([0.6, 0.75, 0.65, 0.75])]
    assert [curve[-1] for curve in curves] == pytest.approx([0.6, 0.75, 0.65, 0.75])
    for text in (said, by_step):
        assert " Not ended: 1 paused, 1 pruned. In no mean: 1 diverged, 1 interrupted, " in text
        assert text.endswith(" 2 of keys and a seed that another has, 1 pruned.")


@in_a_browser
def test_a_rate_that_was_pruned_stays_in_the_explorer_beside_the_tables(tmp_path):
    for width, lr, accuracy, state in (
        (10, 1e-3, 0.6, "finished"),
        (10, 1e-2, 0.7, "pruned"),
        (20, 1e-3, 0.8, "finished"),
    ):
        path = add(tmp_path, accuracy, state, width=width, lr=lr) / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"final_test_acc": accuracy}))
    write_report([tmp_path], tmp_path / "out")
    asked = """(async () => {
        const found = [];
        const look = () => found.push([at("plot").data.flatMap(line => line.y), at("explored").textContent]);
        look();
        const lr = [...document.querySelectorAll("#only select")].find(each => each.value === "best");
        lr.value = ""; lr.onchange();
        await new Promise(done => setTimeout(done, 500));
        look();
        return found;
    })()"""
    (of_table, said), (every, of_every) = told(tmp_path, asked)
    assert of_table == pytest.approx([0.6, 0.8])
    assert said == "1 line, one for each config; a point is one run."
    assert sorted(every) == pytest.approx([0.6, 0.7, 0.8])
    assert of_every.endswith(" Not ended: 1 pruned.")


def told(directory, ask, width=1400):
    """What an expression of JavaScript is in the report's page of so many pixels, once its explorer is drawn."""
    script = (
        "<script>const asking = setInterval(async () => { if (!document.querySelector('#plot .xtick')) return;"
        f" clearInterval(asking); document.title = 'told ' + JSON.stringify(await {ask}); }}, 300)</script>"
    )
    page = (directory / "out" / "index.html").read_text()
    (directory / "out" / "asked.html").write_text(page + script)
    # a window is never narrower than 500 pixels, a frame may be
    frame = f'<iframe src="asked.html" style="width:{width}px;height:900px;border:0"></iframe>'
    copy = "<script>setInterval(() => { document.title = frames[0].document.title; }, 300)</script>"
    (directory / "out" / "frame.html").write_text(frame + copy)
    found = re.search(r"<title>told (.*)</title>", drawn(directory, name="frame.html"))
    assert found is not None
    return json.loads(html.unescape(found[1]))


def drawn(directory, link="", name="index.html"):
    """The report's page below a directory, after its script."""
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    command += [f"--user-data-dir={directory / 'profile'}", "--dump-dom"]
    command += ["--allow-file-access-from-files", (directory / "out" / name).as_uri() + link]
    return subprocess.run(command, capture_output=True, text=True, timeout=300).stdout


def test_a_narrowed_experiment_trains_and_is_reported(command, tmp_path):
    """What is given on the command line wins over the experiment's lists; Table 1 then reuses Table 2's runs."""
    sizes = [
        "steps=40",
        "eval_every=20",
        "data.train_size=400",
        "data.test_size=100",
        "width=10",
        "lr=5e-4",
        "logger=none",
    ]
    for experiment, more in (("table2", "curve=1,6"), ("table1", "depth=5")):
        done = command("-m", f"experiment={experiment}", "fractal=cantor2d,vicsek", more, *sizes)
        assert done.status == 0
    assert "2 of 2 jobs are finished already" in done.out
    runs, notes = rows.read_runs([tmp_path / "multirun" / "tables-40"])
    assert notes == []
    assert sorted(zip(runs.fractal, runs.curve, runs.depth, runs.width, runs.lr, strict=True)) == [
        (fractal, curve, 5, 10, 5e-4) for fractal in ("cantor2d", "vicsek") for curve in ("1", "6")
    ]
    assert set(runs.differs) == {"data.test_size=100, data.train_size=400"}


@pytest.mark.parametrize("name", ["table1", "table2", "figure4", "figure5", "figure6"])
def test_an_experiment_sweeps_the_cells_of_its_table(name):
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n# python -m fractal_ifs.train -m experiment=" + name)
    params = yaml.safe_load(text)["hydra"]["sweeper"]["params"]
    cells = 1
    for key, value in params.items():
        cells *= len(str(value).split(",")) if key != "lr" else 1
    assert cells == {"table1": 120, "table2": 144, "figure4": 30, "figure5": 36, "figure6": 30}[name]
    assert params["lr"] == "1e-3,5e-4,2.5e-4"
    some = {key: str(value).split(",")[0] for key, value in params.items()}
    assert compose(experiment=name, **{**some, "width": 10}).width == 10


def call(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "fractal_ifs.report", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )


@pytest.mark.slow
def test_a_terminal_that_knows_ascii_alone_gets_a_report(tmp_path):
    add(tmp_path / "runs", 0.8)
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONWARNINGS": "ignore"}
    done = call("runs", cwd=tmp_path, **ascii_alone)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("index.html\n")
    usual = call("runs", "-o", "usual", cwd=tmp_path, PYTHONWARNINGS="ignore", PYTHONUTF8="1")
    plain = usual.stdout.translate(str.maketrans(streams.PLAIN))
    assert done.stdout.replace("report/", "usual/") == plain.encode("ascii", "backslashreplace").decode()
    for name in ("report.md", "index.html", "tables.md"):
        assert (tmp_path / "report" / name).read_bytes() == (tmp_path / "usual" / name).read_bytes()


def test_a_run_whose_name_is_no_text_is_said_and_left_out(tmp_path):
    add(tmp_path, 0.8)
    os.rename(add(tmp_path, 0.7, seed=1), os.fsencode(tmp_path) + b"/gr\xf6\xdfe")
    runs, notes = rows.read_runs([tmp_path])
    assert list(runs.best_test_acc) == [0.8]
    assert notes == [rf"left out: {tmp_path}/gr\udcf6\udcdfe: has a name that can't be printed in this locale"]


def test_an_interrupt_is_left_to_the_command(monkeypatch):
    """Which says so in a word: test_streams.py."""

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "report", interrupt)
    with pytest.raises(KeyboardInterrupt):
        report.main(["runs"])


def test_mistakes_cost_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    assert call("empty", cwd=tmp_path).stderr == (
        "error: empty: there is no run in this directory; give one that a sweep wrote, as multirun/NAME\n"
    )
    assert call("status", "nowhere", cwd=tmp_path).stderr == "error: nowhere: there is no such directory\n"
    waiting = tmp_path / "waiting" / "run0" / ".hydra"
    waiting.mkdir(parents=True)
    (waiting / "config.yaml").write_text(yaml.safe_dump(config_of()))
    assert status.show(tmp_path / "waiting").endswith("1 run: 1 waiting; 0 of 1,000,000 steps (0.0%)")
    with pytest.raises(ConfigError, match=r"no run has a measurement yet"):
        write_report([tmp_path / "waiting"], tmp_path / "out")
    (waiting / "config.yaml").write_text("db: {driver: mysql}\n")  # of another application of Hydra
    with pytest.raises(ConfigError, match=r"there is no run in this directory"):
        write_report([tmp_path / "waiting"], tmp_path / "out")
    run = add(tmp_path / "later", 0.8)
    record = json.loads((run / "result.json").read_text()) | {"format": 99}
    (run / "result.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"format 99; this version reads up to \d+, update it$"):
        write_report([tmp_path / "later"], tmp_path / "out")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match=r"not the results.csv of a report, it has no column fingerprint"):
        write_report([tmp_path / "other.csv"], tmp_path / "out")


def test_help_loads_nothing_heavy(tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = call("--help", cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert found.returncode == 0
    assert "DIR" in found.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5
    code = "import sys, fractal_ifs.report.__main__ as r\ntry: r.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('pandas', 'matplotlib', 'plotly', 'torch', 'scipy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert out.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--width 2.3", "--width=2.3: must be at least 2.4 for letters of 8 points"),
        ("--width 3.3 --font 12", "--width=3.3: must be at least 3.6 for letters of 12 points"),
        ("--width 1.9 --font 4", "--width=1.9: must be at least 2 for letters of 4 points"),
    ],
)
def test_a_width_that_is_too_little_for_its_letters_is_refused_before_anything_is_read(tmp_path, options, said):
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}$"):
        report.report([str(tmp_path / "none"), *options.split()])
