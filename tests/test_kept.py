"""Finished runs kept in a table: none is trained twice, and none is lost."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small, undigested
from killed import wait_for

from fractal_ifs import run, sweep
from fractal_ifs.config.compose import compose
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.errors import ConfigError
from fractal_ifs.report import __main__ as report
from fractal_ifs.report.write import write_report
from fractal_ifs.results import cells as report_data
from fractal_ifs.results import finished_runs as kept
from fractal_ifs.results import rows
from fractal_ifs.results.best_lr import BestLr
from fractal_ifs.results.numbers import learning_curve
from fractal_ifs.runs import locks
from fractal_ifs.runs.records import RunRecord, Status, keys_of, read_stored, write_record
from fractal_ifs.sweeps import sweep as sweeping
from fractal_ifs.sweeps.status import status
from fractal_ifs.sweeps.sweep import train_jobs

SMALL = ["steps=40", "eval_every=20", "data.train_size=400", "data.test_size=100", "logger=none", "sweep=tests"]
SWEEP = ["-m", "fractal=vicsek", "width=8", "depth=1,2", *SMALL, "kept=runs.csv"]


def lines(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_kept_is_not_trained_where_multirun_is_empty(command, tmp_path):
    assert command(*SWEEP, "lr=1e-3").status == 0
    table = tmp_path / "runs.csv"
    first = table.read_bytes()
    told = lines(table)
    assert [(row["depth"], row["seed"], row["status"]) for row in told] == [
        ("1", "0", "finished"),
        ("2", "0", "finished"),
    ]
    record = json.loads(next((tmp_path / "multirun" / "tests").glob("*depth=1*/result.json")).read_text())
    assert float(told[0]["best_test_acc"]) == record["best_test_acc"]
    assert told[0]["fingerprint"] == record["fingerprint"]
    history = next((tmp_path / "multirun" / "tests").glob("*depth=1*/history.csv")).read_text().splitlines()[1:]
    run = {"history": told[0]["history"], "eval_every": 20, "steps": 40, "status": "finished"}
    assert learning_curve(run) == ([20, 40], [float(line.split(",")[4]) for line in history])

    shutil.rmtree(tmp_path / "multirun")  # a new machine
    ended = command(*SWEEP, "lr=1e-3,5e-4")
    assert ended.status == 0
    assert not list((tmp_path / "multirun").rglob("*lr=0.001*"))
    assert len(list((tmp_path / "multirun").rglob("result.json"))) == 2
    assert len(lines(table)) == 4
    assert set(first.splitlines()) < set(table.read_bytes().splitlines())


def test_a_run_that_was_interrupted_before_is_kept_when_it_ends(command, tmp_path):
    assert command(*SWEEP, "lr=1e-3").status == 0
    table = tmp_path / "runs.csv"
    table.unlink()
    path = next((tmp_path / "multirun" / "tests").glob("*depth=1*/result.json"))
    whole = path.read_text()
    record = undigested(path)
    path.write_text(json.dumps(record | {"status": "interrupted"}))
    keeper = kept.Keeper([Job(replace(RunConfig.parse(record["config"]), kept=str(table)), path.parent)])
    keeper.add({path.parent: read_stored(path.parent).record})
    assert not table.exists()
    assert keeper.lacking == [path.parent]
    path.write_text(whole)
    keeper.add({path.parent: read_stored(path.parent).record})
    assert keeper.lacking == []
    assert [row["fingerprint"] for row in lines(table)] == [record["fingerprint"]]


def test_a_sweep_killed_before_it_told_the_table_tells_it_at_its_next_start(command, tmp_path):
    assert command(*SWEEP, "lr=1e-3").status == 0
    table = tmp_path / "runs.csv"
    told = table.read_bytes()
    table.unlink()
    assert command(*SWEEP, "lr=1e-3").status == 0
    assert table.read_bytes() == told
    table.unlink()
    text = report.collect([str(tmp_path / "multirun"), "--into", str(table)])
    assert text == f"2 runs added to {table}, which has 2"
    assert table.read_bytes() == told
    assert report.collect([str(tmp_path / "multirun"), "--into", str(table)]).startswith("0 runs added")


def test_collect_has_the_runs_that_a_sweep_has_from_another_table(command, tmp_path):
    words = [*SWEEP, "lr=1e-3,1e20", "measures=[val_acc]", "data.val_size=100"]  # the second lr diverges
    assert command(*words).status == 0
    assert command(*words, "sweep=other").status == 0
    assert not list(tmp_path.glob("multirun/other/*/result.json"))
    report.collect([str(tmp_path / "multirun" / "other"), "--into", str(tmp_path / "again.csv")])
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "runs.csv").read_bytes()


def test_another_accuracy_of_a_kept_run_is_said_and_changes_nothing(command, tmp_path):
    command(*SWEEP, "lr=1e-3")
    table = tmp_path / "runs.csv"
    told = table.read_bytes()
    path = next((tmp_path / "multirun").rglob("result.json"))
    path.write_text(json.dumps(undigested(path) | {"best_test_acc": 0.123}))
    assert "best test accuracy 0.123, kept 0." in report.collect([str(tmp_path / "multirun"), "--into", str(table)])
    assert table.read_bytes() == told
    unfinished = undigested(path) | {"status": "interrupted"}
    path.write_text(json.dumps(unfinished))
    table.unlink()
    assert report.collect([str(tmp_path / "multirun"), "--into", str(table)]).startswith("1 run added")


def test_further_seeds_at_the_best_learning_rate_of_each_cell(command, tmp_path):
    command(*SWEEP, "lr=1e-3,5e-4")
    table = tmp_path / "runs.csv"
    best = {}
    for row in lines(table):
        best.setdefault(row["depth"], []).append((float(row["best_test_acc"]), float(row["lr"])))
    ended = command(*SWEEP, "lr=1e-3,5e-4", "seed=1,2", f"hydra.sweeper.best_lr={table}")
    assert ended.status == 0
    assert f"lr: is not used: hydra.sweeper.best_lr={table} has the learning rates" in ended.out
    new = [row for row in lines(table) if row["seed"] != "0"]
    assert sorted((row["depth"], row["seed"]) for row in new) == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
    for row in new:
        top = max(accuracy for accuracy, _ in best[row["depth"]])
        assert (top, float(row["lr"])) in best[row["depth"]]
    refused = command(*SWEEP, "width=9", "seed=1", f"hydra.sweeper.best_lr={table}")
    assert "has no run of fractal=vicsek width=9 depth=1" in str(refused.status)


def test_the_report_reads_a_kept_table_as_it_reads_the_sweep(command, tmp_path):

    command(*SWEEP, "lr=1e-3,5e-4")
    table = tmp_path / "runs.csv"
    ours, notes = rows.read_runs([table])
    theirs, _ = rows.read_runs([tmp_path / "multirun"])
    not_kept = (
        "directory",
        "error",
        "stopped",
        "training",
        "native_build",
        "torch_kernels",
        "git_modified",
        "model_source",
        "loss_source",
        "ckpt_source",
        "measure_source",
        "data_source",
    )
    columns = [name for name in rows.COLUMNS if name not in not_kept]
    ours, theirs = (table[columns].set_index("fingerprint").sort_index() for table in (ours, theirs))
    pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)
    both, notes = rows.read_runs([table, tmp_path / "multirun"])
    assert notes == []
    assert len(both) == 4
    assert both.directory.notna().all()


def test_a_runs_command_trains_it_to_its_fingerprint(command, tmp_path):
    keys = {"fractal.depth": 4, "curve": 4, "width": 20, "lr": 2.5e-4, "seed": 2, "steps": 20_000, "eval_every": 1000}
    config = compose(fractal="vicsek", depth=2, **keys)
    found = rows.row_of(tmp_path, RunRecord.of(config, Status.FINISHED))
    words = str(rows.train_command(found)).split()
    assert words[:3] == ["python", "-m", "fractal_ifs.train"]
    again = compose(**dict(word.split("=") for word in words[3:]))
    assert again.fingerprint == found["fingerprint"] == config.fingerprint


@pytest.mark.slow
def test_a_check_trains_again_and_compares(tmp_path, capsys):
    pytest.importorskip("fractal_ifs._native_base")
    keys = ["fractal=vicsek", "depth=1", "width=4", "lr=1e-3", "steps=500", "eval_every=100", "logger=none"]
    command = [sys.executable, "-m", "fractal_ifs.train", "-m", *keys, "kept=runs.csv"]
    assert subprocess.run([*command, "seed=0,1"], cwd=tmp_path, capture_output=True).returncode == 0
    table = tmp_path / "runs.csv"
    first, line = lines(table)
    text = table.read_text()
    table.write_text(text.replace(f",{line['isa']},", ",sve2,", 1))  # the first is of a processor that isn't this one
    report.main(["check", str(table), "--width", "4"])
    assert "eval_every=100\n  kept: best_test_acc 0." in (said := capsys.readouterr().out)
    assert said.endswith(": the same\n")
    assert (said.count("kept:"), "seed=1" in said, line["isa"]) == (1, True, first["isa"])
    with pytest.raises(ConfigError, match="has no run of the paper's protocol and the native engine of width <= 3"):
        report.check([str(table), "--width", "3"])
    with pytest.raises(SystemExit):
        report.check([str(table), "-n", "0"])
    assert "--number=0: must be a whole number >= 1" in capsys.readouterr().err
    table.write_text(text.replace(f",{line['isa']},", ",sve2,"))
    with pytest.raises(ConfigError, match="equal on their own instruction set alone: sve2: unknown"):
        report.check([str(table)])
    told = line["best_test_acc"]  # the learning curve has it again
    table.write_text(text.replace(f",{told},", ",0.9876,").replace(f"{float(told):.4f}", "0.9876"))
    with pytest.raises(SystemExit):
        report.check([str(table)])
    assert "DIFFERENT" in capsys.readouterr().out


def test_a_check_of_a_run_that_diverged(command, tmp_path, capsys):
    """To 0.0 in the table and the record, which are told as missing."""
    pytest.importorskip("fractal_ifs._native_base")
    keys = ["fractal=vicsek", "depth=1", "width=4", "lr=1e30", "steps=20", "eval_every=10", "logger=none"]
    command("-m", *keys, "kept=runs.csv")
    assert [(row["status"], row["best_test_acc"]) for row in lines(tmp_path / "runs.csv")] == [("diverged", "0.0")]
    again = command("-m", *keys, "kept=runs.csv", "sweep=again")
    assert "1 of these are in kept=runs.csv" in again.out
    assert "lack" not in again.out  # of such a network only the test set is measured
    report.main(["check", str(tmp_path / "runs.csv")])
    assert capsys.readouterr().out.endswith(": the same\n")


def test_pictures_are_made_once_and_outlive_the_checkpoints(command, tmp_path):
    from PIL import Image

    from fractal_ifs.report import pictures as report_pictures

    command(*SWEEP, "lr=1e-3")
    cells, _ = report_data.form_cells(rows.read_runs([tmp_path / "multirun"])[0])
    made = report_pictures.write_thumbnails(cells, tmp_path / "pictures")
    assert len(made) == 2
    cell, *_ = cells.values()
    path = tmp_path / "pictures" / f"{cell.fingerprint}.png"
    values = np.asarray(Image.open(path))
    corners = values[:5, :5], values[-5:, -5:], values[78:84, 78:84]  # of the Vicsek set, and its centre: in K_5 mostly
    assert values.shape == (report_pictures.PIXELS,) * 2
    assert all((corner >= 2).any() for corner in corners)
    assert (values[:40, 70:92] < 2).all()  # between its upper arms
    # the same network, evaluated here: which half of the square it says is positive
    from fractal_ifs.runs.load import load

    run = load(str(cell.directory))
    at = (torch.arange(report_pictures.PIXELS) + 0.5) / report_pictures.PIXELS * 2 - 1
    with torch.no_grad():
        said = run.model(torch.cartesian_prod(at, at)).reshape(len(at), -1).T.flip(0).numpy() > 0
    assert np.array_equal(values % 2 == 1, said)
    shutil.rmtree(tmp_path / "multirun")
    assert report_pictures.write_thumbnails(cells, tmp_path / "pictures") == made
    sheets = report_pictures.write_galleries(cells, made, tmp_path)
    assert [sheet.name for sheet in sheets] == []  # width 8 is none of the tables'


def test_a_wrong_table_is_refused_in_one_line(command, tmp_path):
    (tmp_path / "runs.csv").write_text("a,b\n1,2\n")
    ended = command(*SWEEP, "lr=1e-3")
    assert "kept=runs.csv: not a table of finished runs, it has no column fingerprint" in str(ended.status).replace(
        str(tmp_path) + "/", ""
    )
    with pytest.raises(ConfigError, match="holds no run"):
        BestLr(tmp_path / "none.csv")


def test_kept_runs_on_images_are_reported_beside_those_on_fractals(tmp_path):
    for channels in (8, 16):
        config = compose(experiment="figure7", depth=2, width=channels)
        keys = keys_of(config)
        del keys["steps_asked"]  # which format 1 didn't have
        directory = tmp_path / "runs" / str(channels)
        directory.mkdir(parents=True)
        (directory / "history.csv").write_text("step,seconds,train_loss,test_loss,test_acc\n60000,1.0,1.0,1.0,0.65\n")
        record = {"format": 1, "status": "finished", "best_test_acc": 0.65, "best_step": 60_000, "steps": 60_000}
        record |= {"final_test_acc": 0.65, "seconds": 1.0, "params": 9, **keys, "config": config.plain()}
        (directory / "result.json").write_text(json.dumps(record))
    report.collect([str(tmp_path / "runs"), "--into", str(tmp_path / "figure7.csv")])
    text = write_report([tmp_path / "figure7.csv"], tmp_path / "out")
    assert "0.650 (0.590) +0.060" in text
    assert "0.650 (0.661) −0.011" in text
    assert (tmp_path / "out" / "figures" / "figure7.png").exists()
    assert "CIFAR-10" in (tmp_path / "out" / "tables.md").read_text()


def records_of(directory, seeds):
    """Finished runs, as a sweep leaves them: the directories."""
    found = []
    for seed in seeds:
        found.append(directory / f"seed{seed}")
        found[-1].mkdir(parents=True)
        accuracy = 0.5 + seed / 1000
        write_record(found[-1], RunRecord.of(small(seed=seed), Status.FINISHED, best_test_acc=accuracy, best_step=50))
    return found


FILL = """
import sys, time
from pathlib import Path
from fractal_ifs.results import finished_runs
finished_runs.PATIENCE = 100.0  # on a busy machine
table, begin, *directories = map(Path, sys.argv[1:])
begin.with_name(f"{directories[0].name}.ready").touch()
while not begin.exists():
    time.sleep(0.001)
for directory in directories:
    assert finished_runs.add(table, [directory]) == (1, [])
"""


def test_several_processes_fill_one_table(tmp_path):
    directories = records_of(tmp_path / "runs", range(48))
    table, begin = tmp_path / "kept" / "runs.csv", tmp_path / "begin"
    table.parent.mkdir()
    processes = [
        subprocess.Popen([sys.executable, "-c", FILL, str(table), str(begin), *map(str, directories[n::4])])
        for n in range(4)
    ]
    assert wait_for(lambda: len(list(tmp_path.glob("*.ready"))) == 4, processes[0])
    begin.touch()
    assert [process.wait(300) for process in processes] == [0] * 4
    assert sorted(int(row["seed"]) for row in lines(table)) == list(range(48))
    assert [path.name for path in table.parent.iterdir()] == ["runs.csv"]


def conflict(table):
    """As git leaves a table that two branches have added to."""
    text = table.read_text()
    head, first, *rest = text.splitlines()
    table.write_text("\n".join([head, "<<<<<<< HEAD", first, "=======", *rest, ">>>>>>> other", ""]))
    return lambda: table.write_text(text)


def lost(table):
    """Its directory is gone, and a file stands in its place."""
    table.parent.rename(table.parent.with_name("aside"))
    table.parent.write_text("")

    def back():
        table.parent.unlink()
        table.parent.with_name("aside").rename(table.parent)

    return back


def read_only(table):
    view = table.parent.with_name("view")
    view.mkdir()

    def mount(*words):
        if subprocess.run(["mount", *words], capture_output=True).returncode:
            pytest.skip("can't mount a directory here")

    mount("--bind", str(table.parent), str(view))
    mount("-o", "remount,bind,ro", str(view))
    mount("--bind", str(view), str(table.parent))

    def back():
        for path in (table.parent, view):
            subprocess.run(["umount", "-l", str(path)], check=True)

    return back


def locked(table):
    lock = locks.of_table(table, 0)
    return lock.release


@pytest.mark.parametrize("harm", [conflict, read_only, locked])
def test_a_table_that_cannot_be_written_ends_no_sweep_and_is_written_later(command, tmp_path, harm, monkeypatch):
    monkeypatch.setattr(kept, "PATIENCE", 0.1)
    table = tmp_path / "kept" / "runs.csv"
    table.parent.mkdir()
    sweep = [*SWEEP[:-1], f"kept={table}"]
    assert command(*sweep, "lr=1e-3").status == 0
    back = harm(table)
    try:
        before = table.read_bytes()
        ended = command(*sweep, "lr=1e-3,5e-4")
        assert ended.status == 0
        assert "2 of 4 jobs are finished already" in ended.out
        [beside] = (tmp_path / "multirun" / "tests").glob("runs-*.waiting.csv")
        assert f"finished runs are written to {beside} until they can be added" in ended.out
        assert ended.out.count("until they can be added") == 1
        assert table.read_bytes() == before
        assert {row["lr"] for row in lines(beside)} >= {"0.0005"}
    finally:
        back()
    for path in (tmp_path / "multirun" / "tests").iterdir():
        if path.is_dir():
            shutil.rmtree(path)  # the table beside has them, too
    ended = command(*sweep, "lr=1e-3,5e-4")
    assert ended.status == 0
    assert len(lines(table)) == 4
    assert "4 of 4 jobs are finished already" in ended.out
    assert not beside.exists()


def test_a_table_that_goes_while_a_sweep_trains_ends_nothing(tmp_path, caplog):
    directories, table = records_of(tmp_path / "runs", (1, 2)), tmp_path / "kept" / "runs.csv"
    table.parent.mkdir()
    jobs = [Job(replace(small(seed=1 + n), kept=str(table)), directory) for n, directory in enumerate(directories)]
    ended = {directory: read_stored(directory).record for directory in directories}
    kept.Keeper(jobs[:1]).add(ended)
    back = lost(table)
    keeper = kept.Keeper(jobs)
    for found in (ended, {}, {}):
        keeper.add(found)
    assert caplog.text.count("until they can be added") == 1
    [beside] = (tmp_path / "runs").glob("runs-*.waiting.csv")
    assert [row["seed"] for row in lines(beside)] == ["1", "2"]
    back()
    table.unlink()
    keeper.add({})
    assert [row["seed"] for row in lines(table)] == ["1", "2"]
    assert not beside.exists()


def test_tables_of_one_name_dont_get_each_others_runs(tmp_path):
    """As with ``kept=kept/${fractal.name}/runs.csv``, where one of them can't be written for a while."""
    directories = records_of(tmp_path / "runs", (1, 2))
    tables = [tmp_path / name / "runs.csv" for name in ("a", "b")]
    for table in tables:
        table.parent.mkdir()
    jobs = [
        Job(replace(small(seed=1 + n), kept=str(table)), directory)
        for n, (directory, table) in enumerate(zip(directories, tables, strict=True))
    ]
    back = lost(tables[0])
    ended = {directory: read_stored(directory).record for directory in directories}
    for some in (jobs, jobs[1:]):
        kept.Keeper(some).add(ended)
        assert [row["seed"] for row in lines(tables[1])] == ["2"]
    back()
    tables[0].unlink(missing_ok=True)
    kept.Keeper(jobs).add(ended)
    assert [[row["seed"] for row in lines(table)] for table in tables] == [["1"], ["2"]]


def test_a_row_that_another_process_lets_wait_meanwhile_is_not_lost(tmp_path, monkeypatch):
    """It joins those that wait just as they are added to the table."""
    directories, table = records_of(tmp_path / "runs", (1, 2)), tmp_path / "kept" / "runs.csv"
    table.parent.mkdir()
    jobs = [Job(replace(small(seed=1 + n), kept=str(table)), directory) for n, directory in enumerate(directories)]
    back = lost(table)
    kept.Keeper(jobs[:1]).add({directories[0]: read_stored(directories[0]).record})
    [beside] = (tmp_path / "runs").glob("*.waiting.csv")
    back()
    write = kept.write

    def slow(path, rows):
        if path == table:
            monkeypatch.setattr(kept, "write", write)
            kept.add(beside, directories[1:])
        write(path, rows)

    monkeypatch.setattr(kept, "write", slow)
    kept.Keeper(jobs[:1]).add({})
    assert [row["seed"] for row in lines(table)] == ["1"]
    assert "2" in [row["seed"] for row in lines(beside)]
    kept.Keeper(jobs[1:]).add({})
    assert [row["seed"] for row in lines(table)] == ["1", "2"]
    assert not beside.exists()


def test_what_is_to_be_trained_anew_is_not_kept_as_it_was(tmp_path, monkeypatch):
    """An interrupt ends ``overwrite=true kept=FILE`` before a run begins, whose older record is still there."""
    table = tmp_path / "runs.csv"
    jobs = [Job(small(seed=seed), tmp_path / str(seed)) for seed in (1, 2)]
    train_jobs(jobs)

    execute = sweeping.execute

    def interrupted(some, *more):
        yield from execute(some[:1], *more)
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeping, "execute", interrupted)
    anew = [job._replace(config=replace(job.config, overwrite=True, kept=str(table))) for job in jobs]
    with pytest.raises(KeyboardInterrupt):
        train_jobs(anew)
    assert [row["seed"] for row in lines(table)] == ["1"]


def test_rows_that_an_earlier_version_left_waiting_are_added(tmp_path):
    directories, table = records_of(tmp_path / "runs", (1, 2)), tmp_path / "runs.csv"
    former = tmp_path / "runs" / "runs.waiting.csv"
    kept.add(former, directories[1:])
    kept.Keeper([Job(replace(small(seed=1), kept=str(table)), directories[0])]).add({})
    assert [row["seed"] for row in lines(table)] == ["2"]
    assert not former.exists()


def test_a_run_from_python_is_kept_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = {"fractal": "vicsek", "width": 4, "depth": 1, "steps": 20, "eval_every": 10, "data__train_size": 200}
    with pytest.raises(ConfigError, match=r"^kept=runs.csv: needs a directory, in which the run lies$"):
        run(kept="runs.csv", **keys)
    found = run("one", kept="runs.csv", **keys)
    assert [row["fingerprint"] for row in lines(tmp_path / "runs.csv")] == [found.record.fingerprint]


def test_a_finished_run_without_checkpoints_is_not_trained_anew_unasked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = {"fractal": "vicsek", "width": 4, "depth": 1, "steps": 20, "eval_every": 10, "data__train_size": 200}
    record = run("one", **keys).record
    for path in (tmp_path / "one").glob("*.pt"):
        path.unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "one").glob("*.*")}
    with pytest.raises(ConfigError, match=r"its run has ended, and no checkpoint is left .*; overwrite=true trains it"):
        run("one", **keys)
    assert {path: path.read_bytes() for path in (tmp_path / "one").glob("*.*")} == before
    assert run("one", overwrite=True, **keys).record.best_test_acc == record.best_test_acc


def test_runs_of_a_kept_table_are_in_the_tables_of_a_later_sweep(command, tmp_path, monkeypatch):
    """With all that the kept table has of them, and a word on where they are and what they lack."""
    monkeypatch.chdir(tmp_path)
    keys: Any = {"fractal": "vicsek", "width": 4, "depth": 1, "steps": 20, "eval_every": 10, "kept": "kept.csv"}
    keys |= {"data__train_size": 200, "data__test_size": 100}
    first = sweep("first", **keys, seed=[0, 1])
    later = sweep("later", **keys, seed=[0, 1, 2])
    assert later.directory.isna().tolist() == [True, True, False]
    same = [name for name in kept.KEPT if name not in ("git_commit", "differs")]
    assert later[same].head(2).to_csv() == first[same].to_csv()
    words = [f"{key.replace('__', '.')}={value}" for key, value in keys.items()]
    ended = command("-m", *words, "seed=0,1,3", "measures=[train_acc,norms]", "sweep=s", "logger=none")
    assert "2 of these are in kept=kept.csv and have no directory here" in ended.out
    assert "2 of these lack measures=[norms]" in ended.out
    assert "3 runs" in ended.out
    runs, _ = rows.read_runs([tmp_path / "multirun" / "s" / "results.csv"])
    assert runs.final_test_acc.tolist()[:2] == first.final_test_acc.tolist()
    assert runs.history.tolist()[:2] == first.history.tolist()
    of_sweep, _ = rows.read_runs([tmp_path])  # three sweeps, of which two have two runs of the table
    assert sorted(of_sweep.seed) == [0, 1, 2, 3]
    of_sweep, _ = rows.read_runs([tmp_path / "multirun" / "s"])
    assert of_sweep.sort_values("seed").best_test_acc.tolist()[:2] == first.best_test_acc.tolist()
    assert status(tmp_path / "multirun" / "s").states == {"finished": 1, "kept": 2}


def test_a_later_command_of_a_sweep_keeps_the_rows_of_its_kept_runs(command, tmp_path):
    assert command(*SWEEP[:-1], "lr=1e-3,2e-3", "kept=kept.csv").status == 0
    assert command(*SWEEP[:-1], "lr=1e-3", "kept=kept.csv", "sweep=joined").status == 0
    before = lines(tmp_path / "multirun" / "joined" / "results.csv")
    assert command(*SWEEP[:-1], "lr=3e-3", "kept=kept.csv", "sweep=joined").status == 0
    after = lines(tmp_path / "multirun" / "joined" / "results.csv")
    assert len(after) == 4
    for row, was in zip([row for row in after if not row["directory"]], before, strict=True):
        assert {name: (row[name], was[name]) for name in was if row[name] != was[name]} == {}
    assert status(tmp_path / "multirun" / "joined").states == {"finished": 2, "kept": 2}
    table = tmp_path / "multirun" / "joined" / "results.csv"
    text = table.read_text().split("\n")
    for number in (1, 3):  # of a run that has a directory, and so is read there, and of one that hasn't
        text[number] = text[number].replace("finished", "over")
    table.write_text("\n".join(text))
    runs, notes = rows.read_runs([tmp_path / "multirun" / "joined"])
    assert len(runs) == 3
    assert notes == [f"left out: {table}: line 4 is no row of it: status=over"]


def test_a_sweep_of_kept_runs_alone_is_reported_and_has_a_status(command, tmp_path):
    assert command(*SWEEP[:-1], "lr=1e-3,2e-3", "kept=kept.csv").status == 0
    assert command(*SWEEP[:-1], "lr=1e-3,2e-3", "kept=kept.csv", "sweep=again").status == 0
    again = tmp_path / "multirun" / "again"
    assert status(again).states == {"kept": 4}
    assert status(again).done == "100.0%"
    assert len(rows.read_runs([again])[0]) == 4
    # A run that is trained here after all is counted once, though the sweep's own table is older.
    table = (again / "results.csv").read_bytes()
    assert command(*SWEEP[:-1], "lr=1e-3", "kept=kept.csv", "sweep=again", "overwrite=true").status == 0
    (again / "results.csv").write_bytes(table)
    assert status(again).states == {"finished": 2, "kept": 2}
    assert status(tmp_path / "multirun").states == {"finished": 6, "kept": 2}  # of each sweep its own, in any order
    assert len(rows.read_runs([again])[0]) == 4


def test_kept_runs_of_several_sweeps_are_reported_in_each(command, tmp_path):
    assert command(*SWEEP[:-1], "lr=1e-3,2e-3", "kept=kept.csv").status == 0
    words = [word for word in SWEEP[:-1] if not word.startswith("sweep=")]
    assert command(*words, "lr=1e-3,2e-3,3e-3", "kept=kept.csv", "sweep=one,two").status == 0
    for path in (tmp_path / "multirun" / name for name in ("one", "two")):
        assert status(path).states == {"finished": 2, "kept": 4}
        assert len(rows.read_runs([path])[0]) == 6
    assert command(*words, "lr=1e-3,2e-3", "kept=kept.csv", "sweep=three,four").status == 0
    for path in (tmp_path / "multirun" / name for name in ("three", "four")):
        assert status(path).states == {"kept": 4}
        assert len(rows.read_runs([path])[0]) == 4


@pytest.mark.parametrize("later", [False, True])
def test_kept_runs_are_reported_while_a_sweep_trains_its_others(command, tmp_path, monkeypatch, later):
    """``later``: where an earlier command of the sweep has a table already."""
    assert command(*SWEEP[:-1], "lr=1e-3,2e-3", "kept=kept.csv").status == 0
    again, seen = tmp_path / "multirun" / "again", []
    if later:
        assert command(*SWEEP[:-1], "lr=4e-3", "kept=", "sweep=again").status == 0

    def killed(*_):
        seen.extend([status(again).states, len(rows.read_runs([again])[0])])
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeping, "train_unfinished", killed)
    monkeypatch.setattr("fractal_ifs.sweeps.table.show_table", lambda _: None)  # as after SIGKILL
    words = [*SWEEP[:-1], "lr=1e-3,2e-3,3e-3", "kept=kept.csv", "sweep=again"]
    command(*words)
    before = {"finished": 2} if later else {}
    assert seen == [before | {"kept": 4, "queued": 2}, 6 if later else 4]
    table = (again / "results.csv").read_bytes()
    for path in (again / "results.csv", tmp_path / "mine.csv"):
        path.write_bytes((tmp_path / "kept.csv").read_bytes())  # one that the sweep may not replace
    command(*words)
    assert (again / "results.csv").read_bytes() == (tmp_path / "mine.csv").read_bytes()
    (again / "results.csv").write_bytes(table)
    monkeypatch.undo()
    assert status(again).states == before | {"kept": 4, "waiting": 2}


def test_kept_runs_are_reported_while_a_sweep_from_python_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys: Any = {"fractal": "vicsek", "width": 4, "depth": 1, "steps": 20, "eval_every": 10, "kept": "kept.csv"}
    keys |= {"data__train_size": 200, "data__test_size": 100}
    sweep("first", **keys, seed=[0, 1])

    def killed(*_):
        assert status(tmp_path / "later").states == {"kept": 2, "queued": 1}
        assert len(rows.read_runs([tmp_path / "later"])[0]) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr("fractal_ifs.sweeps.from_python.train_unfinished", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep("later", **keys, seed=[0, 1, 2])


def test_a_sweep_without_kept_runs_writes_no_table_before_it_ends(command, tmp_path, monkeypatch):
    def killed(*_):
        assert not list((tmp_path / "multirun").rglob("results.csv"))
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeping, "train_unfinished", killed)
    command(*SWEEP)
    assert status(tmp_path / "multirun" / "tests").states == {"waiting": 2}


def test_a_kept_run_with_an_empty_directory_is_kept(command, tmp_path):
    """As of a sweep that was ended before it had measured anything, whose runs were trained elsewhere since."""
    assert command(*SWEEP[:-1], "lr=1e-3", "kept=kept.csv").status == 0
    assert command(*SWEEP[:-1], "lr=1e-3", "sweep=again").status == 0
    again = tmp_path / "multirun" / "again"
    for path in (path for name in ("result.json", "history.csv", "checkpoint*") for path in again.glob(f"*/{name}")):
        path.unlink()
    ended = command(*SWEEP[:-1], "lr=1e-3", "kept=kept.csv", "sweep=again")
    assert ended.status == 0
    assert "no measurement yet" not in ended.out
    assert status(again).states == {"kept": 2}


def test_where_nothing_has_ended_no_table_is_read(tmp_path, monkeypatch):
    directories, table = records_of(tmp_path / "runs", (1, 2)), tmp_path / "runs.csv"
    jobs = [Job(replace(small(seed=1 + n), kept=str(table)), directory) for n, directory in enumerate(directories)]
    keeper, parsed = kept.Keeper(jobs), []
    monkeypatch.setattr(kept, "read_text", lambda *asked, read=kept.read_text: parsed.append(1) or read(*asked))
    keeper.add({})
    assert not parsed
    for directory in directories:
        keeper.add({directory: read_stored(directory).record})
    assert len(lines(table)) == 2
    parsed.clear()
    keeper.add({directory: read_stored(directory).record for directory in directories})  # it has them
    assert not parsed


def test_damaged_lines_of_the_table_beside_are_said_and_stay(tmp_path, caplog):
    directories, table = records_of(tmp_path / "runs", (1, 2)), tmp_path / "runs.csv"
    beside = tmp_path / "runs" / "runs.waiting.csv"
    kept.add(beside, directories)
    head, first, second = beside.read_text().splitlines()
    beside.write_text("\n".join([head, first, second[:-30], ""]))
    keeper = kept.Keeper([Job(replace(small(seed=1), kept=str(table)), directories[0])])
    keeper.add({})
    keeper.add({})
    assert caplog.text.count(f"{beside}: line 3 is no row of it: ") == 1
    assert [row["seed"] for row in lines(table)] == ["1"]
    assert not beside.exists()
    assert second[:-30] in beside.with_name("runs.waiting.csv.damaged").read_text()


def test_only_a_table_of_finished_runs_is_filled(command, tmp_path):
    assert command(*SWEEP[:-1], "lr=1e-3").status == 0
    own = tmp_path / "multirun" / "tests" / "results.csv"
    write_report([tmp_path / "multirun"], tmp_path / "out", with_figures=False)
    for path, reason in (
        (own, "the sweep itself writes its table there"),
        (tmp_path / "out" / "results.csv", "not a table of finished runs, it has a column "),
        (tmp_path / "out", "must be the path of a CSV file"),
        (tmp_path / "empty.csv", "it has no column fingerprint"),
    ):
        if path.name == "empty.csv":
            path.touch()
        before = path.read_bytes() if path.is_file() else b""
        ended = command(*SWEEP[:-1], "lr=1e-3,2e-3", f"kept={path}")
        assert reason in str(ended.status)
        assert "Traceback" not in ended.err
        assert before == (path.read_bytes() if path.is_file() else b"")
    own.unlink()
    assert "the sweep itself writes its table there" in str(command(*SWEEP[:-1], "lr=1e-3", f"kept={own}").status)
    table = tmp_path / "kept.csv"
    assert command(*SWEEP[:-1], "lr=1e-3", f"kept={table}").status == 0
    shutil.copy(table, own)
    before = own.read_bytes()
    assert "is left as it is: no sweep wrote this table" in command(*SWEEP[:-1], "lr=1e-3").out
    assert own.read_bytes() == before
    own.write_bytes(b"")  # as a loss of power may leave it
    assert command(*SWEEP[:-1], "lr=1e-3").status == 0
    assert len(pd.read_csv(own)) == 2


def test_a_damaged_table_has_no_best_learning_rate(tmp_path):
    table = tmp_path / "runs.csv"
    kept.add(table, records_of(tmp_path / "runs", (1, 2)))
    BestLr(table)
    table.write_text(table.read_text().replace("0.502", "x"))
    with pytest.raises(ConfigError, match=r"hydra.sweeper.best_lr=.*runs.csv: line 3 is no row of it: best_test_acc=x"):
        BestLr(table)
    table.write_text(table.read_text().splitlines()[0] + "\n")
    with pytest.raises(ConfigError, match=r"hydra.sweeper.best_lr=.*runs.csv: holds no run"):
        BestLr(table)


def test_a_link_to_a_table_stays_one(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "real" / "runs.csv")
    assert kept.add(tmp_path / "link.csv", records_of(tmp_path / "runs", (1, 2))) == (2, [])
    assert (tmp_path / "link.csv").is_symlink()
    assert len(lines(tmp_path / "real" / "runs.csv")) == 2
