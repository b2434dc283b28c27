"""What is read of runs for tables: from their directories, from tables, from both."""

import csv
import itertools
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import small

from fractal_ifs.config.lightning import Callbacks
from fractal_ifs.config.model import OwnModel
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.errors import ConfigError
from fractal_ifs.plotting.style import Output
from fractal_ifs.report.__main__ import main
from fractal_ifs.report.write import write_report
from fractal_ifs.results import finished_runs, pivot
from fractal_ifs.results.columns import COLUMNS, is_measured
from fractal_ifs.results.measured import measures_of, with_measure
from fractal_ifs.results.numbers import LAST10, collapsed, learning_curve
from fractal_ifs.results.protocol import keys_of_difference, protocol_value, setting_of
from fractal_ifs.results.rows import read_runs, runs_of
from fractal_ifs.results.text_table import csv_of, read_text
from fractal_ifs.results.varied import with_inner_keys
from fractal_ifs.runs import locks
from fractal_ifs.runs.history import read_history, write_history
from fractal_ifs.runs.records import (
    BEGUN,
    RESULT,
    Begun,
    RunRecord,
    Status,
    find,
    read_stored,
    write_begun,
    write_record,
)
from fractal_ifs.sweeps.status import show
from fractal_ifs.sweeps.sweep import train_jobs
from fractal_ifs.sweeps.table import show_table

HISTORY = "history.csv"


def ended(root: Path, value: float, measured: dict[str, float] | None = None, **keys: Any) -> Path:
    """A finished run with one accuracy, as its record alone tells it."""
    config = small(**keys)
    directory = root / f"run{len(list(root.glob('run*')))}"
    directory.mkdir(parents=True)
    of_run = {"best_test_acc": value, "best_step": config.steps, "final_test_acc": value, "measured": measured}
    write_record(directory, RunRecord.of(config, Status.FINISHED, steps=config.steps, seconds=1.0, **of_run))
    return directory


def trained(root: Path, **keys: Any) -> Path:
    """A run that was trained, with the measures norms and train_acc."""
    keys = {"measures": ("train_acc", "norms"), "steps": 100, "eval_every": 20} | keys
    [outcome] = train_jobs([Job(small(**keys), root)])
    assert not isinstance(outcome, Exception)
    return root


def table_of(*paths: Path) -> pivot.Pivot:
    return pivot.pivot(*with_inner_keys(read_runs(paths)[0]))


def test_keys_that_a_float_hasnt_room_for_stay_apart_in_a_table_and_its_file(tmp_path):
    seeds = [2**53, 2**53 + 1, 2**63 - 1]
    for seed in seeds:
        ended(tmp_path / "runs", 0.5, seed=seed)
    runs, notes = read_runs([tmp_path / "runs"])
    (tmp_path / "results.csv").write_bytes(csv_of(runs))
    again, more = read_runs([tmp_path / "results.csv"])
    assert sorted(runs.seed) == sorted(again.seed) == seeds
    assert not notes
    assert not more
    for table in (table_of(tmp_path / "runs"), table_of(tmp_path / "results.csv")):
        assert [(cell.n, *table.notes) for cell in table.cells] == [(3,)]


def test_values_that_differ_beyond_six_digits_are_other_cells(tmp_path):
    decays = [0.12345671, 0.12345672]
    for decay in decays:
        for lr, value in [(1.0000001e-3, 0.6), (1.0000002e-3, 0.8)]:
            ended(tmp_path, value, lr=lr, optimizer__weight_decay=decay)
    table = table_of(tmp_path)
    assert list(table.entries) == [(str(decay),) for decay in decays]
    assert [(cell.lrs, cell.lr, cell.mean) for cell in table.cells] == [(2, 1.0000002e-3, 0.8)] * 2
    assert not table.notes


def test_no_value_is_another_ones_text():
    values = [None, "-", "", 1.0, 1.0000001, "1.5"]
    assert len({pivot.plain_value(value) for value in values}) == len(values)


@pytest.mark.parametrize("value", [1 / 3, 1.0000001e-3, 5e-4, 1e10, 1e22, 123456789012.5, -2.5e-7, 0.0])
def test_a_value_is_read_again_as_it_was(value):
    assert float(pivot.plain_value(value)) == value


def test_a_measure_that_is_missing_after_the_last_step_is_missing_there(tmp_path, write):
    name = write(
        "def early(snapshot):\n    return float('nan') if snapshot.step == 100 else float(snapshot.step)\n"
        "def never(snapshot):\n    return float('inf')\n"
        "def two(snapshot):\n    return {'low': 1, 'high': 2}\n"
    )
    measures = (*(f"{name}.{each}" for each in ("early", "never", "two")), "train_acc")
    trained(tmp_path / "runs" / "a", measures=measures)
    runs = read_runs([tmp_path / "runs"])[0]
    assert with_measure(runs, "early@80")[0]["early@80"].tolist() == [80.0]
    with pytest.raises(ConfigError, match=r"^number=early: must be early@STEP with a step .*: 20, 40, 60, 80$"):
        with_measure(runs, "early")
    with pytest.raises(ConfigError, match=r"^number=never: was measured, but no run has a number"):
        with_measure(runs, "never")
    with pytest.raises(ConfigError, match=r"^number=two: has several numbers, must be one of two_low, two_high$"):
        with_measure(runs, "two")


def test_a_history_that_isnt_the_records_is_said_and_no_number_is_taken_from_it(tmp_path):
    whole, cut = (trained(tmp_path / name / "a") for name in ("whole", "cut"))
    lines = (cut / HISTORY).read_text().splitlines(keepends=True)
    (cut / HISTORY).write_text("".join(lines[:2]))
    assert measures_of(read_runs([cut])[0].iloc[0]) == {}
    text = write_report([tmp_path / "cut"], tmp_path / "out", number="norm_hidden_0", with_figures=False)
    assert "1 file damaged and left out" in text
    expected = read_stored(whole).record.measured
    assert expected
    assert pd.read_csv(tmp_path / "out" / "table.csv")["mean"].tolist() == [expected["norm_hidden_0"]]


def test_a_table_alone_has_the_measures_of_the_last_step(tmp_path):
    trained(tmp_path / "runs" / "a")
    runs = read_runs([tmp_path / "runs"])[0]
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "results.csv").write_bytes(csv_of(runs))
    shutil.rmtree(tmp_path / "runs")
    alone = read_runs([tmp_path / "alone" / "results.csv"])[0]
    assert with_measure(alone, "norm_hidden_0")[0]["norm_hidden_0@last"].tolist() == runs.final_norm_hidden_0.tolist()


def test_of_a_row_whose_directory_has_another_run_by_now_only_the_table_tells(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a", 0), ("b", 1)):
        trained(tmp_path / "runs" / name, seed=seed)
    write_report([Path("runs")], Path("old"), with_figures=False)
    before, notes = read_runs([Path("old/results.csv")])
    assert notes == []
    assert [Path(where).name for where in before.directory] == ["a", "b"]
    assert all("norm_hidden_0" in measures_of(run) for run in before.to_dict("records"))
    shutil.rmtree("runs/a")
    trained(tmp_path / "runs" / "a", lr=0.02)
    table, notes = read_runs([Path("old/results.csv")])
    assert notes == ["1 run of old/results.csv: another, or a damaged one, lies where the table says, and isn't read"]
    first, second = runs_of(table)
    assert (first["directory"], first["lr"], list(measures_of(first))) == (None, before.lr[0], ["test_acc"])
    assert measures_of(first)["test_acc"] == learning_curve(first)
    assert (second["directory"], "norm_hidden_0" in measures_of(second)) == ("runs/b", True)


@pytest.mark.parametrize("there", ["begun", "damaged", "history", "nothing"])
def test_a_row_keeps_its_directory_unless_something_else_may_lie_there(tmp_path, there):
    """``begun``: the run is being replaced by another, and its record is still there."""
    directory = trained(tmp_path / "runs" / "a")
    (tmp_path / "results.csv").write_bytes(csv_of(read_runs([tmp_path / "runs"])[0]))
    if there == "begun":
        write_begun(directory, Begun(small(seed=7), None))
    elif there == "damaged":
        (directory / RESULT).write_text("{")
    elif there == "history":
        (directory / RESULT).unlink()
    else:
        shutil.rmtree(directory)
    [run] = runs_of(read_runs([tmp_path / "results.csv"])[0])
    assert run["directory"] == (str(directory) if there == "nothing" else None)


def test_of_one_run_in_two_places_the_one_with_more_measures_counts(tmp_path):
    for name, measured in [("few", None), ("many", {"val_acc": 0.7})]:
        ended(tmp_path / name, 0.6, measured)
    for paths in ([tmp_path / "few", tmp_path / "many"], [tmp_path / "many", tmp_path / "few"]):
        runs, notes = read_runs(paths)
        assert runs["final_val_acc"].tolist() == [0.7]
        assert any("counted once" in note for note in notes)


@pytest.mark.parametrize(("steps", "eval_every"), [(100, 30), (100, 50), (90, 30), (20, 50)])
def test_steps_of_a_curve_are_those_of_the_history(tmp_path, steps, eval_every):
    for training in ("joint", "layerwise"):
        directory = tmp_path / training
        trained(directory, training=training, depth=2, steps=steps, eval_every=eval_every)
        [run] = read_runs([directory])[0].to_dict("records")
        history = read_history(directory)
        assert learning_curve(run)[0] == [row.step for row in history]
        assert measures_of({**run, "directory": None})["test_acc"].steps == [row.step for row in history]


def test_a_layer_that_has_not_ended_is_measured_up_to_its_last_step():
    run = {"training": "layerwise", "steps_asked": 400, "eval_every": 150, "steps": 550, "status": "diverged"}
    assert learning_curve(run | {"history": "0.6 0.7 0.8 0.5"}) == ([150, 300, 400, 550], [0.6, 0.7, 0.8, 0.5])
    run |= {"status": "interrupted", "steps": 560}
    assert learning_curve(run | {"history": "0.6 0.7 0.8 0.5"})[0] == [150, 300, 400, 550]


def test_only_the_last_layer_tells_whether_a_network_has_collapsed():
    run = {"training": "layerwise", "steps_asked": 400, "eval_every": 100, "steps": 800, "data": "fractal"}
    run |= {"status": "finished", "history": "0.6 0.61 0.62 0.63 0.5016 0.5016 0.5016 0.5016"}
    assert collapsed(run)
    assert not collapsed(run | {"history": "0.5016 0.5016 0.5016 0.5016 0.5016 0.6 0.7 0.8"})
    assert not collapsed(run | {"training": "joint", "history": "0.6 0.6 0.6 0.6 0.5016 0.5016 0.5016"})
    assert LAST10.of(run | {"last10_test_acc": None}) == pytest.approx(0.5016)


@pytest.mark.parametrize("status", [Status.INTERRUPTED, Status.FAILED])
def test_a_run_that_went_on_is_read_as_it_is_now(tmp_path, status, capsys):
    """Its record tells of an earlier attempt until it ends."""
    directory = trained(tmp_path / "run", depth=2)
    stored, rows = read_stored(directory), read_history(directory)
    value = {"best_test_acc": 0.1, "best_step": 20, "final_test_acc": 0.1, "steps": 40, "seconds": 1.0}
    write_record(directory, RunRecord.of(stored.record.config, status, **value))
    [run] = read_runs([tmp_path])[0].to_dict("records")
    best = max(rows, key=lambda row: row.test_acc)
    assert [run[name] for name in ("status", "steps", "best_test_acc", "best_step")] == [
        "interrupted", 100, best.test_acc, best.step
    ]  # fmt: skip
    assert learning_curve(run)[0] == [row.step for row in rows]
    assert "1 interrupted; 100 of 100 steps" in show(tmp_path)
    assert "1 run: 1 interrupted" in write_report([tmp_path], tmp_path / "out")
    lock = locks.of_directory(directory, "run")
    assert read_runs([tmp_path])[0].status.tolist() == ["running"]
    assert "1 running; 100 of 100 steps" in show(tmp_path)
    lock.release()
    write_history(directory, rows[:2])  # no further than the record
    [run] = read_runs([tmp_path])[0].to_dict("records")
    assert [run[name] for name in ("status", "steps", "best_test_acc")] == [status, 40, 0.1]
    assert f"1 {status}; 40 of 100 steps" in show(tmp_path)


def test_a_curve_whose_steps_a_row_cant_tell_is_left_out(tmp_path):
    """As of a run that began at another's checkpoint: its steps aren't the multiples of ``eval_every``."""
    directory = trained(tmp_path / "run")
    [run] = read_runs([directory])[0].astype(object).to_dict("records")
    values = run["history"].split()
    elsewhere = run | {"directory": None}
    assert learning_curve(elsewhere) == ([20, 40, 60, 80, 100], [float(value) for value in values])
    for history in ([*values, "0.5"], values[1:], []):
        assert learning_curve(elsewhere | {"history": " ".join(history)}) == ([], [])
        assert "test_acc" not in measures_of(elsewhere | {"history": " ".join(history)})
    cut = elsewhere | {"status": Status.INTERRUPTED, "steps": 70, "history": " ".join(values[:3])}
    assert learning_curve(cut)[0] == [20, 40, 60]


def test_a_report_never_replaces_a_table_that_was_kept(tmp_path, capsys):
    for seed in (0, 1):
        ended(tmp_path / "runs", 0.6, seed=seed)
    kept = tmp_path / "docs" / "results.csv"
    kept.parent.mkdir()
    finished_runs.add_below(kept, [tmp_path / "runs" / "run0"], "--into")
    before = kept.read_bytes()
    with pytest.raises(ConfigError, match=r"docs: its results\.csv is no report's table; give another directory"):
        write_report([tmp_path / "runs" / "run1"], kept.parent, with_figures=False)
    assert [path.name for path in kept.parent.iterdir()] == ["results.csv"]
    write_report([kept], kept.parent, with_figures=False)  # its own
    assert kept.read_bytes() == before
    for _ in range(2):  # one of a report is written again
        write_report([tmp_path / "runs"], tmp_path / "out", with_figures=False)


def test_a_report_never_lies_among_the_files_of_a_sweep_or_a_run(tmp_path):
    """Its table would replace the sweep's, in which the sweep finds its runs."""
    sweep = tmp_path / "multirun" / "grid"
    run = ended(sweep, 0.6)
    (sweep / "multirun.yaml").write_text("seed: 0\n")
    (sweep / "results.csv").write_bytes(b"fingerprint,directory\n")
    for output in (sweep, run):
        before = {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()}
        with pytest.raises(ConfigError, match=rf"^output directory {output}: must be another, .*; {output}/report may"):
            write_report([sweep], output, with_figures=False)
        assert {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()} == before
    for output in (sweep / "report", sweep.parent, tmp_path / "new" / "one"):
        for _ in range(2):  # its own is written again
            write_report([sweep], output, with_figures=False)
            assert read_runs([output / "results.csv"])[0].best_test_acc.tolist() == [0.6]


def test_tables_that_a_spreadsheet_wrote_and_sweeps_that_are_named_like_one_are_read(tmp_path):
    ended(tmp_path / "runs.csv", 0.6)
    runs, _ = read_runs([tmp_path / "runs.csv"])
    (tmp_path / "saved.csv").write_bytes(b"\xef\xbb\xbf" + csv_of(runs).replace(b"\n", b"\r\n"))
    again, notes = read_runs([tmp_path / "saved.csv"])
    assert again.best_test_acc.tolist() == [0.6]
    assert not notes
    with pytest.raises(ConfigError, match="there is no such file"):
        read_runs([tmp_path / "none.csv"])


def test_directories_that_cant_be_read_are_told(tmp_path, monkeypatch, caplog):
    ended(tmp_path, 0.6)
    hidden = ended(tmp_path, 0.7, seed=1)

    def scandir(path, scandir=os.scandir):
        if Path(path) == hidden:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    said = f"left out: {hidden}: Permission denied"
    runs, notes = read_runs([tmp_path])
    assert (len(runs), notes) == (1, [said])
    assert "1 run: 1 finished" in show(tmp_path)
    assert len(dict(find(tmp_path))) == 1
    assert caplog.messages == [said, said]
    with pytest.raises(ConfigError, match=f"^{hidden}: Permission denied$"):
        read_runs([hidden])


def test_a_run_that_has_just_begun_is_seen_without_what_hydra_writes(tmp_path):
    """As with ``hydra.output_subdir=null``."""
    ended(tmp_path, 0.6)
    directory = tmp_path / "begun"
    directory.mkdir()
    write_begun(directory, Begun(small(seed=1), None))
    assert "2 runs: 1 finished, 1 interrupted" in show(tmp_path)
    assert any("no measurement yet" in note for note in read_runs([tmp_path])[1])


def test_a_sweep_may_be_called_wandb(tmp_path):
    ended(tmp_path / "multirun" / "wandb", 0.6)
    run = ended(tmp_path / "multirun" / "other", 0.7, seed=1)
    ended(run / "wandb", 0.8, seed=2)  # W&B's own directory of a run
    assert len(read_runs([tmp_path / "multirun"])[0]) == 2


def test_a_layerwise_run_without_a_record_has_the_numbers_of_its_last_layer(tmp_path):
    directory = trained(tmp_path / "run", training="layerwise", depth=2)
    stored = read_stored(directory)
    (directory / RESULT).unlink()
    write_begun(directory, Begun(stored.record.config, None))
    rows = read_history(directory)
    first = [replace(row, test_acc=0.99) if row.step <= 100 else row for row in rows]  # lost with its readout
    write_history(directory, first)
    [run] = read_runs([directory])[0].to_dict("records")
    for name in ("best_test_acc", "best_step", "final_test_acc", "last10_test_acc", "final_train_acc"):
        assert run[name] == stored.record[name], name
    assert (directory / BEGUN).is_file()
    write_history(directory, [row for row in rows if row.step <= 100])  # of the first layer alone
    [run] = read_runs([directory])[0].to_dict("records")
    assert run["steps"] == 100
    for name in ("best_test_acc", "final_test_acc", "last10_test_acc", "final_train_acc"):
        assert pd.isna(run[name]), name


def test_numbers_whose_squares_have_no_sum_are_missing(tmp_path, write, caplog):
    name = write(
        "def vast(snapshot):\n    return 1e160\n\n\ndef large(snapshot):\n    return 1e90 * (1 + snapshot.step)\n"
    )
    keys: Any = {"measures": (f"{name}.vast", f"{name}.large"), "steps": 100, "eval_every": 20}
    train_jobs([Job(small(seed=seed, **keys), tmp_path / "runs" / str(seed)) for seed in (0, 1)])
    assert [text.partition("measures: ")[2] for text in caplog.messages if "vast" in text] == [
        "vast is missing at step 20: is 1e+160, must be a number up to 1e+100"
    ]  # once for both, and in the log of each
    for seed in ("0", "1"):
        assert "vast is missing" in (tmp_path / "runs" / seed / "train.log").read_text()
    write_report([tmp_path / "runs"], tmp_path / "out", number="large")
    row = pd.read_csv(tmp_path / "out" / "table.csv").iloc[0]
    assert [row["mean"], row["sd"], row["n"]] == pytest.approx([101e90, 0, 2])


def test_the_numbers_of_a_table_are_in_its_file(tmp_path):
    for lr, values in [(1e-3, (0.6, 0.7)), (2e-3, (0.8, 0.9))]:
        for seed, value in enumerate(values):
            for width in (8, 16):
                ended(tmp_path / "runs", value, lr=lr, seed=seed, width=width)
    found = pivot.numbers(table_of(tmp_path / "runs"))
    assert list(found.columns) == ["width", "number", "mean", "sd", "n", "lr"]
    sd = float(np.std([0.8, 0.9], ddof=1))
    assert found["lr"].tolist() == [2e-3] * 2
    assert found["mean"].tolist() == pytest.approx([0.85] * 2)
    assert found["sd"].tolist() == pytest.approx([sd] * 2)
    by_lr = pivot.numbers(pivot.pivot(*with_inner_keys(read_runs([tmp_path / "runs"])[0]), column="lr"))
    assert list(by_lr.columns) == ["width", "lr", "number", "mean", "sd", "n"]


def test_training_accuracies_are_not_compared_with_the_papers(tmp_path, capsys):
    ended(tmp_path, 0.6)
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path), str(tmp_path), "--number", "train"])
    assert "(choose from 'best', 'final', 'last10', 'chosen')" in capsys.readouterr().err


def test_what_an_earlier_report_left_is_said(tmp_path):
    for seed in (0, 1):
        ended(tmp_path / "runs", 0.6, seed=seed)
    write_report([tmp_path / "runs"], tmp_path / "out")
    assert "of an earlier report" not in write_report([tmp_path / "runs"], tmp_path / "out")
    (tmp_path / "out" / "figures").mkdir()
    (tmp_path / "out" / "figures" / "sweep.pdf").touch()
    again = write_report([tmp_path / "runs"], tmp_path / "out", with_figures=False)
    assert f"index.html, figures/sweep.pdf in {tmp_path / 'out'}: of an earlier report" in again
    assert "figures/sweep.pdf" in write_report([tmp_path / "runs"], tmp_path / "out")


def test_a_history_in_training_may_be_longer_than_the_record_that_it_goes_on_from(tmp_path):
    directory = trained(tmp_path / "run")
    stored = read_stored(directory)
    again = replace(stored.record, status=Status.INTERRUPTED)
    rows = read_history(directory)
    write_record(directory, again, stored.digests._replace(history=write_history(directory, rows[:2])))
    write_history(directory, rows)
    runs, notes = read_runs([directory])
    assert not notes
    assert measures_of(runs.iloc[0])["norm_hidden_0"].steps == [20, 40, 60, 80, 100]


def test_a_measure_is_known_by_its_numbers_not_by_a_column(tmp_path):
    trained(tmp_path / "runs" / "a", measures=("norms",))
    with pytest.raises(ConfigError, match=r"^number=train_acc: must be a number or a measure of these runs: "):
        with_measure(read_runs([tmp_path / "runs"])[0], "train_acc")


def test_a_table_without_a_measures_column_asks_the_histories(tmp_path):
    trained(tmp_path / "a")
    runs = read_runs([tmp_path])[0]
    (tmp_path / "results.csv").write_bytes(csv_of(runs.drop(columns="final_norm_hidden_0")))
    again = read_runs([tmp_path / "results.csv"])[0]
    assert with_measure(again, "norm_hidden_0")[0]["norm_hidden_0@last"].tolist() == runs.final_norm_hidden_0.tolist()


@pytest.mark.parametrize(("width", "font"), [(3.3, 8), (None, 8), (6, 9)])
def test_panels_side_by_side_can_be_drawn_with_any_letters(tmp_path, width, font):
    for curve in "146":
        for wide in (8, 16, 32):
            for depth in (1, 2, 3):
                ended(tmp_path / "runs", 0.5 + wide / 100, curve=curve, width=wide, depth=depth)
    drawn = Output(width=width, font=font)
    write_report([tmp_path / "runs"], tmp_path / "out", drawn=drawn)
    assert (tmp_path / "out" / "figures" / "sweep.png").is_file()


def row_of(path: Path, history: str, **other: str) -> None:
    """A table of one run, as ``kept=FILE`` has it."""
    names = ["fingerprint", "data", "fractal", "fractal_depth", "curve", "depth", "width", "lr", "seed", "status"]
    names += [name for name in COLUMNS if name not in names]
    usual = {"fingerprint": "0" * 16, "data": "fractal", "fractal_depth": "5", "status": "finished", "depth": "5"}
    usual |= {"width": "5", "lr": "1", "seed": "0", "steps_asked": "20000", "eval_every": "1", "setting": "x"}
    usual |= {"history": history} | other
    path.write_text(",".join(names) + "\n" + ",".join(usual.get(name, "") for name in names) + "\n")


def test_a_history_of_any_length_is_read(tmp_path):
    """csv itself takes 131,072 letters in a cell, which are 18,725 measurements."""
    row_of(tmp_path / "kept.csv", " ".join(["0.5000"] * 20_000))
    before = csv.field_size_limit()
    found = read_text(tmp_path / "kept.csv", "a table")
    assert (len(found.rows), found.damaged, csv.field_size_limit()) == (1, [], before)


@pytest.mark.parametrize(
    ("history", "numbers", "damaged"),
    [
        ("0.55", {"best_test_acc": "0.55", "final_test_acc": "0.55"}, None),  # a spreadsheet drops the last zeros
        ("0.5 0.6000", {"best_test_acc": "0.60001", "final_test_acc": ".6"}, None),
        ("0.55", {"best_test_acc": "0.56"}, "best_test_acc=0.56"),
        ("0.55 0.5", {"best_test_acc": "0.55", "final_test_acc": "0.55"}, "final_test_acc=0.55"),
        ("0.55 x", {}, "history=0.55 x"),
    ],
)
def test_accuracies_are_compared_with_the_history_as_numbers(tmp_path, history, numbers, damaged):
    row_of(tmp_path / "kept.csv", history, **numbers)
    found = read_text(tmp_path / "kept.csv", "a table")
    assert found.damaged == ([f"line 2 is no row of it: {damaged}"] if damaged else [])


@pytest.mark.parametrize(
    ("differs", "keys"),
    [
        ("data.margin=0.001, loss=logistic", {"data.margin": "0.001", "loss": "logistic"}),
        (
            "callbacks.norms={'_target_': 'hooks.Norms', 'every': 5}, width=3",
            {"callbacks.norms._target_": "hooks.Norms", "callbacks.norms.every": "5", "width": "3"},
        ),
        ("callbacks.a={'n': '01', 'm': 1}", {"callbacks.a.n": '"01"', "callbacks.a.m": "1"}),
        ("callbacks.a={'opts': {'a': 1}, 'b': None}", {"callbacks.a.opts.a": "1", "callbacks.a.b": "null"}),
        ("callbacks.a={'text': 'b, c=3'}", {"callbacks.a": "{'text': 'b", "c": "3'}"}),  # can't be told apart
        (None, {}),
    ],
)
def test_keys_of_a_callback_are_keys_as_others(differs, keys):
    """So that a sweep over one has a column of it, the same in its own table and in a report."""
    assert keys_of_difference({"differs": differs}) == keys


NESTED = {
    "a": 1,
    "b": {"c": None, "d": [1, "x, lr=2"], "text": "01"},
    "an-other": {},
    "most": float("inf"),
    "least": -float("inf"),
    "said": "it's a \\, lr=2",
}
NESTED_KEYS = {"a": "1", "b.c": "null", "b.d": "[1, 'x, lr=2']", "b.text": '"01"', "an-other": "{}"}
NESTED_KEYS |= {"most": "inf", "least": "-inf", "said": "it's a \\, lr=2"}


def odd(**keys: Any) -> RunConfig:
    """The config of a network of one's own with some keys."""
    return replace(small(), model=OwnModel(name="odd", target="nets.Odd", keys=keys))


def test_keys_in_a_mapping_of_ones_own_are_keys_as_those_of_a_callback():
    """By the names that they have on the command line."""
    found = keys_of_difference({"differs": setting_of(odd(z=1, opts=NESTED)).differs})
    assert {key.removeprefix("model.opts."): text for key, text in found.items() if ".opts" in key} == NESTED_KEYS
    assert "lr" not in found
    config = replace(
        small(engine="lightning"), callbacks=Callbacks.parse({"n": {"_target_": "hooks.Norms", "opts": NESTED}})
    )
    found = keys_of_difference({"differs": setting_of(config).differs})
    assert {key.removeprefix("callbacks.n.opts."): t for key, t in found.items() if ".opts" in key} == NESTED_KEYS


@pytest.mark.parametrize("text", ["{'a': 1}", "{'a': 'x, lr=2'}"])
def test_a_text_that_reads_as_a_mapping_is_a_text(text):
    found = keys_of_difference({"differs": setting_of(odd(opts=text)).differs})
    assert json.loads(found["model.opts"]) == text


@pytest.mark.parametrize(
    "value", ["{'a': 1", "{'a': f()}", "{[]: 1}", "{1, 2}", "[1, 2]", "{'a.b': 1, 'a': {'b': 2}}", "{" * 5000, "[" * 99]
)
def test_what_is_no_mapping_is_one_value(value):
    """Of a table from elsewhere it may be anything."""
    assert keys_of_difference({"differs": f"model.opts={value}, loss=soft"}) == {"model.opts": value, "loss": "soft"}


def test_rows_of_earlier_versions_have_callbacks_in_quotes():
    before = """callbacks.a="{'text': 'b, c\\u003d3'}", loss=soft"""
    assert keys_of_difference({"differs": before}) == {"callbacks.a.text": "b, c=3", "loss": "soft"}


def test_a_sweep_over_a_key_in_a_mapping_has_a_column_of_it_in_all_tables(tmp_path, capsys):
    for a, d, seed in itertools.product((1, 2), ([1], [1, 2]), (0, 1)):
        config = replace(odd(opts={"a": a, "b": {"c": 3, "d": d}}), seed=seed)
        directory = tmp_path / f"run{a}{len(d)}{seed}"
        directory.mkdir()
        of_run = {"best_test_acc": 0.5 + a / 10, "best_step": config.steps, "final_test_acc": 0.5}
        write_record(directory, RunRecord.of(config, Status.FINISHED, steps=config.steps, seconds=1.0, **of_run))
    table = pivot.pivot(*with_inner_keys(read_runs([tmp_path])[0]), column="model.opts.a")
    assert (list(table.rows), table.column) == (["model.opts.b.d"], "model.opts.a")
    assert [cell.mean for cell in table.cells] == pytest.approx([0.6, 0.7] * 2)
    assert table.same["model.opts.b.c"] == "3"
    show_table(tmp_path)
    text = capsys.readouterr().out
    assert "model.opts.a" in text
    assert "{" not in text
    again = pivot.pivot(*with_inner_keys(read_runs([tmp_path / "results.csv"])[0]), column="model.opts.a")
    assert (again.rows, again.entries.keys()) == (table.rows, table.entries.keys())


@pytest.mark.parametrize(
    "name",
    ["my-cb", "my cb", "a.b", "1", "a=b", "a, lr", "a, lr=2", 'say "x"', "{'a'", "a@5", "Größe", "a\u0301", "\n"],
)
def test_callbacks_of_any_name_are_keys_apart_from_those_before_them(name):
    """Glued to the key before, two configs that differ would be one, and their mean one over unlike runs."""
    told: list[dict[str, str]] = []
    for every in (1, 2):
        keys = {name: {"_target_": "hooks.Scale", "every": every}, "z": {"_target_": "hooks.Scale"}}
        config = replace(small(batch_size=50, engine="lightning"), callbacks=Callbacks.parse(keys))
        told.append(keys_of_difference({"differs": setting_of(config).differs}))
    other = f"callbacks.{name}.every"
    assert [found.pop(other) for found in told] == ["1", "2"]
    assert told[0] == told[1]
    assert told[0]["batch_size"] == "50"
    assert told[0]["callbacks.z._target_"] == "hooks.Scale"
    assert "lr" not in told[0]


def test_a_key_may_have_letters_that_are_no_letters_of_a_pattern():
    """An argument's name is any identifier of Python's, as one with an accent of its own."""
    config = replace(small(), model=OwnModel(name="odd", target="nets.Odd", keys={"kind": "x", "ke\u0301": 2}))
    found = keys_of_difference({"differs": setting_of(config).differs})
    assert (found["model.kind"], found["model.ke\u0301"]) == ("x", "2")


def test_rows_of_earlier_versions_have_callbacks_of_other_names_too():
    """They wrote them without quotes; a text with a comma may be part of a value there."""
    before = "batch_size=50, callbacks.my-cb={'every': 1}, model.kind=a, a-b.c-d=2, loss=logistic"
    keys = {"batch_size": "50", "callbacks.my-cb.every": "1", "model.kind": "a, a-b.c-d=2", "loss": "logistic"}
    assert keys_of_difference({"differs": before}) == keys


def test_a_key_with_an_at_is_no_measure():
    assert not is_measured("callbacks.a@b.every")
    assert not is_measured("callbacks.a@5.every")
    assert all(map(is_measured, ("grad_snr@0", "grad_snr@last", "final_grad_snr")))


@pytest.mark.parametrize(
    "text", ["plain, lr=0.5, data.margin=0.25", 'a "quoted" one, loss=logistic', "a, b", "'", "1.2.3", "no"]
)
def test_a_text_with_keys_in_it_is_one_value(text):
    """Of whatever a user's own class takes; read as keys, they would be others of the run's."""
    config = small()
    own = OwnModel(name="odd", target="nets.Odd", keys={"kind": text})
    differs = setting_of(replace(config, model=own)).differs
    found = keys_of_difference({"differs": differs})
    assert found["model.kind"] == text
    assert not found.keys() & {"lr", "data.margin", "loss"}


def test_a_text_that_looks_like_another_value_is_another():
    """As bits do: "01", "1" and 1 are three; of one cell, a mean would be over unlike networks."""
    alike = ["01", "1", "001", 1, "1e3", "1_000", 1000, "null", "True", True, "[1]", [1], '"1"', '"1", lr=2']
    told = []
    for value in alike:
        own = OwnModel(name="odd", target="nets.Odd", keys={"kind": value})
        differs = setting_of(replace(small(), model=own)).differs
        found = keys_of_difference({"differs": differs})
        assert "lr" not in found
        told.append(found["model.kind"])
    assert len(set(told)) == len(alike)
    assert told[:4] == ['"01"', '"1"', '"001"', "1"]


@pytest.mark.parametrize(
    "name", ["/proc/self/cwd/bad", "../../bad", "x" * 300, "\U0001f600" * 100, "bad\0", "/tmp/adam", "x/1"]
)
def test_the_name_of_a_choice_is_no_path(tmp_path, monkeypatch, name):
    """Of a received record or table: no file elsewhere is read by it."""
    (tmp_path / "bad.yaml").write_text("[")
    monkeypatch.chdir(tmp_path)
    row = {"data": "fractal", "fractal": "vicsek", "curve": name, "model": "mlp", "optimizer": name, "differs": None}
    assert protocol_value(row, "optimizer.momentum") is None
    assert protocol_value(row, "curve.degree") is None
